//! The embedded log as an archive sees it.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::Memory;
use crate::backplane::{
    Appended, ArchivedRanges, Entry, HotLog, Result, RoomLog, Unarchived, Window,
};
use crate::domain::{Epoch, NewMessage, RoomId};

#[async_trait]
impl HotLog for Memory {
    async fn append_record(
        &self,
        message: &NewMessage,
        key: Option<&str>,
        record: Bytes,
    ) -> Result<Appended> {
        self.append_encoded(message, key, record)
    }

    async fn read_unarchived(
        &self,
        room: &RoomId,
        after: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Option<Vec<Entry>>> {
        let slice = self.read(room, Window::After(after), limit, max_bytes);
        Ok(Some(slice.await?.entries))
    }

    async fn advance_watermarks(
        &self,
        archived: &[(RoomId, Epoch, ArchivedRanges)],
    ) -> Result<Vec<u64>> {
        Ok(vec![0; archived.len()])
    }

    async fn unarchived(&self, _older_than: Duration, _limit: usize) -> Result<Vec<Unarchived>> {
        Ok(Vec::new())
    }

    async fn diverged(&self, _room: &RoomId, _epoch: &Epoch, _shared: u64) -> Result<()> {
        Ok(())
    }

    async fn trim(&self, _room: &RoomId, _cut: u64) -> Result<()> {
        Ok(())
    }
}
