//! A database: reads, and transactions that are repeated when they meet another one.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::timeout;

use super::conn::{Conn, Connector};
use super::dialect::Dialect;
use super::fault::{Fault, Outcome};
use super::migrate;
use super::pool::{Lease, Pool, PoolStats};
use super::scrub::LogScrubber;
use super::url::{DatabaseUrl, SqliteLocation};
use super::value::{AnyRow, Arg};
use crate::store::{Result, StoreError};

/// How the store connects.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The database.
    pub url: DatabaseUrl,
    /// Connections of this process, beside that of a writer. SQLite has this number for reading, and
    /// one for writing.
    pub connections: usize,
    /// How long a call waits for a connection.
    pub acquire_timeout: Duration,
    /// How long a read may take.
    pub read_timeout: Duration,
    /// How long a transaction, or a writer's commit, may take.
    pub write_timeout: Duration,
}

impl Settings {
    /// The defaults for a database.
    #[must_use]
    pub fn new(url: DatabaseUrl) -> Self {
        Self {
            url,
            connections: 8,
            acquire_timeout: Duration::from_secs(3),
            read_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
        }
    }
}

/// A database, by its connections. Clones share them.
#[derive(Clone)]
pub(crate) struct Db {
    read: Arc<Pool>,
    /// The same as `read` except on SQLite, where it has one connection: so no call meets
    /// `SQLITE_BUSY` within this process.
    write: Arc<Pool>,
    read_timeout: Duration,
    write_timeout: Duration,
    scrubber: LogScrubber,
    /// Keeps a database in memory alive.
    _anchor: Option<Arc<parking_lot::Mutex<Conn>>>,
}

/// The steps of a call, on one connection. They may be repeated.
pub(crate) type Steps<'c, T> = Pin<Box<dyn Future<Output = Outcome<T>> + Send + 'c>>;

/// The least `max_allowed_packet` of MySQL: the largest record, and space for all the rest.
const MIN_PACKET: i64 = 16 * 1024 * 1024;
/// How often a call is tried that meets other transactions or closed connections.
const ATTEMPTS: u32 = 10;
/// How long undoing a transaction may take; then its connection is closed, which undoes it as well.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

impl Db {
    /// Connects, so that errors of the URL show.
    pub(crate) async fn open(settings: &Settings) -> Result<Self> {
        static MEMORIES: AtomicU64 = AtomicU64::new(0);
        let mut anchor = None;
        let (read, write) = match &settings.url {
            DatabaseUrl::Sqlite(url) => {
                let number = MEMORIES.fetch_add(1, Ordering::Relaxed);
                let connector = Connector::to_sqlite(url, &format!("file:hubbub-{number}"));
                let write = Pool::new(connector.clone(), 1, settings.acquire_timeout);
                if url.location == SqliteLocation::Memory {
                    let mut conn = connector.connect().await?;
                    migrate::up_in_memory(&mut conn).await?;
                    anchor = Some(Arc::new(parking_lot::Mutex::new(conn)));
                    (write.clone(), write)
                } else {
                    // The file must exist before it is opened for reading.
                    write.acquire().await?.release();
                    let connector = connector.read_only();
                    let size = settings.connections;
                    (Pool::new(connector, size, settings.acquire_timeout), write)
                }
            }
            DatabaseUrl::Postgres(options) => {
                let pool = shared_pool(Connector::to_postgres(options), settings);
                (pool.clone(), pool)
            }
            DatabaseUrl::MySql(options) => {
                let pool = shared_pool(Connector::to_mysql(options), settings);
                (pool.clone(), pool)
            }
        };
        let mut lease = read.acquire().await?;
        check_packets(lease.conn()).await?;
        lease.release();
        let scrubber = LogScrubber::default();
        if anchor.is_none() {
            // A process that was killed may have left deleted content in the log.
            scrubber.scrub_soon(&write);
        }
        Ok(Self {
            scrubber,
            read,
            write,
            read_timeout: settings.read_timeout,
            write_timeout: settings.write_timeout,
            _anchor: anchor,
        })
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.write.connector().dialect()
    }

    /// Where writers get their connection: a lease of the only one that may write on SQLite, else one
    /// of their own.
    pub(crate) fn write_pool(&self) -> &Arc<Pool> {
        &self.write
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        self.write_timeout
    }

    /// The rows of one statement.
    pub(crate) async fn all<T: AnyRow>(
        &self,
        template: &'static str,
        args: Vec<Arg>,
    ) -> Result<Vec<T>> {
        self.read(move |conn| {
            let args = args.clone();
            Box::pin(conn.all(template, args))
        })
        .await
    }

    /// Reads on one connection, without a transaction. Dropping the future doesn't stop the steps.
    pub(crate) async fn read<T, F>(&self, steps: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut Conn) -> Steps<'c, T> + Send + Sync + 'static,
    {
        let call = Call {
            pool: self.read.clone(),
            time_limit: self.read_timeout,
            in_transaction: false,
            caller: None,
        };
        spawned(async move { call.repeat(steps).await }).await
    }

    /// Runs steps in a transaction, which is repeated as a whole after a deadlock and the like.
    /// Dropping the future doesn't stop the transaction.
    pub(crate) async fn transaction<T, F>(&self, steps: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut Conn) -> Steps<'c, T> + Send + Sync + 'static,
    {
        let call = Call {
            pool: self.write.clone(),
            time_limit: self.write_timeout,
            in_transaction: true,
            caller: None,
        };
        spawned(async move { call.repeat(steps).await }).await
    }

