//! Pages of the archive's entries, each in the newest form of its message.

use std::collections::BTreeMap;

use super::entry;
use crate::backplane::{Entry, EntryKind, Pointer, message_form};
use crate::domain::{MessageForm, RoomId};
use crate::store::{ArchiveStore, ArchiveWindow, Result};

/// The entries to read.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub window: ArchiveWindow,
    pub limit: usize,
    pub max_bytes: usize,
    /// The first number that doesn't belong to the page.
    pub end: u64,
}

/// Reads a page. The forms are read behind the entries: so they are at least as new, and a message that is
/// deleted meanwhile is deleted in the page.
pub(super) async fn read(
    store: &dyn ArchiveStore,
    room: &RoomId,
    wanted: Wanted,
) -> Result<Vec<Entry>> {
    let Wanted {
        window,
        limit,
        max_bytes,
        end,
    } = wanted;
    let read = store.read(room, window, limit, max_bytes).await?;
    let mut unrecorded = BTreeMap::new();
    let mut page = Vec::with_capacity(read.len());
    for archived in read.into_iter().take_while(|archived| archived.seq < end) {
        let deletion = archived.unrecorded_deletion(room);
        unrecorded.extend(deletion.map(|form| (archived.seq, form)));
        page.push(entry::to_checked_entry(archived)?);
    }
    let mut forms = forms(store, room, &page).await?;
    for (seq, deletion) in unrecorded {
        forms.entry(seq).or_insert(deletion);
    }
    let is_changed = |entry: &Entry| entry.kind == EntryKind::Pointer || entry.record.is_empty();
    if forms.is_empty() && !page.iter().any(is_changed) {
        return Ok(page);
    }
    message_form::resolve(&mut page, &forms);
    let is_from_end = matches!(window, ArchiveWindow::Before(_));
    message_form::limit_bytes(&mut page, is_from_end, max_bytes);
    Ok(page)
}

/// The forms that the entries of a page need.
async fn forms(
    store: &dyn ArchiveStore,
    room: &RoomId,
    page: &[Entry],
) -> Result<BTreeMap<u64, MessageForm>> {
    let (Some(first), Some(last)) = (page.first(), page.last()) else {
        return Ok(BTreeMap::new());
    };
    let range = first.seq..=last.seq;
    let pointers = page.iter().filter(|entry| entry.kind == EntryKind::Pointer);
    let mut others: Vec<u64> = pointers
        .filter_map(|entry| Some(Pointer::decode(&entry.record)?.target_seq))
        .filter(|target| !range.contains(target))
        .collect();
    others.sort_unstable();
    others.dedup();
    let forms = store.forms(room, range, &others).await?;
    let by_number = forms.into_iter().map(|form| (form.position.seq, form));
    Ok(by_number.collect())
}
