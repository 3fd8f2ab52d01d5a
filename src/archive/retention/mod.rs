//! Retention: deletes the messages that are older than `RETENTION_DAYS`, from the archive and from
//! the hot log.
//!
//! A run goes through all rooms, finds the last expired number of each, and deletes up to there in
//! small steps. It keeps no state that the next run needs: after the end of a process the next run
//! continues with the remaining entries.

mod task;

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::backplane;
use crate::domain::{RoomId, Timestamp};
use crate::store::{ArchiveStore, Result, RetentionClaim, RetentionRun};

pub(super) use task::{RetentionStatus, run};

/// The time between two runs in the cluster.
pub(super) const INTERVAL: Duration = Duration::from_secs(3600);
/// A run that has not reported its progress for so long was interrupted.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(120);
/// The time between two reports of a run.
const REPORT_INTERVAL: Duration = Duration::from_secs(15);
/// The most messages that are deleted in one transaction.
const STEP: usize = 1000;
/// The rooms that are listed at once.
const ROOMS_PER_PAGE: usize = 500;

/// When a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Once an hour, and once after the time at which the node started: the messages that had expired
    /// then are deleted.
    Hourly {
        /// The start of the node.
        started_at: Timestamp,
    },
    /// Now, unless another run is under way.
    Now,
}

/// Begins a run that deletes everything older than `keep`. `None` if it is not due, or another run is
/// under way.
///
/// # Errors
/// Those of the store.
pub async fn begin(
    store: &dyn ArchiveStore,
    now: Timestamp,
    keep: Duration,
    due: Due,
) -> Result<Option<RetentionRun>> {
    let run = plan(now, keep);
    let done_since = match due {
        Due::Hourly { started_at } => before(run.cutoff, INTERVAL).max(before(started_at, keep)),
        Due::Now => Timestamp(i64::MAX.unsigned_abs()),
    };
    let claim = RetentionClaim {
        alive_since: before(now, ALIVE_TIMEOUT),
        done_since,
    };
    let has_begun = store.begin_retention(&run, &claim).await?;
    Ok(has_begun.then_some(run))
}

/// A run that deletes everything older than `keep`, not yet begun.
#[must_use]
pub fn plan(now: Timestamp, keep: Duration) -> RetentionRun {
    RetentionRun::new(now, before(now, keep))
}

fn before(time: Timestamp, duration: Duration) -> Timestamp {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Timestamp(time.0.saturating_sub(millis))
}

/// The result of a step of [`RunHooks`].
pub type RunResult = backplane::Result<()>;

/// Actions of a run beside deleting.
#[async_trait]
pub trait RunHooks: Send + Sync {
    /// Called before messages of a room up to `cut` are deleted from the archive. After an error the
    /// room is left for a later run.
    ///
    /// # Errors
    /// Those of the backplane.
    async fn delete_elsewhere(&self, room: &RoomId, cut: u64) -> RunResult;

    /// Called after messages of a room were deleted from the archive, perhaps not yet all of them.
    fn deleted(&self, room: &RoomId);

    /// Called after each step, which took that long: yields to the live load.
    async fn pause(&self, run: &RetentionRun, took: Duration);
}

/// The treatment of expired messages by a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunMode {
    /// Deletes them.
    Delete,
    /// Counts them. Such a run is not recorded.
    Count,
}

/// A run of retention that has begun.
pub struct Pass<'a> {
    /// The archive.
    pub store: &'a dyn ArchiveStore,
    /// See [`RunHooks`].
    pub hooks: &'a dyn RunHooks,
    /// The treatment of expired messages.
    pub mode: RunMode,
    /// The run ends here, even if it is not complete.
    pub deadline: Option<Instant>,
    /// The run, with its progress.
    pub run: RetentionRun,
    last_report: Instant,
}

impl<'a> Pass<'a> {
    /// The pass of a run, without a deadline.
    pub fn new(
        store: &'a dyn ArchiveStore,
        hooks: &'a dyn RunHooks,
        mode: RunMode,
        run: RetentionRun,
    ) -> Self {
        Self {
            store,
            hooks,
            mode,
            deadline: None,
            run,
            last_report: Instant::now(),
        }
    }

    /// Goes through all rooms. Returns whether the run is complete, and records that; it is not if its
    /// deadline has come or a room had to be left out.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn complete(&mut self) -> Result<bool> {
        let mut after = 0;
        let mut is_complete = true;
        loop {
            let rooms = self.store.rooms(after, ROOMS_PER_PAGE).await?;
            let Some((last, _)) = rooms.last() else { break };
            after = *last;
            for (_, room) in &rooms {
                is_complete &= self.delete_expired(room).await?;
                if self.is_late() {
                    return Ok(false);
                }
                self.report().await?;
            }
        }
        if is_complete && self.mode == RunMode::Delete {
            self.run.finished_at = Some(Timestamp::now());
            self.record().await?;
        }
        Ok(is_complete)
    }

    /// Deletes the room's expired messages. Returns whether all are deleted.
    async fn delete_expired(&mut self, room: &RoomId) -> Result<bool> {
        let Some(cut) = self.store.expired(room, self.run.cutoff).await? else {
            return Ok(true);
        };
        self.run.rooms += 1;
        if self.mode == RunMode::Count {
            let (entries, bytes) = self.store.count_up_to(room, cut).await?;
            self.run.entries += entries;
            self.run.bytes += bytes;
            self.hooks.pause(&self.run, Duration::ZERO).await;
            return Ok(true);
        }
        // The hot log first: once the archive has deleted them, no later run would find them.
        if let Err(error) = self.hooks.delete_elsewhere(room, cut).await {
            tracing::warn!(%room, %error, "retention: the room is left for a later run");
            return Ok(false);
        }
        loop {
            let began = Instant::now();
            let part = self.store.delete_up_to(room, cut, STEP).await?;
            self.run.entries += part.entries;
            self.run.bytes += part.bytes;
            self.hooks.deleted(room);
            if !part.has_more {
                return Ok(true);
            }
            self.hooks.pause(&self.run, began.elapsed()).await;
            self.report().await?;
            if self.is_late() {
                return Ok(false);
            }
        }
    }

    fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Reports the progress from time to time, so that no other run begins.
    async fn report(&mut self) -> Result<()> {
        if self.last_report.elapsed() < REPORT_INTERVAL || self.mode == RunMode::Count {
            return Ok(());
        }
        self.record().await
    }

    async fn record(&mut self) -> Result<()> {
        self.last_report = Instant::now();
        self.run.reported_at = Timestamp::now();
        self.store.report_retention(&self.run).await
    }
}
