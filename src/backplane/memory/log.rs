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
        let record = record::encode(message);
        if let Some(mut room) = self.room(&message.room)? {
            return Ok(self.append_to(&mut room, message, key, record));
        }
        self.append_restored(message, key, record).await
    }

    // The default would allocate a second future for each message.
    async fn place(&self, message: &NewMessage, key: Option<&str>) -> Result<(Appended, Commit)> {
        let record = record::encode(message);
        if let Some(mut room) = self.room(&message.room)? {
            let appended = self.append_to(&mut room, message, key, record);
            return Ok((appended, Commit::done()));
        }
        let appended = self.append_restored(message, key, record).await?;
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
            if let Some(room) = self.room(room)? {
                return Ok(Slice {
                    entries: room.read(window, limit, max_bytes),
                    span: room.span(&self.limits),
                });
            }
            self.restored(room).await?;
        }
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        Ok(rooms
            .iter()
            .map(|room| self.known_room(room).map(|room| room.head()))
            .collect())
    }
}

impl Memory {
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
