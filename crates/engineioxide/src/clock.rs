//! Every deadline of every session, kept by one task and one heap.
//!
//! A session has at most one entry that counts; when its deadline moves back, the entry stays
//! and is made anew when it comes up, so that traffic never touches the heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use engineioxide_core::Sid;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::control::Registry;

/// Sessions that are seen to before the task lets others run.
const TURN: usize = 128;

#[derive(Default)]
pub(crate) struct Clock {
    heap: Mutex<BinaryHeap<Reverse<(Instant, Sid)>>>,
    sooner: Arc<Notify>,
    started: AtomicBool,
}

impl Clock {
    /// Starts the task, once, in the current runtime. It ends with the registry.
    pub(crate) fn start(&self, registry: &Arc<Registry>) {
        if !self.started.swap(true, Ordering::Relaxed) {
            tokio::spawn(run(Arc::downgrade(registry), self.sooner.clone()));
        }
    }

    pub(crate) fn stop(&self) {
        self.sooner.notify_one();
    }

    /// Asks that the session hears of `at`. By id, so that a heap entry keeps no dead session.
    pub(crate) fn arm(&self, at: Instant, sid: Sid) {
        let sooner = {
            let mut heap = self.heap.lock();
            let sooner = heap.peek().is_none_or(|Reverse((first, _))| at < *first);
            heap.push(Reverse((at, sid)));
            sooner
        };
        if sooner {
            self.sooner.notify_one();
        }
    }

    fn due(&self, now: Instant) -> Due {
        let mut heap = self.heap.lock();
        let mut due = Vec::new();
        while let Some(Reverse((at, _))) = heap.peek() {
            if *at > now {
                return Due {
                    sessions: due,
                    next: Some(*at),
                };
            }
            if due.len() == TURN {
                return Due {
                    sessions: due,
                    next: Some(now),
                };
            }
            due.extend(heap.pop().map(|Reverse(entry)| entry));
        }
        // After a storm of connections, don't hold on to its room.
        if heap.capacity() > 1024 {
            heap.shrink_to(1024);
        }
        Due {
            sessions: due,
            next: None,
        }
    }
}

struct Due {
    sessions: Vec<(Instant, Sid)>,
    next: Option<Instant>,
}

async fn run(registry: Weak<Registry>, sooner: Arc<Notify>) {
    loop {
        let next = {
            let Some(registry) = registry.upgrade() else {
                return;
            };
            let now = Instant::now();
            let due = registry.clock.due(now);
            for (at, sid) in due.sessions {
                if let Some(session) = registry.find(&sid) {
                    session.on_deadline(at, now);
                }
            }
            due.next
        };
        match next {
            Some(at) if at <= Instant::now() => tokio::task::yield_now().await,
            // Timing out is the normal way on; either way the heap is looked at again.
            Some(at) => drop(tokio::time::timeout_at(at, sooner.notified()).await),
            None => sooner.notified().await,
        }
    }
}
