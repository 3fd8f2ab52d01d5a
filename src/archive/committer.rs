//! The task that commits. Everything that queued while the last commit ran is the next one, so that under
//! load one commit carries many entries. Where no sender waits for it, the queue collects for a moment.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::Shared;
use super::entry::ArchivedRow;
use super::queue::{Batch, Origin, Sender};
use super::refused::MAX_REFUSED_IN_ROW;
use crate::backplane::BackplaneError;
use crate::domain::{Epoch, RoomId};
use crate::store::{ArchiveWriter, CommitOutcome, Fence, StoreError, StoredKind};

/// The pause before a commit that has failed is repeated: at first, and at most.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// How often late sends are refused, while a commit runs or is to be repeated.
const LATE_CHECK: Duration = Duration::from_millis(100);
/// A commit that takes longer than this shows that the database is away.
const SLOW_COMMIT: Duration = Duration::from_secs(2);
/// Entries that have waited for longer than this are committed with a fence: the room may have gone on
/// in another epoch meanwhile.
const FENCED_AFTER: Duration = Duration::from_millis(500);

/// The pause after a panic.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// Commits until the queue is closed and empty. A panic costs one batch: without commits the archive
/// would stand still, and nothing else would notice it.
pub(super) async fn run(shared: Arc<Shared>) {
    // Only the queue is used again after a panic, and its lock is never held across a panic.
    while AssertUnwindSafe(commit_all(shared.clone()))
        .catch_unwind()
        .await
        .is_err()
    {
        tracing::error!("archive: the task that commits panicked, and starts again");
        shared.queue.abandon_batch();
        tokio::time::sleep(PANIC_PAUSE).await;
    }
}

async fn commit_all(shared: Arc<Shared>) {
    let writer = shared.store.writer(shared.run.map_or(0, |run| run.number));
    let mut committer = Committer {
        shared: shared.clone(),
        writer,
        refused_in_row: 0,
    };
    while let Some(mut batch) = shared.queue.next_batch().await {
        let rows = std::mem::take(&mut batch.rows);
        let committed = committer.commit(&mut batch, &rows, Attempt::First).await;
        match committed {
            Ok(outcomes) => {
                committer.refused_in_row = 0;
                process(&shared, &rows, &mut batch.senders, &outcomes);
            }
            Err(error) => committer.commit_parts(&mut batch, &rows, error).await,
        }
        shared.queue.finish_batch(batch);
    }
}

/// Whether the rows were part of a commit before, whose outcome may be unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    Repeated,
}

/// The text of the error with which the database has refused a commit.
type RefusedError = String;

struct Committer {
    shared: Arc<Shared>,
    writer: Box<dyn ArchiveWriter>,
    /// Entries that were refused, each alone, since the last commit that succeeded.
    refused_in_row: usize,
}

