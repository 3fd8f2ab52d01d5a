//! The way through a log's entries that the archive may lack.

use super::{ArchivedRanges, Entry, HotState};

/// The entries and the bytes of records of one page that a restore reads.
pub(super) const PAGE_ENTRIES: usize = 500;
pub(super) const PAGE_BYTES: usize = 1024 * 1024;

/// A position in a room's log. It moves from the room's watermark to the end of the log, page by page,
/// and skips entries that the archive is known to have.
#[derive(Debug)]
pub struct UnarchivedCursor {
    reached: u64,
    /// The ranges that begin after `reached`, the first one last. A range that overlaps an earlier one
    /// may begin before.
    archived: ArchivedRanges,
}

impl UnarchivedCursor {
    /// A cursor over the entries of a room that the archive may lack: without a watermark, all. A room
    /// that the log does not know has none.
    #[must_use]
    pub fn of(hot: Option<&HotState>) -> Self {
        let Some(hot) = hot else {
            return Self::new(0, Vec::new());
        };
        let reached = hot.watermark.unwrap_or(hot.oldest.saturating_sub(1));
        Self::new(reached, hot.archived.clone())
    }

    /// A cursor after `reached`, with the ranges that the archive has, in any order.
    #[must_use]
    pub fn new(reached: u64, mut archived: ArchivedRanges) -> Self {
        archived.sort_unstable_by(|one, other| other.start().cmp(one.start()));
        let mut cursor = Self { reached, archived };
        cursor.skip_archived();
        cursor
    }

    /// The `seq` after which to read on: the next number isn't known to be archived.
    #[must_use]
    pub fn reached(&self) -> u64 {
        self.reached
    }

    /// Moves to this `seq`, and over the numbers behind it that are known to be archived. Never moves
    /// backwards.
    pub fn advance(&mut self, seq: u64) {
        self.reached = self.reached.max(seq);
        self.skip_archived();
    }

    /// Moves behind a page that was read after [`Self::reached`]. Returns those of its entries that are
    /// not known to be archived.
    pub fn take(&mut self, page: Vec<Entry>) -> Vec<Entry> {
        let mut taken = page;
        taken.retain(|entry| {
            let is_new = entry.seq > self.reached;
            self.advance(entry.seq);
            is_new
        });
        taken
    }

    /// Notes that the archive has this number.
    pub fn add_archived(&mut self, seq: u64) {
        let index = self.archived.partition_point(|range| *range.start() > seq);
        self.archived.insert(index, seq..=seq);
        self.skip_archived();
    }

    fn skip_archived(&mut self) {
        while let Some(range) = self.archived.last()
            && *range.start() <= self.reached.saturating_add(1)
        {
            self.reached = self.reached.max(*range.end());
            self.archived.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::EntryKind;
    use crate::domain::{Epoch, Timestamp};

    fn page(seqs: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        let entry = |seq| Entry {
            seq,
            epoch: Epoch::trusted("e"),
            at: Timestamp(0),
            kind: EntryKind::Message,
            record: bytes::Bytes::new(),
        };
        seqs.map(entry).collect()
    }

    #[test]
    fn archived_ranges_are_skipped_within_a_page_and_behind_it() {
        let ranges = vec![11..=400, 1..=2, 5..=6, 6..=7, 600..=700];
        let mut cursor = UnarchivedCursor::new(1, ranges);
        assert_eq!(cursor.reached(), 2);
        let taken = cursor.take(page(3..=10));
        let seqs: Vec<_> = taken.iter().map(|entry| entry.seq).collect();
        assert_eq!((seqs, cursor.reached()), (vec![3, 4, 8, 9, 10], 400));
        assert_eq!(cursor.take(page(401..=500)).len(), 100);
        assert_eq!(cursor.reached(), 500);
        cursor.advance(450);
        assert_eq!(cursor.reached(), 500);
        cursor.advance(650);
        assert_eq!(cursor.reached(), 700);
    }
}
