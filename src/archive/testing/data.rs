//! The data of the store, and the rules of [`ArchiveStore`](crate::store::ArchiveStore) for them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use ahash::HashMap;
use uuid::Uuid;

use crate::domain::{Epoch, Head, MessageForm, RoomId};
use crate::store::{
    ArchivedEntry, ArchivedEpoch, BeginOutcome, CommitOutcome, Fence, NewEpoch, RetentionRun,
    RoomNumber,
};

#[derive(Default)]
pub(super) struct Data {
    pub(super) rooms: BTreeMap<RoomId, FakeRoom>,
    /// The number of each entry, by its id.
    ids: HashMap<Uuid, RoomNumber>,
    /// Whether each run ended cleanly, in order.
    pub(super) runs: Vec<bool>,
    pub(super) deployment: Option<Uuid>,
    /// The number of entries of each commit.
    pub(super) commits: Vec<usize>,
    /// The number of commits that were refused.
    pub(super) refusals: usize,
    /// An entry that is lost just before so many searches for missing ones from now.
    pub(super) lost_later: Option<(usize, RoomId, u64)>,
    pub(super) check_claimed: u64,
    pub(super) retention: Vec<RetentionRun>,
}

#[derive(Default)]
pub(super) struct FakeRoom {
    pub(super) number: u64,
    pub(super) entries: BTreeMap<u64, ArchivedEntry>,
    pub(super) forms: BTreeMap<u64, MessageForm>,
    pub(super) lost: BTreeSet<u64>,
    pub(super) cut: u64,
    pub(super) contiguous: u64,
    /// Oldest first.
    pub(super) epochs: Vec<ArchivedEpoch>,
}

impl Data {
    /// A search for missing entries begins.
    pub(super) fn begin_search(&mut self) {
        let Some((search, room, seq)) = &mut self.lost_later else {
            return;
        };
        *search -= 1;
        if *search == 0 {
            let (room, seq) = (room.clone(), *seq);
            self.lost_later = None;
            self.room(&room).entries.remove(&seq);
        }
    }

    pub(super) fn room(&mut self, room: &RoomId) -> &mut FakeRoom {
        let number = self.rooms.len() as u64 + 1;
        self.rooms.entry(room.clone()).or_insert_with(|| FakeRoom {
            number,
            ..FakeRoom::default()
        })
    }

    pub(super) fn commit(
        &mut self,
        entries: &[(RoomId, ArchivedEntry)],
        run: u64,
        fence: Fence,
    ) -> Vec<CommitOutcome> {
        let mut excluded = BTreeSet::new();
        if fence == Fence::KnownEpochs {
            excluded = self.excluded_epochs(entries);
        }
        let mut outcomes = Vec::new();
        for (room, entry) in entries {
            outcomes.push(if excluded.contains(&(room, &entry.epoch)) {
                CommitOutcome::Conflict
            } else {
                self.commit_entry(room, entry, run, fence)
            });
        }
        outcomes
    }

    /// The epochs of the entries that [`Fence::KnownEpochs`] excludes.
    fn excluded_epochs<'a>(
        &self,
        entries: &'a [(RoomId, ArchivedEntry)],
    ) -> BTreeSet<(&'a RoomId, &'a Epoch)> {
        let mut excluded = BTreeSet::new();
        let mut newest: BTreeMap<&RoomId, &Epoch> = BTreeMap::new();
        for (room, entry) in entries.iter().rev() {
            let newest = *newest.entry(room).or_insert(&entry.epoch);
            let epochs = self.rooms.get(room).map_or(&[][..], |room| &room.epochs);
            let is_accepted = if epochs.is_empty() {
                entry.epoch == *newest
            } else {
                epochs.iter().any(|known| known.epoch == entry.epoch)
            };
            if !is_accepted {
                excluded.insert((room, &entry.epoch));
            }
        }
        excluded
    }

    fn commit_entry(
        &mut self,
        room: &RoomId,
        entry: &ArchivedEntry,
        run: u64,
        fence: Fence,
    ) -> CommitOutcome {
        let number = (room.clone(), entry.seq);
        let is_elsewhere = self
            .ids
            .get(&entry.id)
            .is_some_and(|known| *known != number);
        let room = self.room(room);
        if !room.epochs.iter().any(|known| known.epoch == entry.epoch) {
            room.epochs.push(ArchivedEpoch {
                epoch: entry.epoch.clone(),
                after: entry.seq - 1,
                ended: None,
                run,
            });
        }
        let is_late = matches!(fence, Fence::EpochEnds | Fence::KnownEpochs);
        let is_after_end = is_late && room.has_ended_before(entry);
        match room.entries.get(&entry.seq) {
            Some(known) if known.id == entry.id => CommitOutcome::Stored,
            Some(_) => CommitOutcome::Conflict,
            None if is_elsewhere || is_after_end => CommitOutcome::Conflict,
            None if is_late && entry.seq <= room.cut => CommitOutcome::Stored,
            None => {
                room.lost.remove(&entry.seq);
                room.entries.insert(entry.seq, entry.clone());
                self.ids.insert(entry.id, number);
                CommitOutcome::Stored
            }
        }
    }
}

