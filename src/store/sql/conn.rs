//! One connection to any of the databases.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::dialect::{Dialect, MAX_LIST};
use super::fault::{Fault, Outcome};
use super::url::{SqliteLocation, SqliteUrl, Synchronous};
use super::value::{AnyRow, Arg};

/// Statements that a connection keeps prepared. It must be more than there are texts: MySQL's driver
/// closes a statement and sends the next in two small packets, which Nagle's algorithm delays by 40 ms.
const STATEMENT_CACHE: usize = 512;
/// How long SQLite waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
thread_local! {
    /// The statements that this thread has begun.
    pub(crate) static STATEMENTS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    /// Their texts.
    pub(crate) static TEXTS: std::cell::RefCell<Vec<&'static str>> =
        const { std::cell::RefCell::new(Vec::new()) };
}

/// Counts a statement, for tests of their number and order.
fn count_statement(text: &'static str) {
    let _ = text;
    #[cfg(test)]
    {
        STATEMENTS.set(STATEMENTS.get() + 1);
        TEXTS.with_borrow_mut(|texts| texts.push(text));
    }
}

/// How to connect.
#[derive(Clone)]
pub(crate) enum Connector {
    Sqlite(Box<SqliteConnectOptions>),
    Postgres(Box<PgConnectOptions>),
    MySql(Box<MySqlConnectOptions>),
}

impl Connector {
    /// A connector to a database of SQLite that may write.
    pub(crate) fn to_sqlite(url: &SqliteUrl, memory_name: &str) -> Self {
        let synchronous = match url.synchronous {
            Synchronous::Normal => SqliteSynchronous::Normal,
            Synchronous::Full => SqliteSynchronous::Full,
        };
        let options = SqliteConnectOptions::new()
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            // Deleted content is overwritten, so that it is not left in the file.
            .pragma("secure_delete", "ON")
            .synchronous(synchronous)
            .statement_cache_capacity(STATEMENT_CACHE)
            .disable_statement_logging();
        let options = match &url.location {
            SqliteLocation::File(path) => options
                .filename(path)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal),
            SqliteLocation::Memory => options
                .filename(memory_name)
                .in_memory(true)
                .shared_cache(true),
        };
        Self::Sqlite(Box::new(options))
    }

    pub(crate) fn to_postgres(options: &PgConnectOptions) -> Self {
        let mut options = options
            .clone()
            .statement_cache_capacity(STATEMENT_CACHE)
            .disable_statement_logging();
        if options.get_application_name().is_none() {
            options = options.application_name("hubbub");
        }
        Self::Postgres(Box::new(options))
    }

    pub(crate) fn to_mysql(options: &MySqlConnectOptions) -> Self {
        let options = options
            .clone()
            .charset("utf8mb4")
            .statement_cache_capacity(STATEMENT_CACHE)
            .disable_statement_logging();
        Self::MySql(Box::new(options))
    }

    /// The same for reading only. Only SQLite distinguishes the two.
    #[must_use]
    pub(crate) fn read_only(self) -> Self {
        match self {
            Self::Sqlite(options) => Self::Sqlite(Box::new(options.read_only(true))),
            other => other,
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
            Self::MySql(_) => Dialect::MySql,
        }
    }

    pub(crate) async fn connect(&self) -> Outcome<Conn> {
        let mut conn = match self {
            Self::Sqlite(options) => return Ok(Conn::Sqlite(options.connect().await?)),
            Self::Postgres(options) => Conn::Postgres(options.connect().await?),
            Self::MySql(options) => Conn::MySql(options.connect().await?),
        };
        conn.raw(conn.session_settings()).await?;
        Ok(conn)
    }
}

/// A connection.
pub(crate) enum Conn {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
    MySql(MySqlConnection),
}

