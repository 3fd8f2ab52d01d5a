//! Publishes the rows that transactions of this process have claimed, each as soon as it is committed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;

use super::{OWN_LEASE, Worker};
use crate::store::{OwnRow, OwnRows};

/// How long the end waits for transactions that may have claimed a row.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

impl Worker {
    /// Publishes rows until `stopped` is true, and then returns once those that were handed over are published
    /// or postponed. A row is taken only when it can be published at once: the others wait in the queue, whose
    /// length is bounded.
    pub(super) async fn publish_own_rows(
        self: Arc<Self>,
        mut rows: OwnRows,
        mut stopped: watch::Receiver<bool>,
    ) {
        let mut running = JoinSet::new();
        loop {
            let next = tokio::select! {
                next = self.next_own_row(&mut rows) => next,
                _ = stopped.wait_for(|stopped| *stopped) => None,
            };
            let Some((slot, row)) = next else {
                break;
            };
            while running.try_join_next().is_some() {}
            running.spawn(self.clone().publish_own_row(slot, row));
        }
        rows.close();
        let last = async {
            while let Some((slot, row)) = self.next_own_row(&mut rows).await {
                running.spawn(self.clone().publish_own_row(slot, row));
            }
        };
        // A row that comes later is due again after its lease.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, last).await;
        while running.join_next().await.is_some() {}
    }

    /// The next row, once one more room may be published to. Safe to cancel.
    async fn next_own_row(&self, rows: &mut OwnRows) -> Option<(OwnedSemaphorePermit, OwnRow)> {
        let slot = self.rooms.clone().acquire_owned().await.ok()?;
        Some((slot, rows.next().await?))
    }

    async fn publish_own_row(self: Arc<Self>, slot: OwnedSemaphorePermit, own: OwnRow) {
        let OwnRow { row, claimed_at } = own;
        let Some(room) = row.room.clone() else {
            return;
        };
        let lease_end = claimed_at + OWN_LEASE;
        if let Err(error) = self.publish_to(&room, vec![row], lease_end).await {
            tracing::warn!(%error, %room, "outbox: the database can't be reached");
        }
        drop(slot);
        self.own_row_ended.notify_one();
    }
}
