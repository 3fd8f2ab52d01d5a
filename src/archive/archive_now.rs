//! Archives a room's entries at once, for a caller that needs one of them in the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::HashMap;
use parking_lot::Mutex;

use crate::backplane::{ArchivedRanges, BackplaneError, Commit, Result, UnarchivedCursor, Window};
use crate::domain::{Head, RoomId};
use crate::store::ArchiveWindow;

use super::queue::COMMIT_TIMEOUT;
use super::{Shared, entry};

/// The entries and bytes of one read.
const PAGE_ENTRIES: usize = 500;
const PAGE_BYTES: usize = 1024 * 1024;

/// The runs for each room, with the number of their callers: one at a time, and callers that wait meanwhile
/// share the next one.
#[derive(Default)]
pub(super) struct Runs(Mutex<HashMap<RoomId, (Arc<RoomRuns>, usize)>>);

/// The runs for one room.
struct RoomRuns {
    /// How many have begun.
    begun: AtomicU64,
    /// The outcome of the last one; `None` if that was cancelled. Locked during a run.
    last: tokio::sync::Mutex<Option<Result<()>>>,
}

impl Runs {
    fn of<'a>(&'a self, room: &'a RoomId) -> Use<'a> {
        let mut rooms = self.0.lock();
        let new = || {
            Arc::new(RoomRuns {
                begun: AtomicU64::new(0),
                last: tokio::sync::Mutex::new(None),
            })
        };
        let (runs, callers) = rooms.entry(room.clone()).or_insert_with(|| (new(), 0));
        *callers += 1;
        let (all, runs) = (self, runs.clone());
        Use { all, room, runs }
    }

    /// Forgets the room, unless another caller uses its runs.
    fn release(&self, room: &RoomId) {
        let mut rooms = self.0.lock();
        if let Some((_, callers)) = rooms.get_mut(room) {
            *callers -= 1;
            if *callers == 0 {
                rooms.remove(room);
            }
        }
    }
}

/// The use of a room's runs by one caller, which may be dropped at any time.
struct Use<'a> {
    all: &'a Runs,
    room: &'a RoomId,
    runs: Arc<RoomRuns>,
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.all.release(self.room);
    }
}

impl RoomRuns {
    /// Performs the run, or shares one that another caller begins after this call.
    async fn share(&self, run: impl Future<Output = Result<()>>) -> Result<()> {
        let begun = self.begun.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        if self.begun.load(Ordering::Acquire) > begun
            && let Some(outcome) = &*last
        {
            return outcome.clone();
        }
        *last = None;
        self.begun.fetch_add(1, Ordering::AcqRel);
        let outcome = run.await;
        *last = Some(outcome.clone());
        outcome
    }
}

/// See [`RoomLog::archive_now`](crate::backplane::RoomLog::archive_now).
pub(super) async fn archive_now(shared: &Shared, room: &RoomId) -> Result<()> {
    let run = shared.archive_now.of(room);
    let work = run.runs.share(archive(shared, room));
    let archived = tokio::time::timeout(COMMIT_TIMEOUT, work).await;
    archived.unwrap_or_else(|_| {
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
    if watermark(shared, room, &head).await? >= head.seq {
        return Ok(());
    }
    shared.queue.flush().await;
    shared.watermarks.report(&shared.hot, &*shared.store).await;
    let watermark = watermark(shared, room, &head).await?;
    commit_from(shared, room, watermark, head.seq).await
}

/// See [`RoomLog::archived_up_to`](crate::backplane::RoomLog::archived_up_to).
pub(super) async fn archived_up_to(shared: &Shared, room: &RoomId) -> Result<u64> {
    let heads = shared.hot.heads(std::slice::from_ref(room)).await?;
    match heads.into_iter().next().flatten() {
        Some(head) => watermark(shared, room, &head).await,
        None => Ok(0),
    }
}

async fn watermark(shared: &Shared, room: &RoomId, head: &Head) -> Result<u64> {
    let report = [(room.clone(), head.epoch.clone(), Vec::new())];
    let watermarks = shared.hot.advance_watermarks(&report).await?;
    Ok(watermarks.first().copied().unwrap_or(0))
}

/// Commits what the log has after the watermark, up to `last`: entries of other nodes. A few of them may be
/// in the archive already, because these nodes have committed them meanwhile: their commit has no effect.
async fn commit_from(shared: &Shared, room: &RoomId, watermark: u64, last: u64) -> Result<()> {
    // A room that must be restored is restored first. The restore archives it, or drops its entries.
    shared.hot.read(room, Window::Newest, 0, 0).await?;
    let archived = if last.saturating_sub(watermark) > PAGE_ENTRIES as u64 {
        archived_after(shared, room, watermark).await?
    } else {
        Vec::new()
    };
    let mut cursor = UnarchivedCursor::new(watermark, archived);
    let mut commits = Vec::new();
    while cursor.reached() < last {
        if shared.queue.is_full() {
            let reason = "too many messages wait for their commit to the archive";
            return Err(BackplaneError::Unavailable(reason.to_owned()));
        }
        let page = shared
            .hot
            .read_unarchived(room, cursor.reached(), PAGE_ENTRIES, PAGE_BYTES)
            .await?;
        let page = cursor.take(page.unwrap_or_default());
        if page.is_empty() {
            break;
        }
        for read in page.into_iter().filter(|read| read.seq <= last) {
            let seq = read.seq;
            // The sweeper offers entries again that the database has refused.
            if shared.refused.has(room, seq) {
                continue;
            }
            // An entry of an unknown kind is archived by a node that knows it.
            if let Some(archived) = entry::of_entry(read) {
                let (commit, pending) = Commit::pending();
                shared
                    .queue
                    .push_swept(room.clone(), archived, Some(pending));
                commits.push((seq, commit));
            }
        }
    }
    for (seq, commit) in commits {
        let outcome = commit.wait().await;
        // An entry that the database refuses does not concern the others.
        if outcome.is_err() && !shared.refused.has(room, seq) {
            return outcome;
        }
    }
    Ok(())
}

/// The numbers after the watermark that the archive has, or knows to be lost. Where the watermark stands,
/// because the database refuses the entry behind it, these are nearly all.
async fn archived_after(shared: &Shared, room: &RoomId, watermark: u64) -> Result<ArchivedRanges> {
    let store = &shared.store;
    let newest = store.read(room, ArchiveWindow::Before(u64::MAX), 1, usize::MAX);
    let Some(newest) = newest.await?.pop() else {
        return Ok(Vec::new());
    };
    let mut archived = Vec::new();
    let mut from = watermark + 1;
    let mut next = Some(watermark);
    while let Some(after) = next {
        let page = store.find_missing(room, after).await?;
        for missing in page.missing {
            if from < *missing.start() {
                archived.push(from..=*missing.start() - 1);
            }
            from = from.max(*missing.end() + 1);
        }
        next = page.next;
    }
    if from <= newest.seq {
        archived.push(from..=newest.seq);
    }
    Ok(archived)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn concurrent_calls_share_a_run_that_begins_after_them() {
        let (runs, room) = (Runs::default(), RoomId::trusted("lobby"));
        let performed = AtomicU64::new(0);
        let calls = (0..20).map(|_| async {
            let of_room = runs.of(&room);
            let work = async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                performed.fetch_add(1, Ordering::SeqCst);
                Ok(())
            };
            of_room.runs.share(work).await.unwrap();
        });
        futures_util::future::join_all(calls).await;
        assert_eq!(
            performed.into_inner(),
            2,
            "the first, and one for all others"
        );
        assert!(runs.0.lock().is_empty());
    }
}
