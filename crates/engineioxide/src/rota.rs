//! Connections with something to write take turns, in the order in which they got it. (Others may have lines of their own,
//! for other work.)
//!
//! A message for a large room makes hundreds of them ready at once. Were all to begin at once, whatever comes in meanwhile
//! would stand behind them: it would be read late, and go out in writes of its own. So a few begin at a time, and between
//! these everything else that is ready runs: what it brings for someone who still waits goes out in the same write. Who
//! begins is written, where everything runs on one thread, and elsewhere woken to write.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;

/// Connections that begin to write before others run. Their tasks fit into the local queue of one of tokio's threads.
const TURN: usize = 64;
/// After a large room the line keeps memory for so many.
const KEEP: usize = 1024;

/// Whoever waits for a turn: a connection that has something to write.
pub trait Waiting: Send + Sync {
    /// It is its turn. Must not block.
    fn begin_turn(self: Arc<Self>);
}

/// The line of those who wait. Cheap to clone: all clones are one line.
#[derive(Clone, Default)]
pub struct Rota(Arc<Line>);

#[derive(Default)]
struct Line {
    waiting: Mutex<VecDeque<Arc<dyn Waiting>>>,
    /// Someone waits, or it is over.
    news: Notify,
    started: AtomicBool,
    /// Everything runs on one thread.
    alone: AtomicBool,
    stopped: AtomicBool,
}

impl Rota {
    /// Begins to give turns, once, on a task of the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(&self) {
        if !self.0.started.swap(true, Ordering::Relaxed) {
            let alone = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
            self.0.alone.store(alone, Ordering::Relaxed);
            // It has a bound of its own, and what it writes is others' work.
            tokio::spawn(tokio::task::unconstrained(run(self.0.clone())));
        }
    }

    /// Whether everything runs on one thread: then whoever has its turn had better do its work in it. With several, work is
    /// better woken, and runs on all of these.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.0.alone.load(Ordering::Relaxed)
    }

    /// Gives no more turns.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
        self.0.news.notify_one();
    }

    /// How many stand in line.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting.lock().len()
    }

    /// Puts someone at the end of the line who must not stand in it already. When it has stopped they are let go.
    pub fn wait(&self, who: Arc<dyn Waiting>) {
        if self.0.stopped.load(Ordering::Relaxed) {
            return;
        }
        let is_first = {
            let mut waiting = self.0.waiting.lock();
            waiting.push_back(who);
            waiting.len() == 1
        };
        if is_first {
            self.0.news.notify_one();
        }
    }

    /// Waits until everyone who stands in line when this is first polled has had its turn. Safe to cancel.
    pub fn turn(&self) -> impl Future<Output = ()> + Send + use<> {
        let rota = self.clone();
        async move {
            let guest = Arc::new(Guest(Notify::new()));
            rota.wait(guest.clone());
            guest.0.notified().await;
            if !rota.is_alone() {
                // Those before it have only been woken, and whoever is woken last runs first: they have their turn before it.
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Has the polled task woken when the others that are ready have run, and the runtime has looked which connections are. A plain
/// wake would bring it back dozens of times before that.
pub fn another_turn(cx: &mut Context<'_>) {
    let turn = std::pin::pin!(tokio::task::yield_now());
    let _ = turn.poll(cx);
}

/// Someone who has nothing to write, but waits for a turn.
struct Guest(Notify);

impl Waiting for Guest {
    fn begin_turn(self: Arc<Self>) {
        self.0.notify_one();
    }
}

impl fmt::Debug for Rota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rota")
            .field("waiting", &self.0.waiting.lock().len())
            .finish()
    }
}

/// One that panics has had its turn, and takes nobody else's.
fn begin(who: Arc<dyn Waiting>) {
    if catch_unwind(AssertUnwindSafe(|| who.begin_turn())).is_err() {
        #[cfg(feature = "tracing")]
        tracing::error!("a turn panicked");
    }
}

async fn run(line: Arc<Line>) {
    /// Whoever stands in line may hold on to it: at its end, be it that of the runtime, all are let go.
    struct End(Arc<Line>);
    impl Drop for End {
        fn drop(&mut self) {
            self.0.stopped.store(true, Ordering::Relaxed);
            let left = std::mem::take(&mut *self.0.waiting.lock());
            drop(left);
        }
    }
    let end = End(line);
    let line = &end.0;
    let mut turn = Vec::with_capacity(TURN);
    while !line.stopped.load(Ordering::Relaxed) {
        {
            let mut waiting = line.waiting.lock();
            let count = waiting.len().min(TURN);
            turn.extend(waiting.drain(..count));
            if waiting.is_empty() {
                waiting.shrink_to(KEEP);
            }
        }
        if turn.is_empty() {
            line.news.notified().await;
        } else {
            turn.drain(..).for_each(begin);
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    /// Counts the turns of all.
    struct Writer(Arc<AtomicUsize>);

    impl Waiting for Writer {
        fn begin_turn(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A line of so many who wait, not begun, and the count of their turns.
    fn line_of(writers: usize) -> (Rota, Arc<AtomicUsize>) {
        let (rota, begun) = (Rota::default(), Arc::new(AtomicUsize::new(0)));
        (0..writers).for_each(|_| rota.wait(Arc::new(Writer(begun.clone()))));
        (rota, begun)
    }

    async fn eventually(what: impl Fn() -> bool) {
        let seen = async {
            while !what() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), seen)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn whatever_else_is_ready_runs_before_all_have_had_their_turn() {
        let (rota, begun) = line_of(10 * TURN);
        rota.start();
        let mut before = 0;
        for _ in 0..10 {
            tokio::task::yield_now().await;
            let now = begun.load(Ordering::Relaxed);
            assert!(now - before <= TURN, "{} at once", now - before);
            before = now;
        }
        eventually(|| begun.load(Ordering::Relaxed) == 10 * TURN).await;
        rota.wait(Arc::new(Writer(begun.clone())));
        eventually(|| begun.load(Ordering::Relaxed) > 10 * TURN).await;
    }

    #[tokio::test]
    async fn a_turn_that_panics_is_nobody_elses_end() {
        struct Broken;
        impl Waiting for Broken {
            fn begin_turn(self: Arc<Self>) {
                panic!("on purpose");
            }
        }
        let (rota, begun) = line_of(1);
        rota.wait(Arc::new(Broken));
        rota.wait(Arc::new(Writer(begun.clone())));
        rota.start();
        eventually(|| begun.load(Ordering::Relaxed) == 2).await;
    }

    #[tokio::test]
    async fn a_guest_has_its_turn_behind_all_before_it() {
        let (rota, begun) = line_of(3 * TURN);
        rota.start();
        rota.turn().await;
        assert_eq!(begun.load(Ordering::Relaxed), 3 * TURN);
    }

    #[tokio::test]
    async fn the_end_of_the_registry_ends_the_line() {
        let control = crate::Control::default();
        let line = Arc::downgrade(&control.rota().0);
        drop(control);
        eventually(|| line.strong_count() == 0).await;
    }
}
