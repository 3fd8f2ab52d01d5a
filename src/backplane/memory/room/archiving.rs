//! The state of a room with an archive: watermark, restore, and entries that are not archived yet.

use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::Instant;

use super::Room;
use crate::backplane::memory::ranges::Ranges;
use crate::backplane::{BackplaneLimits, HotState, RestorePoint, RestoredSend, Unarchived, Window};
use crate::domain::{Epoch, Head, RoomId, Timestamp};

/// The state that only a room with an archive has.
#[derive(Debug)]
pub(super) struct Archiving {
    /// Where earlier epochs ended, newest first.
    pub(super) past: Vec<Head>,
    /// Archived numbers above the watermark, which isn't contiguous with them.
    ahead: Ranges,
    /// The last `seq` that log and archive share, if they have diverged.
    shared: Option<u64>,
    /// When the oldest unarchived entry was appended. Means nothing if there is none.
    unarchived_since: Instant,
    /// The room's place in the queue of unarchived rooms; `None` if it isn't there.
    listed: Option<Instant>,
}

/// The outcome of a claim of an unarchived room.
#[derive(Debug, Default)]
pub(in crate::backplane::memory) struct Claim {
    /// The room, if the caller has it now.
    pub(in crate::backplane::memory) unarchived: Option<Unarchived>,
    /// The room's next place in the queue.
    pub(in crate::backplane::memory) place: Option<Instant>,
}

impl Room {
    /// An empty room with an archive. Must be restored before its first use.
    pub(in crate::backplane::memory) fn archived() -> Self {
        let room = Self::new();
        Self {
            watermark: 0,
            must_restore: true,
            archiving: Some(Box::new(Archiving {
                past: Vec::new(),
                ahead: Ranges::default(),
                shared: None,
                unarchived_since: room.last_use,
                listed: None,
            })),
            ..room
        }
    }

    pub(in crate::backplane::memory) fn must_restore(&self) -> bool {
        self.must_restore
    }

    /// Whether the archive has everything that the room's log has.
    pub(in crate::backplane::memory) fn is_archived(&self) -> bool {
        self.watermark >= self.seq && !self.must_restore
    }

    /// Where earlier epochs ended, newest first.
    pub(super) fn past(&self) -> Vec<Head> {
        match &self.archiving {
            Some(archiving) => archiving.past.clone(),
            None => Vec::new(),
        }
    }

    /// Called when an entry has been added.
    pub(super) fn note_appended(&mut self) {
        if let Some(archiving) = &mut self.archiving
            && self.watermark + 1 == self.seq
        {
            archiving.unarchived_since = self.last_use;
        }
    }

    /// The state on which a restore of this room is based.
    pub(in crate::backplane::memory) fn hot_state(&self) -> HotState {
        HotState {
            head: self.head(),
            past: self.past(),
            oldest: self.oldest(),
            watermark: Some(self.watermark),
            is_stale: false,
            shared: self.archiving.as_ref().and_then(|state| state.shared),
            archived: self
                .archiving
                .as_ref()
                .map_or_else(Vec::new, |state| state.ahead.to_vec()),
        }
    }

    /// Continues the room from its restore point.
    pub(in crate::backplane::memory) fn restore(
        &mut self,
        point: RestorePoint,
        limits: &BackplaneLimits,
    ) {
        let Some(archiving) = &mut self.archiving else {
            return;
        };
        archiving.shared = None;
        self.must_restore = false;
        if let Some(head) = point.head {
            self.epoch = head.epoch;
            self.seq = head.seq;
            self.watermark = 0;
            archiving.past = point.past;
            archiving.ahead.clear();
            // Positions of entries that may be lost. The archive has those that are not.
            self.sends.clear();
            self.send_order.clear();
        }
        if !point.keep_entries {
            self.log.clear();
            self.forms.clear();
        }
        self.restore_sends(point.sends, limits);
        self.watermark = self.watermark.max(point.watermark).min(self.seq);
        self.note_unarchived();
        self.trim_to_size(limits);
    }

    /// Adds sends, given newest first, unless there is a newer one with the same key.
    fn restore_sends(&mut self, sends: Vec<RestoredSend>, limits: &BackplaneLimits) {
        let (now, time) = (Instant::now(), Timestamp::now());
        for send in sends {
            let age = Duration::from_millis(time.0.saturating_sub(send.position.at.0));
            let rest = limits.dedupe_ttl.saturating_sub(age);
            let key = (send.user, send.key);
            if rest.is_zero() || self.sends.contains_key(&key) {
                continue;
            }
            self.sends.insert(key.clone(), send.position);
            self.send_order.push_back((now + rest, key));
        }
        let in_order = self.send_order.make_contiguous();
        in_order.sort_by_key(|(expires, _)| *expires);
    }

