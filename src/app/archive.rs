//! The database of a node, and the archive in it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::deployment::DeploymentWatch;
use uuid::Uuid;

use crate::archive::{Archive, ObservedLog, Restorer};
use crate::backplane::{Backplane, RestoreSource, redis};
use crate::config::{CommandLine, Config};
use crate::store::sql::migrate::MigrateError;
use crate::store::sql::{self, PreparedDatabase, SqlStore};
use crate::store::{
    ArchiveStore, ChatStore, DatabaseSettings, DirectoryStore, IdempotencyStore, JobQueue,
    MessageStore, Outbox, PositionStore, RecoveryStore, Run, StoreError, UrgentRows,
};
use crate::telemetry::sample::Sample;

/// How long a starting node waits for its database, which may be starting too.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause between two attempts.
const START_RETRY: Duration = Duration::from_millis(500);

/// A database that is ready, before the hot log is.
pub(super) struct Database {
    store: Arc<SqlStore>,
    restorer: Arc<Restorer>,
    /// The run of a lone node; `None` with Redis.
    run: Option<Run>,
    prepared: PreparedDatabase,
}

impl Database {
    /// Connects to the database, and migrates it; `None` without one.
    ///
    /// # Errors
    /// With a text for the terminal.
    pub async fn open(config: &Config) -> anyhow::Result<Option<Self>> {
        let Some(settings) = &config.database else {
            return Ok(None);
        };
        let prepared = prepare(settings).await?;
        for migration in &prepared.applied {
            tracing::info!(migration, "database: applied a migration");
        }
        let store = Arc::new(SqlStore::open(&settings.into()).await?);
        let run = match config.redis {
            Some(_) => None,
            None => Some(store.begin_run().await?),
        };
        let dedupe_ttl = config.backplane.dedupe_ttl;
        let restorer = Restorer::new(store.clone(), run, dedupe_ttl).await?;
        Ok(Some(Self {
            store,
            restorer,
            run,
            prepared,
        }))
    }

    /// The source from which the hot log restores rooms.
    pub fn restore_source(&self) -> Arc<dyn RestoreSource> {
        self.restorer.clone()
    }

    /// The store of accounts.
    pub fn accounts(&self) -> Arc<dyn DirectoryStore> {
        self.store.clone()
    }

    /// The store of the ways back into accounts.
    pub fn recovery(&self) -> Arc<dyn RecoveryStore> {
        self.store.clone()
    }

    /// The answers of idempotent requests.
    pub fn answers(&self) -> Arc<dyn IdempotencyStore> {
        self.store.clone()
    }

    /// The store of chats.
    pub fn chats(&self) -> Arc<dyn ChatStore> {
        self.store.clone()
    }

    /// The outbox.
    pub fn outbox(&self) -> Arc<dyn Outbox> {
        self.store.clone()
    }

    /// The changes of messages.
    pub fn messages(&self) -> Arc<dyn MessageStore> {
        self.store.clone()
    }

    /// The urgent rows of the outbox.
    pub fn urgent_rows(&self) -> Arc<dyn UrgentRows> {
        self.store.clone()
    }

    /// The read positions of users.
    pub fn positions(&self) -> Arc<dyn PositionStore> {
        self.store.clone()
    }

    /// The jobs of the outbox.
    pub fn jobs(&self) -> Arc<dyn JobQueue> {
        self.store.clone()
    }

    /// The id of the archive.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn deployment(&self) -> crate::store::Result<Uuid> {
        self.store.deployment().await
    }

    /// Starts the archive behind the backplane's log, which it replaces.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn start_archive(
        self,
        config: &Config,
        backplane: &mut Backplane,
    ) -> crate::store::Result<NodeArchive> {
        let run = self.run.map_or(0, |run| run.number);
        let lifecycle = backplane.lifecycle.clone();
        let watch = DeploymentWatch::start(self.store.clone(), lifecycle, run).await?;
        let archive = Archive::start(
            backplane.hot_log.clone(),
            self.store.clone(),
            &self.restorer,
            config.archive.clone(),
            &config.backplane,
        );
        backplane.log = archive.log();
        Ok(NodeArchive {
            archive,
            watch: tokio::spawn(watch.run()),
            store: self.store,
            _prepared: self.prepared,
        })
    }
}

