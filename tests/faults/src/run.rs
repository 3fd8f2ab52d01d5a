//! Runs scenarios, and prints a summary of each.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use crate::checker::{Promises, Stats, Verdict, check};
use crate::history::{self, Recorder};
use crate::lab::{Lab, RECOVERY_TIMEOUT};
use crate::scenarios::{SCENARIOS, Scenario};

#[derive(clap::Args, Clone)]
pub struct RunArguments {
    /// The scenarios to run. Without any, all but `chaos`.
    names: Vec<String>,
    /// The hubbub binary under test.
    #[arg(long)]
    binary: PathBuf,
    /// The directory for histories and logs.
    #[arg(long, default_value = "target/faults")]
    output: PathBuf,
    /// The seed of the random numbers. By default the present time.
    #[arg(long)]
    seed: Option<u64>,
    /// Run the short form: fewer clients and shorter times.
    #[arg(long)]
    short: bool,
    /// The duration of `chaos`, in seconds.
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// How long to wait at the end of a scenario for missing messages, in seconds.
    #[arg(long, default_value_t = RECOVERY_TIMEOUT.as_secs())]
    timeout: u64,
    /// How many scenarios run in parallel. Scenarios that measure times always run alone.
    #[arg(long, default_value_t = 1)]
    jobs: u32,
}

impl RunArguments {
    fn selects(&self, scenario: &Scenario) -> bool {
        if self.names.is_empty() {
            let only_by_name = scenario.manual || self.short && scenario.full_only;
            !only_by_name
        } else {
            self.names.iter().any(|name| name == scenario.name)
        }
    }
}

/// Runs the selected scenarios. Returns whether all of them passed.
pub async fn run_scenarios(arguments: RunArguments) -> anyhow::Result<bool> {
    for name in &arguments.names {
        ensure!(
            SCENARIOS.iter().any(|scenario| scenario.name == name),
            "there is no scenario {name}; `list` shows their names"
        );
    }
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => std::time::UNIX_EPOCH
            .elapsed()
            .map_or(1, |age| age.as_secs()),
    };
    let permits = Arc::new(Semaphore::new(arguments.jobs as usize));
    // Not spawned, so that a scenario may borrow and need not be Send. The clients are tasks of
    // their own.
    let mut running = FuturesUnordered::new();
    for scenario in SCENARIOS {
        if !arguments.selects(scenario) {
            continue;
        }
        let arguments = arguments.clone();
        let permits = permits.clone();
        running.push(async move {
            let needed = if scenario.exclusive {
                arguments.jobs
            } else {
                1
            };
            let _permits = permits.acquire_many(needed).await;
            run_scenario(scenario, &arguments, seed).await
        });
    }
    let mut all_passed = true;
    while let Some(passed) = running.next().await {
        all_passed &= passed?;
    }
    Ok(all_passed)
}

/// Runs a scenario, and prints its summary. Returns whether it passed.
async fn run_scenario(
    scenario: &'static Scenario,
    arguments: &RunArguments,
    seed: u64,
) -> anyhow::Result<bool> {
    let dir = arguments.output.join(format!("{}-{seed}", scenario.name));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let history_path = dir.join("history.jsonl");
    let (recorder, writer) = Recorder::create(&history_path)?;
    let binary = arguments
        .binary
        .canonicalize()
        .with_context(|| format!("there is no binary {}", arguments.binary.display()))?;
    let began = Instant::now();
    let mut lab = Lab::new(&dir, &binary, recorder, seed, !arguments.short);
    lab.recovery_timeout = Duration::from_secs(arguments.timeout);
    lab.chaos_duration = Duration::from_secs(arguments.seconds);
    let result = (scenario.run)(&mut lab).await;
    let Lab {
        recorder,
        promises,
        measurements,
        mut faults,
        coverage,
        ..
    } = lab;
    drop(recorder);
    writer.finish().await?;
    if let Err(error) = result {
        faults.push(format!("the scenario was aborted: {error:#}"));
    }
    std::fs::write(dir.join("promises.json"), serde_json::to_vec(&promises)?)?;
    let verdict = check_file(&history_path, promises).await?;
    faults.extend(verdict.faults);
    if verdict.stats.acknowledged == 0 || verdict.stats.delivered == 0 {
        faults
            .push("no message was acknowledged, or none was delivered: nothing was tested".into());
    }
    for condition in &coverage {
        if !(condition.happened)(&verdict.stats) {
            faults.push(format!("not tested: {}", condition.description));
        }
    }
    let passed = faults.is_empty();
    let mut summary = Summary {
        passed,
        scenario: scenario.name,
        seed,
        duration: began.elapsed(),
        stats: verdict.stats,
        measurements,
        faults,
    }
    .to_string();
    if !passed {
        summary.push_str(&format!("  see {}\n", dir.display()));
    }
    // Printed as one text, because other scenarios may print theirs at the same time.
    println!("{summary}");
    std::fs::write(dir.join("summary.txt"), &summary)?;
    Ok(passed)
}

struct Summary {
    passed: bool,
    scenario: &'static str,
    seed: u64,
    duration: Duration,
    stats: Stats,
    measurements: Vec<(String, String)>,
    faults: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} {} --seed {} ({} s)",
            if self.passed { "passed" } else { "FAILED" },
            self.scenario,
            self.seed,
            self.duration.as_secs()
        )?;
        for line in self.stats.to_string().lines() {
            writeln!(formatter, "  {line}")?;
        }
        for (name, value) in &self.measurements {
            writeln!(formatter, "  {name}: {value}")?;
        }
        for fault in &self.faults {
            writeln!(formatter, "  FAULT {fault}")?;
        }
        Ok(())
    }
}

async fn check_file(path: &Path, promises: Promises) -> anyhow::Result<Verdict> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || Ok(check(&history::read(&path)?, &promises))).await?
}
