//! Checks that the archive is complete, and that the hot log agrees with it.

use std::fmt;
use std::ops::RangeInclusive;

use ahash::HashSet;
use uuid::Uuid;

use super::entry;
use crate::backplane::anonymous::is_same_without_names;
use crate::backplane::{self, Entry, EntryKind, HotLog, Pointer, change_record};
use crate::domain::{Epoch, RoomId};
use crate::store::{
    ArchiveTransfer, ArchiveWindow, ArchivedEntry, Result, RoomAudit, RoomState, StoreError,
    StoredKind,
};

/// The entries and bytes of one read.
const PAGE_ENTRIES: usize = 5000;
const PAGE_BYTES: usize = 8 * 1024 * 1024;
/// The entries and bytes of one read of the hot log.
const LOG_PAGE_ENTRIES: usize = 500;
const LOG_PAGE_BYTES: usize = 1024 * 1024;
/// The ids of one read.
const PAGE_IDS: usize = 10_000;

/// A fault of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Numbers that are neither there nor recorded as lost.
    Missing(RangeInclusive<u64>),
    /// A number is there although it is recorded as lost.
    NotLost(u64),
    /// The record is not the one that the other columns belong to.
    Changed(u64),
    /// The record is no message.
    UnreadableRecord(u64),
    /// Entries with a number below 1.
    NumberBelowOne(u64),
    /// Entries with a number up to this one, although retention has deleted up to there.
    BelowCut {
        /// Their number.
        entries: u64,
        /// The last number that retention has deleted.
        cut: u64,
    },
    /// A recorded loss that ends before it begins, or begins before 1.
    MalformedLoss(RangeInclusive<u64>),
    /// The entries from this number on can't be read.
    Unreadable(u64, String),
    /// The epoch begins or ends after the last number.
    EpochBeyondEnd(Epoch),
    /// The room's mark of complete numbers lies after the last number.
    MarkBeyondEnd {
        /// The mark.
        mark: u64,
        /// The last number.
        end: u64,
    },
    /// The hot log has another entry with the number.
    OtherInLog(u64),
    /// The hot log has an archived entry, and the archive doesn't.
    OnlyInLog(u64),
}

impl Finding {
    /// One word for programs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::NotLost(_) => "not_lost",
            Self::Changed(_) => "changed",
            Self::UnreadableRecord(_) => "unreadable_record",
            Self::NumberBelowOne(_) => "number_below_one",
            Self::BelowCut { .. } => "below_cut",
            Self::MalformedLoss(_) => "malformed_loss",
            Self::Unreadable(..) => "unreadable",
            Self::EpochBeyondEnd(_) => "epoch_beyond_end",
            Self::MarkBeyondEnd { .. } => "mark_beyond_end",
            Self::OtherInLog(_) => "other_in_log",
            Self::OnlyInLog(_) => "only_in_log",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(lost) if lost.start() == lost.end() => {
                write!(f, "message {} is missing", lost.start())
            }
            Self::Missing(lost) => {
                let (from, to) = (lost.start(), lost.end());
                write!(f, "messages {from} to {to} are missing")
            }
            Self::NotLost(seq) => write!(f, "message {seq} is there, but recorded as lost"),
            Self::Changed(seq) => {
                write!(f, "message {seq} has a record with another id, user or key")
            }
            Self::Unreadable(seq, error) => {
                write!(f, "messages from {seq} on can't be read: {error}")
            }
            Self::EpochBeyondEnd(epoch) => {
                write!(f, "epoch {epoch} begins or ends after the last message")
            }
            Self::UnreadableRecord(seq) => write!(f, "the record of message {seq} is not readable"),
            Self::NumberBelowOne(count) => write!(f, "{count} messages have a number below 1"),
            Self::BelowCut { entries, cut } => write!(
                f,
                "{entries} messages have numbers up to {cut}, up to which retention has deleted"
            ),
            Self::MalformedLoss(lost) => {
                let (from, to) = (lost.start(), lost.end());
                write!(f, "a recorded loss goes from {from} to {to}")
            }
            Self::MarkBeyondEnd { mark, end } => write!(
                f,
                "the newest messages are missing: the room was complete up to {mark}, and its last \
                 message is {end}"
            ),
            Self::OtherInLog(seq) => write!(f, "the log has another message {seq}"),
            Self::OnlyInLog(seq) => {
                write!(
                    f,
                    "message {seq} is in the log only, which has it as archived"
                )
            }
        }
    }
}

/// The result of a check of one room.
#[derive(Debug, Default)]
pub struct RoomReport {
    /// Entries that the archive has.
    pub entries: u64,
    /// The bytes of their records, as stored.
    pub bytes: u64,
    /// Numbers recorded as lost.
    pub lost: u64,
    /// Entries that only the hot log has yet.
    pub unarchived: u64,
    /// The faults that were found.
    pub findings: Vec<Finding>,
}

