//! Access to rooms by id.

use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::time::Instant;

use super::room::Room;
use super::{Memory, Shard};
use crate::backplane::{Appended, BackplaneError, BusEvent, BusTopic, Result};
use crate::domain::{NewMessage, RoomId, UserId};

impl Memory {
    /// Runs `act` on the room, creating the room if it doesn't exist.
    pub(super) fn with_room<T>(
        &self,
        room: &RoomId,
        act: impl FnOnce(&mut Room, &mut Vec<(Instant, RoomId, UserId)>) -> T,
    ) -> Result<T> {
        let mut shard = self.rooms.of(room).lock();
        let Shard { entries, graces } = &mut *shard;
        let room = match entries.entry(room.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let others = self.room_count.fetch_add(1, Ordering::Relaxed);
                if others >= self.limits.rooms {
                    self.room_count.fetch_sub(1, Ordering::Relaxed);
                    return Err(BackplaneError::Full);
                }
                vacant.insert(Room::new())
            }
        };
        room.forget_expired(&self.limits);
        Ok(act(room, graces))
    }

    pub(super) fn append_encoded(
        &self,
        message: &NewMessage,
        key: Option<&str>,
        record: Bytes,
    ) -> Result<Appended> {
        self.with_room(&message.room, |room, _| {
            let (appended, entry) = room.append(message, key, record, &self.limits);
            if let Some(entry) = entry {
                self.publish(
                    &BusTopic::Room(message.room.clone()),
                    BusEvent::Message(message.room.clone(), entry),
                );
            }
            appended
        })
    }

    /// Runs `act` on the room if it exists.
    pub(super) fn with_known_room<T>(
        &self,
        room: &RoomId,
        act: impl FnOnce(&mut Room) -> T,
    ) -> Option<T> {
        let mut shard = self.rooms.of(room).lock();
        let room = shard.entries.get_mut(room)?;
        room.forget_expired(&self.limits);
        Some(act(room))
    }
}
