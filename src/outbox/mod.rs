//! The outbox's worker: publishes the announcements that transactions have left in the outbox, each
//! once, and in order within a room.
//!
//! A row is claimed with a lease, published under an id that follows from the row, and removed once it
//! has its number. A worker that ends in between leaves a row that another one claims after the lease:
//! the log finds that its id was used before.

mod announcements;
mod earlier;
mod ids;
mod jobs;
mod metrics;
mod overdue;
mod own_rows;
mod payloads;
mod positions;
mod progress;
mod publications;
mod publish;
mod rooms;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use uuid::Uuid;

use crate::backplane::{Lifecycle, RoomLog};
use crate::domain::RoomId;
use crate::store::{MessageStore, Outbox, OutboxRow, StoreError};
use crate::telemetry::meter::Counter;
use positions::Positions;
use rooms::Rooms;

pub use jobs::{Job, JobError, JobRunner, JobSettings};
pub use overdue::{OnOverdue, OverdueWatch};
pub use payloads::{
    AccountMail, AddressChanged, ForgetUser, JobPayload, MailSubject, PasswordForgotten,
};
pub use publications::Publications;

/// The most rows that are claimed at once.
const BATCH: usize = 200;
/// How long a row belongs to the worker that has claimed it.
const LEASE: Duration = Duration::from_secs(15);
/// The same for a row that the transaction of this process has claimed: shorter, since it is published at once.
const OWN_LEASE: Duration = Duration::from_secs(8);
/// The longest time between two looks at the outbox: rows of other programs, and of workers that have
/// ended, are found by them.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The pause after the database could not be reached.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// The most rows that are held at once.
const MAX_HELD: usize = 2 * BATCH;
/// Rooms that are published to at the same time. One more waits for the next row that its transaction claims.
const CONCURRENT_ROOMS: usize = 16;
/// How often the log is asked for while it is down.
const DOWN_INTERVAL: Duration = Duration::from_millis(50);
/// The shortest pause after a look that found nothing to publish.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// Publishes the rows of an outbox.
pub struct Worker {
    outbox: Arc<dyn Outbox>,
    messages: Arc<dyn MessageStore>,
    publications: Arc<Publications>,
    /// Limits the reads of forms.
    reads: Semaphore,
    /// Limits the rooms that are published to at the same time.
    rooms: Arc<Semaphore>,
    /// Rows behind those of this process may be due now.
    own_row_ended: Notify,
    log: Arc<dyn RoomLog>,
    lifecycle: Arc<dyn Lifecycle>,
    /// The archive's id, which makes the ids of entries differ between deployments.
    deployment: Uuid,
    /// How long the log knows the ids of its entries.
    dedupe_ttl: Duration,
    /// Rows that were published.
    pub published: Counter,
    /// Attempts that failed.
    pub postponed: Counter,
    /// Rows that were given up.
    pub failed: Counter,
}

/// Rows that were claimed.
#[derive(Default)]
struct Claimed {
    count: usize,
    /// In the order in which their rows should be published.
    rooms: Vec<(RoomId, Vec<OutboxRow>)>,
}

impl Claimed {
    fn of(rows: Vec<OutboxRow>) -> Self {
        let mut claimed = Self {
            count: rows.len(),
            rooms: Vec::new(),
        };
        let mut places: HashMap<RoomId, usize> = HashMap::new();
        for row in rows {
            let Some(room) = row.room.clone() else {
                continue;
            };
            let place = *places.entry(room.clone()).or_insert(claimed.rooms.len());
            if place == claimed.rooms.len() {
                claimed.rooms.push((room, Vec::new()));
            }
            claimed.rooms[place].1.push(row);
        }
        claimed
    }
}

