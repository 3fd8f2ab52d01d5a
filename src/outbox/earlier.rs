//! Finds the entries that earlier attempts to publish rows may have left in the log.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::progress::Position;
use crate::backplane::{BackplaneError, Entry, EntryKind, RoomLog, Window, change_record};
use crate::domain::RoomId;

/// Entries of one read.
const PAGE_ENTRIES: usize = 256;
const PAGE_BYTES: usize = 1024 * 1024;
/// How much the clocks of the log and of the database may differ.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(3600);

/// The result of a search.
#[derive(Default)]
pub(super) struct Search {
    /// These are in the log, at these positions.
    pub found: HashMap<Uuid, Position>,
    /// Why the search has ended early.
    pub error: Option<BackplaneError>,
}

/// Searches the entries of the last `since` for changes with these ids, until the deadline.
pub(super) async fn find(
    log: &dyn RoomLog,
    room: &RoomId,
    ids: Vec<Uuid>,
    since: Duration,
    deadline: Instant,
) -> Search {
    let mut missing: HashSet<Uuid> = ids.into_iter().collect();
    let mut search = Search::default();
    let mut newest = None;
    let mut window = Window::Newest;
    while !missing.is_empty() {
        if Instant::now() > deadline {
            let reason = "the search for an earlier attempt takes longer than the lease";
            search.error = Some(BackplaneError::Unavailable(reason.to_owned()));
            return search;
        }
        let page = match log.read(room, window, PAGE_ENTRIES, PAGE_BYTES).await {
            Ok(page) => page.entries,
            Err(error) => {
                search.error = Some(error);
                return search;
            }
        };
        search.found.extend(taken_from(&mut missing, &page));
        let (Some(first), Some(last)) = (page.first(), page.last()) else {
            return search;
        };
        let newest = *newest.get_or_insert(last.at.0);
        let age = Duration::from_millis(newest.saturating_sub(first.at.0));
        if first.seq <= 1 || age > since + CLOCK_DIFFERENCE {
            return search;
        }
        window = Window::Before(first.seq);
    }
    search
}

/// Takes the ids of the page's changes out of those that are missing.
fn taken_from(missing: &mut HashSet<Uuid>, page: &[Entry]) -> Vec<(Uuid, Position)> {
    let mut taken = Vec::new();
    for entry in page {
        // Announcements of changes of messages are read as complete changes, which have their ids.
        if !matches!(entry.kind, EntryKind::Change | EntryKind::Pointer) {
            continue;
        }
        let Some(parts) = change_record::Parts::of(&entry.record) else {
            continue;
        };
        if missing.remove(&parts.id) {
            let position = Position {
                seq: entry.seq,
                at: entry.at,
                reactions: None,
            };
            taken.push((parts.id, position));
        }
    }
    taken
}