/// Checks rooms of an archive.
pub struct Verifier<'a> {
    /// The archive.
    pub store: &'a dyn ArchiveTransfer,
    /// The hot log, if it can be reached.
    pub log: Option<&'a dyn HotLog>,
}

impl Verifier<'_> {
    /// Checks a room. Calls `progress` with the number of entries that were checked since its last
    /// call.
    ///
    /// # Errors
    /// `Unavailable`, also of the hot log.
    pub async fn check(
        &self,
        room: &RoomId,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<RoomReport> {
        // Later numbers than those of the log and of the archive as they are now are not judged: other
        // nodes assign them meanwhile, and commit them in any order.
        let archived = self.store.room(room).await?;
        // The log before the archive: entries that it has as archived then must be in the archive.
        let logged = self.read_log(room).await?;
        let state = self.store.room_state(room).await?.unwrap_or_default();
        let audit = self.store.audit(room).await?;
        let mut report = RoomReport {
            entries: audit.entries,
            bytes: audit.bytes,
            lost: audit.lost,
            ..RoomReport::default()
        };
        let log_end = logged.entries.last().map_or(0, |entry| entry.seq);
        check_state(&state, &audit, log_end, &mut report.findings);
        let judged = match self.log {
            Some(_) => log_end.max(archived.map_or(0, |room| room.head)),
            None => u64::MAX,
        };
        check_missing(&audit, &logged, judged, &mut report.findings);
        self.check_entries(room, &state, &mut report.findings, progress)
            .await?;
        self.check_log(room, &audit, &logged, &mut report).await?;
        Ok(report)
    }

    async fn read_log(&self, room: &RoomId) -> Result<Logged> {
        let mut logged = Logged::default();
        let Some(log) = self.log else {
            return Ok(logged);
        };
        let mut after = 0;
        while let Some(page) = log
            .read_unarchived(room, after, LOG_PAGE_ENTRIES, LOG_PAGE_BYTES)
            .await
            .map_err(unavailable)?
        {
            let Some(last) = page.last() else { break };
            after = last.seq;
            let report = [(room.clone(), last.epoch.clone(), Vec::new())];
            let watermarks = log.advance_watermarks(&report).await.map_err(unavailable)?;
            logged.watermark = watermarks.first().copied().unwrap_or(0);
            logged.entries.extend(page);
        }
        Ok(logged)
    }

    async fn check_entries(
        &self,
        room: &RoomId,
        state: &RoomState,
        findings: &mut Vec<Finding>,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<()> {
        let mut after = 0;
        loop {
            let window = ArchiveWindow::After(after);
            let page = self
                .store
                .read(room, window, PAGE_ENTRIES, PAGE_BYTES)
                .await;
            let page = match page {
                Ok(page) => page,
                Err(StoreError::Broken(error)) => {
                    findings.push(Finding::Unreadable(after + 1, error));
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.seq;
            progress(page.len() as u64);
            for archived in page {
                let seq = archived.seq;
                let next = state.lost.partition_point(|lost| *lost.end() < seq);
                if state.lost.get(next).is_some_and(|lost| lost.contains(&seq)) {
                    findings.push(Finding::NotLost(seq));
                }
                findings.extend(check_record(archived));
            }
        }
    }

    /// Compares the log's entries with the archive's.
    async fn check_log(
        &self,
        room: &RoomId,
        audit: &RoomAudit,
        logged: &Logged,
        report: &mut RoomReport,
    ) -> Result<()> {
        for page in logged.entries.chunks(LOG_PAGE_ENTRIES) {
            let (Some(first), Some(last)) = (page.first(), page.last()) else {
                continue;
            };
            let window = ArchiveWindow::After(first.seq - 1);
            let read = self.store.read(room, window, page.len(), usize::MAX).await;
            let archived = match read {
                Ok(archived) => archived,
                // It was found before.
                Err(StoreError::Broken(_)) => return Ok(()),
                Err(error) => return Err(error),
            };
            let changed = self.store.forms(room, first.seq..=last.seq, &[]).await?;
            let changed: HashSet<u64> = changed.iter().map(|form| form.position.seq).collect();
            let mut archived = archived
                .into_iter()
                .filter(|entry| entry.seq <= last.seq)
                .peekable();
            for entry in page {
                while archived.next_if(|found| found.seq < entry.seq).is_some() {}
                match archived.next_if(|found| found.seq == entry.seq) {
                    Some(found) if found.record == entry.record => {}
                    // The log keeps the first text of an edited message, or none.
                    Some(found)
                        if changed.contains(&found.seq) && is_same_message(&found, entry) => {}
                    // The log keeps names of deleted users until it is trimmed.
                    Some(found) if is_same_without_names(&found.record, &entry.record) => {}
                    Some(_) => report.findings.push(Finding::OtherInLog(entry.seq)),
                    None if entry.seq > logged.watermark => report.unarchived += 1,
                    // Retention deletes from the log first, and may run now.
                    None if entry.seq <= audit.cut || entry.seq < audit.first => {}
                    None => report.findings.push(Finding::OnlyInLog(entry.seq)),
                }
            }
        }
        Ok(())
    }

    /// The ids that more than one entry has.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn doubled_ids(&self) -> Result<Vec<Uuid>> {
        let mut doubled = Vec::new();
        let mut from = Uuid::nil();
        let mut seen = 0;
        loop {
            // The page begins with the last id of the one before, as often as that was seen.
            let page = self.store.ids(from, PAGE_IDS + seen).await?;
            let is_last = page.len() < PAGE_IDS + seen;
            let ids = &page[seen.min(page.len())..];
            let mut before = (seen > 0).then_some(from);
            for id in ids {
                if before == Some(*id) && doubled.last() != Some(id) {
                    doubled.push(*id);
                }
                before = Some(*id);
            }
            let Some(last) = page.last().filter(|_| !is_last) else {
                return Ok(doubled);
            };
            seen = page.iter().rev().take_while(|id| *id == last).count();
            from = *last;
        }
    }
}

/// Whether an entry of the log is this message, in any form.
fn is_same_message(archived: &ArchivedEntry, logged: &Entry) -> bool {
    if entry::is_without_text(logged) {
        return true;
    }
    entry::of_entry(logged.clone()).is_some_and(|of_record| of_record.id == archived.id)
}

/// Finds missing numbers up to `judged`. Those above the log's watermark wait for their commit, if the
/// log has them.
fn check_missing(audit: &RoomAudit, logged: &Logged, judged: u64, findings: &mut Vec<Finding>) {
    let pending: HashSet<u64> = logged.unarchived().map(|entry| entry.seq).collect();
    for range in &audit.missing {
        let range = *range.start()..=*range.end().min(&judged);
        if !range.clone().all(|seq| pending.contains(&seq)) {
            findings.push(Finding::Missing(range));
        }
    }
}

/// The content of a room's hot log.
#[derive(Default)]
struct Logged {
    entries: Vec<Entry>,
    watermark: u64,
}

impl Logged {
    fn unarchived(&self) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(|entry| entry.seq > self.watermark)
    }
}

/// Numbers that only the log has yet count, too: epochs are recorded before they are used.
fn check_state(state: &RoomState, audit: &RoomAudit, log_end: u64, findings: &mut Vec<Finding>) {
    let lost = state.lost.last().map_or(0, |lost| *lost.end());
    let end = audit.last.max(audit.cut).max(lost).max(log_end);
    if state.contiguous > end {
        findings.push(Finding::MarkBeyondEnd {
            mark: state.contiguous,
            end,
        });
    }
    if audit.below_one > 0 {
        findings.push(Finding::NumberBelowOne(audit.below_one));
    }
    if audit.below_cut > 0 {
        findings.push(Finding::BelowCut {
            entries: audit.below_cut,
            cut: audit.cut,
        });
    }
    for lost in &state.lost {
        if lost.is_empty() || *lost.start() == 0 {
            findings.push(Finding::MalformedLoss(lost.clone()));
        }
    }
    for epoch in &state.epochs {
        if epoch.after > end || epoch.ended.is_some_and(|ended| ended > end) {
            findings.push(Finding::EpochBeyondEnd(epoch.epoch.clone()));
        }
    }
}

/// Compares an entry with its record. Records of kinds that this release doesn't know are opaque.
fn check_record(archived: ArchivedEntry) -> Option<Finding> {
    let seq = archived.seq;
    if archived.kind == StoredKind::DELETED {
        // The record of a deleted message must be gone.
        return (!archived.record.is_empty()).then_some(Finding::Changed(seq));
    }
    let as_read = entry::to_entry(archived.clone());
    let is_readable = match as_read.kind {
        EntryKind::Unknown => return None,
        EntryKind::Pointer => Pointer::decode(&as_read.record).is_some(),
        EntryKind::Change => change_record::Parts::of(&as_read.record).is_some(),
        EntryKind::Message | EntryKind::Amended => entry::is_message(&as_read.record),
    };
    if !is_readable {
        return Some(Finding::UnreadableRecord(seq));
    }
    let is_consistent = entry::of_entry(as_read).is_some_and(|of_record| of_record == archived);
    (!is_consistent).then_some(Finding::Changed(seq))
}

fn unavailable(error: backplane::BackplaneError) -> StoreError {
    StoreError::Unavailable(format!("the log: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_were_assigned_during_the_check_are_not_judged() {
        let audit = RoomAudit {
            missing: vec![3..=4, 8..=9],
            ..RoomAudit::default()
        };
        for (judged, expected) in [
            (2, vec![]),
            (5, vec![3..=4]),
            (8, vec![3..=4, 8..=8]),
            (u64::MAX, vec![3..=4, 8..=9]),
        ] {
            let mut findings = Vec::new();
            check_missing(&audit, &Logged::default(), judged, &mut findings);
            let expected: Vec<_> = expected.into_iter().map(Finding::Missing).collect();
            assert_eq!(findings, expected, "{judged}");
        }
    }
}
