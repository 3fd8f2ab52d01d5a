//! Reports to the hot log how far rooms are archived: gathered, so that a report covers many commits.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use ahash::HashMap;
use parking_lot::Mutex;

use crate::backplane::{ArchivedRanges, HotLog};
use crate::domain::{Epoch, RoomId};
use crate::store::{self, ArchiveStore, RoomNumber};

/// The time between two reports.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// The most rooms in one call of the hot log.
const ROOMS_PER_CALL: usize = 500;
/// The most ranges that wait for a report while the hot log is away. Further ones are left to the
/// sweeper.
const MAX_RANGES: usize = 200_000;
/// The archive's own mark of a room is renewed when its watermark passes a multiple of this.
const MARK_INTERVAL: u64 = 1000;
/// The most rooms whose last mark is remembered.
const MAX_MARKED: usize = 100_000;
/// The most rooms whose marks one transaction renews.
const MARKS_PER_CALL: usize = 500;

/// Archived ranges that were not reported yet.
#[derive(Default)]
pub(super) struct Watermarks {
    pending: Mutex<Pending>,
    /// The rooms whose watermarks have advanced lately.
    marked: Mutex<HashMap<RoomId, Mark>>,
}

/// Ranges that are being reported. Those that are left are reported next time, also if the task is
/// ended.
struct Unreported<'a> {
    watermarks: &'a Watermarks,
    rooms: Vec<(RoomId, Epoch, ArchivedRanges)>,
}

impl Drop for Unreported<'_> {
    fn drop(&mut self) {
        self.watermarks.put_back(std::mem::take(&mut self.rooms));
    }
}

/// The archive's own mark of a room.
struct Mark {
    /// The room's watermark.
    watermark: u64,
    /// The last multiple of [`MARK_INTERVAL`] that it has passed.
    passed: u64,
    /// The mark as it was last written; 0 before this node has written it.
    written: u64,
}

#[derive(Default)]
struct Pending {
    ranges: HashMap<(RoomId, Epoch), ArchivedRanges>,
    count: usize,
}

impl Watermarks {
    /// Notes that the archive has an entry.
    pub fn add(&self, room: &RoomId, epoch: &Epoch, seq: u64) {
        let mut pending = self.pending.lock();
        let Pending { ranges, count } = &mut *pending;
        if *count >= MAX_RANGES {
            return;
        }
        let ranges = match ranges.entry((room.clone(), epoch.clone())) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(Vec::new()),
        };
        match ranges.last_mut() {
            Some(last) if *last.end() + 1 == seq => *last = *last.start()..=seq,
            Some(last) if last.contains(&seq) => {}
            _ => {
                ranges.push(seq..=seq);
                *count += 1;
            }
        }
    }

    /// Notes that numbers need no archiving, because they are lost.
    pub fn add_lost(&self, room: &RoomId, epoch: &Epoch, lost: std::ops::RangeInclusive<u64>) {
        let mut pending = self.pending.lock();
        let ranges = &mut pending.ranges;
        ranges
            .entry((room.clone(), epoch.clone()))
            .or_default()
            .push(lost);
        pending.count += 1;
    }

    /// The rooms with ranges that wait for a report.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.pending.lock().ranges.len()
    }

    /// Reports everything that was noted. Marks that the hot log refuses are kept for the next report.
    pub async fn report(&self, hot: &Arc<dyn HotLog>, store: &dyn ArchiveStore) {
        let Pending { ranges, .. } = std::mem::take(&mut *self.pending.lock());
        let rooms = ranges
            .into_iter()
            .map(|((room, epoch), ranges)| (room, epoch, ranges));
        let mut unreported = Unreported {
            watermarks: self,
            rooms: rooms.collect(),
        };
        while !unreported.rooms.is_empty() {
            let first = unreported.rooms.len().saturating_sub(ROOMS_PER_CALL);
            let part = &unreported.rooms[first..];
            let Ok(watermarks) = hot.advance_watermarks(part).await else {
                return;
            };
            let part = unreported.rooms.split_off(first);
            self.mark(store, part, watermarks).await;
        }
    }

    /// Renews the archive's own marks of all rooms that have advanced since their last mark, so that a
    /// check of the archive notices if newest entries are removed.
    ///
    /// # Errors
    /// Those of the store: some marks may be written.
    pub async fn mark_all(&self, store: &dyn ArchiveStore) -> store::Result<()> {
        let marked = std::mem::take(&mut *self.marked.lock());
        let due: Vec<RoomNumber> = marked
            .into_iter()
            .filter(|(_, mark)| mark.watermark > mark.written)
            .map(|(room, mark)| (room, mark.watermark))
            .collect();
        for marks in due.chunks(MARKS_PER_CALL) {
            store.mark_contiguous(marks).await?;
        }
        Ok(())
    }

    fn put_back(&self, rooms: Vec<(RoomId, Epoch, ArchivedRanges)>) {
        let mut pending = self.pending.lock();
        for (room, epoch, older) in rooms {
            if pending.count >= MAX_RANGES {
                return;
            }
            pending.count += older.len();
            let ranges = pending.ranges.entry((room, epoch)).or_default();
            ranges.splice(0..0, older);
        }
    }

    /// Renews the archive's own marks, so that a restore need not read the whole room.
    async fn mark(
        &self,
        store: &dyn ArchiveStore,
        rooms: Vec<(RoomId, Epoch, ArchivedRanges)>,
        watermarks: Vec<u64>,
    ) {
        let mut due = Vec::new();
        {
            let mut marked = self.marked.lock();
            if marked.len() > MAX_MARKED {
                marked.clear();
            }
            for ((room, ..), watermark) in rooms.into_iter().zip(watermarks) {
                let passed = watermark - watermark % MARK_INTERVAL;
                let mark = marked.entry(room.clone()).or_insert(Mark {
                    watermark,
                    passed,
                    written: 0,
                });
                mark.watermark = mark.watermark.max(watermark);
                if passed > mark.passed {
                    mark.passed = passed;
                    mark.written = watermark;
                    due.push((room, watermark));
                }
            }
        }
        if !due.is_empty() {
            // A mark that is missing only makes a restore slower.
            let _ = store.mark_contiguous(&due).await;
        }
    }
}
