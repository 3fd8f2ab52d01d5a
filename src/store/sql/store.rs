//! The store, as the rest of the server holds it.

use super::db::{Db, Settings};
use super::pool::PoolStats;
use crate::store::Result;

/// The store in a database. Clones share its connections.
#[derive(Clone)]
pub struct SqlStore {
    db: Db,
}

impl SqlStore {
    /// Connects to a database, whose tables must exist.
    ///
    /// # Errors
    /// `Unavailable` with the reason; `Refused` for a wrong user or password, an unknown database of a
    /// server, or a missing right; `Broken`.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let db = Db::open(settings).await?;
        Ok(Self { db })
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
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
