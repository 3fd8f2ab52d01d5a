//! The paced drain: notifies every client of its closing time, then closes the connections evenly,
//! so that the other nodes take over the clients gradually.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

/// How long a closing connection may take to write the data that is queued for it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection as the drain sees it, regardless of its transport.
#[async_trait]
pub trait Drainable: Send + Sync {
    /// Notifies the client that its connection will be closed after `left`.
    fn announce(&self, left: Duration);
    /// Accepts no further input, and closes as soon as the queued data is written, or after
    /// `limit`.
    fn close_after_flush(&self, limit: Duration);
    /// Closes at once.
    fn close(&self);
    /// Resolves when the connection has ended. Safe to cancel.
    async fn closed(&self);
}

/// Drains all connections over the time `over`. No connection may be admitted meanwhile. Returns
/// when all are closed, a few seconds after `over` at the latest.
pub async fn drain(all_connections: impl Fn() -> Vec<Box<dyn Drainable>>, over: Duration) {
    let began = Instant::now();
    let connections = all_connections();
    let count = u32::try_from(connections.len()).unwrap_or(u32::MAX).max(1);
    // The middle of the connection's share of the time, so that a single connection is not kept
    // until the end.
    let closes_at = |index: usize| over.mul_f64((index as f64 + 0.5) / f64::from(count));
    for (index, connection) in connections.iter().enumerate() {
        connection.announce(closes_at(index));
    }
    for (index, connection) in connections.iter().enumerate() {
        tokio::time::sleep_until(began + closes_at(index)).await;
        connection.close_after_flush(FLUSH_TIMEOUT);
    }
    let _ = tokio::time::timeout(FLUSH_TIMEOUT * 2, async {
        for connection in &connections {
            connection.closed().await;
        }
    })
    .await;
    // A connection that was admitted before the drain began, but registered after the list was
    // made, is closed without an announcement.
    for connection in all_connections() {
        connection.close();
    }
}
