//! `hubbub db`: checks, copies, fills and prunes the database.
//!
//! Each command prints one summary on stdout, and its progress on stderr if that is a terminal. It
//! exits with 0 if all is well, with 1 if it has found something, and with 2 if it could not run.

mod copy;
mod digest;
mod progress;
mod prune;
mod seed;
mod summary;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use parking_lot::Mutex;

use super::serve::runtime;
use super::signals::Signals;
use crate::app;
use crate::archive::ObservedLog;
use crate::config::{CommandLine, Config};
use crate::store::DatabaseSettings;
use crate::store::sql::{self, DatabaseUrl, PreparedDatabase, Settings, SqlStore, migrate};

/// The exit code of a command that has found something.
pub(super) const FOUND: u8 = 1;
/// The exit code of a command that could not run.
pub(super) const FAILED: u8 = 2;

/// How long a statement of a command may take: longer than one of a node.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Checks that no message is missing or duplicated, that each record agrees with the columns of its
    /// row, and that log and archive agree
    Verify(verify::Options),
    /// Copies the database to another one, of any kind; run again, it continues
    Copy(copy::Options),
    /// Fills the database with demo data
    Seed(seed::Options),
    /// Deletes messages that are too old, now; nodes do so once an hour if RETENTION_DAYS is set
    Prune(prune::Options),
}

/// How a command prints its summary.
#[derive(Debug, Clone, Copy, Args)]
struct Output {
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(
    action: &Action,
    command_line: anyhow::Result<CommandLine>,
) -> anyhow::Result<ExitCode> {
    let result =
        command_line.and_then(|command_line| runtime()?.block_on(act(action, &command_line)));
    Ok(exit_code(result))
}

/// The exit code of a command: that of a failure, with its text on stderr, where it could not do its
/// work. anyhow's own exit code is that of a finding.
pub(super) fn exit_code(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("hubbub: {error:#}");
        ExitCode::from(FAILED)
    })
}

async fn act(action: &Action, command_line: &CommandLine) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let databases = Databases::default();
    let result = tokio::select! {
        result = perform(action, command_line, &databases) => result,
        _ = signals.next() => Err(anyhow::anyhow!("interrupted")),
    };
    // A second signal ends the process at once.
    tokio::select! {
        () = databases.close() => {}
        _ = signals.next() => {}
    }
    result
}

async fn perform(
    action: &Action,
    command_line: &CommandLine,
    databases: &Databases,
) -> anyhow::Result<ExitCode> {
    match action {
        Action::Verify(options) => verify::run(options, command_line, databases).await,
        Action::Copy(options) => copy::run(options, command_line, databases).await,
        Action::Seed(options) => seed::run(options, command_line, databases).await,
        Action::Prune(options) => prune::run(options, command_line, databases).await,
    }
}

/// Whether a command uses the log in Redis beside the database.
#[derive(Debug, Clone, Copy, Args)]
struct LogOption {
    /// Leave the log in Redis out
    #[arg(long)]
    no_log: bool,
}

impl LogOption {
    async fn open(
        self,
        command_line: &CommandLine,
        store: &SqlStore,
    ) -> anyhow::Result<Option<ObservedLog>> {
        if self.no_log {
            return Ok(None);
        }
        let log = app::open_log(command_line, store).await;
        log.context("the log (REDIS_URL) can't be used: --no-log leaves it out")
    }
}

/// A database that a command uses.
pub(super) struct Opened {
    pub(super) store: SqlStore,
    pub(super) url: DatabaseUrl,
}

pub(super) fn settings(command_line: &CommandLine) -> anyhow::Result<DatabaseSettings> {
    let settings = Config::load_database(command_line)?;
    let settings = settings.context("there is no database: DATABASE_URL is none")?;
    let is_file = !settings.url.is_in_memory();
    anyhow::ensure!(is_file, "a database in memory is that of one process only");
    Ok(settings)
}

/// The databases that a command has opened. They are closed when it ends, also by an error or a signal:
/// then a file of SQLite has everything without its log (`-wal`), and may be copied alone.
#[derive(Default)]
pub(super) struct Databases(Mutex<Vec<(SqlStore, DatabaseUrl, Option<PreparedDatabase>)>>);

impl Databases {
    /// Opens a database that must exist and have the tables of this version. Nodes may be using it.
    pub(super) async fn open_existing(
        &self,
        settings: &DatabaseSettings,
    ) -> anyhow::Result<Opened> {
        let url = &settings.url;
        if let Some(file) = url.file() {
            let exists = file.is_file();
            anyhow::ensure!(exists, "the file {} doesn't exist", file.display());
        }
        let steps = migrate::status(url)
            .await
            .with_context(|| url.to_string())?;
        let is_current = steps
            .iter()
            .all(|step| step.state == migrate::StepState::Applied);
        anyhow::ensure!(
            is_current,
            "{url}: the tables are not those of this version: see `hubbub migrate status`"
        );
        self.connect(settings, None).await
    }

    /// Opens a database that is made if it doesn't exist, and migrated. A file of SQLite must not be in
    /// use by a node.
    async fn open_to_fill(&self, settings: &DatabaseSettings) -> anyhow::Result<Opened> {
        let prepared = sql::prepare(settings)
            .await
            .with_context(|| settings.url.to_string())?;
        self.connect(settings, Some(prepared)).await
    }

    async fn connect(
        &self,
        settings: &DatabaseSettings,
        prepared: Option<PreparedDatabase>,
    ) -> anyhow::Result<Opened> {
        let url = settings.url.clone();
        let settings = Settings {
            read_timeout: STATEMENT_TIMEOUT,
            write_timeout: STATEMENT_TIMEOUT,
            ..Settings::from(settings)
        };
        let store = SqlStore::open(&settings).await;
        let store = store.with_context(|| url.to_string())?;
        let opened = (store.clone(), url.clone(), prepared);
        self.0.lock().push(opened);
        Ok(Opened { store, url })
    }

    pub(super) async fn close(&self) {
        let opened = std::mem::take(&mut *self.0.lock());
        for (store, url, prepared) in opened {
            store.close().await;
            sql::complete_file(&url, prepared).await;
        }
    }
}
