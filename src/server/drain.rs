//! The paced end of a node's connections: told first, then closed evenly, so that the others take them over one by one.

use std::time::Duration;

use engineioxide::{Control, Frame};
use tokio::time::Instant;

/// How long a closing session may take to write what is queued for it.
const FLUSH: Duration = Duration::from_secs(2);

/// Tells every session (by the `farewell` for the time it has left) when it will be closed, and closes them evenly over
/// `over`. Nobody may be let in meanwhile. Returns when all are closed, at the latest a few seconds after `over`.
pub async fn drain(control: &Control, over: Duration, farewell: impl Fn(Duration) -> Frame) {
    let began = Instant::now();
    let sessions = control.sessions();
    let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
    // In the middle of its slice of time: so one session alone isn't kept to the end.
    let closes_at = |index: usize| over.mul_f64((index as f64 + 0.5) / f64::from(count));
    for (index, session) in sessions.iter().enumerate() {
        session.send(&farewell(closes_at(index)));
    }
    for (index, session) in sessions.iter().enumerate() {
        tokio::time::sleep_until(began + closes_at(index)).await;
        session.close_after_flush(FLUSH);
    }
    let _ = tokio::time::timeout(FLUSH * 2, async {
        for session in &sessions {
            session.closed().await;
        }
    })
    .await;
    // Who slipped in between the last admission and the list is closed without ceremony.
    for session in control.sessions() {
        session.close();
    }
}
