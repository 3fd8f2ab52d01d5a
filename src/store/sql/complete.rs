//! The end of the use of a database file of SQLite.

use std::path::Path;
use std::time::{Duration, Instant};

use super::file_lock::{FileLock, beside};
use super::prepare::PreparedDatabase;
use super::session::connect;
use super::url::DatabaseUrl;

/// How long connections of this process may take to end: each has a thread of its own.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Moves the log of a database file (`-wal`) into the file, after the store was closed: a call that was
/// cancelled, or failed, may have left a connection that still ends, and the log with it. Does nothing
/// for a server, and for a file that a node uses. `prepared` is the lock of the file, if this process
/// has it.
pub async fn complete_file(url: &DatabaseUrl, prepared: Option<PreparedDatabase>) {
    let Some(file) = url.file() else { return };
    let begin = Instant::now();
    let mut lock = None;
    while has_log(file) && begin.elapsed() < CLOSE_TIMEOUT {
        if prepared.is_none() && lock.is_none() {
            lock = FileLock::try_acquire(file);
            if lock.is_none() {
                return;
            }
        }
        // The last connection to be closed moves the log, and removes it.
        if let Ok(conn) = connect(url).await {
            let _ = conn.close().await;
        }
        if has_log(file) {
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
}

fn has_log(file: &Path) -> bool {
    beside(file, "-wal").exists()
}
