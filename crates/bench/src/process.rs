//! CPU time and memory of a process on this machine, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};

/// Ticks per second of the CPU times in `/proc/PID/stat`, on every Linux.
const TICKS_PER_SEC: u64 = 100;

/// A process, by its id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(u32);

/// CPU time that a process had used up to one moment.
#[derive(Debug, Clone)]
pub(crate) enum CpuTime {
    /// Nanoseconds by thread id, where the kernel counts them. By thread, because the time of a
    /// thread that ends disappears from the list: a difference of sums would be too small.
    PerThread(BTreeMap<u32, u64>),
    /// Of the whole process, with a resolution of 10 ms.
    Whole(Duration),
}

impl Process {
    /// # Errors
    /// If there is no such process, or this process may not read its memory usage.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let process = Self(pid);
        process
            .memory()
            .with_context(|| format!("process {pid} cannot be measured"))?;
        Ok(process)
    }

    /// This process.
    pub(crate) fn own() -> Self {
        Self(std::process::id())
    }

    /// CPU time used so far.
    ///
    /// # Errors
    /// If the process has ended: the time that it used since the last reading is unknown.
    pub(crate) fn cpu_time(self) -> anyhow::Result<CpuTime> {
        let whole = self
            .whole_cpu_time()
            .with_context(|| format!("process {} has ended while it was measured", self.0))?;
        match self.cpu_time_per_thread() {
            Some(threads) => Ok(CpuTime::PerThread(threads)),
            None => Ok(CpuTime::Whole(whole)),
        }
    }

    /// Nanoseconds by thread id, or `None` if the kernel does not count them.
    fn cpu_time_per_thread(self) -> Option<BTreeMap<u32, u64>> {
        let mut threads = BTreeMap::new();
        let entries = fs::read_dir(format!("/proc/{}/task", self.0)).ok()?;
        for entry in entries.flatten() {
            // A thread may end after it was listed.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else {
                continue;
            };
            let nanoseconds = text.split(' ').next()?.parse().ok()?;
            threads.insert(entry.file_name().to_str()?.parse().ok()?, nanoseconds);
        }
        if threads.values().all(|used| *used == 0) {
            return None;
        }
        Some(threads)
    }

    /// `None` if the process has ended, also if it is a zombie (its parent has not waited for it).
    fn whole_cpu_time(self) -> Option<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        // The process name may contain spaces and brackets; the fields follow it.
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        if matches!(fields.first(), Some(&("Z" | "X"))) {
            return None;
        }
        let user = fields.get(11)?.parse::<u64>().ok()?;
        let system = fields.get(12)?.parse::<u64>().ok()?;
        Some(Duration::from_millis(
            (user + system) * 1000 / TICKS_PER_SEC,
        ))
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// If the process has ended, or may not be read.
    pub(crate) fn memory(self) -> anyhow::Result<u64> {
        // `smaps_rollup` is exact. `status` is not, because the kernel updates it in batches, but
        // every kernel has it.
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
            .context("the system does not report its resident memory")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

impl CpuTime {
    /// CPU time used from `before` to this moment.
    ///
    /// # Errors
    /// If one of the two is per thread and the other is not: the process was about to end when that
    /// one was read.
    pub(crate) fn since(&self, before: &Self) -> anyhow::Result<Duration> {
        match (self, before) {
            (Self::PerThread(now), Self::PerThread(before)) => {
                let mut nanoseconds = 0;
                for (thread, used) in now {
                    // A value smaller than before (the thread's id was reused) counts as 0.
                    let used_before = before.get(thread).unwrap_or(&0).min(used);
                    nanoseconds += used - used_before;
                }
                Ok(Duration::from_nanos(nanoseconds))
            }
            (Self::Whole(now), Self::Whole(before)) => Ok(now.saturating_sub(*before)),
            _ => bail!("a process could be measured only in part: it was about to end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_and_memory_of_this_process_are_measured() {
        let process = Process::of(std::process::id()).unwrap();
        let before = process.cpu_time().unwrap();
        let began = std::time::Instant::now();
        let mut sum = 0_u64;
        while process.cpu_time().unwrap().since(&before).unwrap() < Duration::from_millis(5) {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "no CPU time is reported"
            );
            sum = std::hint::black_box((0..100_000).fold(sum, u64::wrapping_add));
        }
        assert!(process.memory().unwrap() > 1_000_000);
        assert!(process.whole_cpu_time().is_some());
    }

    #[test]
    fn a_process_that_does_not_exist_is_an_error() {
        assert!(Process::of(u32::MAX).is_err());
    }

    #[test]
    fn the_cpu_time_of_a_process_that_has_ended_is_an_error() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(process.cpu_time().is_ok());
        child.kill().unwrap();
        // The child stays a zombie, and listed, until this process waits for it.
        let killed = std::time::Instant::now();
        let error = loop {
            match process.cpu_time() {
                Err(error) => break error.to_string(),
                Ok(_) => assert!(
                    killed.elapsed() < Duration::from_secs(20),
                    "the process still counts as running"
                ),
            }
        };
        assert!(
            error.contains(&child.id().to_string()) && error.contains("ended"),
            "{error}"
        );
        child.wait().unwrap();
        assert!(process.cpu_time().is_err());
    }

    #[test]
    fn threads_that_ended_or_began_in_between_are_counted_correctly() {
        let threads = |list: &[(u32, u64)]| CpuTime::PerThread(list.iter().copied().collect());
        let used = threads(&[(1, 50), (3, 5)])
            .since(&threads(&[(1, 20), (2, 1000)]))
            .unwrap();
        assert_eq!(used, Duration::from_nanos(35));
    }
}