/// The log in Redis whose archive this database is, for reading; `None` without Redis.
///
/// # Errors
/// With a text for the terminal, also if Redis can't be reached.
pub async fn open_log(
    command_line: &CommandLine,
    store: &SqlStore,
) -> anyhow::Result<Option<ObservedLog>> {
    let Some((settings, limits)) = Config::load_redis(command_line)? else {
        return Ok(None);
    };
    let restorer = Restorer::new(Arc::new(store.clone()), None, limits.dedupe_ttl).await?;
    let log = redis::observe(settings, limits, restorer).await?;
    Ok(Some(log.context("Redis can't be reached")?))
}

/// Prepares the database, and waits while it is away.
async fn prepare(settings: &DatabaseSettings) -> anyhow::Result<PreparedDatabase> {
    let deadline = Instant::now() + START_TIMEOUT;
    let mut is_logged = false;
    loop {
        let began = Instant::now();
        let error = match sql::prepare(settings).await {
            Ok(prepared) => return Ok(prepared),
            Err(error) => error,
        };
        let is_away = matches!(error, MigrateError::Store(StoreError::Unavailable(_)));
        // The next attempt may take as long as this one, if the database doesn't respond.
        let next_end = Instant::now() + START_RETRY + began.elapsed();
        if !is_away || next_end > deadline {
            return Err(error).context("the database (DATABASE_URL) can't be used");
        }
        if !std::mem::replace(&mut is_logged, true) {
            tracing::warn!(%error, "the database can't be used yet; trying again for 30 seconds");
        }
        tokio::time::sleep(START_RETRY).await;
    }
}

/// The archive of a running node, and its database.
pub(super) struct NodeArchive {
    archive: Archive,
    /// Looks for other deployments on the database.
    watch: JoinHandle<()>,
    store: Arc<SqlStore>,
    /// Holds the lock of a database file.
    _prepared: PreparedDatabase,
}

impl NodeArchive {
    /// The metrics of the archive and of its database.
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = self.archive.samples();
        let stats = self.store.pool_stats();
        samples.push(Sample::gauge(
            "database_connections",
            "Connections to the database that this node may have at most (`DATABASE_POOL`), without \
             that of the archive's writer",
            stats.size as u64,
        ));
        samples.push(Sample::gauge(
            "database_connections_in_use",
            "Connections to the database that are in use",
            stats.in_use as u64,
        ));
        samples.push(Sample::gauge(
            "database_connections_idle",
            "Connections to the database that are open and not in use",
            stats.idle as u64,
        ));
        samples.push(Sample::gauge(
            "database_waiting",
            "Calls that wait for a connection to the database",
            stats.waiting as u64,
        ));
        samples
    }

    /// Archives everything that was appended, and closes the database. Called when nothing is appended
    /// any more.
    pub async fn stop(&self) {
        self.watch.abort();
        self.archive.stop().await;
        self.store.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql::DatabaseUrl;

    /// The time until the start fails.
    async fn start_on_port(scheme: &str, port: u16) -> Duration {
        let url = format!("{scheme}://ann@127.0.0.1:{port}/hubbub");
        let settings = DatabaseSettings::new(DatabaseUrl::parse(&url).unwrap());
        let began = Instant::now();
        prepare(&settings).await.map(drop).unwrap_err();
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_half_a_minute_for_a_database_that_is_away_or_does_not_respond() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        for scheme in ["postgres", "mysql"] {
            for port in [1, port] {
                let waited = start_on_port(scheme, port).await;
                assert!(
                    (24..=30).contains(&waited.as_secs()),
                    "{scheme} {port}: {waited:?}"
                );
            }
        }
    }
}
