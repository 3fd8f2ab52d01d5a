//! The embedded log as an archive sees it.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::MutexGuard;
use tokio::time::Instant;

use super::Memory;
use super::room::Room;
use crate::backplane::{
    Appended, ArchivedRanges, Entry, HotLog, NewChange, NewEntry, Result, Unarchived, Window,
};
use crate::domain::{Epoch, RoomId, UserId};

/// Rooms that had unarchived entries when they were added, the one that has waited longest first.
/// Locked after the room's shard. Each room knows its place here, and has at most one that counts.
pub(super) type UnarchivedRooms = BTreeSet<(Instant, RoomId)>;

#[async_trait]
impl HotLog for Memory {
    async fn append_record(
        &self,
        entry: NewEntry<'_>,
        key: Option<&str>,
        record: Bytes,
    ) -> Result<Appended> {
        match self.append_now(entry, key, record.clone())? {
            Some(appended) => Ok(appended),
            None => self.append_restored(entry, key, record).await,
        }
    }

    async fn append_changes(&self, room: &RoomId, changes: &[NewChange]) -> Vec<Result<Appended>> {
        let nobody = UserId::nobody();
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            let entry = NewEntry::change(room, change, &nobody);
            let (key, record) = (change.id.to_string(), change.record.clone());
            let outcome = self.append_record(entry, Some(&key), record).await;
            let is_refused = outcome.is_err();
            outcomes.push(outcome);
            if is_refused {
                break;
            }
        }
        outcomes
    }

    async fn read_unarchived(
        &self,
        room: &RoomId,
        after: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Option<Vec<Entry>>> {
        Ok(self.without_use(room, |room| {
            room.read_stored(Window::After(after), limit, max_bytes)
        }))
    }

    async fn advance_watermarks(
        &self,
        archived: &[(RoomId, Epoch, ArchivedRanges)],
    ) -> Result<Vec<u64>> {
        let advance = |(id, epoch, ranges): &(RoomId, Epoch, ArchivedRanges)| {
            let watermark = self.without_use(id, |room| {
                room.advance_watermark(epoch, ranges, &self.limits);
                room.watermark()
            });
            watermark.unwrap_or(0)
        };
        Ok(archived.iter().map(advance).collect())
    }

    async fn unarchived(&self, older_than: Duration, limit: usize) -> Result<Vec<Unarchived>> {
        let now = Instant::now();
        let (mut found, mut places) = (Vec::new(), Vec::new());
        while found.len() < limit {
            let Some((place, id)) = self.take_unarchived(older_than, now) else {
                break;
            };
            let claim = self.without_use(&id, |room| {
                room.claim_unarchived(&id, place, older_than, now)
            });
            let claim = claim.unwrap_or_default();
            found.extend(claim.unarchived);
            places.extend(claim.place.map(|place| (place, id)));
        }
        // Not before the end, so that no room is found twice.
        self.unarchived.lock().extend(places);
        Ok(found)
    }

    async fn diverged(&self, room: &RoomId, epoch: &Epoch, shared: u64) -> Result<()> {
        self.without_use(room, |known| {
            known.diverge(epoch, shared);
            self.list_unarchived(room, known);
        });
        Ok(())
    }

    async fn trim(&self, room: &RoomId, cut: u64) -> Result<()> {
        self.without_use(room, |room| room.trim(cut));
        Ok(())
    }
}

impl Memory {
    /// Runs `act` on the room if it exists. This is not a use of the room.
    pub(super) fn without_use<T>(
        &self,
        id: &RoomId,
        act: impl FnOnce(&mut Room) -> T,
    ) -> Option<T> {
        let mut shard = self.rooms.of(id).lock();
        shard.entries.get_mut(id).map(act)
    }

    /// Adds the room, which is locked, to the queue of unarchived rooms, unless it is there.
    #[inline]
    pub(super) fn list_unarchived(&self, id: &RoomId, room: &mut Room) {
        if let Some(place) = room.list_unarchived() {
            self.unarchived.lock().insert((place, id.clone()));
        }
    }

    /// Takes the first room from the queue of unarchived rooms that has waited for that time.
    fn take_unarchived(&self, older_than: Duration, now: Instant) -> Option<(Instant, RoomId)> {
        let mut rooms: MutexGuard<'_, UnarchivedRooms> = self.unarchived.lock();
        let (place, _) = rooms.first()?;
        if *place + older_than > now {
            return None;
        }
        rooms.pop_first()
    }
}
