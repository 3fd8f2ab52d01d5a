//! Jobs: work that a transaction has left in the outbox, such as a mail.
//!
//! A job runs at least once: again if its node ends before the end of the job is recorded. Jobs run in
//! tasks of their own, so that they never delay announcements.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::store::{JobEnd, JobQueue, OutboxRow, StoreError};
use crate::telemetry::meter::Counter;

/// Runs the jobs of one kind.
#[async_trait]
pub trait Job: Send + Sync {
    /// The kind: at most 128 bytes. It is stored.
    fn kind(&self) -> &'static str;

    /// Runs a job. It may have run before, also to its end, and it may be dropped at any await.
    ///
    /// # Errors
    /// See [`JobError`].
    async fn run(&self, payload: &str) -> Result<(), JobError>;
}

/// A job's attempt has failed. The reason is stored, and shown to operators: it must not contain
/// personal data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// Another attempt may succeed.
    #[error("{0}")]
    Retry(String),
    /// No attempt can succeed.
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        Self::Retry(error.to_string())
    }
}

/// How jobs are run.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// Jobs that this node runs at once.
    pub concurrency: usize,
    /// How long a job stays with a node that has stopped renewing its claim.
    pub lease: Duration,
    /// The pause after the first attempt that fails. It doubles with each attempt.
    pub first_pause: Duration,
    /// The longest pause.
    pub last_pause: Duration,
    /// Attempts until a job is given up. With the pauses above the last one is five hours after the first.
    pub attempts: u64,
}

impl Default for JobSettings {
    fn default() -> Self {
        Self {
            concurrency: 4,
            lease: Duration::from_secs(30),
            first_pause: Duration::from_secs(1),
            last_pause: Duration::from_secs(3600),
            attempts: 16,
        }
    }
}

/// The longest time between two looks at the queue: jobs of other programs, and of nodes that have
/// ended, are found by them.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Runs jobs.
pub struct JobRunner {
    queue: Arc<dyn JobQueue>,
    jobs: BTreeMap<&'static str, Arc<dyn Job>>,
    settings: JobSettings,
    pub(super) completed: Counter,
    pub(super) retried: Counter,
    pub(super) failed: Counter,
}

impl JobRunner {
    /// A runner of these kinds of jobs.
    pub fn new(
        queue: Arc<dyn JobQueue>,
        jobs: impl IntoIterator<Item = Arc<dyn Job>>,
        settings: JobSettings,
    ) -> Arc<Self> {
        Arc::new(Self {
            queue,
            jobs: jobs.into_iter().map(|job| (job.kind(), job)).collect(),
            settings,
            completed: Counter::default(),
            retried: Counter::default(),
            failed: Counter::default(),
        })
    }

