//! The fault lab: breaks a running cluster on purpose, and checks what its clients saw. See README.md beside.

mod checker;
mod crowd;
mod history;
mod lab;
mod scenarios;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::checker::Promises;
use crate::lab::{Lab, PATIENCE};
use crate::scenarios::{SCENARIOS, Scenario};

/// Breaks a running hubbub cluster on purpose, and checks what its clients saw.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Lists the scenarios.
    List,
    /// Runs scenarios: those named, or all but those that go on for an hour.
    Run(Run),
    /// Judges a history again, by the promises in `promises.json` beside it, or by all of them.
    Check {
        /// A file of records.
        history: PathBuf,
    },
}

#[derive(clap::Args, Clone)]
struct Run {
    /// Which ones; none: all.
    names: Vec<String>,
    /// The binary under test.
    #[arg(long)]
    binary: PathBuf,
    /// Where histories and logs go.
    #[arg(long, default_value = "target/faults")]
    into: PathBuf,
    /// Chance starts from here; by default from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// Fewer clients and shorter times.
    #[arg(long)]
    short: bool,
    /// How long `chaos` goes on, in seconds.
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// How long it is waited, in seconds, for what is still owed at the end.
    #[arg(long, default_value_t = PATIENCE.as_secs())]
    patience: u64,
    /// How many scenarios at once; those that measure times always run alone.
    #[arg(long, default_value_t = 1)]
    jobs: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().task {
        Task::List => {
            for scenario in SCENARIOS {
                println!("{:<18} {}", scenario.name, scenario.about);
            }
            Ok(ExitCode::SUCCESS)
        }
        Task::Check { history } => {
            let beside = history.with_file_name("promises.json");
            let promises = match std::fs::read(&beside) {
                Ok(text) => serde_json::from_slice(&text)
                    .with_context(|| format!("{}", beside.display()))?,
                Err(_) => Promises::default(),
            };
            let verdict = checker::check(&history::read(&history)?, &promises);
            println!("{}", verdict.figures);
            verdict
                .faults
                .iter()
                .for_each(|fault| println!("  FAULT {fault}"));
            Ok(if verdict.faults.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Task::Run(run) => {
            let mut terminated = signal(SignalKind::terminate())?;
            tokio::select! {
                ended = run_all(run) => ended,
                // What a scenario has started ends with it.
                _ = terminated.recv() => bail!("terminated"),
                _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            }
        }
    }
}

async fn run_all(run: Run) -> anyhow::Result<ExitCode> {
    for name in &run.names {
        ensure!(
            SCENARIOS.iter().any(|scenario| scenario.name == name),
            "no scenario is called {name}"
        );
    }
    let chosen = |scenario: &&Scenario| {
        if run.names.is_empty() {
            !scenario.by_hand
        } else {
            run.names.iter().any(|name| name == scenario.name)
        }
    };
    let seed = run.seed.unwrap_or_else(|| {
        std::time::UNIX_EPOCH
            .elapsed()
            .map_or(1, |age| age.as_secs())
    });
    let places = Arc::new(Semaphore::new(run.jobs as usize));
    // Not spawned: they borrow what they like. Their clients are tasks of their own.
    let mut running = FuturesUnordered::new();
    for scenario in SCENARIOS.iter().filter(chosen) {
        let (run, places) = (run.clone(), places.clone());
        running.push(async move {
            let needs = if scenario.alone { run.jobs } else { 1 };
            let _place = places.acquire_many(needs).await;
            one(scenario, &run, seed).await
        });
    }
    let mut failed = 0;
    while let Some(passed) = running.next().await {
        failed += usize::from(!passed?);
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs one and tells how it went; whether it passed.
async fn one(scenario: &'static Scenario, run: &Run, seed: u64) -> anyhow::Result<bool> {
    let dir = run.into.join(format!("{}-{seed}", scenario.name));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let file = dir.join("history.jsonl");
    let (history, written) = history::History::create(&file)?;
    let binary = run
        .binary
        .canonicalize()
        .with_context(|| format!("no binary {}", run.binary.display()))?;
    let began = Instant::now();
    let mut lab = Lab::new(&dir, &binary, history, seed, !run.short);
    lab.patience = Duration::from_secs(run.patience);
    lab.chaos_for = Duration::from_secs(run.seconds);
    let ended = (scenario.run)(&mut lab).await;
    let Lab {
        history,
        promises,
        figures,
        mut faults,
        must_see,
        ..
    } = lab;
    drop(history);
    written.end().await?;
    if let Err(error) = ended {
        faults.push(format!("the scenario broke off: {error:#}"));
    }
    std::fs::write(dir.join("promises.json"), serde_json::to_vec(&promises)?)?;
    let verdict = judge(&file, promises).await?;
    faults.extend(verdict.faults);
    // Who saw nothing found nothing.
    if verdict.figures.acknowledged == 0 || verdict.figures.delivered == 0 {
        faults.push("nothing was said, or nothing came".into());
    }
    faults.extend(
        must_see
            .iter()
            .filter(|(_, seen)| !seen(&verdict.figures))
            .map(|(what, _)| format!("not tried: {what}")),
    );
    let word = if faults.is_empty() {
        "passed"
    } else {
        "FAILED"
    };
    // In one piece, as others may be telling theirs.
    let mut text = format!(
        "{word} {} --seed {seed} ({} s)\n",
        scenario.name,
        began.elapsed().as_secs()
    );
    text.push_str(&format!(
        "  {}\n",
        verdict.figures.to_string().trim_end().replace('\n', "\n  ")
    ));
    for (name, value) in figures {
        text.push_str(&format!("  {name}: {value}\n"));
    }
    for fault in &faults {
        text.push_str(&format!("  FAULT {fault}\n"));
    }
    if !faults.is_empty() {
        text.push_str(&format!("  see {}\n", dir.display()));
    }
    println!("{text}");
    std::fs::write(dir.join("summary.txt"), &text)?;
    Ok(faults.is_empty())
}

async fn judge(file: &Path, promises: Promises) -> anyhow::Result<checker::Verdict> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || Ok(checker::check(&history::read(&file)?, &promises)))
        .await?
}
