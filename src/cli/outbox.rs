//! `hubbub outbox`: the announcements and jobs that wait or have failed.
//!
//! It exits with 0 if all is well, with 1 if a row was not found, and with 2 if it could not run.

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;

use super::db::{Databases, FOUND, exit_code, settings};
use super::serve::runtime;
use crate::config::CommandLine;
use crate::store::sql::SqlStore;
use crate::store::{Outbox as _, OutboxId, RowState};

/// The rows of one read.
const PAGE: usize = 500;

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Lists the rows that wait or have failed, with the reason of the last attempt
    List {
        /// Only those that have failed
        #[arg(long)]
        failed: bool,
        /// Print each row as a line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Makes rows due now that have failed, or wait for their next attempt
    Retry {
        /// The numbers of the rows
        #[arg(value_name = "NUMBER", required_unless_present = "failed")]
        rows: Vec<OutboxId>,
        /// All rows that have failed
        #[arg(long, conflicts_with = "rows")]
        failed: bool,
    },
}

pub(super) fn run(
    action: &Action,
    command_line: anyhow::Result<CommandLine>,
) -> anyhow::Result<ExitCode> {
    let result =
        command_line.and_then(|command_line| runtime()?.block_on(act(action, &command_line)));
    Ok(exit_code(result))
}

async fn act(action: &Action, command_line: &CommandLine) -> anyhow::Result<ExitCode> {
    let databases = Databases::default();
    let opened = databases.open_existing(&settings(command_line)?).await?;
    let result = match action {
        Action::List { failed, json } => list(&opened.store, *failed, *json).await,
        Action::Retry { rows, failed } => retry(&opened.store, rows, *failed).await,
    };
    databases.close().await;
    result.with_context(|| opened.url.to_string())
}

async fn list(store: &SqlStore, failed: bool, json: bool) -> anyhow::Result<ExitCode> {
    let (mut after, mut count) = (0, 0);
    loop {
        let page = store.list(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.row.id;
        for state in page {
            if failed && !state.has_failed {
                continue;
            }
            count += 1;
            println!(
                "{}",
                if json {
                    as_json(&state)
                } else {
                    as_text(&state)
                }
            );
        }
    }
    if count == 0 && !json {
        println!("nothing waits or has failed");
    }
    Ok(ExitCode::SUCCESS)
}

/// The payload is left out: it may have personal data.
fn as_json(state: &RowState) -> String {
    serde_json::json!({
        "number": state.row.id,
        "room_id": state.row.room.as_ref().map(|room| room.as_str()),
        "type": state.row.kind,
        "state": name(state),
        "attempts": state.row.attempts,
        "reason": state.reason,
    })
    .to_string()
}

/// Values between tabs.
fn as_text(state: &RowState) -> String {
    let room = state
        .row
        .room
        .as_ref()
        .map_or("(job)", |room| room.as_str());
    let reason = state.reason.as_deref().unwrap_or("-");
    // A reason may come from another server.
    let reason: String = reason
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let (number, kind, attempts) = (state.row.id, &state.row.kind, state.row.attempts);
    let state = name(state);
    format!("{number}\t{state}\t{attempts}\t{room}\t{kind}\t{reason}")
}

fn name(state: &RowState) -> &'static str {
    if state.has_failed { "failed" } else { "waits" }
}

async fn retry(store: &SqlStore, rows: &[OutboxId], failed: bool) -> anyhow::Result<ExitCode> {
    let rows = if failed {
        all_failed(store).await?
    } else {
        rows.to_vec()
    };
    let mut revived = 0;
    for row in &rows {
        if store.revive(*row).await? {
            revived += 1;
        } else {
            eprintln!("hubbub: row {row} has not failed, and doesn't wait for another attempt");
        }
    }
    println!("{revived} rows are due now");
    Ok(ExitCode::from(if revived == rows.len() {
        0
    } else {
        FOUND
    }))
}

async fn all_failed(store: &SqlStore) -> anyhow::Result<Vec<OutboxId>> {
    let (mut after, mut found) = (0, Vec::new());
    loop {
        let page = store.list(after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        after = last.row.id;
        let failed = page.iter().filter(|state| state.has_failed);
        found.extend(failed.map(|state| state.row.id));
    }
}
