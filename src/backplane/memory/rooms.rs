//! Access to rooms by id.

use std::sync::atomic::Ordering;

use parking_lot::{MappedMutexGuard, MutexGuard};
use tokio::time::Instant;

use super::room::Room;
use super::{Memory, SHARDS};
use crate::backplane::{BackplaneError, Result, is_permanent};
use crate::domain::RoomId;

/// How long no room is looked for that can be removed, after none was found.
const EVICTION_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// Where to look for a room that can be removed.
#[derive(Default)]
pub(super) struct Evictions {
    next_shard: usize,
    paused_until: Option<Instant>,
}

impl Memory {
    /// Locks the room for a use, creating the room if it doesn't exist. `None` if the room must be
    /// restored first.
    pub(super) fn room(&self, id: &RoomId) -> Result<Option<MappedMutexGuard<'_, Room>>> {
        let shard = self.rooms.of(id).lock();
        let known = MutexGuard::try_map(shard, |shard| shard.entries.get_mut(id));
        let mut room = match known {
            Ok(room) if room.must_restore() => return Ok(None),
            Ok(room) => room,
            Err(_) if self.restore.is_some() => return Ok(None),
            Err(_) if !self.reserve_room() => return Err(BackplaneError::Full),
            Err(shard) => MutexGuard::map(shard, |shard| {
                shard.entries.entry(id.clone()).or_insert_with(Room::new)
            }),
        };
        room.forget_expired(&self.limits);
        Ok(Some(room))
    }

    /// Locks the room for a use that needs neither a restore nor its creation. `None` if it isn't
    /// known.
    pub(super) fn known_room(&self, id: &RoomId) -> Option<MappedMutexGuard<'_, Room>> {
        let shard = self.rooms.of(id).lock();
        let known = MutexGuard::try_map(shard, |shard| shard.entries.get_mut(id));
        let mut room = known.ok()?;
        room.forget_expired(&self.limits);
        Some(room)
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

    /// Removes a room that nobody is in and that its archive can restore: the one of its shard that
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