impl FakeRoom {
    pub(super) fn head(&self) -> u64 {
        let entry = self.entries.last_key_value().map_or(0, |(seq, _)| *seq);
        let lost = self.lost.last().copied().unwrap_or(0);
        let begun = self.epochs.iter().map(|epoch| epoch.after).max();
        entry.max(lost).max(self.cut).max(begun.unwrap_or(0))
    }

    pub(super) fn first(&self) -> u64 {
        let first = self.entries.first_key_value().map(|(seq, _)| *seq);
        first.unwrap_or(self.head() + 1)
    }

    pub(super) fn oldest(&self) -> u64 {
        let lost = self.lost.last().copied().unwrap_or(0);
        self.first().max(self.cut + 1).max(lost + 1)
    }

    /// Whether the entry's epoch has an end below the entry.
    fn has_ended_before(&self, entry: &ArchivedEntry) -> bool {
        let mut epochs = self.epochs.iter();
        let known = epochs.find(|known| known.epoch == entry.epoch);
        known.is_some_and(|known| known.ended.is_some_and(|ended| ended < entry.seq))
    }

    /// Numbers after `from` and up to `to` that are neither present nor recorded as lost.
    pub(super) fn missing(&self, from: u64, to: u64) -> Vec<RangeInclusive<u64>> {
        let numbers = from + 1..=to;
        let missing =
            numbers.filter(|seq| !self.entries.contains_key(seq) && !self.lost.contains(seq));
        let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
        for seq in missing {
            match ranges.last_mut() {
                Some(last) if *last.end() + 1 == seq => *last = *last.start()..=seq,
                _ => ranges.push(seq..=seq),
            }
        }
        ranges
    }

    pub(super) fn begin_epoch(&mut self, new: &NewEpoch) -> BeginOutcome {
        let newest = self.epochs.last();
        let is_repeated = newest.is_some_and(|newest| newest.epoch == new.epoch);
        if !is_repeated {
            let is_known = self.epochs.iter().any(|known| known.epoch == new.epoch);
            if is_known || newest.is_some_and(|newest| !new.follows(&newest.epoch)) {
                return BeginOutcome::Superseded;
            }
            if self.entries.range(new.after + 1..).next().is_some() {
                return BeginOutcome::Behind;
            }
        }
        let mut ends = new.ends.clone();
        let mut bound = u64::MAX;
        for end in &mut ends {
            end.seq = end.seq.min(bound);
            self.end_epoch(end);
            bound = end.seq;
        }
        if !is_repeated {
            for open in &mut self.epochs {
                open.ended.get_or_insert(new.after);
            }
            self.epochs.push(ArchivedEpoch {
                epoch: new.epoch.clone(),
                after: new.after,
                ended: None,
                run: new.run,
            });
        }
        BeginOutcome::Begun(ends)
    }

    /// Records the end of an epoch, and lowers `end` to the one that counts.
    fn end_epoch(&mut self, end: &mut Head) {
        let entries = &self.entries;
        let Some(known) = self
            .epochs
            .iter_mut()
            .find(|known| known.epoch == end.epoch)
        else {
            return self.epochs.push(ArchivedEpoch {
                epoch: end.epoch.clone(),
                after: end.seq,
                ended: Some(end.seq),
                run: 0,
            });
        };
        if let Some(ended) = known.ended {
            let is_own = |seq: &u64| {
                entries
                    .get(seq)
                    .is_some_and(|entry| entry.epoch == end.epoch)
            };
            let in_a_row = (ended + 1..=end.seq).take_while(is_own);
            end.seq = in_a_row.last().unwrap_or(ended.min(end.seq));
        }
        known.ended = Some(end.seq);
    }
}
