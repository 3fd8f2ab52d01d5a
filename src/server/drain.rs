//! The paced end of a node's connections: told first, then closed evenly, so that the others take them over one by one.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

/// How long a closing connection may take to write what is queued for it.
const FLUSH: Duration = Duration::from_secs(2);

/// A connection, whichever door it came in by, as its end needs it.
#[async_trait]
pub trait Drained: Send + Sync {
    /// Tells the client that it will be closed in that time.
    fn announce(&self, left: Duration);
    /// Takes nothing more in, and closes when what is queued has been written, at the latest after `limit`.
    fn close_after_flush(&self, limit: Duration);
    /// Closes at once.
    fn close(&self);
    /// Resolves when it is over. Safe to cancel.
    async fn closed(&self);
}

/// Tells everyone when they will be closed, and closes them evenly over `over`. Nobody may be let in meanwhile. Returns when
/// all are closed, at the latest a few seconds after `over`.
pub async fn drain(everyone: impl Fn() -> Vec<Box<dyn Drained>>, over: Duration) {
    let began = Instant::now();
    let connections = everyone();
    let count = u32::try_from(connections.len()).unwrap_or(u32::MAX).max(1);
    // In the middle of its slice of time: so one connection alone isn't kept to the end.
    let closes_at = |index: usize| over.mul_f64((index as f64 + 0.5) / f64::from(count));
    for (index, connection) in connections.iter().enumerate() {
        connection.announce(closes_at(index));
    }
    for (index, connection) in connections.iter().enumerate() {
        tokio::time::sleep_until(began + closes_at(index)).await;
        connection.close_after_flush(FLUSH);
    }
    let _ = tokio::time::timeout(FLUSH * 2, async {
        for connection in &connections {
            connection.closed().await;
        }
    })
    .await;
    // Who slipped in between the last admission and the list is closed without ceremony.
    for connection in everyone() {
        connection.close();
    }
}
