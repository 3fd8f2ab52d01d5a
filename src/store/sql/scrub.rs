//! Removing deleted content from the files of SQLite.
//!
//! `secure_delete` overwrites deleted content in the pages. The write-ahead log still has the former pages,
//! until it is moved into the database file and truncated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::conn::Connector;
use super::dialect::Dialect;
use super::fault::Outcome;
use super::pool::Pool;
use super::value::args;

/// How long deletions are collected, and the pause after a failure.
const DELAY: Duration = Duration::from_secs(5);

/// Truncates the log some seconds after it is asked to.
#[derive(Clone, Default)]
pub(super) struct LogScrubber {
    is_waiting: Arc<AtomicBool>,
}

impl LogScrubber {
    /// Truncates the log of a database file within seconds. Content that was deleted before this call is
    /// then in neither of the files.
    pub(super) fn scrub_soon(&self, pool: &Arc<Pool>) {
        let is_file = pool.connector().dialect() == Dialect::Sqlite;
        if !is_file || self.is_waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let (pool, is_waiting) = (Arc::downgrade(pool), self.is_waiting.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(DELAY).await;
                // The last connection to be closed moves the log, too.
                let Some(pool) = pool.upgrade().filter(|pool| !pool.is_closed()) else {
                    return;
                };
                // A deletion from now on needs another run.
                is_waiting.store(false, Ordering::Release);
                let connector = pool.connector().clone();
                drop(pool);
                match truncate(&connector).await {
                    Ok(true) => return,
                    Ok(false) => tracing::debug!("the log of SQLite is in use"),
                    Err(fault) => tracing::debug!(?fault, "the log of SQLite is not truncated"),
                }
                if is_waiting.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
    }
}

/// Moves the log into the file, and truncates it. False if a reader needs it.
async fn truncate(connector: &Connector) -> Outcome<bool> {
    const TRUNCATE: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
    // Waiting for readers holds up those who write.
    const SHORT: &str = "PRAGMA busy_timeout = 100";
    let mut conn = connector.connect().await?;
    conn.raw(SHORT).await?;
    let state: Option<(i64, i64, i64)> = conn.first(TRUNCATE, args![]).await?;
    let _ = conn.close().await;
    Ok(state.is_some_and(|(busy, _, _)| busy == 0))
}
