//! The rooms that a worker publishes to: each in a task of its own, so that a slow one holds up no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{BATCH, Claimed, ERROR_PAUSE, LEASE, MAX_HELD, POLL_INTERVAL, Worker};

/// The rooms with rows that are being published.
pub(super) struct Rooms {
    worker: Arc<Worker>,
    running: JoinSet<()>,
    held: Arc<AtomicUsize>,
}

/// Rows that are held until dropped.
struct Held {
    rows: usize,
    all: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.rows, Ordering::AcqRel);
    }
}

impl Rooms {
    pub fn new(worker: Arc<Worker>) -> Self {
        Self {
            worker,
            running: JoinSet::new(),
            held: Arc::default(),
        }
    }

    /// Claims rows that are due, and begins to publish them. Returns how long nothing more is due, as far
    /// as is known.
    pub async fn start_due(&mut self) -> Duration {
        let limit = BATCH.min(MAX_HELD - self.held.load(Ordering::Acquire).min(MAX_HELD));
        if limit == 0 {
            return POLL_INTERVAL;
        }
        match self.worker.claim_due(limit).await {
            Ok((claimed, pause)) => {
                self.start(claimed);
                pause
            }
            Err(error) => {
                tracing::warn!(%error, "outbox: the database can't be reached");
                ERROR_PAUSE
            }
        }
    }

    fn start(&mut self, claimed: Claimed) {
        let lease_end = Instant::now() + LEASE;
        for (room, rows) in claimed.rooms {
            self.held.fetch_add(rows.len(), Ordering::AcqRel);
            let held = Held {
                rows: rows.len(),
                all: self.held.clone(),
            };
            let worker = self.worker.clone();
            self.running.spawn(async move {
                let _held = held;
                let _slot = worker.rooms.acquire().await;
                // The rows are due again after their lease.
                if let Err(error) = worker.publish_to(&room, rows, lease_end).await {
                    tracing::warn!(%error, %room, "outbox: the database can't be reached");
                }
            });
        }
    }

    /// Returns when a room's rows are published or postponed; never without a room.
    pub async fn one_ended(&mut self) {
        if self.running.join_next().await.is_none() {
            std::future::pending().await
        }
    }

    /// Returns when all rows are published or postponed.
    pub async fn all_ended(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}
