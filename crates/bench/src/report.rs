//! What was measured: for people, and as JSON.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::room::Findings;

/// Times in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl Quantiles {
    /// Of a histogram of microseconds.
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
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

impl fmt::Display for Quantiles {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            p50,
            p90,
            p99,
            p999,
            max,
        } = self;
        write!(
            out,
            "p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2} ms"
        )
    }
}

/// How the connections came.
#[derive(Debug, Serialize)]
pub(super) struct Connecting {
    pub(super) seconds: f64,
    pub(super) per_second: f64,
    /// From dialling first to the answer of the join: whoever was turned away and came again has it all in one.
    pub(super) time_ms: Quantiles,
    /// Attempts that were turned away, and made again.
    pub(super) failed_attempts: u64,
}

/// The load while it was measured.
#[derive(Debug, Serialize)]
pub(super) struct Load {
    pub(super) seconds: f64,
    pub(super) messages_per_second: f64,
    pub(super) deliveries_per_second: f64,
    /// From when a message was to be sent to when a member had it.
    pub(super) latency_ms: Quantiles,
    /// How much of one core this generator used: near 1 it may have been the bottleneck.
    pub(super) generator_cores: f64,
}

/// What the servers used.
#[derive(Debug, Serialize)]
pub(super) struct Servers {
    /// How many cores each used while it was measured, in the order in which they were named.
    pub(super) cores: Vec<f64>,
    /// Of all together, while the connections came.
    pub(super) cpu_us_per_connection: f64,
    /// Of all together; absent when nothing was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_us_per_delivery: Option<f64>,
    /// Of all together, before anyone came.
    pub(super) memory_before_bytes: u64,
    /// Of all together, with everyone there and before a word was said.
    pub(super) memory_bytes: u64,
    /// The difference, of each in the order in which they were named.
    pub(super) bytes_more: Vec<f64>,
    /// The difference of all together, per connection.
    pub(super) bytes_per_connection: f64,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) clients: usize,
    pub(super) rooms: usize,
    /// Rooms that each client is in.
    pub(super) rooms_each: usize,
    /// Members of each room: so many deliveries a message is to have.
    pub(super) members: f64,
    pub(super) connecting: Connecting,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) load: Option<Load>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) storm: Option<Connecting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) servers: Option<Servers>,
    /// Deliveries that were checked, warm-up and end included.
    pub(super) checked: u64,
    /// `seq`: each member got each number once, in one order. `sender`: the server numbers nothing; what was checked is
    /// each sender's own count.
    pub(super) checked_by: &'static str,
    pub(super) findings: Findings,
    pub(super) ok: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = if self.rooms_each == 1 {
            String::new()
        } else {
            format!(
                " × {} (each client in {})",
                (self.members * 10.0).round() / 10.0,
                self.rooms_each
            )
        };
        let connecting = |out: &mut fmt::Formatter<'_>, name: &str, it: &Connecting| {
            write!(
                out,
                "{name:<12}{} clients, {} rooms{each}, in {:.2} s: {:.0}/s; each {}",
                self.clients, self.rooms, it.seconds, it.per_second, it.time_ms
            )?;
            if it.failed_attempts > 0 {
                write!(out, "; {} attempts were turned away", it.failed_attempts)?;
            }
            writeln!(out)
        };
        connecting(out, "connected", &self.connecting)?;
        if let Some(load) = &self.load {
            writeln!(
                out,
                "{:<12}{:.0}/s, {:.0} deliveries/s",
                "messages", load.messages_per_second, load.deliveries_per_second
            )?;
            writeln!(out, "{:<12}{}", "latency", load.latency_ms)?;
        }
        if let Some(storm) = &self.storm {
            connecting(out, "storm", storm)?;
        }
        if let Some(servers) = &self.servers {
            let cores: Vec<String> = servers
                .cores
                .iter()
                .map(|cores| format!("{cores:.2}"))
                .collect();
            write!(
                out,
                "{:<12}{} cores; {:.0} µs a connection",
                "server",
                cores.join(" + "),
                servers.cpu_us_per_connection
            )?;
            if let Some(delivery) = servers.cpu_us_per_delivery {
                write!(out, ", {delivery:.2} µs a delivery")?;
            }
            writeln!(
                out,
                "; {:.1} MB at first, {:.2} KB a connection",
                servers.memory_before_bytes as f64 / 1e6,
                servers.bytes_per_connection / 1e3
            )?;
        }
        if let Some(load) = &self.load {
            writeln!(out, "{:<12}{:.2} cores", "generator", load.generator_cores)?;
        }
        let way = if self.checked_by == "seq" {
            "by the server's numbers"
        } else {
            "by each sender's own count only"
        };
        write!(out, "{:<12}{} deliveries, {way}: ", "checked", self.checked)?;
        if self.ok {
            write!(out, "no hole, no repeat, one order")
        } else {
            write!(out, "NOT WELL: {:?}", self.findings)
        }
    }
}

/// What a phase brought about, per second.
pub(super) fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}
