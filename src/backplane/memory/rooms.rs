//! Access to rooms by id.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::room::Room;
use super::{Memory, SHARDS};
use crate::backplane::{BackplaneError, Result, is_permanent};
use crate::domain::RoomId;

/// How long no room is looked for that can be removed, after none was found.
const EVICTION_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// The state of the search for rooms that can be removed.
#[derive(Default)]
pub(super) struct Evictions {
    next_shard: usize,
    paused_until: Option<Instant>,
}

impl Memory {
    /// Uses the room while it is locked, creating the room if it doesn't exist. `None`, without a call
    /// of `act`, if the room must be restored first.
    pub(super) fn with_room<T>(
        &self,
        id: &RoomId,
        act: impl FnOnce(&mut Room) -> T,
    ) -> Result<Option<T>> {
        let mut shard = self.rooms.of(id).lock();
        if let Some(room) = shard.entries.get_mut(id) {
            if room.must_restore() {
                return Ok(None);
            }
            room.forget_expired(&self.limits);
            return Ok(Some(act(room)));
        }
        if self.restore.is_some() {
            return Ok(None);
        }
        if !self.reserve_room() {
            return Err(BackplaneError::Full);
        }
        let room = shard.entries.entry(id.clone()).or_insert_with(Room::new);
        room.forget_expired(&self.limits);
        Ok(Some(act(room)))
    }

    /// Uses the room while it is locked, if it is known; for uses that need no restore.
    pub(super) fn with_known_room<T>(
        &self,
        id: &RoomId,
        act: impl FnOnce(&mut Room) -> T,
    ) -> Option<T> {
        let mut shard = self.rooms.of(id).lock();
        let room = shard.entries.get_mut(id)?;
        room.forget_expired(&self.limits);
        Some(act(room))
    }

    /// Counts one more room, unless there are as many as allowed.
    pub(super) fn reserve_room(&self) -> bool {
        let others = self.room_count.fetch_add(1, Ordering::Relaxed);
        if others < self.limits.rooms {
            return true;
        }
        self.release_rooms(1);
        false
    }

    /// Counts rooms that were removed, or reserved and not created.
    pub(super) fn release_rooms(&self, count: usize) {
        self.room_count.fetch_sub(count, Ordering::Relaxed);
    }

    /// Removes a room without occupants that its archive can restore: the one of its shard that
    /// was not used for the longest time. Returns whether there was one.
    pub(super) fn evict_room(&self) -> bool {
        let mut evictions = self.evictions.lock();
        let now = Instant::now();
        if evictions.paused_until.is_some_and(|until| now < until) {
            return false;
        }
        for offset in 0..SHARDS {
            let index = (evictions.next_shard + offset) % SHARDS;
            let mut shard = self.rooms.shards[index].lock();
            let removable = shard
                .entries
                .iter()
                .filter(|(id, room)| room.is_removable() && !is_permanent(id));
            let oldest = removable.min_by_key(|(_, room)| room.last_use());
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                shard.entries.remove(&id);
                self.release_rooms(1);
                evictions.next_shard = index + 1;
                return true;
            }
        }
        evictions.paused_until = Some(now + EVICTION_PAUSE);
        false
    }
}