impl Worker {
    /// A worker for this outbox, with these messages, and this log.
    pub fn new(
        outbox: Arc<dyn Outbox>,
        messages: Arc<dyn MessageStore>,
        log: Arc<dyn RoomLog>,
        lifecycle: Arc<dyn Lifecycle>,
        deployment: Uuid,
        dedupe_ttl: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            outbox,
            publications: Publications::new(messages.clone()),
            reads: Semaphore::new(announcements::CONCURRENT_READS),
            rooms: Arc::new(Semaphore::new(CONCURRENT_ROOMS + 1)),
            own_row_ended: Notify::new(),
            messages,
            log,
            lifecycle,
            deployment,
            dedupe_ttl,
            published: Counter::default(),
            postponed: Counter::default(),
            failed: Counter::default(),
        })
    }

    /// The changes of messages that this worker publishes, for the calls that wait for them. They work
    /// also where the worker doesn't run.
    pub fn publications(&self) -> Arc<Publications> {
        self.publications.clone()
    }

    /// Publishes rows until the task is aborted. That loses nothing: another worker goes on.
    pub async fn run(self: Arc<Self>) {
        let (_never, stopped) = watch::channel(false);
        self.run_until(stopped).await;
    }

    /// Publishes rows until `stopped` is true, and then returns once those that it holds are published
    /// or postponed.
    pub async fn run_until(self: Arc<Self>, stopped: watch::Receiver<bool>) {
        // While the log is down, no row is claimed in vain.
        let lifecycle = self.lifecycle.clone();
        let wants_rows = Box::new(move || lifecycle.is_up());
        let rows = self.outbox.own_rows(OWN_LEASE, wants_rows);
        let own_rows = self.clone().publish_own_rows(rows, stopped.clone());
        tokio::join!(own_rows, self.publish_due_rows(stopped));
    }

    async fn publish_due_rows(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let mut rooms = Rooms::new(self.clone());
        let mut positions = Positions::new(self.clone());
        while !*stopped.borrow() {
            // Rows are not claimed in vain: they are due as soon as the log is back.
            let pause = if self.lifecycle.is_up() {
                let pause = rooms.start_due().await;
                pause.min(positions.start_due().await)
            } else {
                DOWN_INTERVAL
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Rows of this node are published at once.
                () = self.outbox.added() => {}
                // Later rows of its room are due now.
                () = rooms.one_ended() => {}
                () = self.own_row_ended.notified() => {}
                () = positions.one_ended() => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        }
        rooms.all_ended().await;
        positions.all_ended().await;
    }

    /// Claims at most so many of the rows that are due, by room. A claim writes to the database, also if
    /// it finds nothing; so it is made only when a read has found a row. Returns the claimed rows, and how
    /// long nothing more is due, as far as is known.
    async fn claim_due(&self, limit: usize) -> Result<(Claimed, Duration), StoreError> {
        match self.outbox.next_due().await? {
            Some(Duration::ZERO) => {}
            Some(due) => return Ok((Claimed::default(), due.clamp(SHORTEST_PAUSE, POLL_INTERVAL))),
            None => return Ok((Claimed::default(), POLL_INTERVAL)),
        }
        let claimed = self.claim(limit).await?;
        // Another worker may have claimed the row that was due.
        let pause = if claimed.count == 0 {
            SHORTEST_PAUSE
        } else {
            Duration::ZERO
        };
        Ok((claimed, pause))
    }

    async fn claim(&self, limit: usize) -> Result<Claimed, StoreError> {
        Ok(Claimed::of(self.outbox.claim(limit, LEASE).await?))
    }

    /// Publishes at most a batch of the rows that are due, room by room. Returns how many were claimed.
    ///
    /// # Errors
    /// Those of the store.
    #[cfg(test)]
    pub async fn publish_due(&self) -> Result<usize, StoreError> {
        let Claimed { count, rooms } = self.claim(BATCH).await?;
        for (room, rows) in rooms {
            self.publish_to(&room, rows, tokio::time::Instant::now() + LEASE)
                .await?;
        }
        Ok(count)
    }
}