/// Binds values to a query. `$text` is how a text is bound, `$array` whether there are arrays.
macro_rules! bound {
    ($query:expr, $args:expr, $text:expr) => {{
        let mut query = $query;
        for arg in $args {
            query = match arg {
                Arg::Int(value) => query.bind(value),
                Arg::Text(value) => query.bind(value.map($text)),
                Arg::Bytes(value) => query.bind(value),
                Arg::Uuid(value) => query.bind(value),
                Arg::Ints(_) | Arg::Texts(_) | Arg::Blobs(_) | Arg::Uuids(_) => {
                    return Err(Fault::Broken("arrays are of PostgreSQL only".to_owned()));
                }
            };
        }
        query
    }};
}

macro_rules! bound_postgres {
    ($query:expr, $args:expr) => {{
        let mut query = $query;
        for arg in $args {
            query = match arg {
                Arg::Int(value) => query.bind(value),
                Arg::Text(value) => query.bind(value),
                Arg::Bytes(value) => query.bind(value),
                Arg::Uuid(value) => query.bind(value),
                Arg::Ints(values) => query.bind(values),
                Arg::Texts(values) => query.bind(values),
                Arg::Blobs(values) => query.bind(values),
                Arg::Uuids(values) => query.bind(values),
            };
        }
        query
    }};
}

