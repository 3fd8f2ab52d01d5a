//! A limit on the log lines of one kind per second, with a summary of the lines that it leaves out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long lines that are left out are counted before the summary line.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(1);

/// The lines of one kind that may be written per second.
pub struct LineBudget {
    /// The kind of lines, for the summary. `None`: lines that are left out are not counted.
    kind: Option<&'static str>,
    per_sec: u32,
    window: Mutex<Window>,
    left_out: AtomicU64,
}

/// One second, and the lines written in it.
struct Window {
    began: Instant,
    written: u32,
}

impl LineBudget {
    /// A budget of `per_sec` lines; 0 allows none.
    #[must_use]
    pub fn new(kind: &'static str, per_sec: u32) -> Arc<Self> {
        Self::with(Some(kind), per_sec)
    }

    /// A budget of no lines, for those that only `debug` shows.
    #[must_use]
    pub fn only_debug() -> Arc<Self> {
        Self::with(None, 0)
    }

    fn with(kind: Option<&'static str>, per_sec: u32) -> Arc<Self> {
        Arc::new(Self {
            kind,
            per_sec,
            window: Mutex::new(Window {
                began: Instant::now(),
                written: 0,
            }),
            left_out: AtomicU64::new(0),
        })
    }

    /// Charges a line; false if the budget of this second is used up.
    pub fn charge(&self) -> bool {
        if self.per_sec == 0 {
            return false;
        }
        self.charge_at(Instant::now())
    }

    fn charge_at(&self, now: Instant) -> bool {
        let mut window = self.window.lock();
        if now.saturating_duration_since(window.began) >= Duration::from_secs(1) {
            *window = Window {
                began: now,
                written: 0,
            };
        }
        if window.written >= self.per_sec {
            return false;
        }
        window.written += 1;
        true
    }

    /// Counts a line that is left out. The first one starts the task that writes the summary.
    pub fn leave_out(self: &Arc<Self>) {
        let Some(kind) = self.kind else {
            return;
        };
        if self.left_out.fetch_add(1, Ordering::Relaxed) > 0 {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let budget = self.clone();
        runtime.spawn(async move {
            tokio::time::sleep(SUMMARY_INTERVAL).await;
            let left_out = budget.left_out.swap(0, Ordering::Relaxed);
            tracing::info!(kind, left_out, "log lines left out");
        });
    }
}

/// Writes a log line at `info` within the budget, and beyond it at `debug`. A line beyond the budget
/// that `debug` does not show is counted as left out.
macro_rules! log_within {
    ($budget:expr, target: $target:expr, $($line:tt)+) => {
        if tracing::enabled!(target: $target, tracing::Level::INFO) {
            if $budget.charge() {
                tracing::info!(target: $target, $($line)+);
            } else if tracing::enabled!(target: $target, tracing::Level::DEBUG) {
                tracing::debug!(target: $target, $($line)+);
            } else {
                $budget.leave_out();
            }
        }
    };
}

pub(crate) use log_within;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_number_per_second_are_over_budget_until_the_next_second() {
        let budget = LineBudget::new("test", 2);
        let began = budget.window.lock().began;
        let charge = |millis| budget.charge_at(began + Duration::from_millis(millis));
        assert_eq!([0, 1, 2, 999].map(charge), [true, true, false, false]);
        assert_eq!([1000, 1001, 1999].map(charge), [true, true, false]);
        let none = LineBudget::new("test", 0);
        assert!(!none.charge());
    }
}
