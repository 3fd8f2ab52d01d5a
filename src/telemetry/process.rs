//! The metrics that every process has by convention, with the prefix `process_`: CPU time, memory,
//! open files, threads and the time of the start. Read from `/proc`, so there are none on systems
//! without it.

use std::fs;

use super::sample::Sample;

const FILES: &str = "/proc/self/fd";
/// The unit of times in `/proc`, which Linux fixes for programs regardless of its own clock.
const TICKS_PER_SEC: f64 = 100.0;

/// The samples of this process. May block for a while when many files are open.
pub(crate) fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    if let Some(stat) = Stat::read() {
        samples.extend(stat.samples());
    }
    if let Some(count) = open_files() {
        samples.push(Sample::gauge("open_fds", "Open file descriptors", count));
        if let Ok(limit) = rlimit::Resource::NOFILE.get_soft() {
            let help = "Limit on open file descriptors";
            samples.push(Sample::gauge("max_fds", help, limit));
        }
    }
    samples
}

/// The parts of `/proc/self/stat` and `/proc/self/status` that are metrics.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    /// `None` if the time of the system's start is unknown.
    start_time_seconds: Option<f64>,
    threads: u64,
    resident_bytes: u64,
    virtual_bytes: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        let text = |path| fs::read_to_string(path).ok();
        let (stat, status) = (text("/proc/self/stat")?, text("/proc/self/status")?);
        let system = text("/proc/stat").unwrap_or_default();
        Self::parse(&stat, &status, &system)
    }

    fn parse(stat: &str, status: &str, system: &str) -> Option<Self> {
        // The second field, the program's name in parentheses, may contain spaces and parentheses.
        // The field after it is the third one.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let number: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
            Some(number * 1024)
        };
        let boot = system.lines().find_map(|line| line.strip_prefix("btime "));
        let boot: Option<f64> = boot.and_then(|seconds| seconds.trim().parse().ok());
        let start = ticks(22)? / TICKS_PER_SEC;
        Some(Self {
            cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS_PER_SEC,
            start_time_seconds: boot.map(|boot| boot + start),
            threads: fields.get(20 - 3)?.parse().ok()?,
            resident_bytes: kib("VmRSS:")?,
            virtual_bytes: kib("VmSize:")?,
        })
    }

    fn samples(&self) -> Vec<Sample> {
        let mut samples = vec![
            Sample::counter_seconds(
                "cpu_seconds",
                "CPU time of the process, in user and in system mode",
                self.cpu_seconds,
            ),
            Sample::gauge(
                "resident_memory_bytes",
                "Memory of the process that is in RAM",
                self.resident_bytes,
            ),
            Sample::gauge(
                "virtual_memory_bytes",
                "Address space of the process",
                self.virtual_bytes,
            ),
            Sample::gauge("threads", "Threads of the process", self.threads),
        ];
        if let Some(start) = self.start_time_seconds {
            samples.push(Sample::gauge_seconds(
                "start_time_seconds",
                "Time at which the process started, in seconds since 1970",
                start,
            ));
        }
        samples
    }
}

/// Since Linux 6.2 the directory's size is the number of open files. Before, they must be listed.
fn open_files() -> Option<u64> {
    let size = fs::metadata(FILES).ok()?.len();
    if size > 0 {
        return Some(size);
    }
    // One of them is the directory itself.
    let count = fs::read_dir(FILES).ok()?.count().saturating_sub(1);
    u64::try_from(count).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_proc_are_found_behind_any_name() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 99 0 0 0 250 50 0 0 20 0 13 0 1500 9 9\n";
        let status = "Name:\ta\nVmSize:\t    2048 kB\nVmRSS:\t      64 kB\nThreads:\t13\n";
        let parsed = Stat::parse(stat, status, "cpu 1\nbtime 1700000000\n");
        assert_eq!(
            parsed,
            Some(Stat {
                cpu_seconds: 3.0,
                start_time_seconds: Some(1_700_000_015.0),
                threads: 13,
                resident_bytes: 65_536,
                virtual_bytes: 2 << 20,
            })
        );
        assert_eq!(Stat::parse("", status, ""), None);
        assert_eq!(Stat::parse(stat, "", ""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_metrics_and_plausible_values() {
        let names: Vec<_> = samples().iter().map(|sample| sample.name).collect();
        assert_eq!(
            names,
            [
                "cpu_seconds",
                "resident_memory_bytes",
                "virtual_memory_bytes",
                "threads",
                "start_time_seconds",
                "open_fds",
                "max_fds"
            ]
        );
        let stat = Stat::read().unwrap();
        assert!(stat.threads > 0 && stat.resident_bytes < stat.virtual_bytes);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let started = stat.start_time_seconds.unwrap();
        assert!(
            started <= now + 1.0 && now - started < 86_400.0,
            "{started}"
        );
        let files = open_files().unwrap();
        let held: Vec<_> = (0..100)
            .map(|_| fs::File::open("/proc/self/stat").unwrap())
            .collect();
        assert!(open_files().unwrap() >= files + 50, "{} files", held.len());
    }
}
