//! The store, as the rest of the server holds it.

use std::sync::Arc;

use tokio::sync::Notify;

use super::db::{Db, Settings};
use super::outbox::OwnRowQueue;
use super::pool::PoolStats;
use super::unread::Behind;
use crate::store::Result;

/// The store in a database. Clones share its connections.
#[derive(Clone)]
pub struct SqlStore {
    db: Db,
    /// Rows may have been added to the outbox.
    outbox_added: Arc<Notify>,
    /// The same, for jobs.
    jobs_added: Arc<Notify>,
    own_rows: Arc<OwnRowQueue>,
    behind: Arc<Behind>,
}

impl SqlStore {
    /// Connects to a database, whose tables must exist.
    ///
    /// # Errors
    /// `Unavailable` with the reason; `Refused` for a wrong user or password, an unknown database of a
    /// server, or a missing right; `Broken`.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let db = Db::open(settings).await?;
        Ok(Self {
            db,
            outbox_added: Arc::default(),
            jobs_added: Arc::default(),
            own_rows: Arc::default(),
            behind: Arc::default(),
        })
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    /// Rooms whose unread messages wait for a projection.
    pub(super) fn behind(&self) -> &Behind {
        &self.behind
    }

    /// A transaction has committed that may have added rows to the outbox.
    pub(super) fn announce_rows(&self) {
        self.outbox_added.notify_one();
        self.jobs_added.notify_one();
    }

    /// The rows that transactions claim for the worker of this process.
    pub(super) fn own_row_queue(&self) -> &OwnRowQueue {
        &self.own_rows
    }

    pub(super) async fn rows_announced(&self) {
        self.outbox_added.notified().await;
    }

    pub(super) async fn jobs_announced(&self) {
        self.jobs_added.notified().await;
    }

    /// The use of the connections: those for reading on SQLite, all but a writer's elsewhere.
    #[must_use]
    pub fn pool_stats(&self) -> PoolStats {
        self.db.stats()
    }

    /// Closes the connections. Later calls fail with `Unavailable`.
    pub async fn close(&self) {
        self.db.close().await;
    }
}
