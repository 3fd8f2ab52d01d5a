//! Fair scheduling of writes: connections that have something to write are served in FIFO order.
//!
//! A message for a large room makes hundreds of connections ready to write at once. If all of them
//! started at once, input that arrives meanwhile would queue behind them: it would be read late,
//! and its messages would need writes of their own. Therefore only a batch of [`SLICES_PER_BATCH`]
//! connections starts at a time. Between two batches every other ready task runs. Frames that those
//! tasks queue for a connection that still waits go out in the same write.
//!
//! On a single-threaded runtime the scheduler writes each connection itself; on a multi-threaded
//! runtime it wakes the connection's task. Separate instances may schedule other kinds of work.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;

/// Slices that run before other tasks run. The woken tasks of one batch fit into the local run
/// queue of one tokio worker thread.
const SLICES_PER_BATCH: usize = 64;
/// Entries that the queue keeps memory for after a large room has been served.
const RETAINED_CAPACITY: usize = 1024;

/// Work that a [`WriteScheduler`] queues: usually a connection that has something to write.
pub trait Scheduled: Send + Sync {
    /// Runs one slice of the work, on the scheduler's task. Must not block.
    fn run_slice(self: Arc<Self>);
}

/// A FIFO queue of connections that wait to write. Cheap to clone: all clones share one queue.
#[derive(Clone, Default)]
pub struct WriteScheduler(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<VecDeque<Arc<dyn Scheduled>>>,
    /// Wakes the scheduler's task: the queue is no longer empty, or the scheduler was stopped.
    wake: Notify,
    started: AtomicBool,
    /// The runtime has one thread.
    single_threaded: AtomicBool,
    stopped: AtomicBool,
}