    /// Whether the room has entries that its archive may lack, or has others than its archive.
    fn awaits_archive(&self) -> bool {
        let has_diverged = self
            .archiving
            .as_ref()
            .is_some_and(|state| state.shared.is_some());
        self.watermark < self.seq || has_diverged
    }

    /// Determines since when the oldest unarchived entry waits, after the watermark has moved.
    fn note_unarchived(&mut self) {
        let oldest = self.read_stored(Window::After(self.watermark), 1, usize::MAX);
        let age = oldest
            .first()
            .map_or(0, |entry| Timestamp::now().0.saturating_sub(entry.at.0));
        let now = Instant::now();
        if let Some(archiving) = &mut self.archiving {
            let since = now.checked_sub(Duration::from_millis(age));
            archiving.unarchived_since = since.unwrap_or(now);
        }
    }

    /// The archive has every entry up to this `seq`.
    pub(in crate::backplane::memory) fn watermark(&self) -> u64 {
        self.watermark
    }

    /// The archive has these entries, whose numbers were assigned in this epoch.
    pub(in crate::backplane::memory) fn advance_watermark(
        &mut self,
        epoch: &Epoch,
        archived: &[RangeInclusive<u64>],
        limits: &BackplaneLimits,
    ) {
        let Some(archiving) = &mut self.archiving else {
            return;
        };
        let ended = archiving.past.iter().find(|head| head.epoch == *epoch);
        let last = match ended {
            _ if *epoch == self.epoch => archiving.shared.unwrap_or(self.seq).min(self.seq),
            Some(head) => head.seq.min(self.seq),
            None => return,
        };
        let before = self.watermark;
        for range in archived {
            let range = *range.start()..=last.min(*range.end());
            self.watermark = archiving.ahead.raise(self.watermark, &range);
        }
        if self.watermark > before {
            self.note_unarchived();
            self.trim_to_size(limits);
            // A long backlog must not occupy memory for good.
            let usual = limits.history_size.max(self.log.len());
            if self.log.capacity() / 4 > usual {
                self.log.shrink_to_fit();
            }
        }
    }

    /// The room's place in the queue of unarchived rooms, if the caller has to add it there.
    pub(in crate::backplane::memory) fn list_unarchived(&mut self) -> Option<Instant> {
        if !self.awaits_archive() {
            return None;
        }
        let archiving = self.archiving.as_mut()?;
        if archiving.listed.is_some() {
            return None;
        }
        archiving.listed = Some(archiving.unarchived_since);
        archiving.listed
    }

    /// Claims the room, which had this place in the queue, if its oldest unarchived entry is older
    /// than that, or if it has diverged that long ago.
    pub(in crate::backplane::memory) fn claim_unarchived(
        &mut self,
        id: &RoomId,
        place: Instant,
        older_than: Duration,
        now: Instant,
    ) -> Claim {
        let awaits_archive = self.awaits_archive();
        let Some(archiving) = &mut self.archiving else {
            return Claim::default();
        };
        if archiving.listed != Some(place) {
            return Claim::default();
        }
        archiving.listed = None;
        if !awaits_archive {
            return Claim::default();
        }
        let is_due = archiving.unarchived_since + older_than <= now;
        archiving.listed = Some(if is_due {
            now
        } else {
            archiving.unarchived_since
        });
        let unarchived = is_due.then(|| Unarchived {
            room: id.clone(),
            watermark: self.watermark,
            head: self.seq,
            archived: archiving.ahead.to_vec(),
        });
        Claim {
            unarchived,
            place: archiving.listed,
        }
    }

    /// The archive has other entries after `shared`.
    pub(in crate::backplane::memory) fn diverge(&mut self, epoch: &Epoch, shared: u64) {
        let is_archived = self.watermark >= self.seq;
        let Some(archiving) = &mut self.archiving else {
            return;
        };
        let last = if *epoch == self.epoch {
            Some(self.seq)
        } else {
            let mut past = archiving.past.iter();
            past.find(|ended| ended.epoch == *epoch)
                .map(|ended| ended.seq)
        };
        if last.is_none_or(|last| last <= shared) {
            return;
        }
        if is_archived && archiving.shared.is_none() {
            archiving.unarchived_since = Instant::now();
        }
        archiving.shared = Some(archiving.shared.map_or(shared, |known| known.min(shared)));
        self.must_restore = true;
    }

    /// Removes entries up to `cut`, as far as they are archived.
    pub(in crate::backplane::memory) fn trim(&mut self, cut: u64) {
        let cut = cut.min(self.watermark);
        while self.log.front().is_some_and(|entry| entry.seq <= cut) {
            self.log.pop_front();
        }
        self.forms.trim(self.oldest());
    }
}