    /// Runs jobs until `stopped` is true, and then returns once those that run have ended. Dropping the
    /// future loses nothing: the jobs that run are run again after their lease.
    pub async fn run(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let mut running = JoinSet::new();
        while !*stopped.borrow() {
            let pause = self.start_due(&mut running).await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.queue.job_added() => {}
                Some(_) = running.join_next() => {}
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        while running.join_next().await.is_some() {}
    }

    /// Starts jobs that are due, up to the limit. Returns how long to wait for the next ones.
    async fn start_due(self: &Arc<Self>, running: &mut JoinSet<()>) -> Duration {
        let free = self.settings.concurrency.saturating_sub(running.len());
        if free == 0 {
            return POLL_INTERVAL;
        }
        match self.claim_due(free).await {
            Ok(claimed) => {
                // If all are taken, the end of one is awaited.
                let has_more = claimed.len() == free;
                for job in claimed {
                    let runner = self.clone();
                    running.spawn(async move { runner.perform(job).await });
                }
                if has_more {
                    return POLL_INTERVAL;
                }
                self.pause().await
            }
            Err(error) => {
                tracing::warn!(%error, "jobs: the database can't be reached");
                POLL_INTERVAL
            }
        }
    }

    async fn claim_due(&self, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
        let kinds = self.kinds();
        // A claim writes, also if it finds nothing.
        match self.queue.next_job_due(&kinds).await? {
            Some(Duration::ZERO) => {
                let lease = self.settings.lease;
                self.queue.claim_jobs(&kinds, limit, lease).await
            }
            _ => Ok(Vec::new()),
        }
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.jobs.keys().copied().collect()
    }

    async fn pause(&self) -> Duration {
        match self.queue.next_job_due(&self.kinds()).await {
            Ok(Some(due)) => due.clamp(Duration::from_millis(1), POLL_INTERVAL),
            Ok(None) | Err(_) => POLL_INTERVAL,
        }
    }

    /// Runs a job, and records how it has ended.
    async fn perform(&self, job: OutboxRow) {
        let Some(result) = self.attempt(&job).await else {
            tracing::warn!(
                job = job.id,
                kind = job.kind,
                "jobs: another node has claimed a job"
            );
            return;
        };
        let end = match result {
            Ok(()) => {
                self.completed.add(1);
                JobEnd::Done
            }
            Err(JobError::Retry(reason)) if job.attempts < self.settings.attempts => {
                self.retried.add(1);
                tracing::info!(
                    job = job.id,
                    kind = job.kind,
                    attempt = job.attempts,
                    reason,
                    "jobs: an attempt has failed"
                );
                let delay = self.backoff(job.attempts);
                JobEnd::Retry { delay, reason }
            }
            Err(JobError::Retry(reason) | JobError::Failed(reason)) => {
                self.failed.add(1);
                tracing::error!(
                    job = job.id,
                    kind = job.kind,
                    reason,
                    "jobs: a job is given up; see hubbub outbox list"
                );
                JobEnd::Failed { reason }
            }
        };
        self.record(&job, end).await;
    }

    /// Runs a job once while its claim is renewed. `None` if the claim was lost.
    async fn attempt(&self, job: &OutboxRow) -> Option<Result<(), JobError>> {
        if job.attempts > self.settings.attempts {
            // Each attempt ended with its node.
            let reason = "its attempts never ended".to_owned();
            return Some(Err(JobError::Failed(reason)));
        }
        let Some(handler) = self.jobs.get(job.kind.as_str()) else {
            let reason = "this release knows no job of this kind".to_owned();
            return Some(Err(JobError::Retry(reason)));
        };
        let work = AssertUnwindSafe(handler.run(&job.payload)).catch_unwind();
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => {
                    let panicked = |_| Err(JobError::Retry("the job panicked".to_owned()));
                    return Some(result.unwrap_or_else(panicked));
                }
                () = tokio::time::sleep(self.settings.lease / 3) => {
                    // After an error the next renewal may be in time.
                    let renewed = self.queue.renew_job(job, self.settings.lease).await;
                    if matches!(renewed, Ok(false)) {
                        return None;
                    }
                }
            }
        }
    }

    /// Records the end of an attempt, while the claim lasts: afterwards the job is run again.
    async fn record(&self, job: &OutboxRow, end: JobEnd) {
        let deadline = Instant::now() + self.settings.lease;
        loop {
            match self.queue.end_job(job, end.clone()).await {
                Ok(_) => return,
                Err(error) if Instant::now() + POLL_INTERVAL > deadline => {
                    tracing::error!(%error, job = job.id, "jobs: the end of a job can't be recorded");
                    return;
                }
                Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// The pause after so many attempts, up to 20 % longer or shorter, so that jobs which have failed
    /// together are not due together.
    fn backoff(&self, attempts: u64) -> Duration {
        let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        let factor = 2_u32.saturating_pow(doublings.min(31));
        let pause = self.settings.first_pause.saturating_mul(factor);
        let pause = pause.min(self.settings.last_pause);
        let random = u32::from(Uuid::new_v4().as_bytes()[0]);
        pause * 4 / 5 + pause * 2 * random / (255 * 5)
    }
}

#[cfg(test)]
mod tests;
