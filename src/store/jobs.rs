//! Jobs: the rows of the outbox without a room. Each is run until it succeeds, or is given up.

use std::time::Duration;

use async_trait::async_trait;

use super::{OutboxRow, Result};

/// The end of one attempt to run a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// The job is done.
    Done,
    /// It is due again after the delay.
    Retry {
        /// The delay.
        delay: Duration,
        /// Why the attempt failed.
        reason: String,
    },
    /// It is given up, and kept.
    Failed {
        /// Why.
        reason: String,
    },
}

/// The jobs of the outbox. Times come from the database's clock.
///
/// A claim is valid for its lease. Another claim of the same job ends it: then the calls for the former
/// claim change nothing.
#[async_trait]
pub trait JobQueue: Send + Sync {
    /// Returns once this process has added rows to the outbox since the last call. One call at a time
    /// may wait.
    async fn job_added(&self);

    /// Claims at most `limit` jobs of these kinds that are due, the ones that are due longest first.
    /// Jobs of other kinds stay: a node of another release may know them.
    ///
    /// # Errors
    /// `Unavailable`: jobs may be claimed; they are due again after the lease.
    async fn claim_jobs(
        &self,
        kinds: &[&'static str],
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<OutboxRow>>;

    /// How long until a job of these kinds is due; `None` without one that waits. Zero if one is due.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn next_job_due(&self, kinds: &[&'static str]) -> Result<Option<Duration>>;

    /// Prolongs a claim. False if it has ended.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn renew_job(&self, job: &OutboxRow, lease: Duration) -> Result<bool>;

    /// Ends a claim. False if it had ended before, or the job is gone.
    ///
    /// # Errors
    /// `Unavailable`: the claim may have ended.
    async fn end_job(&self, job: &OutboxRow, end: JobEnd) -> Result<bool>;
}
