//! The commits of a restore: entries that only the hot log has are archived before the room continues.

use crate::backplane::{HotState, Result, UnarchivedCursor, UnarchivedEntries};
use crate::domain::RoomId;
use crate::store::{self, ArchiveWriter, CommitOutcome, Fence, StoreError};

use super::entry::{self, ArchivedRow};
use super::refused::MAX_REFUSED_IN_ROW;

/// A writer that several restores use, one batch after another.
pub(super) type SharedWriter = tokio::sync::Mutex<Box<dyn ArchiveWriter>>;

/// The outcome of the commits of a restore.
#[derive(Debug)]
pub(super) struct Committed {
    /// The archive has every entry of the log up to this one; at least the watermark.
    pub reached: u64,
    /// The lowest number of which the archive has another entry, or whose entry it has refused as late.
    pub lowest_conflict: Option<u64>,
    /// The number of those entries.
    conflicts: u64,
}

/// Commits all entries that the log gives, page by page: those whose numbers are free survive.
///
/// # Errors
/// `Unavailable`: some entries may be committed. Also if the database refuses many entries in a row.
pub(super) async fn commit_all(
    writer: &SharedWriter,
    room: &RoomId,
    hot: &HotState,
    entries: &mut dyn UnarchivedEntries,
) -> Result<Committed> {
    let mut cursor = UnarchivedCursor::of(Some(hot));
    let mut committed = Committed {
        reached: 0,
        lowest_conflict: None,
        conflicts: 0,
    };
    loop {
        let page = entries.next_page().await?;
        if page.is_empty() {
            committed.reached = cursor.reached().min(hot.head.seq);
            committed.log_conflicts(room);
            return Ok(committed);
        }
        let without_text = page.iter().filter(|entry| entry::is_without_text(entry));
        without_text.for_each(|entry| cursor.add_archived(entry.seq));
        // An entry of an unknown kind is archived by a node that knows it.
        let rows: Vec<ArchivedRow> = page
            .into_iter()
            .filter_map(entry::of_entry)
            .map(|entry| (room.clone(), entry))
            .collect();
        for batch in entry::batches(&rows) {
            // Not held while the next page is read: so restores take turns.
            let mut writer = writer.lock().await;
            commit_batch(&mut **writer, batch, &mut cursor, &mut committed).await?;
        }
    }
}

/// Commits a batch. If the database refuses it, commits ever smaller parts of it, so that only those
/// entries are left that it refuses alone: they stay in the log, if the log keeps its entries.
async fn commit_batch(
    writer: &mut dyn ArchiveWriter,
    batch: &[ArchivedRow],
    cursor: &mut UnarchivedCursor,
    committed: &mut Committed,
) -> store::Result<()> {
    let mut parts = vec![batch];
    let mut refused_in_row = 0;
    while let Some(rows) = parts.pop() {
        // Their senders may have sent them again since, under later numbers.
        match writer.commit_with(rows, Fence::EpochEnds).await {
            Ok(outcomes) => {
                refused_in_row = 0;
                for ((_, entry), outcome) in rows.iter().zip(outcomes) {
                    committed.add(entry.seq, outcome, cursor);
                }
            }
            Err(StoreError::Broken(error)) if rows.len() == 1 => {
                let (room, entry) = &rows[0];
                tracing::error!(
                    %room,
                    seq = entry.seq,
                    error,
                    "the database refuses a message during the restore of its room"
                );
                refused_in_row += 1;
                if refused_in_row >= MAX_REFUSED_IN_ROW {
                    return Err(StoreError::Broken(error));
                }
            }
            Err(StoreError::Broken(_)) => {
                let (first, second) = rows.split_at(rows.len() / 2);
                parts.extend([second, first]);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Committed {
    fn log_conflicts(&self, room: &RoomId) {
        if let Some(first) = self.lowest_conflict {
            tracing::error!(
                %room,
                messages = self.conflicts,
                first,
                "messages of the log are dropped: the archive has others with their numbers"
            );
        }
    }

    fn add(&mut self, seq: u64, outcome: CommitOutcome, cursor: &mut UnarchivedCursor) {
        match outcome {
            CommitOutcome::Stored => {
                if seq == cursor.reached() + 1 {
                    cursor.advance(seq);
                }
            }
            CommitOutcome::Conflict => {
                self.conflicts += 1;
                self.lowest_conflict = Some(self.lowest_conflict.map_or(seq, |low| low.min(seq)));
            }
        }
    }
}
