//! Archives a room's entries at once, for a caller that needs one of them in the database.

use crate::backplane::{BackplaneError, Commit, Result, UnarchivedCursor, Window};
use crate::domain::{Head, RoomId};

use super::queue::COMMIT_TIMEOUT;
use super::{Shared, entry};

/// The entries and bytes of one read.
const PAGE_ENTRIES: usize = 500;
const PAGE_BYTES: usize = 1024 * 1024;

/// See [`RoomLog::archive_now`](crate::backplane::RoomLog::archive_now).
pub(super) async fn archive_now(shared: &Shared, room: &RoomId) -> Result<()> {
    let archived = tokio::time::timeout(COMMIT_TIMEOUT, archive(shared, room));
    archived.await.unwrap_or_else(|_| {
        let reason = "the database did not take the room's messages in time";
        Err(BackplaneError::Unavailable(reason.to_owned()))
    })
}

async fn archive(shared: &Shared, room: &RoomId) -> Result<()> {
    let heads = shared.hot.heads(std::slice::from_ref(room)).await?;
    let Some(head) = heads.into_iter().next().flatten() else {
        // The log doesn't know the room: all of it is archived.
        return Ok(());
    };
    shared.queue.flush().await;
    let mut watermark = watermark(shared, room, &head).await?;
    if watermark >= head.seq {
        return Ok(());
    }
    shared.watermarks.report(&shared.hot, &*shared.store).await;
    watermark = self::watermark(shared, room, &head).await?;
    commit_from(shared, room, watermark, head.seq).await
}

async fn watermark(shared: &Shared, room: &RoomId, head: &Head) -> Result<u64> {
    let report = [(room.clone(), head.epoch.clone(), Vec::new())];
    let watermarks = shared.hot.advance_watermarks(&report).await?;
    Ok(watermarks.first().copied().unwrap_or(0))
}

/// Commits what the log has after the watermark, up to `last`: entries of other nodes. Those that they have
/// committed meanwhile are in the archive already, and the commit of them has no effect.
async fn commit_from(shared: &Shared, room: &RoomId, watermark: u64, last: u64) -> Result<()> {
    // A room that must be restored is restored first. The restore archives it, or drops its entries.
    shared.hot.read(room, Window::Newest, 0, 0).await?;
    let mut cursor = UnarchivedCursor::new(watermark, Vec::new());
    let mut commits = Vec::new();
    while cursor.reached() < last {
        let page = shared
            .hot
            .read_unarchived(room, cursor.reached(), PAGE_ENTRIES, PAGE_BYTES)
            .await?;
        let page = cursor.take(page.unwrap_or_default());
        if page.is_empty() {
            break;
        }
        for read in page.into_iter().filter(|read| read.seq <= last) {
            // An entry of an unknown kind is archived by a node that knows it.
            if let Some(archived) = entry::of_entry(read) {
                let (commit, pending) = Commit::pending();
                shared
                    .queue
                    .push_swept(room.clone(), archived, Some(pending));
                commits.push(commit);
            }
        }
    }
    for commit in commits {
        commit.wait().await?;
    }
    Ok(())
}