impl Committer {
    /// Commits rows of the batch, however long it takes. Repeating the same commit is safe, and nothing
    /// may be left out: so later entries wait.
    ///
    /// # Errors
    /// The database responds, and refuses the commit: nothing of it is stored.
    async fn commit(
        &mut self,
        batch: &mut Batch,
        rows: &[ArchivedRow],
        attempt: Attempt,
    ) -> Result<Vec<CommitOutcome>, RefusedError> {
        let shared = &*self.shared;
        let mut pause = FIRST_RETRY;
        // Changes are appended in series: none may be stored if an earlier one belongs to another history.
        let has_changes = rows
            .iter()
            .any(|(_, entry)| matches!(entry.kind, StoredKind::CHANGE | StoredKind::POINTER));
        let mut is_fenced = attempt == Attempt::Repeated || has_changes;
        loop {
            let began = Instant::now();
            is_fenced |= batch.age() > FENCED_AFTER;
            let fence = fence(batch.origin, is_fenced);
            let commit = self.writer.commit_with(rows, fence);
            // The outcome of a commit that fails is unknown, and a commit may take long before it fails.
            is_fenced = true;
            let result = refusing_late(shared, batch, async {
                let result = commit.await;
                (result, began.elapsed())
            });
            let (result, took) = result.await;
            match result {
                Ok(outcomes) => {
                    shared.counters.commits.add(1);
                    shared.counters.commit_time.observe(took);
                    shared.health.committed();
                    return Ok(outcomes);
                }
                Err(error) => {
                    shared.counters.failed_commits.add(1);
                    if let StoreError::Broken(text) = error {
                        return Err(text);
                    }
                    shared.health.failed(&error);
                }
            }
            refusing_late(shared, batch, tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(LAST_RETRY);
        }
    }

    /// Commits the rows of a batch that the database has refused as a whole, in ever smaller parts, so
    /// that only those stay behind that it refuses alone.
    async fn commit_parts(&mut self, batch: &mut Batch, rows: &[ArchivedRow], error: RefusedError) {
        let mut refused = vec![(0..rows.len(), error)];
        let mut refused_alone = 0;
        while let Some((range, error)) = refused.pop() {
            if range.len() == 1 || refused_alone >= MAX_REFUSED_IN_ROW {
                refused_alone += 1;
                self.refused_in_row += 1;
                self.set_aside(&rows[range.clone()], &mut batch.senders[range], &error);
                continue;
            }
            let middle = range.start.midpoint(range.end);
            for half in [middle..range.end, range.start..middle] {
                let part = &rows[half.clone()];
                match self.commit(batch, part, Attempt::Repeated).await {
                    Ok(outcomes) => {
                        refused_alone = 0;
                        self.refused_in_row = 0;
                        process(&self.shared, part, &mut batch.senders[half], &outcomes);
                    }
                    Err(error) => refused.push((half, error)),
                }
            }
        }
        if self.refused_in_row >= MAX_REFUSED_IN_ROW {
            self.shared.health.refuses_everything();
            refusing_late(&self.shared, batch, tokio::time::sleep(LAST_RETRY)).await;
        }
    }

    /// Leaves rows to the sweeper that the database has refused. Their senders may send again.
    fn set_aside(&self, rows: &[ArchivedRow], senders: &mut [Sender], error: &str) {
        for ((room, entry), sender) in rows.iter().zip(senders) {
            if self.shared.refused.add(room, entry.seq, error) {
                self.shared.counters.rejected.add(1);
            }
            sender.complete(Err(BackplaneError::Unavailable(
                "the database refuses the message".to_owned(),
            )));
        }
    }
}

/// The fence for entries of this origin.
fn fence(origin: Origin, is_late: bool) -> Fence {
    match origin {
        Origin::Send if is_late => Fence::KnownEpochs,
        Origin::Send => Fence::Fresh,
        // These are late in any case. The archive may not know the epochs of a log that was used without
        // an archive.
        Origin::Sweep => Fence::EpochEnds,
    }
}

/// Awaits `work`, and meanwhile refuses sends that have waited for too long.
async fn refusing_late<T>(shared: &Shared, batch: &mut Batch, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let mut work = std::pin::pin!(work);
    loop {
        if let Ok(done) = tokio::time::timeout(LATE_CHECK, work.as_mut()).await {
            return done;
        }
        if began.elapsed() >= SLOW_COMMIT {
            let slow = "a call takes more than 2 seconds".to_owned();
            shared.health.failed(&StoreError::Unavailable(slow));
        }
        shared.counters.late.add(shared.queue.refuse_late(batch));
    }
}

/// Notifies the senders of the outcomes, and records the archived and the refused entries.
fn process(
    shared: &Shared,
    rows: &[ArchivedRow],
    senders: &mut [Sender],
    outcomes: &[CommitOutcome],
) {
    let mut archived = 0;
    let mut diverged: Vec<(RoomId, Epoch, u64)> = Vec::new();
    for ((row, sender), outcome) in rows.iter().zip(senders).zip(outcomes) {
        let (room, entry) = row;
        shared.refused.remove(room, entry.seq);
        match outcome {
            CommitOutcome::Stored => {
                archived += 1;
                sender.complete(Ok(()));
                shared.watermarks.add(room, &entry.epoch, entry.seq);
            }
            CommitOutcome::Conflict => {
                shared.counters.conflicts.add(1);
                sender.complete(Err(BackplaneError::Unavailable(
                    "the archive has refused the message: the room went on without it".to_owned(),
                )));
                let is_known = diverged
                    .iter()
                    .any(|(known, epoch, _)| known == room && *epoch == entry.epoch);
                if !is_known {
                    diverged.push((room.clone(), entry.epoch.clone(), entry.seq - 1));
                }
            }
        }
    }
    shared.counters.archived.add(archived);
    let stored = rows.iter().zip(outcomes);
    let stored = stored.filter(|(_, outcome)| **outcome == CommitOutcome::Stored);
    shared.unprojected.add(stored.map(|((room, _), _)| room));
    for (room, epoch, last_shared) in diverged {
        tracing::error!(
            %room,
            %epoch,
            after = last_shared,
            "the archive has other messages than the log: the room goes on from the archive"
        );
        shared.report_divergence(room, epoch, last_shared);
    }
}
