//! The outbox: announcements to rooms, and jobs, that were decided by a transaction and wait to be
//! carried out.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;

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

impl OutboxRow {
    /// The claim that has returned it.
    #[must_use]
    pub fn claim(&self) -> Claim {
        Claim {
            row: self.id,
            attempts: self.attempts,
        }
    }
}

/// A claim of a row: the attempts, which each claim raises, tell it from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The row.
    pub row: OutboxId,
    /// How often the row was claimed, this time included.
    pub attempts: u64,
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

/// A row that was claimed by the transaction that has added it.
#[derive(Debug)]
pub struct OwnRow {
    /// The row.
    pub row: OutboxRow,
    /// The lease ends so long after this, or later.
    pub claimed_at: Instant,
}

/// Whether a worker wants rows now that transactions have claimed for it. It must not block.
pub type WantsRows = Box<dyn Fn() -> bool + Send + Sync>;

/// The rows that transactions of this process add and claim: see [`Outbox::own_rows`]. Once it is dropped, they
/// claim none. Those that it still has are due again after their lease.
#[derive(Debug)]
pub struct OwnRows(mpsc::Receiver<OwnRow>);

impl OwnRows {
    /// The receiver of rows, and their sender. At most so many wait.
    pub(crate) fn channel(capacity: usize) -> (mpsc::Sender<OwnRow>, Self) {
        let (sender, receiver) = mpsc::channel(capacity);
        (sender, Self(receiver))
    }

    /// The next row; `None` once there will be none any more. Safe to cancel.
    pub async fn next(&mut self) -> Option<OwnRow> {
        self.0.recv().await
    }

    /// Prevents later transactions from claiming their rows. Those under way still may.
    pub fn close(&mut self) {
        self.0.close();
    }
}

/// The announcements of the outbox; its jobs are those of [`JobQueue`](super::JobQueue). Rows are added by the transactions that cause them; times come from the database's clock.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Returns once this process has added rows since the last call. One call at a time may wait.
    async fn added(&self);

    /// From now on, transactions of this process that change messages claim the row that they add, for the time
    /// of the lease, if no other row of its room waits; so it can be published without a
    /// [`claim`](Self::claim). A transaction that begins while `wants_rows` returns false claims none. Rows of
    /// one room come in the order of their commits, if the changes depend on that. Replaces what an earlier call
    /// has returned, which gets no more rows.
    fn own_rows(&self, lease: Duration, wants_rows: WantsRows) -> OwnRows;

    /// Claims at most `limit` rows with a room that are due, for the time of the lease: until then no other call
    /// claims them. A row is claimed only together with, or after, all earlier rows of its room that
    /// are due.
    ///
    /// Rooms with an urgent row ([`Change::URGENT_EVENTS`](crate::domain::Change::URGENT_EVENTS)) come
    /// first, then rows in their order. No room has more than a part of the claim. Rows that announce
    /// positions are left out, also of the order of their rooms: see
    /// [`claim_positions`](Self::claim_positions).
    ///
    /// # Errors
    /// `Unavailable`: rows may be claimed; they are due again after the lease.
    async fn claim(&self, limit: usize, lease: Duration) -> Result<Vec<OutboxRow>>;

    /// As [`claim`](Self::claim), for the rows that announce positions of users
    /// ([`Change::POSITION_EVENT`](crate::domain::Change::POSITION_EVENT)): their payloads have the
    /// positions of now. They have no order among each other or with other rows, so that many readers
    /// hold up nothing else.
    ///
    /// # Errors
    /// `Unavailable`, as for `claim`.
    async fn claim_positions(&self, limit: usize, lease: Duration) -> Result<Vec<OutboxRow>>;

    /// Removes rows that are carried out. A claim that has ended, because the row was claimed again or is
    /// done, has no effect; the same holds for the next two calls. Rows that announce changes of messages are
    /// done by [`MessageStore::done`](super::MessageStore::done).
    ///
    /// # Errors
    /// `Unavailable`.
    async fn done(&self, claims: &[Claim]) -> Result<()>;

    /// Makes rows due again after `delay`. Later rows of their rooms wait for them.
    ///
    /// # Errors
    /// `Unavailable`: the rows are due after their lease.
    async fn retry(&self, claims: &[Claim], delay: Duration, reason: &str) -> Result<()>;

    /// Gives a row up. It is kept, and nothing waits for it.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn fail(&self, claim: Claim, reason: &str) -> Result<()>;

    /// How long until [`claim`](Self::claim) finds a row, as far as is known; `None` without one that waits.
    /// Zero if it finds one now. Only reads.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn next_due(&self) -> Result<Option<Duration>>;

    /// The same for [`claim_positions`](Self::claim_positions).
    ///
    /// # Errors
    /// `Unavailable`.
    async fn next_due_position(&self) -> Result<Option<Duration>>;

    /// Whether rows of the room wait to be published; without those that announce positions.
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