impl Conn {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
            Self::MySql(_) => Dialect::MySql,
        }
    }

    /// Settings of a session, regardless of the server's configuration. They end statements and
    /// transactions of a client that hangs, and make MySQL refuse values that it would cut.
    fn session_settings(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "",
            Self::Postgres(_) => {
                "SET statement_timeout = '30s'; SET lock_timeout = '5s'; \
                 SET idle_in_transaction_session_timeout = '60s'; \
                 SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; \
                 SET tcp_keepalives_count = 3; SET default_transaction_isolation = 'read committed'"
            }
            Self::MySql(_) => {
                "SET SESSION sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_TRANS_TABLES'), \
                 SESSION innodb_lock_wait_timeout = 5; \
                 SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
            }
        }
    }

    /// Runs a statement, a template of [`dialect`](super::dialect). Returns the number of rows that it
    /// has changed; with MySQL an upsert also counts rows that were as they should be.
    pub(crate) async fn run(&mut self, template: &'static str, args: Vec<Arg>) -> Outcome<u64> {
        let text = self.dialect().text(template);
        self.run_text(text, args).await
    }

    /// As [`run`](Self::run), for a text that [`Dialect::text_of`] has made.
    pub(crate) async fn run_text(&mut self, text: &'static str, args: Vec<Arg>) -> Outcome<u64> {
        count_statement(text);
        Ok(match self {
            Self::Sqlite(conn) => {
                let query = bound!(sqlx::query(text), args, std::convert::identity::<String>);
                query.execute(conn).await?.rows_affected()
            }
            Self::Postgres(conn) => {
                let query = bound_postgres!(sqlx::query(text), args);
                query.execute(conn).await?.rows_affected()
            }
            Self::MySql(conn) => {
                let query = bound!(sqlx::query(text), args, String::into_bytes);
                query.execute(conn).await?.rows_affected()
            }
        })
    }

    /// The rows of a statement, a template of [`dialect`](super::dialect).
    pub(crate) async fn all<T: AnyRow>(
        &mut self,
        template: &'static str,
        args: Vec<Arg>,
    ) -> Outcome<Vec<T>> {
        let text = self.dialect().text(template);
        self.all_of_text(text, args).await
    }

    /// As [`all`](Self::all), for a text that [`Dialect::text_of`] has made.
    pub(crate) async fn all_of_text<T: AnyRow>(
        &mut self,
        text: &'static str,
        args: Vec<Arg>,
    ) -> Outcome<Vec<T>> {
        let mut rows = Vec::new();
        self.each_of_text(text, args, |row| {
            rows.push(row);
            true
        })
        .await?;
        Ok(rows)
    }

    /// The rows of a statement for a list of any length, which takes several statements if it is long. The
    /// list follows these values.
    pub(crate) async fn all_of_list<T: AnyRow>(
        &mut self,
        template: &'static str,
        values: Vec<Arg>,
        list: impl IntoIterator<Item = impl Into<Arg>>,
    ) -> Outcome<Vec<T>> {
        let list: Vec<Arg> = list.into_iter().map(Into::into).collect();
        let mut rows = Vec::new();
        for part in list.chunks(MAX_LIST) {
            let (text, part) = self.dialect().with_list(template, part.iter().cloned());
            let values = [values.as_slice(), &part].concat();
            rows.extend(self.all_of_text::<T>(text, values).await?);
        }
        Ok(rows)
    }

    /// The first row of a statement.
    pub(crate) async fn first<T: AnyRow>(
        &mut self,
        template: &'static str,
        args: Vec<Arg>,
    ) -> Outcome<Option<T>> {
        Ok(self.all(template, args).await?.into_iter().next())
    }

    /// Calls `each` with the rows of a statement until it returns false.
    pub(crate) async fn each_of_text<T: AnyRow>(
        &mut self,
        text: &'static str,
        args: Vec<Arg>,
        mut each: impl FnMut(T) -> bool + Send,
    ) -> Outcome<()> {
        count_statement(text);
        // A server sends all rows anyway: reading on leaves the connection ready for its next statement.
        let mut wants_more = true;
        match self {
            Self::Sqlite(conn) => {
                let query = bound!(sqlx::query_as(text), args, std::convert::identity::<String>);
                let mut rows = query.fetch(conn);
                while wants_more && let Some(row) = rows.try_next().await? {
                    wants_more = each(row);
                }
            }
            Self::Postgres(conn) => {
                let mut rows = bound_postgres!(sqlx::query_as(text), args).fetch(conn);
                while let Some(row) = rows.try_next().await? {
                    wants_more = wants_more && each(row);
                }
            }
            Self::MySql(conn) => {
                let mut rows = bound!(sqlx::query_as(text), args, String::into_bytes).fetch(conn);
                while let Some(row) = rows.try_next().await? {
                    wants_more = wants_more && each(row);
                }
            }
        }
        Ok(())
    }

    /// Runs statements without values, unprepared.
    pub(crate) async fn raw(&mut self, text: &str) -> Outcome<()> {
        let query = sqlx::raw_sql(AssertSqlSafe(text));
        match self {
            Self::Sqlite(conn) => query.execute(conn).await.map(drop)?,
            Self::Postgres(conn) => query.execute(conn).await.map(drop)?,
            Self::MySql(conn) => query.execute(conn).await.map(drop)?,
        }
        Ok(())
    }

    /// Begins a transaction. On SQLite it takes the write lock at once: a transaction that reads
    /// first and writes then would fail with `SQLITE_BUSY_SNAPSHOT` at any timeout.
    pub(crate) async fn begin(&mut self) -> Outcome<()> {
        match self {
            Self::Sqlite(_) => self.raw("BEGIN IMMEDIATE").await,
            Self::Postgres(_) | Self::MySql(_) => self.raw("BEGIN").await,
        }
    }

    pub(crate) async fn commit(&mut self) -> Outcome<()> {
        self.raw("COMMIT").await
    }

    pub(crate) async fn rollback(&mut self) -> Outcome<()> {
        self.raw("ROLLBACK").await
    }

    pub(crate) async fn ping(&mut self) -> Outcome<()> {
        match self {
            Self::Sqlite(conn) => conn.ping().await?,
            Self::Postgres(conn) => conn.ping().await?,
            Self::MySql(conn) => conn.ping().await?,
        }
        Ok(())
    }

    /// Closes the connection and waits for it.
    pub(crate) async fn close(self) -> Outcome<()> {
        match self {
            Self::Sqlite(conn) => conn.close().await?,
            Self::Postgres(conn) => conn.close().await?,
            Self::MySql(conn) => conn.close().await?,
        }
        Ok(())
    }
}
