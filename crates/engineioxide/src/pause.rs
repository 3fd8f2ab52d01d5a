//! Detects pauses of this process: a virtual machine that is moved or suspended, a stopped process,
//! a runtime without CPU time.
//!
//! During a pause the deadlines of all clients pass, although their answers may have arrived or may
//! still be on their way. So a deadline that passed in a pause is extended: the client has its time
//! again since the end of the pause. A session extends each of its deadlines only once until the
//! client shows life, so that repeated short pauses, as on an overloaded machine, do not disable
//! the timeouts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The interval at which the monitor looks at the clock.
const TICK: Duration = Duration::from_millis(500);
/// A tick that is later than this ends a pause.
const TOLERANCE: Duration = Duration::from_millis(500);

/// Knows when this process last continued after a pause. Detects every pause of a second or more.
/// Cheap to clone: all clones are one monitor.
#[derive(Clone, Default)]
pub struct PauseMonitor(Arc<Shared>);

#[derive(Default)]
struct Shared {
    times: Mutex<Times>,
    started: AtomicBool,
}

#[derive(Default)]
struct Times {
    /// The time of the next tick; `None` before the start.
    next_tick: Option<Instant>,
    resumed_at: Option<Instant>,
}

impl PauseMonitor {
    /// Starts the monitor on a task of the current runtime. Later calls do nothing.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(&self) {
        if !self.0.started.swap(true, Ordering::Relaxed) {
            let _ = self.resumed_at(Instant::now());
            tokio::spawn(run(Arc::downgrade(&self.0)));
        }
    }

    /// The end of the last pause; `None` if there was none. `now` may be the first time that is seen
    /// after a pause.
    #[must_use]
    pub fn resumed_at(&self, now: Instant) -> Option<Instant> {
        let mut times = self.0.times.lock();
        if times.next_tick.is_some_and(|tick| now > tick + TOLERANCE) {
            times.resumed_at = Some(now);
        }
        times.next_tick = times.next_tick.max(Some(now + TICK));
        times.resumed_at
    }
}

impl std::fmt::Debug for PauseMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let resumed_at = self.0.times.lock().resumed_at;
        f.debug_struct("PauseMonitor")
            .field("resumed_at", &resumed_at)
            .finish()
    }
}

/// Ends when the monitor is dropped.
async fn run(shared: Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let _ = PauseMonitor(shared).resumed_at(Instant::now());
        tokio::time::sleep(TICK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_late_tick_is_the_end_of_a_pause() {
        let monitor = PauseMonitor::default();
        monitor.start();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(monitor.resumed_at(Instant::now()), None);
        // The clock jumps, and the monitor's task runs only afterwards.
        tokio::time::advance(Duration::from_secs(2)).await;
        let resumed = Instant::now();
        assert_eq!(monitor.resumed_at(resumed), Some(resumed));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(monitor.resumed_at(Instant::now()), Some(resumed));
    }
}
