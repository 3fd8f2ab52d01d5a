//! The connection of a command, or of a node that starts: made within a time limit, and for migrations
//! with a lock.
//!
//! The lock belongs to a connection that is closed afterwards, so it ends with the process.

use std::time::Duration;

use tokio::time::timeout;

use super::conn::{Conn, Connector};
use super::dialect::Dialect;
use super::fault::{Fault, Outcome};
use super::migrate::MigrateError;
use super::url::DatabaseUrl;
use super::value::args;
use crate::store::StoreError;

/// How long a process waits for another one that migrates.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an attempt to connect to a server may take, with TLS and authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the statements that read the state of a database may take together.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer than [`LOCK_TIMEOUT`] the server may take to report that the lock is not free.
const LOCK_GRACE: Duration = Duration::from_secs(5);
/// The key of the advisory lock in PostgreSQL, which are per database: "hubbub m".
const POSTGRES_LOCK: i64 = 0x6875_6262_7562_206d;

fn connector(url: &DatabaseUrl) -> Result<Connector, MigrateError> {
    match url {
        DatabaseUrl::Sqlite(_) if url.is_in_memory() => Err(MigrateError::InMemory),
        DatabaseUrl::Sqlite(url) => Ok(Connector::to_sqlite(url, "")),
        DatabaseUrl::Postgres(options) => Ok(Connector::to_postgres(options)),
        DatabaseUrl::MySql(options) => Ok(Connector::to_mysql(options)),
    }
}

/// A connection. A server that accepts TCP connections and doesn't respond, because it hangs or is
/// none of this kind, is unavailable. A file has no such limit: after a crash SQLite first reads its log.
pub(super) async fn connect(url: &DatabaseUrl) -> Result<Conn, MigrateError> {
    let connector = connector(url)?;
    if connector.dialect() == Dialect::Sqlite {
        return Ok(connector.connect().await?);
    }
    within(CONNECT_TIMEOUT, async { Ok(connector.connect().await?) }).await
}

/// The result of work on a server that must respond in time.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, MigrateError>>,
) -> Result<T, MigrateError> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let text = format!(
            "the server did not respond within {} s; check that it runs, and that the host and port \
             are its own",
            limit.as_secs()
        );
        Err(MigrateError::Store(StoreError::Unavailable(text)))
    })
}

/// Closes a connection. A server that doesn't respond notices the end of the TCP connection.
pub(super) async fn close(conn: Conn) {
    if conn.dialect() == Dialect::Sqlite {
        let _ = conn.close().await;
    } else {
        let _ = timeout(CONNECT_TIMEOUT, conn.close()).await;
    }
}

/// A connection that holds the lock of the database until it is closed. A step may take long: other
/// than the statements of a node, those of this connection have no time limit.
pub(super) async fn connect_locked(url: &DatabaseUrl) -> Result<Conn, MigrateError> {
    let mut conn = connect(url).await?;
    let locked = within(LOCK_TIMEOUT + LOCK_GRACE, async {
        Ok(lock(&mut conn).await?)
    });
    match locked.await {
        Ok(true) => Ok(conn),
        Ok(false) => {
            close(conn).await;
            Err(MigrateError::Locked)
        }
        Err(error) => {
            close(conn).await;
            Err(error)
        }
    }
}

/// Fails if the database can't have every character of a message. MySQL's tables have an encoding of
/// their own, and SQLite has only encodings of Unicode.
pub(super) async fn check_encoding(conn: &mut Conn) -> Result<(), MigrateError> {
    const ENCODING: &str = "SELECT CAST(pg_encoding_to_char(encoding) AS text) FROM pg_database \
        WHERE datname = current_database()";
    if conn.dialect() != Dialect::Postgres {
        return Ok(());
    }
    let found: Option<(String,)> = conn.first(ENCODING, Vec::new()).await?;
    let (encoding,) = found.unwrap_or_default();
    if encoding == "UTF8" {
        Ok(())
    } else {
        Err(MigrateError::Encoding(encoding))
    }
}

/// Takes the lock; false if another process kept it too long. SQLite has a lock file instead.
async fn lock(conn: &mut Conn) -> Outcome<bool> {
    if conn.dialect() == Dialect::Sqlite {
        return Ok(true);
    }
    if lock_at_once(conn).await? {
        return Ok(true);
    }
    tracing::info!(
        "another process migrates the database: waiting for it, for {} s at most",
        LOCK_TIMEOUT.as_secs()
    );
    wait_for_lock(conn).await
}

/// Takes the lock of a server if it is free.
async fn lock_at_once(conn: &mut Conn) -> Outcome<bool> {
    if conn.dialect() == Dialect::MySql {
        return mysql_lock(conn, Duration::ZERO).await;
    }
    let seconds = LOCK_TIMEOUT.as_secs();
    let limits = format!("SET statement_timeout = 0; SET lock_timeout = '{seconds}s'");
    conn.raw(&limits).await?;
    let taken: Option<(i64,)> = conn
        .first(
            "SELECT CAST(CAST(pg_try_advisory_lock(?) AS INTEGER) AS BIGINT)",
            args![POSTGRES_LOCK],
        )
        .await?;
    Ok(taken == Some((1,)))
}

async fn wait_for_lock(conn: &mut Conn) -> Outcome<bool> {
    if conn.dialect() == Dialect::MySql {
        return mysql_lock(conn, LOCK_TIMEOUT).await;
    }
    let locked = conn
        .raw(&format!("SELECT pg_advisory_lock({POSTGRES_LOCK})"))
        .await;
    match locked {
        Ok(()) => Ok(true),
        // The error of the lock's time limit.
        Err(Fault::Again(_)) => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// Takes the lock of MySQL, whose name is the server's, not the database's; false if it isn't free in
/// time.
async fn mysql_lock(conn: &mut Conn, limit: Duration) -> Outcome<bool> {
    const LOCK: &str = "SELECT GET_LOCK(CONCAT('hubbub_migrations.', SHA1(DATABASE())), ?)";
    let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    let taken: Option<(Option<i64>,)> = conn.first(LOCK, args![seconds]).await?;
    Ok(taken == Some((Some(1),)))
}
