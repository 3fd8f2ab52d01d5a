//! What a process on this machine has used so far: processor time and memory.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};

/// Ticks of `/proc/PID/stat` a second, on every Linux.
const TICKS_PER_SEC: u64 = 100;

/// A process, by its id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process(u32);

/// Processor time at one moment, by thread: when a thread ends, what it used stays used.
#[derive(Debug, Clone)]
pub(super) enum Used {
    /// Exact, where the kernel keeps it.
    Threads(BTreeMap<u32, u64>),
    /// Of the whole process, to a hundredth of a second.
    Whole(Duration),
}

impl Process {
    /// # Errors
    /// When there is no such process, or it may not be looked at.
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let process = Self(pid);
        process
            .memory()
            .with_context(|| format!("process {pid} can't be measured"))?;
        Ok(process)
    }

    /// This process.
    pub(super) fn own() -> Self {
        Self(std::process::id())
    }

    /// Processor time used so far.
    ///
    /// # Errors
    /// When the process has ended: what it used since the last look is known to nobody.
    pub(super) fn used(self) -> anyhow::Result<Used> {
        let ticks = self
            .ticks()
            .with_context(|| format!("process {} has ended while it was measured", self.0))?;
        Ok(self.threads().map_or(Used::Whole(ticks), Used::Threads))
    }

    fn threads(self) -> Option<BTreeMap<u32, u64>> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{}/task", self.0))
            .ok()?
            .flatten()
        {
            // A thread may end between the two.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else {
                continue;
            };
            let nanoseconds = text.split(' ').next()?.parse().ok()?;
            threads.insert(entry.file_name().to_str()?.parse().ok()?, nanoseconds);
        }
        threads.values().any(|used| *used > 0).then_some(threads)
    }

    /// `None` when the process has ended, also while its parent has not asked how.
    fn ticks(self) -> Option<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        // The name may hold spaces and brackets; the fields come behind it.
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        if matches!(fields.first(), Some(&("Z" | "X"))) {
            return None;
        }
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SEC))
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub(super) fn memory(self) -> anyhow::Result<u64> {
        // The roll-up is exact; the other counts in the kernel's own batches, but every kernel has it.
        let (name, file) = match fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0)) {
            Ok(text) => ("Rss:", text),
            Err(_) => (
                "VmRSS:",
                fs::read_to_string(format!("/proc/{}/status", self.0))?,
            ),
        };
        let line = file
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .context("no resident memory is told")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

impl Used {
    /// What was used from `before` to this moment.
    ///
    /// # Errors
    /// When the two were measured in two ways: then one of them is of a process that was about to end.
    pub(super) fn since(&self, before: &Self) -> anyhow::Result<Duration> {
        match (self, before) {
            (Self::Threads(now), Self::Threads(before)) => Ok(Duration::from_nanos(
                now.iter()
                    .map(|(thread, used)| used - before.get(thread).unwrap_or(&0).min(used))
                    .sum(),
            )),
            (Self::Whole(now), Self::Whole(before)) => Ok(now.saturating_sub(*before)),
            _ => bail!("a process could be measured only in part: it was about to end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        let process = Process::of(std::process::id()).unwrap();
        let before = process.used().unwrap();
        let (began, mut sum) = (std::time::Instant::now(), 0_u64);
        while process.used().unwrap().since(&before).unwrap() < Duration::from_millis(5) {
            assert!(began.elapsed() < Duration::from_secs(20), "no time is told");
            sum = std::hint::black_box((0..100_000).fold(sum, u64::wrapping_add));
        }
        assert!(process.memory().unwrap() > 1_000_000);
        assert!(process.ticks().is_some());
    }

    #[test]
    fn a_process_that_is_none_is_refused() {
        assert!(Process::of(u32::MAX).is_err());
    }

    #[test]
    fn a_process_that_ended_has_used_nothing_that_is_known() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(process.used().is_ok());
        child.kill().unwrap();
        // While its parent has not asked how it ended, the system still lists it.
        let killed = std::time::Instant::now();
        let error = loop {
            match process.used() {
                Err(error) => break error.to_string(),
                Ok(_) => assert!(
                    killed.elapsed() < Duration::from_secs(20),
                    "it is taken for alive"
                ),
            }
        };
        assert!(
            error.contains(&child.id().to_string()) && error.contains("ended"),
            "{error}"
        );
        child.wait().unwrap();
        assert!(process.used().is_err());
    }

    #[test]
    fn threads_that_ended_or_began_count_right() {
        let threads = |list: &[(u32, u64)]| Used::Threads(list.iter().copied().collect());
        let used = threads(&[(1, 50), (3, 5)])
            .since(&threads(&[(1, 20), (2, 1000)]))
            .unwrap();
        assert_eq!(used, Duration::from_nanos(35));
    }
}
