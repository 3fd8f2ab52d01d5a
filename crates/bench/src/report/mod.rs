//! The results of a run. The names of all fields are the keys of the JSON report.

#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::findings::Findings;
use crate::limits::MetLimit;

/// Quantiles of times, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Quantiles {
    /// Of a histogram in microseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
        }
    }
}

/// The results of connecting all clients.
#[derive(Debug, Serialize)]
pub(crate) struct Connecting {
    /// Time until the last client had joined.
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// Per client, from its first dial to the ack of its last join. For a client whose attempts
    /// failed at first, all of them are included.
    pub(crate) time_ms: Quantiles,
    /// Attempts that failed and were retried.
    pub(crate) failed_attempts: u64,
}

/// The results of the load, without the warm-up.
#[derive(Debug, Serialize)]
pub(crate) struct Load {
    pub(crate) seconds: f64,
    pub(crate) messages_per_second: f64,
    pub(crate) deliveries_per_second: f64,
    /// From the moment at which a message was due to be sent until a member had it.
    pub(crate) latency_ms: Quantiles,
    /// Only with `--acks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) acks: Option<Acks>,
    /// Cores that this generator used: close to 1, it may have been the bottleneck.
    pub(crate) generator_cores: f64,
}

/// The acknowledgements of messages.
#[derive(Debug, Serialize)]
pub(crate) struct Acks {
    /// Messages that were acknowledged, per second.
    pub(crate) per_second: f64,
    /// From the moment at which a message was due to be sent until its sender had the
    /// acknowledgement; without the messages that were refused.
    pub(crate) latency_ms: Quantiles,
    /// Messages that the servers refused, including the warm-up.
    pub(crate) refused: u64,
}

/// The usage of the servers given by `--pid`.
#[derive(Debug, Serialize)]
pub(crate) struct Servers {
    /// Cores that each server used during the load (with `--idle`: while the clients connected), in
    /// the order of `--pid`.
    pub(crate) cores: Vec<f64>,
    /// CPU time of all servers while the clients connected, in microseconds per connection.
    pub(crate) cpu_us_per_connection: f64,
    /// CPU time of all servers during the load, in microseconds per delivery. Absent with `--idle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_us_per_delivery: Option<f64>,
    /// Memory of all servers before the first connection.
    pub(crate) memory_before_bytes: u64,
    /// Memory of all servers when all clients had joined, before the first message.
    pub(crate) memory_bytes: u64,
    /// The difference between the two for each server, in the order of `--pid`.
    pub(crate) bytes_more: Vec<f64>,
    /// The difference between the two for all servers, per connection.
    pub(crate) bytes_per_connection: f64,
}

/// The data that deliveries were checked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckedBy {
    /// The server's numbers: each member received each number once, and all in one order.
    Seq,
    /// Each sender's own counter, because the server numbers nothing in at least one room.
    Sender,
}

/// All results.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) clients: usize,
    pub(crate) rooms: usize,
    /// Rooms per client.
    pub(crate) rooms_each: usize,
    /// Average number of members of a room, and so of the deliveries of each message.
    pub(crate) members: f64,
    pub(crate) connecting: Connecting,
    /// Absent with `--idle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) load: Option<Load>,
    /// Only with `--storm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storm: Option<Connecting>,
    /// Limits of the nodes that refused clients at first: the times of connecting depend on them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) limits: Vec<MetLimit>,
    /// Only with `--pid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) servers: Option<Servers>,
    /// Deliveries that were checked, including the warm-up and those after the measurement.
    pub(crate) checked: u64,
    pub(crate) checked_by: CheckedBy,
    pub(crate) findings: Findings,
    /// Whether there are no findings.
    pub(crate) ok: bool,
}

/// Events per second.
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}
