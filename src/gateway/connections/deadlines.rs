//! What must happen to a connection at a certain time, for all connections in one task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How late a deadline may be.
const TICK: Duration = Duration::from_millis(100);

/// What happens when the time has come. It holds on to nothing that would outlive a connection: only the deadline's end, or
/// taking it back, lets go of it.
pub(super) type Deadline = Box<dyn FnOnce() + Send>;

/// By which a deadline is taken back.
pub(super) type Key = (Instant, u64);

type Due = Arc<Mutex<BTreeMap<Key, Deadline>>>;

pub(super) struct Deadlines {
    due: Due,
    /// Sets apart the deadlines of one instant.
    next: AtomicU64,
    task: tokio::task::JoinHandle<()>,
}

impl Deadlines {
    pub fn start() -> Self {
        let due = Due::default();
        let task = tokio::spawn(watch(due.clone()));
        Self {
            due,
            next: AtomicU64::new(0),
            task,
        }
    }

    /// Returns the key to take it back by; none for a time beyond the clock's end, which never comes.
    pub fn add(&self, after: Duration, deadline: Deadline) -> Option<Key> {
        let key = (
            Instant::now().checked_add(after)?,
            self.next.fetch_add(1, Ordering::Relaxed),
        );
        self.due.lock().insert(key, deadline);
        Some(key)
    }

    /// Takes a deadline back, which lets go of what it holds.
    pub fn remove(&self, key: Key) {
        self.due.lock().remove(&key);
    }
}

impl Drop for Deadlines {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(due: Due) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let later = (Instant::now() + Duration::from_nanos(1), 0);
        let now = {
            let mut due = due.lock();
            let rest = due.split_off(&later);
            std::mem::replace(&mut *due, rest)
        };
        now.into_values().for_each(|deadline| deadline());
    }
}
