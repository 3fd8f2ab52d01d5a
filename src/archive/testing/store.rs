//! The calls of [`ArchiveStore`].

use std::ops::RangeInclusive;

use async_trait::async_trait;
use uuid::Uuid;

use super::FakeStore;
use super::writer::FakeWriter;
use crate::domain::{Epoch, MessageForm, RoomId, Timestamp};
use crate::store::{
    ArchiveStore, ArchiveWindow, ArchiveWriter, ArchivedEntry, ArchivedEpoch, ArchivedRoom,
    ArchivedSend, BeginOutcome, DeletedPart, EPOCHS_KEPT, MissingPage, NewEpoch, Result,
    RetentionClaim, RetentionRun, RoomAudit, RoomNumber, Run,
};

/// The numbers of one part of a search for missing ones.
const MISSING_PAGE: u64 = 10;

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

    async fn epoch(&self, room: &RoomId, epoch: &Epoch) -> Result<Option<ArchivedEpoch>> {
        self.arrive().await?;
        let data = self.0.data.lock();
        let epochs = data.rooms.get(room).map(|room| &room.epochs);
        let mut epochs = epochs.into_iter().flatten();
        Ok(epochs.find(|known| known.epoch == *epoch).cloned())
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

    async fn forms(
        &self,
        room: &RoomId,
        range: RangeInclusive<u64>,
        others: &[u64],
    ) -> Result<Vec<MessageForm>> {
        self.arrive().await?;
        let data = self.0.data.lock();
        let forms = data.rooms.get(room).map(|room| &room.forms);
        let forms = forms.into_iter().flatten();
        let wanted = forms.filter(|(seq, _)| range.contains(seq) || others.contains(seq));
        Ok(wanted.map(|(_, form)| form.clone()).collect())
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

    async fn begin_epoch(&self, room: &RoomId, new: &NewEpoch) -> Result<BeginOutcome> {
        self.arrive().await?;
        self.arrive_to_begin().await;
        let mut data = self.0.data.lock();
        Ok(data.room(room).begin_epoch(new))
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

    async fn delete_up_to(&self, room: &RoomId, cut: u64, limit: usize) -> Result<DeletedPart> {
        self.arrive().await?;
        let mut data = self.0.data.lock();
        let Some(room) = data.rooms.get_mut(room) else {
            return Ok(DeletedPart::default());
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
        Ok(DeletedPart {
            entries,
            bytes,
            has_more: entries >= limit as u64,
        })
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
        let mut data = self.0.data.lock();
        data.begin_search();
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
            ..RoomAudit::default()
        })
    }
}
