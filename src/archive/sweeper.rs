//! The sweeper: commits entries that other nodes have left unarchived, because they died or could not
//! reach the database.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Shared, entry};
use crate::backplane::{EntryKind, Result, Unarchived, UnarchivedCursor, Window};

/// The time between two sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The age at which an unarchived entry counts as left behind.
const MAX_AGE: Duration = Duration::from_secs(5);
/// The most rooms of one sweep.
const ROOMS_PER_SWEEP: usize = 200;
/// The entries and bytes of one read.
const PAGE_ENTRIES: usize = 500;
const PAGE_BYTES: usize = 1024 * 1024;
/// The sweeper waits while more entries than this are in the queue, so that this node's own entries
/// never wait long behind those of others.
const MAX_QUEUED: usize = 1000;

/// Sweeps until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        if !shared.health.is_up() || shared.queue.len() > MAX_QUEUED {
            continue;
        }
        let Ok(rooms) = shared.hot.unarchived(MAX_AGE, ROOMS_PER_SWEEP).await else {
            continue;
        };
        let left = rooms.iter().map(count_left_behind);
        let left_behind = &shared.counters.left_behind;
        left_behind.store(left.sum(), Ordering::Relaxed);
        shared.refused.forget_old();
        for room in rooms {
            if !shared.refused.may_offer(&room.room) {
                continue;
            }
            // After an error a later sweep finds the room again.
            let _ = sweep(&shared, &room).await;
        }
    }
}

/// The number of a room's entries that are not known to be archived.
fn count_left_behind(room: &Unarchived) -> u64 {
    let length = |range: &RangeInclusive<u64>| (range.end() + 1).saturating_sub(*range.start());
    let archived: u64 = room.archived.iter().map(length).sum();
    let above = room.head.saturating_sub(room.watermark);
    above.saturating_sub(archived)
}

/// Queues everything of a room that is not known to be archived.
pub(super) async fn sweep(shared: &Shared, unarchived: &Unarchived) -> Result<()> {
    let room = &unarchived.room;
    if unarchived.watermark >= unarchived.head {
        // The room has diverged, and its restore has failed.
        shared.hot.read(room, Window::Newest, 0, 0).await?;
    }
    let mut cursor = UnarchivedCursor::new(unarchived.watermark, unarchived.archived.clone());
    while cursor.reached() < unarchived.head {
        let after = cursor.reached();
        let page = shared
            .hot
            .read_unarchived(room, after, PAGE_ENTRIES, PAGE_BYTES)
            .await?;
        let Some(entries) = page else { return Ok(()) };
        let Some(first) = entries.first() else {
            return Ok(());
        };
        if first.seq > after + 1 {
            // The log was trimmed up to its watermark since the sweep began; or it has lost entries.
            let report = [(room.clone(), first.epoch.clone(), Vec::new())];
            let watermarks = shared.hot.advance_watermarks(&report).await?;
            let watermark = watermarks.first().copied().unwrap_or(0).max(after);
            if watermark + 1 < first.seq {
                let lost = watermark + 1..=first.seq - 1;
                shared.record_loss(room, &first.epoch, lost).await?;
            }
        }
        for read in cursor.take(entries) {
            let (seq, kind) = (read.seq, read.kind);
            if entry::is_without_text(&read) {
                shared.watermarks.add(room, &read.epoch, seq);
                continue;
            }
            let Some(archived) = entry::of_entry(read) else {
                // An entry of an unknown kind is archived by a node that knows it.
                if kind == EntryKind::Message {
                    tracing::error!(
                        %room,
                        seq,
                        "a message in the log is not readable: its room's log keeps everything from it on"
                    );
                }
                continue;
            };
            shared.counters.swept.add(1);
            shared.queue.push_swept(room.clone(), archived, None);
        }
        while shared.queue.len() > MAX_QUEUED {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}
