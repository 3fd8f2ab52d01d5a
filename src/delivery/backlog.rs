//! What a worker has not handed on yet, in bytes. While it is much, who sends waits: nothing may be acknowledged faster than
//! members can be written to. For a node on its own: of what others say through Redis nobody here knows when it comes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The messages that wait for one worker. Cheap to clone: all clones are one.
#[derive(Clone)]
pub(super) struct Backlog(Arc<Inner>);

struct Inner {
    /// Less than that, and whoever sends goes on.
    most: AtomicUsize,
    bytes: AtomicUsize,
    /// How many senders wait: so that it can be seen without the lock.
    waiting: AtomicUsize,
    senders: Mutex<Senders>,
}

#[derive(Default)]
struct Senders {
    waiting: VecDeque<oneshot::Sender<Pass>>,
    /// One of those who waited has been let through, and doesn't know yet.
    passing: bool,
}

/// Leave to send, for one who had to wait. Once it is dropped the next one may be let through.
struct Pass(Option<Backlog>);

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(backlog) = self.0.take() {
            backlog.0.senders.lock().passing = false;
            backlog.let_through();
        }
    }
}

impl Backlog {
    pub fn new(most: usize) -> Self {
        let [most, bytes, waiting] = [most, 0, 0].map(AtomicUsize::new);
        Self(Arc::new(Inner {
            most,
            bytes,
            waiting,
            senders: Mutex::default(),
        }))
    }

    fn is_full(&self) -> bool {
        self.0.bytes.load(Ordering::SeqCst) >= self.0.most.load(Ordering::Relaxed)
    }

    /// Something is put into the queue, whether or not there was leave.
    pub fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// As much has been handed on.
    pub fn take(&self, bytes: usize) {
        self.0.bytes.fetch_sub(bytes, Ordering::SeqCst);
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.let_through();
        }
    }

    /// Waits until it is not full: in the order of the calls, and one after the other, as each adds to it. Safe to cancel.
    pub async fn wait_for_capacity(&self) {
        if self.0.waiting.load(Ordering::SeqCst) == 0 && !self.is_full() {
            return;
        }
        let (tell, told) = oneshot::channel();
        {
            let mut senders = self.0.senders.lock();
            senders.waiting.push_back(tell);
            self.0
                .waiting
                .store(senders.waiting.len(), Ordering::SeqCst);
        }
        // It may have become empty before anyone could see that somebody waits.
        self.let_through();
        drop(told.await);
    }

    /// The first of those who still wait, if it may go on.
    fn let_through(&self) {
        let mut senders = self.0.senders.lock();
        while !senders.passing && !self.is_full() {
            let Some(first) = senders.waiting.pop_front() else {
                return;
            };
            self.0
                .waiting
                .store(senders.waiting.len(), Ordering::SeqCst);
            match first.send(Pass(Some(self.clone()))) {
                Ok(()) => senders.passing = true,
                // It is for the next one: this one waits no more.
                Err(mut pass) => drop(pass.0.take()),
            }
        }
    }

    /// Nobody hands anything on any more: nobody waits for it, either.
    pub fn close(&self) {
        let left = {
            let mut senders = self.0.senders.lock();
            self.0.most.store(usize::MAX, Ordering::SeqCst);
            self.0.waiting.store(0, Ordering::SeqCst);
            std::mem::take(&mut senders.waiting)
        };
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    use super::*;

    fn waiting(backlog: &Backlog) -> BoxFuture<'static, ()> {
        let backlog = backlog.clone();
        async move { backlog.wait_for_capacity().await }.boxed()
    }

    fn goes_on(future: &mut BoxFuture<'static, ()>) -> bool {
        future.now_or_never().is_some()
    }

    #[tokio::test]
    async fn who_sends_goes_on_until_it_is_full_and_then_in_order() {
        let backlog = Backlog::new(100);
        assert!(goes_on(&mut waiting(&backlog)));
        backlog.add(99);
        assert!(goes_on(&mut waiting(&backlog)));
        backlog.add(50);
        let [mut first, mut second, mut third] = [(); 3].map(|()| waiting(&backlog));
        assert!(!goes_on(&mut first) && !goes_on(&mut second));
        backlog.take(50);
        // Newcomers stand behind, though there is room; and nobody is let through before the one before knows.
        assert!(!goes_on(&mut third) && !goes_on(&mut second));
        assert!(goes_on(&mut first));
        backlog.add(50);
        assert!(goes_on(&mut second), "it was let through before");
        assert!(!goes_on(&mut third), "it is full again");
        backlog.take(149);
        assert!(goes_on(&mut third));
        assert!(goes_on(&mut waiting(&backlog)), "nobody waits");
    }

    #[tokio::test]
    async fn who_waits_no_more_holds_nobody_up() {
        let backlog = Backlog::new(1);
        backlog.add(1);
        let [mut gone, mut let_through, mut last] = [(); 3].map(|()| waiting(&backlog));
        assert!(
            ![&mut gone, &mut let_through, &mut last]
                .into_iter()
                .any(goes_on)
        );
        drop(gone);
        backlog.take(1);
        // This one was let through, and goes without having looked.
        drop(let_through);
        assert!(goes_on(&mut last));
    }

    #[tokio::test]
    async fn very_many_who_wait_no_more_are_passed_over() {
        let backlog = Backlog::new(1);
        backlog.add(1);
        for _ in 0..100_000 {
            assert!(!goes_on(&mut waiting(&backlog)));
        }
        let mut last = waiting(&backlog);
        assert!(!goes_on(&mut last));
        backlog.take(1);
        assert!(goes_on(&mut last));
    }

    #[tokio::test]
    async fn at_the_end_nobody_waits() {
        let backlog = Backlog::new(1);
        backlog.add(1);
        let mut waits = waiting(&backlog);
        assert!(!goes_on(&mut waits));
        backlog.close();
        assert!(goes_on(&mut waits));
        assert!(goes_on(&mut waiting(&backlog)));
    }
}
