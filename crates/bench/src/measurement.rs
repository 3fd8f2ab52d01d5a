//! The phases of a run, in order: all clients connect, the connections stay idle for a moment, the
//! load (not with `--idle`), and a reconnect storm (only with `--storm`).

use std::time::{Duration, Instant};

use crate::generator::LoadGenerator;
use crate::load::{LoadResult, run_load};
use crate::options::Options;
use crate::process::Process;
use crate::progress_line::ProgressLine;
use crate::report::{CheckedBy, Connecting, Quantiles, Report, Servers, per_second};
use crate::room::Room;
use crate::usage::{Usage, UsageSnapshot};

/// Time without load after all clients have joined, before memory is measured.
const SETTLE_TIME: Duration = Duration::from_millis(500);

/// Maximum time of a poll while the connections are idle.
const IDLE_POLL_TIMEOUT: Duration = Duration::from_millis(200);

/// A run against the nodes.
pub(crate) struct Measurement<'a> {
    options: &'a Options,
    /// The processes given by `--pid`.
    servers: &'a [Process],
    generator: &'a mut LoadGenerator,
    progress: ProgressLine,
}

/// Memory of each server, in the order of `--pid`.
struct MemoryUse {
    /// Before the first connection.
    before: Vec<u64>,
    /// When all clients had joined.
    joined: Vec<u64>,
}

impl<'a> Measurement<'a> {
    pub(crate) fn new(
        options: &'a Options,
        servers: &'a [Process],
        generator: &'a mut LoadGenerator,
    ) -> Self {
        Self {
            options,
            servers,
            generator,
            progress: ProgressLine::new(),
        }
    }

    /// Runs all phases.
    ///
    /// # Errors
    /// If clients cannot connect, a poll fails, or a server process cannot be measured. Violations
    /// of the server's guarantees are no errors: they are in the report.
    pub(crate) fn run(mut self) -> anyhow::Result<Report> {
        let memory_before = self.server_memory()?;
        let usage_before = UsageSnapshot::take(self.servers)?;
        let connecting = self.connect(self.options.at_once, self.options.ramp, "have joined")?;
        let connect_usage = UsageSnapshot::take(self.servers)?.since(&usage_before)?;
        self.idle(if self.options.idle {
            self.options.duration
        } else {
            SETTLE_TIME
        })?;
        let memory = MemoryUse {
            before: memory_before,
            joined: self.server_memory()?,
        };
        let load = if self.options.idle {
            None
        } else {
            Some(run_load(
                self.options,
                self.servers,
                self.generator,
                &mut self.progress,
            )?)
        };
        let storm = if self.options.storm {
            Some(self.reconnect_storm()?)
        } else {
            None
        };
        self.progress.clear();
        Ok(self.report(connecting, &connect_usage, &memory, load, storm))
    }

    /// Cuts all connections, and connects all clients again, with any number of handshakes at a
    /// time.
    fn reconnect_storm(&mut self) -> anyhow::Result<Connecting> {
        self.generator.disconnect_all();
        let connecting = self.connect(self.options.clients, 0, "are back")?;
        self.idle(SETTLE_TIME)?;
        Ok(connecting)
    }

    /// Connects all clients. The progress line is their number and `progress_verb`.
    fn connect(
        &mut self,
        concurrency: usize,
        per_sec: u64,
        progress_verb: &str,
    ) -> anyhow::Result<Connecting> {
        let progress = &mut self.progress;
        let time = self.generator.connect_all(concurrency, per_sec, |joined| {
            progress.update(|| format!("{joined} clients {progress_verb}"));
        })?;
        Ok(Connecting {
            seconds: time.as_secs_f64(),
            per_second: per_second(self.generator.clients.len() as u64, time),
            time_ms: Quantiles::of(&self.generator.join_time),
            failed_attempts: std::mem::take(&mut self.generator.failed_attempts),
        })
    }

    /// Only replies to heartbeats, for this time.
    fn idle(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.generator
                .poll_once(Some(left.min(IDLE_POLL_TIMEOUT)))?;
            self.progress
                .update(|| format!("idle for another {} s", left.as_secs()));
        }
        Ok(())
    }

    fn server_memory(&self) -> anyhow::Result<Vec<u64>> {
        self.servers.iter().map(|server| server.memory()).collect()
    }

    fn report(
        self,
        connecting: Connecting,
        connect_usage: &Usage,
        memory: &MemoryUse,
        load: Option<LoadResult>,
        storm: Option<Connecting>,
    ) -> Report {
        let servers = if self.servers.is_empty() {
            None
        } else {
            Some(self.servers_report(connect_usage, memory, load.as_ref()))
        };
        let rooms = &self.generator.rooms;
        let mut findings = self.generator.findings;
        for room in rooms {
            room.count_undelivered(&mut findings);
        }
        findings.unacknowledged = self.generator.messages_unanswered();
        let checked_by = if rooms.iter().all(Room::is_numbered) {
            CheckedBy::Seq
        } else {
            CheckedBy::Sender
        };
        Report {
            clients: self.options.clients,
            rooms: self.options.rooms,
            rooms_each: self.options.rooms_each,
            members: self.generator.assignment.members_per_room(),
            connecting,
            load: load.map(|result| result.load),
            storm,
            limits: self.generator.connect_limits.take(),
            servers,
            checked: self.generator.deliveries.count,
            checked_by,
            findings,
            ok: findings.is_clean(),
        }
    }

    fn servers_report(
        &self,
        connect_usage: &Usage,
        memory: &MemoryUse,
        load: Option<&LoadResult>,
    ) -> Servers {
        let clients = self.options.clients as f64;
        let bytes_more: Vec<f64> = memory
            .joined
            .iter()
            .zip(&memory.before)
            .map(|(joined, before)| *joined as f64 - *before as f64)
            .collect();
        let measured_usage = load.map_or(connect_usage, |result| &result.usage);
        Servers {
            cores: measured_usage.server_cores(),
            cpu_us_per_connection: connect_usage.servers_us() / clients,
            cpu_us_per_delivery: load
                .map(|result| result.usage.servers_us() / result.deliveries.max(1) as f64),
            memory_before_bytes: memory.before.iter().sum(),
            memory_bytes: memory.joined.iter().sum(),
            bytes_per_connection: bytes_more.iter().sum::<f64>() / clients,
            bytes_more,
        }
    }
}
