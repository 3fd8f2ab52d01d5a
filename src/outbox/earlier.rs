//! Finds the entry that an earlier attempt to publish a row may have left in the log.

use std::time::Duration;

use uuid::Uuid;

use crate::backplane::{EntryKind, Result, RoomLog, Window, change_record};
use crate::domain::RoomId;

/// Entries of one read.
const PAGE_ENTRIES: usize = 256;
const PAGE_BYTES: usize = 1024 * 1024;
/// How much the clocks of the log and of the database may differ.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(3600);

/// Whether the log has the change with this id among the entries of the last `since`.
///
/// # Errors
/// Those of the log.
pub(super) async fn is_in_log(
    log: &dyn RoomLog,
    room: &RoomId,
    id: Uuid,
    since: Duration,
) -> Result<bool> {
    let mut newest = None;
    let mut window = Window::Newest;
    loop {
        let page = log
            .read(room, window, PAGE_ENTRIES, PAGE_BYTES)
            .await?
            .entries;
        let is_it = |parts: change_record::Parts<'_>| parts.id == id;
        if page
            .iter()
            .filter(|entry| entry.kind == EntryKind::Change)
            .filter_map(|entry| change_record::Parts::of(&entry.record))
            .any(is_it)
        {
            return Ok(true);
        }
        let (Some(first), Some(last)) = (page.first(), page.last()) else {
            return Ok(false);
        };
        let newest = *newest.get_or_insert(last.at.0);
        let age = Duration::from_millis(newest.saturating_sub(first.at.0));
        if first.seq <= 1 || age > since + CLOCK_DIFFERENCE {
            return Ok(false);
        }
        window = Window::Before(first.seq);
    }
}
