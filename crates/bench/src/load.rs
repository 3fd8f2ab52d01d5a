//! The load: a warm-up, the measurement, and the wait for the last deliveries.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::generator::LoadGenerator;
use crate::options::Options;
use crate::process::Process;
use crate::progress_line::ProgressLine;
use crate::report::{Acks, Load, Quantiles, per_second};
use crate::send_schedule::SendSchedule;
use crate::usage::{Usage, UsageSnapshot};

/// After the measurement, messages that have not arrived count as lost when nothing has been
/// delivered for this long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time of a poll while the last deliveries are awaited.
const DRAIN_POLL_TIMEOUT: Duration = Duration::from_millis(20);

/// The results of the load.
pub(crate) struct LoadResult {
    pub(crate) load: Load,
    /// CPU time during the measurement.
    pub(crate) usage: Usage,
    /// Deliveries during the measurement.
    pub(crate) deliveries: u64,
}

/// The counters at one moment.
struct Snapshot {
    usage: UsageSnapshot,
    messages: u64,
    deliveries: u64,
    acknowledged: u64,
}

struct LoadPhase<'a> {
    generator: &'a mut LoadGenerator,
    progress: &'a mut ProgressLine,
    schedule: SendSchedule,
    began: Instant,
}

/// Puts load on the servers and measures it.
///
/// # Errors
/// If a poll fails, a server process ends, or a limit of the nodes refuses messages.
pub(crate) fn run_load(
    options: &Options,
    servers: &[Process],
    generator: &mut LoadGenerator,
    progress: &mut ProgressLine,
) -> anyhow::Result<LoadResult> {
    let began = Instant::now();
    let measure_from = began + options.warm_up;
    let mut schedule = match options.rate {
        Some(per_sec) => SendSchedule::fixed_rate(per_sec, began),
        None if options.acks => SendSchedule::ack_paced(options.in_flight),
        None => SendSchedule::in_flight(options.in_flight),
    };
    schedule.start(generator);
    generator.latency_from = generator.us_of(measure_from);
    let mut phase = LoadPhase {
        generator,
        progress,
        schedule,
        began,
    };
    phase.send_until(measure_from)?;
    let before = phase.snapshot(servers)?;
    phase.send_until(before.usage.at + options.duration)?;
    let after = phase.snapshot(servers)?;
    phase.drain()?;
    phase.check_limits()?;

    let usage = after.usage.since(&before.usage)?;
    let deliveries = after.deliveries - before.deliveries;
    let acks = generator.acks.as_ref().map(|acks| Acks {
        per_second: per_second(after.acknowledged - before.acknowledged, usage.time),
        latency_ms: Quantiles::of(&acks.latency),
        refused: acks.refused,
    });
    let load = Load {
        seconds: usage.time.as_secs_f64(),
        messages_per_second: per_second(after.messages - before.messages, usage.time),
        deliveries_per_second: per_second(deliveries, usage.time),
        latency_ms: Quantiles::of(&generator.deliveries.latency),
        acks,
        generator_cores: usage.generator_cores(),
    };
    Ok(LoadResult {
        load,
        usage,
        deliveries,
    })
}

impl LoadPhase<'_> {
    /// Sends and receives messages until the deadline, or until a limit of the nodes refuses one.
    fn send_until(&mut self, deadline: Instant) -> anyhow::Result<()> {
        while Instant::now() < deadline {
            self.check_limits()?;
            let timeout = self.schedule.send_due(self.generator);
            self.generator.poll_once(Some(timeout))?;
            self.show_progress();
        }
        Ok(())
    }

    /// # Errors
    /// If a limit of the nodes has refused messages: the nodes were not given the load that is
    /// measured.
    fn check_limits(&mut self) -> anyhow::Result<()> {
        let limits = &self.generator.load_limits;
        if limits.is_empty() {
            return Ok(());
        }
        self.progress.clear();
        bail!(
            "the measurement is void, because limits of the nodes refused messages:{limits}\n\
             Start the nodes with higher limits for the run, or lower the load by --rate or more \
             --senders."
        )
    }

    /// Receives messages and acknowledgements until all have arrived everywhere, or nothing arrives
    /// for [`DRAIN_TIMEOUT`]: a server that is slow has not lost anything yet.
    fn drain(&mut self) -> anyhow::Result<()> {
        let mut received = self.received();
        let mut received_at = Instant::now();
        while !self.generator.is_drained() && received_at.elapsed() < DRAIN_TIMEOUT {
            self.generator.poll_once(Some(DRAIN_POLL_TIMEOUT))?;
            if self.received() > received {
                received = self.received();
                received_at = Instant::now();
            }
        }
        Ok(())
    }

    /// Number of messages and acknowledgements that clients have received.
    fn received(&self) -> u64 {
        self.generator.deliveries.count + self.generator.messages_answered()
    }

    fn snapshot(&self, servers: &[Process]) -> anyhow::Result<Snapshot> {
        Ok(Snapshot {
            usage: UsageSnapshot::take(servers)?,
            messages: self.generator.messages_sent(),
            deliveries: self.generator.deliveries.count,
            acknowledged: match &self.generator.acks {
                Some(acks) => acks.accepted,
                None => 0,
            },
        })
    }

    fn show_progress(&mut self) {
        let deliveries = &self.generator.deliveries;
        self.progress.update(|| {
            let elapsed = self.began.elapsed();
            let per_second = per_second(deliveries.count, elapsed);
            let p99_ms = deliveries.latency.value_at_quantile(0.99) as f64 / 1000.0;
            format!(
                "{:.0} s: {per_second:.0} deliveries/s, p99 {p99_ms:.2} ms",
                elapsed.as_secs_f64()
            )
        });
    }
}
