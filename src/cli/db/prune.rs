//! `hubbub db prune`: retention by hand.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;
use clap::Args;
use parking_lot::Mutex;

use super::progress::Progress;
use super::summary::Summary;
use super::{Databases, FOUND, LogOption, Output, settings};
use crate::archive::ObservedLog;
use crate::archive::retention::{self, Due, Pass, RunHooks, RunMode, RunResult};
use crate::config::{CommandLine, Config};
use crate::domain::{RoomId, Timestamp};
use crate::store::RetentionRun;

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    /// Count what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Age in days from which on messages are deleted [default: RETENTION_DAYS]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    older_than: Option<u32>,
    #[command(flatten)]
    log: LogOption,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(
    options: &Options,
    command_line: &CommandLine,
    databases: &Databases,
) -> anyhow::Result<ExitCode> {
    let settings = settings(command_line)?;
    let keep = match options.older_than {
        Some(days) => DAY * days,
        None => Config::load_retention(command_line)?
            .context("RETENTION_DAYS is not set: name the age with --older-than")?,
    };
    let began = Instant::now();
    let opened = databases.open_existing(&settings).await?;
    let store = &opened.store;
    let log = options.log.open(command_line, store).await?;
    let now = Timestamp::now();
    let (mode, run) = if options.dry_run {
        (RunMode::Count, Some(retention::plan(now, keep)))
    } else {
        let run = retention::begin(store, now, keep, Due::Now).await?;
        (RunMode::Delete, run)
    };
    let run = run.context("another run of retention is under way: try again in two minutes")?;
    let hooks = Hooks {
        log,
        progress: Mutex::new((Progress::new("deleting", None), 0)),
    };
    let mut pass = Pass::new(store, &hooks, mode, run);
    let is_complete = pass.complete().await;
    let is_complete = is_complete.with_context(|| opened.url.to_string())?;
    let run = &pass.run;
    let mut summary = Summary::default();
    summary.add("is_dry_run", options.dry_run);
    summary.add("cutoff", run.cutoff.to_string());
    summary.add("rooms", run.rooms);
    summary.add("messages", run.entries);
    summary.add("record_bytes", run.bytes);
    summary.add_seconds(began);
    drop(hooks);
    summary.add("is_complete", is_complete);
    summary.print(options.output);
    Ok(ExitCode::from(if is_complete { 0 } else { FOUND }))
}

/// Trims the log in Redis, and shows the progress.
struct Hooks {
    log: Option<ObservedLog>,
    /// With the number of messages that it shows.
    progress: Mutex<(Progress, u64)>,
}

#[async_trait]
impl RunHooks for Hooks {
    async fn delete_elsewhere(&self, room: &RoomId, cut: u64) -> RunResult {
        match &self.log {
            Some(log) => log.trim(room, cut).await,
            None => Ok(()),
        }
    }

    fn deleted(&self, _room: &RoomId) {}

    async fn pause(&self, run: &RetentionRun, took: Duration) {
        {
            let (progress, shown) = &mut *self.progress.lock();
            progress.add(run.entries - *shown);
            *shown = run.entries;
        }
        // As much time for the nodes as for this.
        tokio::time::sleep(took.min(Duration::from_secs(1))).await;
    }
}
