//! Whether the archive's database responds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::store::StoreError;

/// The time between two checks while nothing is committed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A check without a reply for so long has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// After the database has refused everything, a check alone counts only after so long: it shows that the
/// database responds, not that it takes messages.
const DISTRUST: Duration = Duration::from_secs(10);

/// Whether the database responds, by the last commit or check.
pub(super) struct Health {
    is_up: AtomicBool,
    /// Milliseconds since `start` at the last commit.
    last_commit: AtomicU64,
    /// Milliseconds since `start` up to which no check counts.
    distrusted_until: AtomicU64,
    start: Instant,
}

impl Health {
    pub fn new() -> Self {
        Self {
            is_up: AtomicBool::new(true),
            last_commit: AtomicU64::new(0),
            distrusted_until: AtomicU64::new(0),
            start: Instant::now(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// A commit has succeeded.
    pub fn committed(&self) {
        self.last_commit.store(self.elapsed(), Ordering::Relaxed);
        self.distrusted_until.store(0, Ordering::Relaxed);
        self.responded();
    }

    /// The database responds, and has refused every message of a commit.
    pub fn refuses_everything(&self) {
        let until = self.elapsed() + DISTRUST.as_millis() as u64;
        self.distrusted_until.store(until, Ordering::Relaxed);
        self.failed(&StoreError::Broken("it refuses every message".to_owned()));
    }

    /// A check has succeeded.
    fn answered(&self) {
        if self.elapsed() >= self.distrusted_until.load(Ordering::Relaxed) {
            self.responded();
        }
    }

    /// Milliseconds since `start`.
    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn responded(&self) {
        if !self.is_up.swap(true, Ordering::Relaxed) {
            tracing::info!("archive: the database responds again");
        }
    }

    /// A commit or check has failed. The first failure is logged.
    pub fn failed(&self, error: &StoreError) {
        if self.is_up.swap(false, Ordering::Relaxed) {
            tracing::error!(%error, "archive: the database does not respond");
        }
    }

    /// Whether the last commit was a moment ago, so that no check is needed.
    fn has_just_committed(&self) -> bool {
        let last = Duration::from_millis(self.last_commit.load(Ordering::Relaxed));
        !last.is_zero() && self.start.elapsed().saturating_sub(last) < CHECK_INTERVAL
    }
}

/// Checks the database while nothing is committed. Never ends.
pub(super) async fn check(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        if shared.health.has_just_committed() {
            continue;
        }
        match tokio::time::timeout(CHECK_TIMEOUT, shared.store.ping()).await {
            // While entries wait, only their commit shows that the database takes them.
            Ok(Ok(())) if shared.queue.len() == 0 => shared.health.answered(),
            Ok(Ok(())) => {}
            Ok(Err(error)) => shared.health.failed(&error),
            Err(_) => {
                let error = StoreError::Unavailable("a check was not answered".to_owned());
                shared.health.failed(&error);
            }
        }
    }
}
