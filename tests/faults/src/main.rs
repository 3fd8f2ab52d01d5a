//! The fault lab: breaks a running cluster on purpose, and checks the observations of its clients.
//! See README.md in this crate.

mod checker;
mod clients;
mod history;
mod lab;
mod run;
mod scenarios;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::checker::Promises;
use crate::run::{RunArguments, run_scenarios};
use crate::scenarios::SCENARIOS;

/// Breaks a running hubbub cluster on purpose, and checks the observations of its clients.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the scenarios.
    List,
    /// Runs scenarios: those that are named, or else all but `chaos`, which takes an hour.
    Run(RunArguments),
    /// Checks a history again, with the promises in `promises.json` beside it, or else with the
    /// strictest ones.
    Check {
        /// The path of a `history.jsonl`.
        history: PathBuf,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let all_passed = match Arguments::parse().command {
        Command::List => {
            for scenario in SCENARIOS {
                println!("{:<27} {}", scenario.name, scenario.description);
            }
            true
        }
        Command::Check { history } => check_history(&history)?,
        Command::Run(arguments) => {
            let mut terminated = signal(SignalKind::terminate())?;
            tokio::select! {
                result = run_scenarios(arguments) => result?,
                // Returning from here also ends all processes that the scenarios have started.
                _ = terminated.recv() => bail!("terminated"),
                _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            }
        }
    };
    Ok(if all_passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Checks a history, and prints the result. Returns whether all promises were kept.
fn check_history(path: &Path) -> anyhow::Result<bool> {
    let promises_path = path.with_file_name("promises.json");
    let promises = match std::fs::read(&promises_path) {
        Ok(text) => serde_json::from_slice(&text)
            .with_context(|| format!("invalid {}", promises_path.display()))?,
        Err(_) => Promises::default(),
    };
    let verdict = checker::check(&history::read(path)?, &promises);
    println!("{}", verdict.stats);
    for fault in &verdict.faults {
        println!("  FAULT {fault}");
    }
    Ok(verdict.faults.is_empty())
}
