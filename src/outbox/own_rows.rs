//! Publishes the rows that transactions of this process have claimed, each as soon as it is committed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{OWN_LEASE, Worker};
use crate::store::{OwnRow, OwnRows};

/// How long the end waits for transactions that may have claimed a row.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

impl Worker {
    /// Publishes rows until `stopped` is true, and then returns once those that were handed over are published
    /// or postponed.
    pub(super) async fn publish_own_rows(
        self: Arc<Self>,
        mut rows: OwnRows,
        mut stopped: watch::Receiver<bool>,
    ) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                row = rows.next() => match row {
                    Some(row) => running.spawn(self.clone().publish_own_row(row)),
                    None => break,
                },
                Some(_) = running.join_next() => continue,
                _ = stopped.wait_for(|stopped| *stopped) => break,
            };
        }
        rows.close();
        let last = async {
            while let Some(row) = rows.next().await {
                running.spawn(self.clone().publish_own_row(row));
            }
        };
        // A row that comes later is due again after its lease.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, last).await;
        while running.join_next().await.is_some() {}
    }

    async fn publish_own_row(self: Arc<Self>, OwnRow { row, claimed_at }: OwnRow) {
        let Some(room) = row.room.clone() else {
            return;
        };
        let slot = self.rooms.acquire().await;
        let lease_end = claimed_at + OWN_LEASE;
        if let Err(error) = self.publish_to(&room, vec![row], lease_end).await {
            tracing::warn!(%error, %room, "outbox: the database can't be reached");
        }
        drop(slot);
        self.own_row_ended.notify_one();
    }
}
