//! The report as text, for the terminal.

use std::fmt;

use super::{Acks, CheckedBy, Connecting, Load, Quantiles, Report, Servers};

/// Width of the first column, which names a line's contents.
const NAME_WIDTH: usize = 12;

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_connecting(out, "connected", &self.connecting)?;
        if let Some(load) = &self.load {
            write_load(out, load)?;
        }
        if let Some(storm) = &self.storm {
            self.write_connecting(out, "storm", storm)?;
        }
        for limit in &self.limits {
            writeln!(out, "{:<NAME_WIDTH$}{limit}", "limit")?;
        }
        if let Some(servers) = &self.servers {
            write_servers(out, servers)?;
        }
        if let Some(load) = &self.load {
            let cores = load.generator_cores;
            writeln!(out, "{:<NAME_WIDTH$}{cores:.2} cores", "generator")?;
        }
        self.write_checks(out)
    }
}

impl Report {
    fn write_connecting(
        &self,
        out: &mut fmt::Formatter<'_>,
        name: &str,
        connecting: &Connecting,
    ) -> fmt::Result {
        write!(
            out,
            "{name:<NAME_WIDTH$}{} clients, {} rooms",
            self.clients, self.rooms
        )?;
        if self.rooms_each > 1 {
            let members = (self.members * 10.0).round() / 10.0;
            write!(
                out,
                " of {members} members ({} rooms per client)",
                self.rooms_each
            )?;
        }
        write!(
            out,
            ", in {:.2} s: {:.0}/s; per client {}",
            connecting.seconds, connecting.per_second, connecting.time_ms
        )?;
        if connecting.failed_attempts > 0 {
            let attempts = connecting.failed_attempts;
            write!(out, "; {attempts} attempts failed and were retried")?;
        }
        writeln!(out)
    }

    fn write_checks(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let basis = match self.checked_by {
            CheckedBy::Seq => "by the server's numbers",
            CheckedBy::Sender => "only by each sender's own counter",
        };
        write!(
            out,
            "{:<NAME_WIDTH$}{} deliveries, {basis}: ",
            "checked", self.checked
        )?;
        if self.ok {
            write!(out, "no message missing, repeated or out of order")
        } else {
            write!(out, "FAILED: {}", self.findings)
        }
    }
}

fn write_load(out: &mut fmt::Formatter<'_>, load: &Load) -> fmt::Result {
    writeln!(
        out,
        "{:<NAME_WIDTH$}{:.0}/s, {:.0} deliveries/s",
        "messages", load.messages_per_second, load.deliveries_per_second
    )?;
    writeln!(out, "{:<NAME_WIDTH$}{}", "latency", load.latency_ms)?;
    match &load.acks {
        Some(acks) => write_acks(out, acks),
        None => Ok(()),
    }
}

fn write_acks(out: &mut fmt::Formatter<'_>, acks: &Acks) -> fmt::Result {
    write!(
        out,
        "{:<NAME_WIDTH$}{:.0}/s, {}",
        "acks", acks.per_second, acks.latency_ms
    )?;
    if acks.refused > 0 {
        write!(out, "; {} messages refused", acks.refused)?;
    }
    writeln!(out)
}

fn write_servers(out: &mut fmt::Formatter<'_>, servers: &Servers) -> fmt::Result {
    let cores: Vec<String> = servers
        .cores
        .iter()
        .map(|cores| format!("{cores:.2}"))
        .collect();
    write!(
        out,
        "{:<NAME_WIDTH$}{} cores; CPU {:.0} µs per connection",
        "servers",
        cores.join(" + "),
        servers.cpu_us_per_connection
    )?;
    if let Some(delivery) = servers.cpu_us_per_delivery {
        write!(out, ", {delivery:.2} µs per delivery")?;
    }
    writeln!(
        out,
        "; memory {:.1} MB before, and {:.2} KB per connection",
        servers.memory_before_bytes as f64 / 1e6,
        servers.bytes_per_connection / 1e3
    )
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
