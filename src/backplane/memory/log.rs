//! The rooms' logs in memory.

use async_trait::async_trait;

use super::Memory;
use crate::backplane::{Appended, Result, RoomLog, Slice, Window, record};
use crate::domain::{Head, NewMessage, RoomId};

#[async_trait]
impl RoomLog for Memory {
    async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
        self.append_encoded(message, key, record::encode(message))
    }

    async fn read(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Slice> {
        self.with_room(room, |room, _| room.read(window, limit, max_bytes))
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        Ok(rooms
            .iter()
            .map(|room| self.with_known_room(room, |room| room.span().head))
            .collect())
    }
}
