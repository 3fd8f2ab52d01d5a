//! The epochs of a hot log, with their ends.

use crate::backplane::HotState;
use crate::domain::Head;

/// The earlier epochs that a hot log remembers.
pub(super) const PAST_EPOCHS: usize = 8;

/// The epochs of a log that ends now, newest first.
pub(super) fn ends_of(hot: &HotState) -> Vec<Head> {
    with_past(hot.head.clone(), &hot.past)
}

/// The earlier epochs of a log, newest first, behind one that has just ended.
pub(super) fn with_past(ended: Head, past: &[Head]) -> Vec<Head> {
    let mut all = vec![ended];
    all.extend(past.iter().take(PAST_EPOCHS - 1).cloned());
    all
}

/// Ends those epochs of a log where they have begun that the archive does not know, if they have begun
/// below its end, `archive_head`: their numbers mean other messages than the archive's. `ends` are the
/// log's epochs, newest first, and `is_known` is whether the archive knows each. Returns whether there
/// are any.
pub(super) fn end_before_the_archive(
    ends: &mut [Head],
    is_known: &[bool],
    archive_head: u64,
) -> bool {
    let mut is_any = false;
    for index in 0..ends.len() {
        let begun_after = ends.get(index + 1).map_or(0, |earlier| earlier.seq);
        let end = &mut ends[index];
        if !is_known[index] && begun_after < archive_head && begun_after < end.seq {
            end.seq = begun_after;
            is_any = true;
        }
    }
    is_any
}
