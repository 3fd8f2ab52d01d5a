//! `hubbub migrate`: the steps of the database's schema.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use tokio::time::Instant;

use super::serve::runtime;
use crate::config::{CommandLine, Config};
use crate::store::StoreError;
use crate::store::sql::DatabaseUrl;
use crate::store::sql::migrate::{self, MigrateError, StepStatus};

/// The exit code of `status` when the database doesn't respond, so that it differs from the code of
/// pending migrations.
const FAILED: u8 = 2;
/// The pause between two attempts of `up --wait`.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Applies all pending migrations; several processes may do so at once
    Up {
        /// Seconds for which to try again while the database doesn't respond
        #[arg(long, value_name = "SECS", default_value_t = 0,
              value_parser = clap::value_parser!(u64).range(..=86_400))]
        wait: u64,
    },
    /// Reverts the newest migrations, with everything in their tables; stop all nodes first
    Down {
        /// The number of migrations
        #[arg(default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
    },
    /// Lists the migrations; exits with 1 if any is pending, or was applied with another text, and
    /// with 2 if the database fails
    Status,
}

pub(super) fn run(action: &Action, command_line: &CommandLine) -> anyhow::Result<ExitCode> {
    let result = database(command_line).and_then(|url| runtime()?.block_on(act(action, &url)));
    match result {
        Err(error) if matches!(action, Action::Status) => {
            eprintln!("hubbub: {error:#}");
            Ok(ExitCode::from(FAILED))
        }
        result => result,
    }
}

fn database(command_line: &CommandLine) -> anyhow::Result<DatabaseUrl> {
    let settings = Config::load_database(command_line)?;
    let settings = settings.context("there is no database: DATABASE_URL is none")?;
    Ok(settings.url)
}

async fn act(action: &Action, url: &DatabaseUrl) -> anyhow::Result<ExitCode> {
    match action {
        Action::Up { wait } => {
            let applied = up(url, Duration::from_secs(*wait)).await;
            let applied = applied.with_context(|| url.to_string())?;
            report("applied", &applied, url);
            Ok(ExitCode::SUCCESS)
        }
        Action::Down { count } => {
            let count = usize::try_from(*count).unwrap_or(usize::MAX);
            let reverted = migrate::down(url, count)
                .await
                .with_context(|| url.to_string())?;
            report("reverted", &reverted, url);
            Ok(ExitCode::SUCCESS)
        }
        Action::Status => {
            let steps = migrate::status(url)
                .await
                .with_context(|| url.to_string())?;
            print!("{}", table(&steps, std::io::stdout().is_terminal()));
            let is_ready = steps.iter().all(|step| step.state.is_ready());
            Ok(ExitCode::from(u8::from(!is_ready)))
        }
    }
}

/// Applies the pending migrations. While the database doesn't respond it tries again, for as long as
/// `wait`; any other error ends it at once.
async fn up(url: &DatabaseUrl, wait: Duration) -> Result<Vec<String>, MigrateError> {
    let deadline = Instant::now() + wait;
    let mut is_reported = false;
    loop {
        let error = match migrate::up(url).await {
            Ok(applied) => return Ok(applied),
            Err(error) => error,
        };
        let is_away = matches!(error, MigrateError::Store(StoreError::Unavailable(_)));
        if !is_away || Instant::now() + RETRY_PAUSE > deadline {
            return Err(error);
        }
        if !std::mem::replace(&mut is_reported, true) {
            let seconds = wait.as_secs();
            eprintln!("hubbub: {url}: {error}; trying again for {seconds} seconds");
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

fn report(verb: &str, names: &[String], url: &DatabaseUrl) {
    for name in names {
        println!("{verb} {name}");
    }
    if names.is_empty() {
        println!("nothing to do: {url}");
    }
}

/// One line for each step: columns for a reader, or values between tabs for a program.
fn table(steps: &[StepStatus], is_terminal: bool) -> String {
    let rows: Vec<[&str; 3]> = steps
        .iter()
        .map(|step| {
            let at = step.applied_at.as_deref().unwrap_or("-");
            [step.name.as_str(), step.state.name(), at]
        })
        .collect();
    if !is_terminal {
        return rows.iter().map(|row| row.join("\t") + "\n").collect();
    }
    let heading = ["migration", "state", "applied at"];
    let names = rows.iter().map(|row| row[0].chars().count());
    let width = names.max().unwrap_or(0).max(heading[0].len());
    let lines = std::iter::once(&heading).chain(&rows);
    lines
        .map(|[name, state, at]| format!("{name:width$}  {state:10}  {at}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql::migrate::StepState;

    #[test]
    fn the_status_is_a_table_for_readers_and_lines_with_tabs_for_programs() {
        let steps = [
            StepStatus {
                version: 1,
                name: "0001_rooms".to_owned(),
                state: StepState::Applied,
                applied_at: Some("2026-11-30T08:00:00Z".to_owned()),
            },
            StepStatus {
                version: 2,
                name: "0002_entries_of_rooms".to_owned(),
                state: StepState::Pending,
                applied_at: None,
            },
        ];
        assert_eq!(
            table(&steps, true),
            "migration              state       applied at\n\
             0001_rooms             applied     2026-11-30T08:00:00Z\n\
             0002_entries_of_rooms  pending     -\n"
        );
        assert_eq!(
            table(&steps, false),
            "0001_rooms\tapplied\t2026-11-30T08:00:00Z\n0002_entries_of_rooms\tpending\t-\n"
        );
    }
}
