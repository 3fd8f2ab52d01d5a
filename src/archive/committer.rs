//! The task that commits: everything that queued while the last commit ran is the next one, so there
//! is no timer, and under load one commit carries many entries.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::queue::Batch;
use crate::backplane::BackplaneError;
use crate::domain::{Epoch, RoomId};
use crate::store::{ArchiveWriter, CommitOutcome, StoreError};

/// The pause before a commit that has failed is repeated: at first, and at most.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// How often late sends are refused, while a commit runs or is to be repeated.
const LATE_CHECK: Duration = Duration::from_millis(100);
/// A commit that takes longer than this shows that the database is away.
const SLOW_COMMIT: Duration = Duration::from_secs(2);
/// Entries that have waited for longer than this are committed only up to the end of their epoch: the
/// room may have gone on in another one meanwhile.
const FENCED_AFTER: Duration = Duration::from_millis(500);

/// Commits until the queue is closed and empty.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut writer = shared.store.writer(shared.run.map_or(0, |run| run.number));
    while let Some(mut batch) = shared.queue.next_batch().await {
        let outcomes = commit(&shared, writer.as_mut(), &mut batch).await;
        process(&shared, &mut batch, &outcomes);
        shared.queue.finish_batch(batch);
    }
}

/// Commits the batch, however long it takes. Repeating the same batch is safe, and nothing may be left
/// out: so later entries wait.
async fn commit(
    shared: &Shared,
    writer: &mut dyn ArchiveWriter,
    batch: &mut Batch,
) -> Vec<CommitOutcome> {
    let rows = std::mem::take(&mut batch.rows);
    let mut pause = FIRST_RETRY;
    let mut is_fenced = false;
    loop {
        let began = Instant::now();
        is_fenced |= batch.age() > FENCED_AFTER;
        let commit = if is_fenced {
            writer.commit_fenced(&rows)
        } else {
            writer.commit(&rows)
        };
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
                batch.rows = rows;
                return outcomes;
            }
            Err(error) => {
                shared.counters.failed_commits.add(1);
                shared.health.failed(&error);
            }
        }
        refusing_late(shared, batch, tokio::time::sleep(pause)).await;
        pause = (pause * 2).min(LAST_RETRY);
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
fn process(shared: &Shared, batch: &mut Batch, outcomes: &[CommitOutcome]) {
    let Batch { rows, senders, .. } = batch;
    let mut archived = 0;
    let mut diverged: Vec<(RoomId, Epoch, u64)> = Vec::new();
    for ((row, sender), outcome) in rows.iter().zip(senders).zip(outcomes) {
        let (room, entry) = row;
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
