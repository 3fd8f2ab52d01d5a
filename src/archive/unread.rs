//! The task that projects unread messages (see [`ArchiveStore::project_unread`](crate::store::ArchiveStore)),
//! off the path of the commits.
//!
//! A room is projected once it has some unprojected entries, or none came for a while: reads count a few
//! entries as fast as they count blocks. At its start a node goes over all rooms, for entries that
//! were archived while no node projected them. A room that is left out by an error, or because too many
//! wait, stays correct: the next reader counts its entries, and notes it if they are many.

use std::sync::Arc;
use std::time::Duration;

use ahash::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Shared;
use crate::domain::RoomId;
use crate::store;

/// How often the task looks for rooms that are due.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// The number of new entries at which a room is projected.
const ENTRIES: usize = 16;
/// A room with fewer new entries is projected after so much time without another.
const IDLE: Duration = Duration::from_secs(5);
/// The most rooms that wait.
const MAX_ROOMS: usize = 100_000;
/// The pause after an error of the store.
const RETRY: Duration = Duration::from_secs(1);

/// Rooms with new entries.
#[derive(Default)]
pub(super) struct Unprojected(Mutex<HashMap<RoomId, NewEntries>>);

struct NewEntries {
    count: usize,
    last: Instant,
}

impl Unprojected {
    /// Notes that entries of these rooms are archived.
    pub(super) fn add<'r>(&self, rooms: impl IntoIterator<Item = &'r RoomId>) {
        let now = Instant::now();
        let mut waiting = self.0.lock();
        for room in rooms {
            if let Some(new) = waiting.get_mut(room) {
                new.count += 1;
                new.last = now;
            } else if waiting.len() < MAX_ROOMS {
                let new = NewEntries {
                    count: 1,
                    last: now,
                };
                waiting.insert(room.clone(), new);
            }
        }
    }

    /// Takes the rooms that are due.
    fn take_due(&self) -> Vec<RoomId> {
        let mut waiting = self.0.lock();
        let is_due =
            |_: &RoomId, new: &mut NewEntries| new.count >= ENTRIES || new.last.elapsed() >= IDLE;
        waiting.extract_if(is_due).map(|(room, _)| room).collect()
    }
}

/// Projects until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut catch_up = Some(0);
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        if !shared.health.is_up() {
            continue;
        }
        if let Err(error) = project(&shared, &mut catch_up).await {
            tracing::warn!(%error, "archive: unread messages are not projected");
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn project(shared: &Shared, catch_up: &mut Option<u64>) -> store::Result<()> {
    let mut rooms = shared.unprojected.take_due();
    // Further calls go on with rooms that have more than one call projects.
    while shared.store.project_unread(&rooms).await? {
        rooms.clear();
    }
    if let Some(after) = *catch_up {
        *catch_up = shared.store.project_unread_after(after).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_room_is_due_after_some_entries_or_some_time() {
        let unprojected = Unprojected::default();
        let [busy, slow] = ["busy", "slow"].map(RoomId::trusted);
        unprojected.add([&busy, &slow]);
        unprojected.add(std::iter::repeat_n(&busy, ENTRIES - 2));
        assert_eq!(unprojected.take_due(), []);
        unprojected.add([&busy]);
        assert_eq!(unprojected.take_due(), std::slice::from_ref(&busy));
        unprojected.add([&busy]);
        assert_eq!(unprojected.take_due(), []);
        tokio::time::advance(IDLE / 2).await;
        unprojected.add([&slow]);
        tokio::time::advance(IDLE / 2).await;
        assert_eq!(unprojected.take_due(), [busy]);
        tokio::time::advance(IDLE / 2).await;
        assert_eq!(unprojected.take_due(), [slow]);
    }
}