    /// As [`transaction`](Self::transaction), for one that must not take effect after its caller has
    /// given up: once the future is dropped, no attempt begins, and none that is under way commits.
    pub(crate) async fn awaited_transaction<T, F>(&self, steps: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut Conn) -> Steps<'c, T> + Send + Sync + 'static,
    {
        let caller = Arc::new(());
        let call = Call {
            pool: self.write.clone(),
            time_limit: self.write_timeout,
            in_transaction: true,
            caller: Some(Arc::downgrade(&caller)),
        };
        let result = spawned(async move { call.repeat(steps).await }).await;
        drop(caller);
        result
    }

    /// Removes deleted content from the log of SQLite, soon.
    pub(crate) fn scrub_log(&self) {
        if self._anchor.is_none() {
            self.scrubber.scrub_soon(&self.write);
        }
    }

    /// The use of the connections; on SQLite of those for reading.
    pub(crate) fn stats(&self) -> PoolStats {
        self.read.stats()
    }

    pub(crate) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// Refuses a database that could not take the largest statement: MySQL ends the connection then, which
/// looks as if the database were away.
async fn check_packets(conn: &mut Conn) -> Outcome<()> {
    const LIMIT: &str = "SELECT CAST(@@max_allowed_packet AS SIGNED)";
    if conn.dialect() != Dialect::MySql {
        return Ok(());
    }
    let limit: Option<(i64,)> = conn.first(LIMIT, Vec::new()).await?;
    match limit {
        Some((limit,)) if limit < MIN_PACKET => Err(Fault::Broken(format!(
            "max_allowed_packet is {limit} bytes: set it to at least {MIN_PACKET}"
        ))),
        _ => Ok(()),
    }
}

fn shared_pool(connector: Connector, settings: &Settings) -> Arc<Pool> {
    Pool::new(connector, settings.connections, settings.acquire_timeout)
}

/// Runs a call in a task of its own: a statement or transaction that is under way is never cancelled
/// with the request that caused it.
pub(super) async fn spawned<T: Send + 'static>(
    call: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(call).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::Unavailable("the node is stopping".to_owned())),
        },
    }
}

struct Call {
    pool: Arc<Pool>,
    time_limit: Duration,
    in_transaction: bool,
    /// For a transaction that ends with its caller: gone once the caller's future is dropped.
    caller: Option<Weak<()>>,
}

impl Call {
    fn check_caller(&self) -> Outcome<()> {
        match &self.caller {
            Some(caller) if caller.strong_count() == 0 => {
                Err(Fault::Again("its caller has given up".to_owned()))
            }
            _ => Ok(()),
        }
    }

    async fn repeat<T, F>(&self, steps: F) -> Result<T>
    where
        F: for<'c> Fn(&'c mut Conn) -> Steps<'c, T>,
    {
        let mut attempt = 0;
        loop {
            attempt += 1;
            self.check_caller()?;
            let lease = self.pool.acquire().await?;
            let is_reused = lease.is_reused();
            match self.attempt(lease, &steps).await {
                Err(Fault::Again(_)) if attempt < ATTEMPTS => {
                    tokio::time::sleep(backoff(attempt)).await;
                }
                // The server had closed the connection, perhaps because it was idle.
                Err(Fault::Lost(_)) if is_reused && attempt < ATTEMPTS => {}
                outcome => return Ok(outcome?),
            }
        }
    }

    async fn attempt<T, F>(&self, mut lease: Lease, steps: &F) -> Outcome<T>
    where
        F: for<'c> Fn(&'c mut Conn) -> Steps<'c, T>,
    {
        let outcome = timeout(self.time_limit, self.run(&mut lease, steps)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(out_of_time(self.time_limit)));
        match &outcome {
            Ok(_) => lease.release(),
            Err(Fault::Lost(_) | Fault::Unavailable(_)) => {
                drop(lease);
                self.pool.forget_idle();
            }
            Err(_) if self.in_transaction => {
                let rolled_back = timeout(ROLLBACK_TIMEOUT, lease.conn().rollback()).await;
                if matches!(rolled_back, Ok(Ok(()))) {
                    lease.release();
                }
            }
            Err(_) => drop(lease),
        }
        outcome
    }

    async fn run<T, F>(&self, lease: &mut Lease, steps: &F) -> Outcome<T>
    where
        F: for<'c> Fn(&'c mut Conn) -> Steps<'c, T>,
    {
        let conn = lease.conn();
        if !self.in_transaction {
            return steps(conn).await;
        }
        conn.begin().await?;
        self.check_caller()?;
        let result = steps(conn).await?;
        self.check_caller()?;
        conn.commit().await?;
        Ok(result)
    }
}

pub(crate) fn out_of_time(limit: Duration) -> Fault {
    Fault::Unavailable(format!("no reply within {} s", limit.as_secs_f32()))
}

/// How long to wait before the next attempt: 5 ms, doubled with each, at most 320 ms, and between half
/// and all of that, so that two transactions that met don't meet again.
pub(crate) fn backoff(attempt: u32) -> Duration {
    let longest = 5_000_u64 << attempt.min(6);
    let random = u64::from(uuid::Uuid::new_v4().as_bytes()[0]);
    Duration::from_micros(longest / 2 + longest * random / 512)
}
