//! The sweeper: commits entries that other nodes have left unarchived, because they died or could not
//! reach the database.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Shared, entry};
use crate::backplane::{EntryKind, Result, Unarchived};

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
        let left = rooms
            .iter()
            .map(|room| room.head - room.watermark.min(room.head));
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

/// Queues everything of a room that is not archived.
pub(super) async fn sweep(shared: &Shared, unarchived: &Unarchived) -> Result<()> {
    let room = &unarchived.room;
    let mut after = unarchived.watermark;
    while after < unarchived.head {
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
        for read in entries {
            after = read.seq;
            let kind = read.kind;
            let Some(archived) = entry::of_entry(read) else {
                // An entry of an unknown kind is archived by a node that knows it.
                if kind == EntryKind::Message {
                    tracing::error!(
                        %room,
                        seq = after,
                        "a message in the log is not readable: the room is archived up to it only"
                    );
                }
                return Ok(());
            };
            shared.counters.swept.add(1);
            shared.queue.push_swept(room.clone(), archived);
        }
        while shared.queue.len() > MAX_QUEUED {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}
