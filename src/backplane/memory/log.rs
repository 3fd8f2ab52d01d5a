//! The rooms' logs in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;

use super::Memory;
use super::room::Room;
use crate::backplane::{
    AnnouncedForms, Appended, BusEvent, BusTopic, Commit, HotLog as _, NewChange, NewEntry, Result,
    RoomLog, Slice, Window, record, until_error,
};
use crate::domain::{Head, NewMessage, RoomId};

#[async_trait]
impl RoomLog for Memory {
    async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
        let record = record::encode(message);
        match self.append_now(message.into(), key, record)? {
            Some(appended) => Ok(appended),
            // Encoded again, because most appends need no copy for this.
            None => {
                self.append_restored(message.into(), key, record::encode(message))
                    .await
            }
        }
    }

    // The default would allocate a second future for each message.
    async fn place(&self, message: &NewMessage, key: Option<&str>) -> Result<(Appended, Commit)> {
        let record = record::encode(message);
        let appended = match self.append_now(message.into(), key, record)? {
            Some(appended) => appended,
            None => {
                self.append_restored(message.into(), key, record::encode(message))
                    .await?
            }
        };
        Ok((appended, Commit::done()))
    }

    async fn announce_all(
        &self,
        room: &RoomId,
        changes: &[NewChange],
    ) -> (Vec<Appended>, Result<()>) {
        until_error(self.append_changes(room, changes).await)
    }

    async fn read(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Slice> {
        loop {
            let read = self.with_room(room, |room| Slice {
                entries: room.read(window, limit, max_bytes),
                span: room.span(&self.limits),
                traces: room.traces(),
            })?;
            if let Some(slice) = read {
                return Ok(slice);
            }
            self.restored(room).await?;
        }
    }

    async fn expect_changes(&self, room: &RoomId) -> Result<()> {
        self.without_use(room, Room::expect_changes);
        Ok(())
    }

    async fn announced_forms(&self, room: &RoomId, seqs: &[u64]) -> Result<AnnouncedForms> {
        let known = self.without_use(room, |room| room.announced_forms(seqs));
        Ok(known.unwrap_or_else(|| AnnouncedForms {
            forms: BTreeMap::new(),
            oldest: u64::MAX,
        }))
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        Ok(rooms
            .iter()
            .map(|room| self.with_known_room(room, |room| room.head()))
            .collect())
    }
}

impl Memory {
    /// Appends the entry with this record. `None` if the room must be restored first.
    #[inline]
    pub(super) fn append_now(
        &self,
        entry: NewEntry<'_>,
        key: Option<&str>,
        record: Bytes,
    ) -> Result<Option<Appended>> {
        self.with_room(entry.room, |room| self.append_to(room, entry, key, record))
    }

    /// Appends the entry to the room, and publishes it while the room is locked.
    #[inline]
    pub(super) fn append_to(
        &self,
        room: &mut Room,
        entry: NewEntry<'_>,
        key: Option<&str>,
        record: Bytes,
    ) -> Appended {
        let (appended, numbered) = room.append(entry, key, record, &self.limits);
        if let Some(numbered) = numbered {
            self.list_unarchived(entry.room, room);
            self.publish(
                &BusTopic::Room(entry.room.clone()),
                BusEvent::Message(entry.room.clone(), numbered),
            );
        }
        appended
    }
}
