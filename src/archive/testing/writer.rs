//! A connection that commits.

use async_trait::async_trait;

use super::FakeStore;
use crate::domain::RoomId;
use crate::store::{
    ArchiveWriter, ArchivedEntry, BATCH_BYTES, BATCH_ENTRIES, CommitOutcome, Fence, Result,
    StoreError,
};

/// A connection to the store.
pub(super) struct FakeWriter(pub FakeStore, pub u64);

impl FakeWriter {
    async fn store(
        &self,
        entries: &[(RoomId, ArchivedEntry)],
        fence: Fence,
    ) -> Result<Vec<CommitOutcome>> {
        let bytes: usize = entries.iter().map(|(_, entry)| entry.record.len()).sum();
        let is_in_bounds = entries.len() <= BATCH_ENTRIES && bytes <= BATCH_BYTES;
        assert!(entries.len() == 1 || is_in_bounds, "the batch is too large");
        let store = &self.0;
        store.arrive().await?;
        let mut panics = false;
        store.0.faults.send_if_modified(|faults| {
            panics = faults.panics > 0;
            faults.panics = faults.panics.saturating_sub(1);
            panics
        });
        assert!(!panics, "a panic of the test");
        store.check(entries)?;
        let outcomes = {
            let mut data = store.0.data.lock();
            data.commits.push(entries.len());
            data.commit(entries, self.1, fence)
        };
        let mut is_lost = false;
        store.0.faults.send_if_modified(|faults| {
            is_lost = faults.lost_replies > 0;
            faults.lost_replies = faults.lost_replies.saturating_sub(1);
            is_lost
        });
        if is_lost {
            return Err(StoreError::Unavailable("the reply is lost".to_owned()));
        }
        Ok(outcomes)
    }
}

#[async_trait]
impl ArchiveWriter for FakeWriter {
    async fn commit_with(
        &mut self,
        entries: &[(RoomId, ArchivedEntry)],
        fence: Fence,
    ) -> Result<Vec<CommitOutcome>> {
        self.store(entries, fence).await
    }
}
