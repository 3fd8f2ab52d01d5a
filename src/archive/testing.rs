//! A store in memory that keeps the promises of [`ArchiveStore`], with failures that a test can
//! switch on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ahash::HashMap;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use crate::domain::{Head, RoomId, Timestamp};
use crate::store::{
    ArchiveStore, ArchiveWindow, ArchiveWriter, ArchivedEntry, ArchivedEpoch, ArchivedRoom,
    ArchivedSend, BATCH_BYTES, BATCH_ENTRIES, CommitOutcome, EPOCHS_KEPT, MissingPage, NewEpoch,
    Result, RetentionClaim, RetentionRun, RoomAudit, RoomNumber, Run, StoreError,
};

/// The numbers of one part of a search for missing ones.
const MISSING_PAGE: u64 = 10;

/// The store. Clones share their data, as nodes share a database.
#[derive(Clone)]
pub struct FakeStore(Arc<Inner>);

struct Inner {
    data: Mutex<Data>,
    faults: watch::Sender<Faults>,
}

/// Faults to inject into calls.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    /// Every call fails without an effect.
    is_away: bool,
    /// Every call waits until this is over.
    is_stopped: bool,
    /// Every call takes so long.
    delay: Duration,
    /// So many of the next commits take effect, but fail.
    lost_replies: usize,
    /// Commits with an entry whose record has this text are refused.
    refused: Option<&'static str>,
}

#[derive(Default)]
struct Data {
    rooms: BTreeMap<RoomId, FakeRoom>,
    /// The number of each entry, by its id.
    ids: HashMap<Uuid, RoomNumber>,
    /// Whether each run ended cleanly, in order.
    runs: Vec<bool>,
    deployment: Option<Uuid>,
    /// The number of entries of each commit.
    commits: Vec<usize>,
    /// The number of commits that were refused.
    refusals: usize,
    check_claimed: u64,
    retention: Vec<RetentionRun>,
}

#[derive(Default)]
struct FakeRoom {
    number: u64,
    entries: BTreeMap<u64, ArchivedEntry>,
    lost: BTreeSet<u64>,
    cut: u64,
    contiguous: u64,
    /// Oldest first.
    epochs: Vec<ArchivedEpoch>,
}

