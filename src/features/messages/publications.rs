//! Waiting for the announcement of a change.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::refused;
use crate::domain::{Code, Refusal, RoomId};
use crate::store::MessageStore;

/// The longest wait for an announcement: the change is made all the same.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The first pause between two looks; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The announcements of changes.
#[async_trait]
pub trait Publications: Send + Sync {
    /// Returns the number of the announcement of this revision, once it is published.
    ///
    /// # Errors
    /// `unavailable` if that takes too long, or if it can't be found out.
    async fn wait(&self, room: &RoomId, target_seq: u64, revision: u64) -> Result<u64, Refusal>;
}

/// Asks the store until the announcement is published, by whichever node.
pub struct PolledPublications(pub Arc<dyn MessageStore>);

#[async_trait]
impl Publications for PolledPublications {
    async fn wait(&self, room: &RoomId, target_seq: u64, revision: u64) -> Result<u64, Refusal> {
        let deadline = Instant::now() + TIMEOUT;
        let mut pause = FIRST_PAUSE;
        loop {
            let published = self.0.published(room, target_seq, revision).await;
            if let Some(seq) = published.map_err(refused)? {
                return Ok(seq);
            }
            if Instant::now() + pause > deadline {
                return Err(not_published());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The change is made, and its announcement is late.
pub(super) fn not_published() -> Refusal {
    Refusal::new(
        Code::Unavailable,
        "the change is made, and waits for its announcement: it may be repeated",
    )
}
