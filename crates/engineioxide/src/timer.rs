//! One task with one heap that holds the deadlines of all sessions.
//!
//! A session has at most one entry that counts. When its deadline moves to a later time, the entry
//! stays in the heap, and a new one is made when the old one comes due. Traffic on a session
//! therefore never touches the heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use engineioxide_core::Sid;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::control::Registry;

/// Due sessions that are processed before the task lets other tasks run.
const SESSIONS_PER_SLICE: usize = 128;
/// Entries that the heap keeps memory for when it has run empty.
const RETAINED_CAPACITY: usize = 1024;

#[derive(Default)]
pub(crate) struct Timer {
    heap: Mutex<BinaryHeap<Reverse<(Instant, Sid)>>>,
    /// Wakes the task: an entry that is due earlier than all others was added, or the registry is
    /// gone.
    earlier: Arc<Notify>,
    started: AtomicBool,
}

impl Timer {
    /// Starts the task in the current runtime; later calls do nothing. It ends with the registry.
    pub(crate) fn start(&self, registry: &Arc<Registry>) {
        if !self.started.swap(true, Ordering::Relaxed) {
            tokio::spawn(run(Arc::downgrade(registry), self.earlier.clone()));
        }
    }

    pub(crate) fn stop(&self) {
        self.earlier.notify_one();
    }

    /// Calls the session's `on_deadline` at `at`. The heap stores the id and not the session, so
    /// that an entry does not keep a closed session alive.
    pub(crate) fn arm(&self, at: Instant, sid: Sid) {
        let is_earliest = {
            let mut heap = self.heap.lock();
            let is_earliest = heap.peek().is_none_or(|Reverse((first, _))| at < *first);
            heap.push(Reverse((at, sid)));
            is_earliest
        };
        if is_earliest {
            self.earlier.notify_one();
        }
    }

    fn take_due(&self, now: Instant) -> Due {
        let mut heap = self.heap.lock();
        let mut sessions = Vec::new();
        while let Some(Reverse((at, _))) = heap.peek() {
            if *at > now {
                let next = Some(*at);
                return Due { sessions, next };
            }
            if sessions.len() == SESSIONS_PER_SLICE {
                let next = Some(now);
                return Due { sessions, next };
            }
            sessions.extend(heap.pop().map(|Reverse(entry)| entry));
        }
        // After a burst of connections, release the memory that the heap needed for them.
        if heap.capacity() > RETAINED_CAPACITY {
            heap.shrink_to(RETAINED_CAPACITY);
        }
        let next = None;
        Due { sessions, next }
    }
}

/// The entries that are due, and the time at which the task has to run again.
struct Due {
    sessions: Vec<(Instant, Sid)>,
    next: Option<Instant>,
}

async fn run(registry: Weak<Registry>, earlier: Arc<Notify>) {
    loop {
        let next = {
            let Some(registry) = registry.upgrade() else {
                return;
            };
            let now = Instant::now();
            let due = registry.timer.take_due(now);
            for (at, sid) in due.sessions {
                if let Some(session) = registry.find(&sid) {
                    session.on_deadline(at, now);
                }
            }
            due.next
        };
        match next {
            Some(at) if at <= Instant::now() => tokio::task::yield_now().await,
            // A timeout is the normal case; with or without it the loop reads the heap again.
            Some(at) => drop(tokio::time::timeout_at(at, earlier.notified()).await),
            None => earlier.notified().await,
        }
    }
}
