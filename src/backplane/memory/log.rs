//! The rooms' logs in memory.

use async_trait::async_trait;
use bytes::Bytes;

use super::Memory;
use super::room::Room;
use crate::backplane::{
    Appended, BusEvent, BusTopic, Commit, Result, RoomLog, Slice, Window, record,
};
use crate::domain::{Head, NewMessage, RoomId};

#[async_trait]
impl RoomLog for Memory {
    async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
        self.append_encoded(message, key, record::encode(message))
            .await
    }

    // The default would allocate a second future for each message.
    async fn place(&self, message: &NewMessage, key: Option<&str>) -> Result<(Appended, Commit)> {
        let record = record::encode(message);
        let appended = self.append_encoded(message, key, record).await?;
        Ok((appended, Commit::done()))
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
            })?;
            if let Some(slice) = read {
                return Ok(slice);
            }
            self.restored(room).await?;
        }
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        Ok(rooms
            .iter()
            .map(|room| self.with_known_room(room, |room| room.head()))
            .collect())
    }
}

impl Memory {
    /// Appends the message, which waits only if the room must be restored first.
    pub(super) async fn append_encoded(
        &self,
        message: &NewMessage,
        key: Option<&str>,
        record: Bytes,
    ) -> Result<Appended> {
        match self.append_now(message, key, record)? {
            Ok(appended) => Ok(appended),
            Err(record) => self.append_restored(message, key, record).await,
        }
    }

    /// Appends the message, unless the room must be restored first: then returns the record.
    fn append_now(
        &self,
        message: &NewMessage,
        key: Option<&str>,
        record: Bytes,
    ) -> Result<std::result::Result<Appended, Bytes>> {
        let mut unused = Some(record);
        let appended = self.with_room(&message.room, |room| {
            let record = unused.take().expect("a room is used once by a call");
            self.append_to(room, message, key, record)
        })?;
        Ok(appended.ok_or_else(|| unused.expect("a room to restore is not used")))
    }

    /// Appends the message to the room, and publishes it while the room is locked.
    pub(super) fn append_to(
        &self,
        room: &mut Room,
        message: &NewMessage,
        key: Option<&str>,
        record: Bytes,
    ) -> Appended {
        let (appended, entry) = room.append(message, key, record, &self.limits);
        if let Some(entry) = entry {
            self.list_unarchived(&message.room, room);
            self.publish(
                &BusTopic::Room(message.room.clone()),
                BusEvent::Message(message.room.clone(), entry),
            );
        }
        appended
    }
}
