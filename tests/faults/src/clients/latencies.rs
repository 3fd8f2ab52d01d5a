//! The latencies of messages: from the call to send until the delivery to each member.

use std::sync::Arc;

use parking_lot::Mutex;

/// The deliveries to the members that measure latencies.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Arc<Mutex<Vec<Sample>>>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Milliseconds since the run began.
    at: u64,
    latency_micros: u64,
}

/// The 99th percentile of the latencies in a span of time.
#[derive(Debug, Clone, Copy)]
pub struct Percentile {
    /// NaN if there was no delivery.
    pub millis: f64,
    /// The number of deliveries.
    pub count: usize,
}

impl Latencies {
    /// Adds a delivery `at` this time (milliseconds since the run began).
    pub fn add(&self, at: u64, latency_micros: u64) {
        self.0.lock().push(Sample { at, latency_micros });
    }

    /// The 99th percentile of the deliveries from `from` until before `to`, in milliseconds since
    /// the run began.
    pub fn p99(&self, from: u64, to: u64) -> Percentile {
        let mut latencies: Vec<u64> = self
            .0
            .lock()
            .iter()
            .filter(|sample| (from..to).contains(&sample.at))
            .map(|sample| sample.latency_micros)
            .collect();
        let count = latencies.len();
        if count == 0 {
            let millis = f64::NAN;
            return Percentile { millis, count };
        }
        latencies.sort_unstable();
        let index = (count * 99 / 100).min(count - 1);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53 microseconds")]
        let millis = latencies[index] as f64 / 1000.0;
        Percentile { millis, count }
    }
}
