//! CPU time of the servers and of the generator in an interval.

use std::time::{Duration, Instant};

use crate::process::{CpuTime, Process};

/// CPU time that the servers and the generator had used up to one moment.
pub(crate) struct UsageSnapshot {
    pub(crate) at: Instant,
    servers: Vec<CpuTime>,
    generator: CpuTime,
}

/// CPU time that was used between two snapshots.
pub(crate) struct Usage {
    /// The time between the snapshots.
    pub(crate) time: Duration,
    /// CPU time of each server, in the order of `--pid`.
    servers: Vec<Duration>,
    generator: Duration,
}

impl UsageSnapshot {
    /// # Errors
    /// If a process cannot be measured, for example because it has ended.
    pub(crate) fn take(servers: &[Process]) -> anyhow::Result<Self> {
        let generator = Process::own().cpu_time()?;
        let servers = servers
            .iter()
            .map(|server| server.cpu_time())
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            at: Instant::now(),
            servers,
            generator,
        })
    }

    /// CPU time that was used since an earlier snapshot.
    ///
    /// # Errors
    /// If a process ended in between.
    pub(crate) fn since(&self, before: &Self) -> anyhow::Result<Usage> {
        let servers = self
            .servers
            .iter()
            .zip(&before.servers)
            .map(|(now, before)| now.since(before))
            .collect::<anyhow::Result<_>>()?;
        Ok(Usage {
            time: self.at - before.at,
            servers,
            generator: self.generator.since(&before.generator)?,
        })
    }
}

impl Usage {
    /// Average number of cores that each server used.
    pub(crate) fn server_cores(&self) -> Vec<f64> {
        self.servers
            .iter()
            .map(|used| cores(*used, self.time))
            .collect()
    }

    /// Average number of cores that the generator used.
    pub(crate) fn generator_cores(&self) -> f64 {
        cores(self.generator, self.time)
    }

    /// CPU time of all servers together, in microseconds.
    pub(crate) fn servers_us(&self) -> f64 {
        self.servers.iter().sum::<Duration>().as_secs_f64() * 1e6
    }
}

fn cores(used: Duration, time: Duration) -> f64 {
    used.as_secs_f64() / time.as_secs_f64().max(1e-9)
}
