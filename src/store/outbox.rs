//! The outbox: announcements to rooms, and jobs, that were decided by a transaction and wait to be
//! carried out.

use std::time::Duration;

use async_trait::async_trait;

use super::Result;
use crate::domain::RoomId;

/// The number of a row.
pub type OutboxId = i64;

/// A row to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRow {
    /// The room that it is published to; `None` for a job.
    pub room: Option<RoomId>,
    /// The name of the event, or the kind of the job.
    pub kind: String,
    /// A JSON object.
    pub payload: String,
}

/// A row that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its number. Rows of one room are claimed in this order.
    pub id: OutboxId,
    /// The room that it is published to; `None` for a job.
    pub room: Option<RoomId>,
    /// The name of the event, or the kind of the job.
    pub kind: String,
    /// A JSON object.
    pub payload: String,
    /// How often it was claimed, this time included.
    pub attempts: u64,
    /// The time since it was first claimed; zero at the first time.
    pub tried_for: Duration,
    /// When it was first claimed, in milliseconds since 1970 by the database's clock. With the number
    /// it tells the row from every other one, also from those of an earlier database.
    pub first_claimed: i64,
}

/// The state of a row that is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowState {
    /// The row.
    pub row: OutboxRow,
    /// Whether it is not tried any more.
    pub has_failed: bool,
    /// Why the last attempt failed.
    pub reason: Option<String>,
}

/// The announcements of the outbox; its jobs are those of [`JobQueue`](super::JobQueue). Rows are added by the transactions that cause them; times come from the database's clock.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Returns once this process has added rows since the last call. One call at a time may wait.
    async fn added(&self);

    /// Claims at most `limit` rows with a room that are due, for the time of the lease: until then no other call
    /// claims them. A row is claimed only together with, or after, all earlier rows of its room that
    /// are due.
    ///
    /// # Errors
    /// `Unavailable`: rows may be claimed; they are due again after the lease.
    async fn claim(&self, limit: usize, lease: Duration) -> Result<Vec<OutboxRow>>;

    /// Removes rows that are carried out. Repeats have no effect.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn done(&self, rows: &[OutboxId]) -> Result<()>;

    /// Makes rows due again after `delay`. Later rows of their rooms wait for them.
    ///
    /// # Errors
    /// `Unavailable`: the rows are due after their lease.
    async fn retry(&self, rows: &[OutboxId], delay: Duration, reason: &str) -> Result<()>;

    /// Gives a row up. It is kept, and nothing waits for it.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn fail(&self, row: OutboxId, reason: &str) -> Result<()>;

    /// How long until a row with a room is due; `None` without one that waits. Zero if one is due.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn next_due(&self) -> Result<Option<Duration>>;

    /// Whether rows of the room wait to be published.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn has_waiting(&self, room: &RoomId) -> Result<bool>;

    /// Rows that are not done, jobs included, with greater numbers than `after`, in their order.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn list(&self, after: OutboxId, limit: usize) -> Result<Vec<RowState>>;

    /// Makes a row due now that has failed, or waits for its next attempt. False if there is no such
    /// row.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn revive(&self, row: OutboxId) -> Result<bool>;
}
