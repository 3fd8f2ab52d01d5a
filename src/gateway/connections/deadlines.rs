//! Deadlines of connections, watched by one task for all connections of the node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How often deadlines are checked, and so how late an action may run.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Runs once at its deadline. It must not own anything that should live no longer than the
/// connection: it is dropped only after it ran, or by [`Deadlines::cancel`].
pub(super) type DeadlineAction = Box<dyn FnOnce() + Send>;

/// Identifies a deadline, to cancel it: its time, and a number that no other deadline has.
pub(super) type DeadlineKey = (Instant, u64);

type Pending = Arc<Mutex<BTreeMap<DeadlineKey, DeadlineAction>>>;

pub(super) struct Deadlines {
    pending: Pending,
    next_number: AtomicU64,
    task: tokio::task::JoinHandle<()>,
}

impl Deadlines {
    /// Starts the task. Must be called within a tokio runtime.
    pub fn start() -> Self {
        let pending = Pending::default();
        let task = tokio::spawn(run_due_actions(pending.clone()));
        Self {
            pending,
            next_number: AtomicU64::new(0),
            task,
        }
    }

    /// Runs the action after that time. Returns `None` if the time lies beyond the end of the
    /// clock, so that the action never runs.
    pub fn add(&self, after: Duration, action: DeadlineAction) -> Option<DeadlineKey> {
        let at = Instant::now().checked_add(after)?;
        let key = (at, self.next_number.fetch_add(1, Ordering::Relaxed));
        self.pending.lock().insert(key, action);
        Some(key)
    }

    /// Cancels a deadline and drops its action.
    pub fn cancel(&self, key: DeadlineKey) {
        self.pending.lock().remove(&key);
    }
}

impl Drop for Deadlines {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run_due_actions(pending: Pending) {
    let mut interval = tokio::time::interval(CHECK_INTERVAL);
    loop {
        interval.tick().await;
        let first_later = (Instant::now() + Duration::from_nanos(1), 0);
        let due = {
            let mut pending = pending.lock();
            let later = pending.split_off(&first_later);
            std::mem::replace(&mut *pending, later)
        };
        for action in due.into_values() {
            action();
        }
    }
}