impl WriteScheduler {
    /// Starts the scheduler on a task of the current runtime. Later calls do nothing.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(&self) {
        if !self.0.started.swap(true, Ordering::Relaxed) {
            let flavor = Handle::current().runtime_flavor();
            let single_threaded = flavor == RuntimeFlavor::CurrentThread;
            self.0
                .single_threaded
                .store(single_threaded, Ordering::Relaxed);
            // Outside tokio's cooperative budget: a batch bounds the task already, and its writes
            // are the work of many connections.
            tokio::spawn(tokio::task::unconstrained(run(self.0.clone())));
        }
    }

    /// Whether the runtime has one thread. If so, a slice should do its work itself. On several
    /// threads a slice should wake a task instead, so that the work runs on all of them.
    #[must_use]
    pub fn is_single_threaded(&self) -> bool {
        self.0.single_threaded.load(Ordering::Relaxed)
    }

    /// Stops the scheduler: no further slices run, and queued work is dropped.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
        self.0.wake.notify_one();
    }

    /// The number of queued slices.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        self.0.queue.lock().len()
    }

    /// Appends `work` to the queue. It must not be queued already. A stopped scheduler drops it.
    pub fn schedule(&self, work: Arc<dyn Scheduled>) {
        if self.0.stopped.load(Ordering::Relaxed) {
            return;
        }
        let is_first = {
            let mut queue = self.0.queue.lock();
            queue.push_back(work);
            queue.len() == 1
        };
        if is_first {
            self.0.wake.notify_one();
        }
    }

    /// Waits until all work that is queued when the future is first polled has had its slice.
    /// Cancel-safe.
    pub fn wait_for_slice(&self) -> impl Future<Output = ()> + Send + use<> {
        let scheduler = self.clone();
        async move {
            let waiter = Arc::new(SliceWaiter(Notify::new()));
            scheduler.schedule(waiter.clone());
            waiter.0.notified().await;
            if !scheduler.is_single_threaded() {
                // The slices before this one have only woken their tasks, and tokio runs the task
                // that was woken last first: yield once more so that those tasks run before.
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Ends the slice of the polled task: wakes it again after the other ready tasks have run and the
/// runtime has polled for I/O. A plain wake would poll it again dozens of times before that.
pub fn yield_slice(cx: &mut Context<'_>) {
    let yielded = std::pin::pin!(tokio::task::yield_now());
    let _ = yielded.poll(cx);
}

/// A queue entry without anything to write, which only signals that its slice has come.
struct SliceWaiter(Notify);

impl Scheduled for SliceWaiter {
    fn run_slice(self: Arc<Self>) {
        self.0.notify_one();
    }
}

impl fmt::Debug for WriteScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteScheduler")
            .field("queue_len", &self.queue_len())
            .finish()
    }
}

/// Runs one slice. A panic ends only this slice; the slices behind it still run.
fn run_caught(work: Arc<dyn Scheduled>) {
    if catch_unwind(AssertUnwindSafe(|| work.run_slice())).is_err() {
        #[cfg(feature = "tracing")]
        tracing::error!("a scheduled slice panicked; the scheduler continues with the next one");
    }
}

async fn run(shared: Arc<Shared>) {
    /// Drops the queued work when the task ends, also at the end of the runtime: queued work may
    /// hold references to this scheduler, which would keep both alive.
    struct DropQueue(Arc<Shared>);
    impl Drop for DropQueue {
        fn drop(&mut self) {
            self.0.stopped.store(true, Ordering::Relaxed);
            let queued = std::mem::take(&mut *self.0.queue.lock());
            drop(queued);
        }
    }
    let guard = DropQueue(shared);
    let shared = &guard.0;
    let mut batch = Vec::with_capacity(SLICES_PER_BATCH);
    while !shared.stopped.load(Ordering::Relaxed) {
        {
            let mut queue = shared.queue.lock();
            let count = queue.len().min(SLICES_PER_BATCH);
            batch.extend(queue.drain(..count));
            if queue.is_empty() {
                queue.shrink_to(RETAINED_CAPACITY);
            }
        }
        if batch.is_empty() {
            shared.wake.notified().await;
        } else {
            batch.drain(..).for_each(run_caught);
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    /// Counts the slices of all writers that share the counter.
    struct Writer(Arc<AtomicUsize>);

    impl Scheduled for Writer {
        fn run_slice(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A scheduler that is not started, with `writers` queued slices, and the count of those run.
    fn scheduler_with(writers: usize) -> (WriteScheduler, Arc<AtomicUsize>) {
        let scheduler = WriteScheduler::default();
        let slices = Arc::new(AtomicUsize::new(0));
        for _ in 0..writers {
            scheduler.schedule(Arc::new(Writer(slices.clone())));
        }
        (scheduler, slices)
    }

    async fn eventually(condition: impl Fn() -> bool) {
        let reached = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), reached)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn other_ready_tasks_run_between_batches() {
        let (scheduler, slices) = scheduler_with(10 * SLICES_PER_BATCH);
        scheduler.start();
        let mut before = 0;
        for _ in 0..10 {
            tokio::task::yield_now().await;
            let now = slices.load(Ordering::Relaxed);
            assert!(now - before <= SLICES_PER_BATCH, "{} at once", now - before);
            before = now;
        }
        eventually(|| slices.load(Ordering::Relaxed) == 10 * SLICES_PER_BATCH).await;
        scheduler.schedule(Arc::new(Writer(slices.clone())));
        eventually(|| slices.load(Ordering::Relaxed) > 10 * SLICES_PER_BATCH).await;
    }

    #[tokio::test]
    async fn a_panicking_slice_does_not_stop_the_scheduler() {
        struct Broken;
        impl Scheduled for Broken {
            fn run_slice(self: Arc<Self>) {
                panic!("on purpose");
            }
        }
        let (scheduler, slices) = scheduler_with(1);
        scheduler.schedule(Arc::new(Broken));
        scheduler.schedule(Arc::new(Writer(slices.clone())));
        scheduler.start();
        eventually(|| slices.load(Ordering::Relaxed) == 2).await;
    }

    #[tokio::test]
    async fn wait_for_slice_resolves_after_all_slices_queued_before() {
        let (scheduler, slices) = scheduler_with(3 * SLICES_PER_BATCH);
        scheduler.start();
        scheduler.wait_for_slice().await;
        assert_eq!(slices.load(Ordering::Relaxed), 3 * SLICES_PER_BATCH);
    }

    #[tokio::test]
    async fn dropping_the_control_ends_the_scheduler_task() {
        let control = crate::Control::default();
        let shared = Arc::downgrade(&control.write_scheduler().0);
        drop(control);
        eventually(|| shared.strong_count() == 0).await;
    }
}
