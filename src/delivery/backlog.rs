//! The bytes of messages that wait for a worker. While they reach the limit, senders wait, so that
//! no more is acknowledged than can be delivered.
//!
//! This works on a node of its own only. With Redis, a node doesn't know when the messages of other
//! nodes' senders arrive.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The messages that wait for one worker. Cheap to clone: all clones are one backlog.
#[derive(Clone)]
pub(super) struct Backlog(Arc<Inner>);

struct Inner {
    /// Senders proceed while fewer bytes than this wait.
    limit: AtomicUsize,
    bytes: AtomicUsize,
    /// The number of senders that wait: a copy of the queue's length that is read without its lock.
    waiting: AtomicUsize,
    senders: Mutex<Senders>,
}

#[derive(Default)]
struct Senders {
    queue: VecDeque<oneshot::Sender<Grant>>,
    /// A sender has got its grant and has not resumed yet.
    grant_pending: bool,
}

/// Allows one waiting sender to proceed. When it is dropped, the next sender may be given one.
struct Grant(Option<Backlog>);

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(backlog) = self.0.take() {
            backlog.0.senders.lock().grant_pending = false;
            backlog.grant_next();
        }
    }
}

impl Backlog {
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Inner {
            limit: AtomicUsize::new(limit),
            bytes: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            senders: Mutex::default(),
        }))
    }

    fn is_full(&self) -> bool {
        self.0.bytes.load(Ordering::SeqCst) >= self.0.limit.load(Ordering::Relaxed)
    }

    /// Counts a message that is queued for the worker, even when the backlog is full.
    pub fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Subtracts a message that the worker has delivered.
    pub fn remove(&self, bytes: usize) {
        self.0.bytes.fetch_sub(bytes, Ordering::SeqCst);
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.grant_next();
        }
    }

    /// Waits until the backlog is below its limit. Senders proceed in the order of their calls, and
    /// one at a time, because each adds to the backlog. Safe to cancel.
    pub async fn wait_for_capacity(&self) {
        if self.0.waiting.load(Ordering::SeqCst) == 0 && !self.is_full() {
            return;
        }
        let (sender, grant) = oneshot::channel();
        {
            let mut senders = self.0.senders.lock();
            senders.queue.push_back(sender);
            let waiting = senders.queue.len();
            self.0.waiting.store(waiting, Ordering::SeqCst);
        }
        // The worker may have drained the backlog before it could see that a sender waits.
        self.grant_next();
        drop(grant.await);
    }

    /// Lets the first sender that still waits proceed, if the backlog is below its limit.
    fn grant_next(&self) {
        let mut senders = self.0.senders.lock();
        while !senders.grant_pending && !self.is_full() {
            let Some(first) = senders.queue.pop_front() else {
                return;
            };
            let waiting = senders.queue.len();
            self.0.waiting.store(waiting, Ordering::SeqCst);
            match first.send(Grant(Some(self.clone()))) {
                Ok(()) => senders.grant_pending = true,
                // The sender gave up: offer the grant to the next one. Without its backlog the
                // grant does nothing when dropped, and so doesn't take the lock that is held here.
                Err(mut grant) => drop(grant.0.take()),
            }
        }
    }

    /// The worker has ended and delivers nothing any more: every sender proceeds, now and later.
    pub fn close(&self) {
        let queue = {
            let mut senders = self.0.senders.lock();
            self.0.limit.store(usize::MAX, Ordering::SeqCst);
            self.0.waiting.store(0, Ordering::SeqCst);
            std::mem::take(&mut senders.queue)
        };
        drop(queue);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    use super::*;

    fn sender(backlog: &Backlog) -> BoxFuture<'static, ()> {
        let backlog = backlog.clone();
        async move { backlog.wait_for_capacity().await }.boxed()
    }

    fn proceeds(sender: &mut BoxFuture<'static, ()>) -> bool {
        sender.now_or_never().is_some()
    }

    #[tokio::test]
    async fn senders_proceed_until_the_backlog_is_full_and_then_in_order() {
        let backlog = Backlog::new(100);
        assert!(proceeds(&mut sender(&backlog)));
        backlog.add(99);
        assert!(proceeds(&mut sender(&backlog)));
        backlog.add(50);
        let [mut first, mut second, mut third] = [(); 3].map(|()| sender(&backlog));
        assert!(!proceeds(&mut first) && !proceeds(&mut second));
        backlog.remove(50);
        // Later senders queue behind earlier ones even while there is capacity, and the second gets
        // no grant before the first has resumed.
        assert!(!proceeds(&mut third) && !proceeds(&mut second));
        assert!(proceeds(&mut first));
        backlog.add(50);
        assert!(proceeds(&mut second), "it had the grant already");
        assert!(!proceeds(&mut third), "the backlog is full again");
        backlog.remove(149);
        assert!(proceeds(&mut third));
        assert!(proceeds(&mut sender(&backlog)), "no sender waits");
    }

    #[tokio::test]
    async fn a_cancelled_sender_does_not_block_the_others() {
        let backlog = Backlog::new(1);
        backlog.add(1);
        let [mut cancelled, mut granted, mut last] = [(); 3].map(|()| sender(&backlog));
        assert!(
            ![&mut cancelled, &mut granted, &mut last]
                .into_iter()
                .any(proceeds)
        );
        drop(cancelled);
        backlog.remove(1);
        // This sender has the grant, and is cancelled before it resumes.
        drop(granted);
        assert!(proceeds(&mut last));
    }

    #[tokio::test]
    async fn very_many_cancelled_senders_are_skipped() {
        let backlog = Backlog::new(1);
        backlog.add(1);
        for _ in 0..100_000 {
            assert!(!proceeds(&mut sender(&backlog)));
        }
        let mut last = sender(&backlog);
        assert!(!proceeds(&mut last));
        backlog.remove(1);
        assert!(proceeds(&mut last));
    }

    #[tokio::test]
    async fn a_closed_backlog_lets_every_sender_proceed() {
        let backlog = Backlog::new(1);
        backlog.add(1);
        let mut waiting = sender(&backlog);
        assert!(!proceeds(&mut waiting));
        backlog.close();
        assert!(proceeds(&mut waiting));
        assert!(proceeds(&mut sender(&backlog)));
    }
}
