//! The task of a node that runs retention: within a minute of its start, and once an hour in the whole
//! cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::super::Shared;
use super::{Due, INTERVAL, Pass, RunHooks, RunMode, before, begin};
use crate::backplane;
use crate::domain::{RoomId, Timestamp};
use crate::store::{Result, RetentionRun};

/// The first run of a node begins so long after its start.
const FIRST_RUN: Duration = Duration::from_secs(45);
/// The time between two attempts of a node to begin a run.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(60);
/// A run ends after this time; the next one continues.
const TIME_LIMIT: Duration = Duration::from_secs(1800);
/// The shortest and the longest pause after a step.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// A run pauses for longer while more messages than this wait for their commit.
const MAX_QUEUED: usize = 1000;

/// Whether retention does its work, as this node knows it.
pub(in super::super) struct RetentionStatus {
    keep: Option<Duration>,
    /// Everything older than this is deleted, in milliseconds; at first the time up to which entries
    /// should have been deleted when the node started.
    deleted_before: AtomicU64,
}

impl RetentionStatus {
    pub fn new(keep: Option<Duration>) -> Self {
        let cutoff = before(Timestamp::now(), keep.unwrap_or_default());
        Self {
            keep,
            deleted_before: AtomicU64::new(cutoff.0),
        }
    }

    fn finished(&self, run: &RetentionRun) {
        self.deleted_before
            .fetch_max(run.cutoff.0, Ordering::Relaxed);
    }

    /// Whether no run has succeeded for two intervals.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        let Some(keep) = self.keep else { return false };
        let due = before(now, keep + 2 * INTERVAL);
        self.deleted_before.load(Ordering::Relaxed) < due.0
    }
}

/// Runs retention until the task is aborted, if there is a limit.
pub(in super::super) async fn run(shared: Arc<Shared>) {
    let Some(keep) = shared.settings.retention else {
        return;
    };
    let started_at = Timestamp::now();
    tokio::time::sleep(FIRST_RUN).await;
    loop {
        // While the database is away a run would only fail.
        if shared.health.is_up()
            && let Err(error) = attempt(&shared, keep, started_at).await
        {
            tracing::warn!(%error, "retention: the run failed, and is repeated");
        }
        tokio::time::sleep(ATTEMPT_INTERVAL).await;
    }
}

/// Runs retention if it is due.
pub(super) async fn attempt(shared: &Shared, keep: Duration, started_at: Timestamp) -> Result<()> {
    let store = &*shared.store;
    let due = Due::Hourly { started_at };
    let began = Instant::now();
    if let Some(run) = begin(store, Timestamp::now(), keep, due).await? {
        let hooks = NodeHooks(shared);
        let mut pass = Pass::new(store, &hooks, RunMode::Delete, run);
        pass.deadline = Some(began + TIME_LIMIT);
        let outcome = pass.complete().await;
        let run = pass.run;
        shared.counters.deleted.add(run.entries);
        tracing::info!(
            is_complete = matches!(outcome, Ok(true)),
            cutoff = %run.cutoff,
            rooms = run.rooms,
            messages = run.entries,
            bytes = run.bytes,
            seconds = began.elapsed().as_secs_f64(),
            "retention has deleted expired messages"
        );
        outcome?;
    }
    // Also of another node.
    if let Some(last) = store.last_retention().await? {
        shared.retention.finished(&last);
    }
    Ok(())
}

/// A run on a node trims the hot log, and yields to the messages of the node.
struct NodeHooks<'a>(&'a Shared);

#[async_trait]
impl RunHooks for NodeHooks<'_> {
    async fn delete_elsewhere(&self, room: &RoomId, cut: u64) -> backplane::Result<()> {
        self.0.hot.trim(room, cut).await
    }

    fn deleted(&self, room: &RoomId) {
        self.0.rooms.forget(room);
    }

    async fn pause(&self, _run: &RetentionRun, took: Duration) {
        let (shortest, longest) = PAUSES;
        tokio::time::sleep(took.clamp(shortest, longest)).await;
        let began = Instant::now();
        while self.0.queue.len() > MAX_QUEUED && began.elapsed() < longest {
            tokio::time::sleep(shortest).await;
        }
    }
}
