//! How long messages took, from the call to send to the arrival at each member.

use std::sync::Arc;

use parking_lot::Mutex;

/// Arrivals of messages at those members who measure.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Arc<Mutex<Vec<(u64, u64)>>>);

impl Latencies {
    /// An arrival: when (ms of the run), and how long it took (µs).
    pub fn add(&self, at: u64, micros: u64) {
        self.0.lock().push((at, micros));
    }

    /// The 99th percentile, in ms, of what arrived in that span of the run; and of how many.
    pub fn p99(&self, from: u64, to: u64) -> (f64, usize) {
        let mut all: Vec<u64> = self
            .0
            .lock()
            .iter()
            .filter(|(at, _)| (from..to).contains(at))
            .map(|(_, micros)| *micros)
            .collect();
        if all.is_empty() {
            return (f64::NAN, 0);
        }
        all.sort_unstable();
        let index = (all.len() * 99 / 100).min(all.len() - 1);
        #[expect(clippy::cast_precision_loss, reason = "microseconds of seconds")]
        let millis = all[index] as f64 / 1000.0;
        (millis, all.len())
    }
}
