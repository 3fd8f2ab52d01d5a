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
        match self.append_now(message, key, record)? {
            Some(appended) => Ok(appended),
            // Encoded again, because most appends need no copy for this.
            None => {
                self.append_restored(message, key, record::encode(message))
                    .await
            }
        }
    }

    // The default would allocate a second future for each message.
    async fn place(&self, message: &NewMessage, key: Option<&str>) -> Result<(Appended, Commit)> {
        let record = record::encode(message);
        let appended = match self.append_now(message, key, record)? {
            Some(appended) => appended,
            None => {
                self.append_restored(message, key, record::encode(message))
                    .await?
            }
        };
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
    /// Appends the message, whose record this is. `None` if the room must be restored first.
    #[inline]
    pub(super) fn append_now(
        &self,
        message: &NewMessage,
        key: Option<&str>,
        record: Bytes,
    ) -> Result<Option<Appended>> {
        self.with_room(&message.room, |room| {
            self.append_to(room, message, key, record)
        })
    }

    /// Appends the message to the room, and publishes it while the room is locked.
    #[inline]
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
