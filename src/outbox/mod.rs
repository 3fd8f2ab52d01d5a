//! The outbox's worker: publishes the announcements that transactions have left in the outbox, each
//! once, and in order within a room.
//!
//! A row is claimed with a lease, published under an id that follows from the row, and removed once it
//! has its number. A worker that ends in between leaves a row that another one claims after the lease:
//! the log finds that its id was used before.

mod earlier;
mod ids;
mod jobs;
mod metrics;
mod payloads;
mod rooms;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::backplane::{BackplaneError, Lifecycle, RoomLog, change_record};
use crate::domain::{Change, RoomId};
use crate::store::{Outbox, OutboxId, OutboxRow, StoreError};
use crate::telemetry::meter::Counter;
use rooms::Rooms;

pub use jobs::{Job, JobError, JobRunner, JobSettings};
pub use payloads::{
    AccountMail, AddressChanged, ForgetUser, JobPayload, MailSubject, PasswordForgotten,
};

/// The most rows that are claimed at once.
const BATCH: usize = 200;
/// How long a row belongs to the worker that has claimed it.
const LEASE: Duration = Duration::from_secs(15);
/// The longest time between two looks at the outbox: rows of other programs, and of workers that have
/// ended, are found by them.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// What is left of a lease when its rows are not published any more.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// The most rows that are held at once.
const MAX_HELD: usize = 2 * BATCH;
/// Rooms that are published to at the same time.
const CONCURRENT_ROOMS: usize = 16;
/// The pause before a row is tried again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// How often the log is asked for while it is down.
const DOWN_INTERVAL: Duration = Duration::from_millis(50);
/// The shortest pause after a look that found nothing to publish.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// Publishes the rows of an outbox.
pub struct Worker {
    outbox: Arc<dyn Outbox>,
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
struct Claimed {
    count: usize,
    rooms: BTreeMap<RoomId, Vec<OutboxRow>>,
}

/// What became of a row.
enum Outcome {
    Published,
    /// It is tried again later.
    Postponed(String),
    /// It can never be published.
    Failed(String),
}

impl Worker {
    /// A worker for this outbox and this log.
    pub fn new(
        outbox: Arc<dyn Outbox>,
        log: Arc<dyn RoomLog>,
        lifecycle: Arc<dyn Lifecycle>,
        deployment: Uuid,
        dedupe_ttl: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            outbox,
            log,
            lifecycle,
            deployment,
            dedupe_ttl,
            published: Counter::default(),
            postponed: Counter::default(),
            failed: Counter::default(),
        })
    }

    /// Publishes rows until the task is aborted. That loses nothing: another worker goes on.
    pub async fn run(self: Arc<Self>) {
        let (_never, stopped) = watch::channel(false);
        self.run_until(stopped).await;
    }

    /// Publishes rows until `stopped` is true, and then returns once those that it holds are published
    /// or postponed.
    pub async fn run_until(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let mut rooms = Rooms::new(self.clone());
        while !*stopped.borrow() {
            // Rows are not claimed in vain: they are due as soon as the log is back.
            let pause = if self.lifecycle.is_up() {
                rooms.start_due().await
            } else {
                DOWN_INTERVAL
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Rows of this node are published at once.
                () = self.outbox.added() => {}
                // Later rows of its room are due now.
                () = rooms.one_ended() => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        }
        rooms.all_ended().await;
    }

    /// How long nothing is due, as far as is known.
    async fn pause(&self) -> Duration {
        match self.outbox.next_due().await {
            Ok(Some(due)) => due.clamp(SHORTEST_PAUSE, POLL_INTERVAL),
            Ok(None) | Err(_) => POLL_INTERVAL,
        }
    }

    /// Claims at most so many of the rows that are due, by room.
    async fn claim(&self, limit: usize) -> Result<Claimed, StoreError> {
        let claimed = self.outbox.claim(limit, LEASE).await?;
        let count = claimed.len();
        let mut rooms: BTreeMap<RoomId, Vec<OutboxRow>> = BTreeMap::new();
        for row in claimed {
            if let Some(room) = &row.room {
                rooms.entry(room.clone()).or_default().push(row);
            }
        }
        Ok(Claimed { count, rooms })
    }

    /// Publishes at most a batch of the rows that are due, room by room. Returns how many were claimed.
    ///
    /// # Errors
    /// Those of the store.
    #[cfg(test)]
    pub async fn publish_due(&self) -> Result<usize, StoreError> {
        let Claimed { count, rooms } = self.claim(BATCH).await?;
        for (room, rows) in rooms {
            self.publish_to(&room, rows, Instant::now()).await?;
        }
        Ok(count)
    }

    /// Publishes the rows of one room, in their order, up to the first one that must wait.
    async fn publish_to(
        &self,
        room: &RoomId,
        rows: Vec<OutboxRow>,
        claimed_at: Instant,
    ) -> Result<(), StoreError> {
        let mut done: Vec<OutboxId> = Vec::new();
        let mut rows = rows.into_iter();
        let mut postponed = None;
        for row in rows.by_ref() {
            // The rows may belong to another worker soon, which goes on with the first that is left.
            if claimed_at.elapsed() > LEASE - LEASE_MARGIN {
                break;
            }
            match self.publish(room, &row).await {
                Outcome::Published => done.push(row.id),
                Outcome::Failed(reason) => self.fail(row.id, &reason).await?,
                Outcome::Postponed(reason) => {
                    postponed = Some((row, reason));
                    break;
                }
            }
        }
        self.outbox.done(&done).await?;
        self.published.add(done.len() as u64);
        let Some((row, reason)) = postponed else {
            return Ok(());
        };
        self.postponed.add(1);
        // The later rows of the room were claimed, too.
        let ids: Vec<OutboxId> = std::iter::once(row.id)
            .chain(rows.map(|row| row.id))
            .collect();
        self.outbox
            .retry(&ids, backoff(row.attempts), &reason)
            .await
    }

    async fn publish(&self, room: &RoomId, row: &OutboxRow) -> Outcome {
        if !Change::EVENTS.contains(&row.kind.as_str()) {
            return Outcome::Failed(format!("this release has no event {:?}", row.kind));
        }
        if let Err(refusal) = RoomId::parse("room_id", room.as_str()) {
            return Outcome::Failed(refusal.text.to_string());
        }
        if !change_record::is_payload(&row.payload) {
            return Outcome::Failed("the payload is not a JSON object with a field".to_owned());
        }
        let id = ids::of_row(self.deployment, row.id, row.first_claimed);
        // The log may not know any more that an earlier attempt has published the row.
        if row.tried_for > self.dedupe_ttl / 2 {
            match earlier::is_in_log(&*self.log, room, id, row.tried_for).await {
                Ok(true) => return Outcome::Published,
                Ok(false) => {}
                Err(error @ BackplaneError::Unreadable(_)) => {
                    return Outcome::Failed(error.to_string());
                }
                Err(error) => return Outcome::Postponed(error.to_string()),
            }
        }
        let record = change_record::encode(room, &row.kind, id, &row.payload);
        match self.log.announce(room, id, record).await {
            Ok(_) => Outcome::Published,
            Err(error @ (BackplaneError::TooLarge | BackplaneError::Unreadable(_))) => {
                Outcome::Failed(error.to_string())
            }
            Err(error) => Outcome::Postponed(error.to_string()),
        }
    }

    async fn fail(&self, row: OutboxId, reason: &str) -> Result<(), StoreError> {
        tracing::error!(
            row,
            reason,
            "outbox: a row is given up; see hubbub outbox list"
        );
        self.failed.add(1);
        self.outbox.fail(row, reason).await
    }
}

/// The pause after so many attempts: doubled with each, and up to a fifth longer, so that rows which were
/// postponed at once are not due at once.
fn backoff(attempts: u64) -> Duration {
    let doubled = FIRST_PAUSE * 2_u32.pow(attempts.saturating_sub(1).min(7) as u32);
    let random = u32::from(Uuid::new_v4().as_bytes()[0]);
    let pause = doubled.min(LAST_PAUSE);
    pause + pause * random / (256 * 5)
}