impl FakeStore {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            data: Mutex::default(),
            faults: watch::Sender::default(),
        }))
    }

    /// While away, every call fails without an effect.
    pub fn set_away(&self, is_away: bool) {
        self.0.faults.send_modify(|faults| faults.is_away = is_away);
    }

    /// While stopped, every call waits.
    pub fn set_stopped(&self, is_stopped: bool) {
        self.0
            .faults
            .send_modify(|faults| faults.is_stopped = is_stopped);
    }

    /// From now on every call takes so long.
    pub fn set_delay(&self, delay: Duration) {
        self.0.faults.send_modify(|faults| faults.delay = delay);
    }

    /// The next commits take effect, but fail with `Unavailable`.
    pub fn lose_replies(&self, commits: usize) {
        self.0
            .faults
            .send_modify(|faults| faults.lost_replies = commits);
    }

    /// From now on commits with an entry are refused whose record has this text.
    pub fn refuse(&self, text: Option<&'static str>) {
        self.0.faults.send_modify(|faults| faults.refused = text);
    }

    /// The numbers of the room's entries.
    pub fn seqs(&self, room: &RoomId) -> Vec<u64> {
        self.entries(room).iter().map(|entry| entry.seq).collect()
    }

    /// The room's entries.
    pub fn entries(&self, room: &RoomId) -> Vec<ArchivedEntry> {
        let data = self.0.data.lock();
        let room = data.rooms.get(room);
        room.map(|room| room.entries.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Changes when the room's entries were appended.
    pub fn set_times(&self, room: &RoomId, at: impl Fn(u64) -> Timestamp) {
        let mut data = self.0.data.lock();
        if let Some(room) = data.rooms.get_mut(room) {
            for (seq, entry) in &mut room.entries {
                entry.at = at(*seq);
            }
        }
    }

    /// The runs of retention, in order.
    pub fn retention(&self) -> Vec<RetentionRun> {
        self.0.data.lock().retention.clone()
    }

    /// The number of entries of each commit so far.
    pub fn commits(&self) -> Vec<usize> {
        self.0.data.lock().commits.clone()
    }

    /// Refuses what the test has asked to refuse.
    fn check(&self, entries: &[(RoomId, ArchivedEntry)]) -> Result<()> {
        let Some(text) = self.0.faults.borrow().refused else {
            return Ok(());
        };
        let has_text = |entry: &ArchivedEntry| {
            let mut windows = entry.record.windows(text.len());
            windows.any(|window| window == text.as_bytes())
        };
        if !entries.iter().any(|(_, entry)| has_text(entry)) {
            return Ok(());
        }
        self.0.data.lock().refusals += 1;
        Err(StoreError::Broken("refused by the test".to_owned()))
    }

    /// Loses an entry, as no store should.
    pub fn lose(&self, room: &RoomId, seq: u64) {
        let mut data = self.0.data.lock();
        let lost = data
            .rooms
            .get_mut(room)
            .and_then(|room| room.entries.remove(&seq));
        assert!(lost.is_some());
    }

    /// The number of commits that were refused so far.
    pub fn refusals(&self) -> usize {
        self.0.data.lock().refusals
    }

    /// Waits and fails as the test has asked.
    async fn arrive(&self) -> Result<()> {
        let mut faults = self.0.faults.subscribe();
        let delay = faults.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let arrived = faults.wait_for(|faults| !faults.is_stopped).await;
        if arrived.is_ok_and(|faults| faults.is_away) {
            return Err(StoreError::Unavailable("switched off".to_owned()));
        }
        Ok(())
    }
}

impl Data {
    fn room(&mut self, room: &RoomId) -> &mut FakeRoom {
        let number = self.rooms.len() as u64 + 1;
        self.rooms.entry(room.clone()).or_insert_with(|| FakeRoom {
            number,
            ..FakeRoom::default()
        })
    }

    fn commit(
        &mut self,
        room: &RoomId,
        entry: &ArchivedEntry,
        run: u64,
        is_fenced: bool,
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
        let is_after_end = is_fenced && room.has_ended_before(entry);
        match room.entries.get(&entry.seq) {
            Some(known) if known.id == entry.id => CommitOutcome::Stored,
            Some(_) => CommitOutcome::Conflict,
            None if is_elsewhere || is_after_end => CommitOutcome::Conflict,
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
    fn head(&self) -> u64 {
        let entry = self.entries.last_key_value().map_or(0, |(seq, _)| *seq);
        let lost = self.lost.last().copied().unwrap_or(0);
        entry.max(lost).max(self.cut)
    }

    fn first(&self) -> u64 {
        let first = self.entries.first_key_value().map(|(seq, _)| *seq);
        first.unwrap_or(self.head() + 1)
    }

    fn oldest(&self) -> u64 {
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
    fn missing(&self, from: u64, to: u64) -> Vec<RangeInclusive<u64>> {
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

    fn lower_end(&mut self, end: &Head) {
        match self
            .epochs
            .iter_mut()
            .find(|known| known.epoch == end.epoch)
        {
            Some(known) => {
                let ended = known.ended.map_or(end.seq, |ended| ended.min(end.seq));
                known.ended = Some(ended);
            }
            None => self.epochs.push(ArchivedEpoch {
                epoch: end.epoch.clone(),
                after: end.seq,
                ended: Some(end.seq),
                run: 0,
            }),
        }
    }
}

#[async_trait]
impl ArchiveStore for FakeStore {
    fn writer(&self, run: u64) -> Box<dyn ArchiveWriter> {
        Box::new(FakeWriter(self.clone(), run))
    }

    async fn ping(&self) -> Result<()> {
        self.arrive().await
    }

    async fn room(&self, room: &RoomId) -> Result<Option<ArchivedRoom>> {
        self.arrive().await?;
        let data = self.0.data.lock();
        Ok(data.rooms.get(room).map(|room| ArchivedRoom {
            first: room.first(),
            oldest: room.oldest(),
            head: room.head(),
            contiguous: room.contiguous.max(room.cut).min(room.head()),
            epochs: room
                .epochs
                .iter()
                .rev()
                .take(EPOCHS_KEPT)
                .cloned()
                .collect(),
        }))
    }

    async fn read(
        &self,
        room: &RoomId,
        window: ArchiveWindow,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<ArchivedEntry>> {
        self.arrive().await?;
        let entries = self.entries(room);
        let mut bytes = 0;
        let mut fits = |entry: &ArchivedEntry| {
            let is_first = bytes == 0;
            bytes += entry.record.len();
            is_first || bytes <= max_bytes
        };
        Ok(match window {
            ArchiveWindow::After(seq) => entries
                .into_iter()
                .filter(|entry| entry.seq > seq)
                .take(limit)
                .take_while(&mut fits)
                .collect(),
            ArchiveWindow::Before(seq) => {
                let mut page: Vec<_> = entries
                    .into_iter()
                    .rev()
                    .filter(|entry| entry.seq < seq)
                    .take(limit)
                    .take_while(&mut fits)
                    .collect();
                page.reverse();
                page
            }
        })
    }

    async fn recent_sends(
        &self,
        room: &RoomId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<ArchivedSend>> {
        self.arrive().await?;
        let recent = self.entries(room).into_iter().rev();
        let sends = recent
            .filter(|entry| entry.at >= since)
            .filter_map(|entry| {
                Some(ArchivedSend {
                    key: entry.send_key?,
                    user: entry.user,
                    id: entry.id,
                    seq: entry.seq,
                    epoch: entry.epoch,
                    at: entry.at,
                })
            });
        Ok(sends.take(limit).collect())
    }

    async fn close_holes(&self, room: &RoomId) -> Result<Vec<RangeInclusive<u64>>> {
        self.arrive().await?;
        let mut data = self.0.data.lock();
        let Some(room) = data.rooms.get_mut(room) else {
            return Ok(Vec::new());
        };
        let holes = room.missing(room.contiguous.max(room.cut), room.head());
        room.lost.extend(holes.iter().cloned().flatten());
        room.contiguous = room.head();
        Ok(holes)
    }

    async fn begin_at(&self, room: &RoomId, first: u64) -> Result<()> {
        self.arrive().await?;
        let mut data = self.0.data.lock();
        let room = data.room(room);
        if room.entries.range(..first).next().is_none() {
            room.cut = room.cut.max(first.saturating_sub(1));
        }
        Ok(())
    }

    async fn record_loss(&self, room: &RoomId, lost: RangeInclusive<u64>) -> Result<()> {
        self.arrive().await?;
        let mut data = self.0.data.lock();
        let room = data.room(room);
        let absent = lost.filter(|seq| !room.entries.contains_key(seq));
        room.lost.extend(absent);
        Ok(())
    }

    async fn mark_contiguous(&self, rooms: &[RoomNumber]) -> Result<()> {
        self.arrive().await?;
        let mut data = self.0.data.lock();
        for (room, seq) in rooms {
            if let Some(room) = data.rooms.get_mut(room) {
                room.contiguous = room.contiguous.max(*seq).min(room.head());
            }
        }
        Ok(())
    }

    async fn begin_epoch(&self, room: &RoomId, new: &NewEpoch) -> Result<()> {
        self.arrive().await?;
        let mut data = self.0.data.lock();
        let room = data.room(room);
        for end in &new.ends {
            room.lower_end(end);
        }
        if room.epochs.iter().any(|known| known.epoch == new.epoch) {
            return Ok(());
        }
        for open in &mut room.epochs {
            open.ended.get_or_insert(new.after);
        }
        room.epochs.push(ArchivedEpoch {
            epoch: new.epoch.clone(),
            after: new.after,
            ended: None,
            run: new.run,
        });
        Ok(())
    }

    async fn begin_run(&self) -> Result<Run> {
        self.arrive().await?;
        let mut data = self.0.data.lock();
        let last_crashed = data.runs.iter().rposition(|is_clean| !is_clean);
        data.runs.push(false);
        Ok(Run {
            number: data.runs.len() as u64,
            last_crashed: last_crashed.map_or(0, |index| index as u64 + 1),
        })
    }

    async fn end_run(&self, run: u64) -> Result<()> {
        self.arrive().await?;
        let mut data = self.0.data.lock();
        let index = usize::try_from(run - 1).unwrap();
        data.runs[index] = true;
        Ok(())
    }

    async fn deployment(&self) -> Result<Uuid> {
        self.arrive().await?;
        let mut data = self.0.data.lock();
        Ok(*data.deployment.get_or_insert_with(Uuid::new_v4))
    }

    async fn rooms(&self, after: u64, limit: usize) -> Result<Vec<(u64, RoomId)>> {
        self.arrive().await?;
        let data = self.0.data.lock();
        let mut rooms: Vec<_> = data
            .rooms
            .iter()
            .filter(|(_, room)| room.number > after)
            .map(|(name, room)| (room.number, name.clone()))
            .collect();
        rooms.sort_unstable();
        rooms.truncate(limit);
        Ok(rooms)
    }

    async fn expired(&self, room: &RoomId, cutoff: Timestamp) -> Result<Option<u64>> {
        self.arrive().await?;
        let entries = self.entries(room);
        let expired = entries.iter().take_while(|entry| entry.at < cutoff);
        Ok(expired.last().map(|entry| entry.seq))
    }

    async fn delete_up_to(&self, room: &RoomId, cut: u64, limit: usize) -> Result<(u64, u64)> {
        self.arrive().await?;
        let mut data = self.0.data.lock();
        let Some(room) = data.rooms.get_mut(room) else {
            return Ok((0, 0));
        };
        let (mut entries, mut bytes) = (0, 0);
        while entries < limit as u64
            && let Some(first) = room.entries.first_entry()
            && *first.key() <= cut
        {
            entries += 1;
            bytes += first.get().record.len() as u64;
            room.cut = room.cut.max(*first.key());
            first.remove();
        }
        let cut = room.cut;
        room.lost.retain(|seq| *seq > cut);
        Ok((entries, bytes))
    }

    async fn count_up_to(&self, room: &RoomId, cut: u64) -> Result<(u64, u64)> {
        self.arrive().await?;
        let mut entries = self.entries(room);
        entries.retain(|entry| entry.seq <= cut);
        let bytes = entries.iter().map(|entry| entry.record.len() as u64);
        Ok((entries.len() as u64, bytes.sum()))
    }

    async fn begin_retention(&self, run: &RetentionRun, claim: &RetentionClaim) -> Result<bool> {
        self.arrive().await?;
        let runs = &mut self.0.data.lock().retention;
        let prevents = |other: &RetentionRun| match other.finished_at {
            Some(_) => other.cutoff >= claim.done_since,
            None => other.reported_at >= claim.alive_since,
        };
        if runs.iter().any(prevents) {
            return Ok(false);
        }
        runs.push(run.clone());
        Ok(true)
    }

    async fn report_retention(&self, run: &RetentionRun) -> Result<()> {
        self.arrive().await?;
        let runs = &mut self.0.data.lock().retention;
        let known = runs.iter_mut().find(|known| known.id == run.id);
        *known.expect("the run has begun") = run.clone();
        Ok(())
    }

    async fn last_retention(&self) -> Result<Option<RetentionRun>> {
        self.arrive().await?;
        let data = self.0.data.lock();
        let finished = data
            .retention
            .iter()
            .filter(|run| run.finished_at.is_some());
        Ok(finished.max_by_key(|run| run.cutoff).cloned())
    }

    async fn claim_check(&self, now: Timestamp, since: Timestamp) -> Result<bool> {
        self.arrive().await?;
        let claimed = &mut self.0.data.lock().check_claimed;
        if *claimed >= since.0 {
            return Ok(false);
        }
        *claimed = now.0;
        Ok(true)
    }

    async fn find_missing(&self, room: &RoomId, after: u64) -> Result<MissingPage> {
        self.arrive().await?;
        let data = self.0.data.lock();
        let Some(room) = data.rooms.get(room) else {
            return Ok(MissingPage::default());
        };
        let last = room.entries.last_key_value().map_or(0, |(seq, _)| *seq);
        let end = last.min(after + MISSING_PAGE);
        Ok(MissingPage {
            missing: room.missing(after.max(room.cut), end),
            next: (end < last).then_some(end),
        })
    }

    async fn audit(&self, room: &RoomId) -> Result<RoomAudit> {
        self.arrive().await?;
        let data = self.0.data.lock();
        let Some(room) = data.rooms.get(room) else {
            return Ok(RoomAudit::default());
        };
        let records = room.entries.values().map(|entry| entry.record.len() as u64);
        let first = room.entries.first_key_value();
        let last = room.entries.last_key_value();
        let last = last.map_or(0, |(seq, _)| *seq);
        Ok(RoomAudit {
            entries: room.entries.len() as u64,
            bytes: records.sum(),
            first: first.map_or(0, |(seq, _)| *seq),
            last,
            missing: room.missing(room.cut, last),
            lost: room.lost.len() as u64,
            cut: room.cut,
        })
    }
}

/// A connection to the store.
struct FakeWriter(FakeStore, u64);

impl FakeWriter {
    async fn store(
        &self,
        entries: &[(RoomId, ArchivedEntry)],
        is_fenced: bool,
    ) -> Result<Vec<CommitOutcome>> {
        let bytes = entries.iter().map(|(_, entry)| entry.record.len());
        assert!(
            entries.len() == 1
                || (entries.len() <= BATCH_ENTRIES && bytes.sum::<usize>() <= BATCH_BYTES),
            "the batch is too large"
        );
        let store = &self.0;
        store.arrive().await?;
        store.check(entries)?;
        let outcomes = {
            let mut data = store.0.data.lock();
            data.commits.push(entries.len());
            entries
                .iter()
                .map(|(room, entry)| data.commit(room, entry, self.1, is_fenced))
                .collect()
        };
        let mut is_lost = false;
        store.0.faults.send_if_modified(|faults| {
            is_lost = faults.lost_replies > 0;
            faults.lost_replies = faults.lost_replies.saturating_sub(1);
            is_lost
        });
        if is_lost {
            return Err(StoreError::Unavailable("the reply is lost".to_owned()));
        }
        Ok(outcomes)
    }
}

#[async_trait]
impl ArchiveWriter for FakeWriter {
    async fn commit(&mut self, entries: &[(RoomId, ArchivedEntry)]) -> Result<Vec<CommitOutcome>> {
        self.store(entries, false).await
    }

    async fn commit_fenced(
        &mut self,
        entries: &[(RoomId, ArchivedEntry)],
    ) -> Result<Vec<CommitOutcome>> {
        self.store(entries, true).await
    }
}
