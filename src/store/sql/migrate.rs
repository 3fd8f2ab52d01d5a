//! Applies and reverts the steps of the schema, one process at a time.
//!
//! Each process first takes the lock of [`session`](super::session); the next process to get it finds
//! nothing left to do.

use std::path::{Path, PathBuf};

use sqlx::ConnectOptions as _;
use sqlx::migrate::MigrateError as SqlxError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::conn::Conn;
use super::dialect::Dialect;
use super::fault::{Fault, Outcome};
use super::file_lock::{FileLock, Holder};
use super::migrations::{Step, migrator, steps};
use super::session::{READ_TIMEOUT, check_encoding, close, connect, connect_locked, within};
use super::url::DatabaseUrl;
use crate::store::StoreError;

/// Why a database is not ready.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MigrateError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process migrates for too long.
    #[error("another process has been migrating the database for more than 60 s")]
    Locked,
    /// Another process has the lock of the database file.
    #[error(
        "the database file {} is in use by {owner}: a file of SQLite serves one node at a time. \
         Stop that one, or give this one another DATA_DIR or DATABASE_URL", path.display()
    )]
    InUse {
        /// The database file.
        path: PathBuf,
        /// The process that uses it.
        owner: String,
    },
    /// The database file can't be created or locked.
    #[error("the database file {} can't be used: {error}", path.display())]
    File {
        /// The database file.
        path: PathBuf,
        /// The error of the operating system.
        error: String,
    },
    /// The directory of the database file can't be created or written.
    #[error(
        "the directory {} can't be written: {error}. Set DATA_DIR to a directory in which the node \
         may keep its messages, or DATABASE_URL=none to keep them in memory only", path.display()
    )]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        error: String,
    },
    /// The path of the database file leads to something else.
    #[error(
        "{} {problem}: DATABASE_URL must name a file of SQLite, or one that doesn't exist yet",
        path.display()
    )]
    NotADatabase {
        /// The path.
        path: PathBuf,
        /// What is there, as the rest of a sentence.
        problem: &'static str,
    },
    /// The directory of a database file that the configuration names is missing.
    #[error(
        "the directory {} doesn't exist: make it (mkdir -p), or name another file with \
         DATABASE_URL", path.display()
    )]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// A database of PostgreSQL can't have every character.
    #[error(
        "the database has the encoding {0}, in which many characters can't be stored: hubbub needs \
         a database made by CREATE DATABASE … ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0"
    )]
    Encoding(String),
    /// The text of an applied step is another one.
    #[error(
        "the migration {0} has another text than when it was applied: this database belongs to \
         another build of hubbub"
    )]
    Changed(String),
    /// The database has steps that this version doesn't know.
    #[error(
        "the database has migrations up to {0}, and this version of hubbub doesn't know all of \
         them: revert them with the version that applied them"
    )]
    Newer(i64),
    /// Steps are missing, and this process may not apply them.
    #[error("the database lacks migrations ({0}): run `hubbub migrate up`, or set MIGRATE=on")]
    Pending(String),
    /// A database in memory is made anew by each process.
    #[error("a database in memory has no migrations: each process makes its own")]
    InMemory,
}

impl From<Fault> for MigrateError {
    fn from(fault: Fault) -> Self {
        Self::Store(fault.into())
    }
}

/// A step, as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepStatus {
    /// Its number.
    pub version: i64,
    /// The name of its files.
    pub name: String,
    /// Whether it is applied.
    pub state: StepState,
    /// When it was applied, as RFC 3339.
    pub applied_at: Option<String>,
}

/// Whether a step is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// It is applied.
    Applied,
    /// It is not applied.
    Pending,
    /// It was interrupted (MySQL only). Applying it again completes it.
    Incomplete,
    /// It was applied with another text.
    Changed,
    /// It belongs to a newer version of hubbub.
    Newer,
}

impl StepState {
    /// The state in one word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Incomplete => "incomplete",
            Self::Changed => "changed",
            Self::Newer => "newer",
        }
    }

    /// Whether a node of this version starts with it.
    #[must_use]
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Applied | Self::Newer)
    }

    /// Whether `up` has something to do here.
    #[must_use]
    pub fn is_pending(self) -> bool {
        matches!(self, Self::Pending | Self::Incomplete)
    }
}

/// The steps of this version, and those that the database has beside them.
///
/// Returns within 20 seconds, even if the server doesn't respond.
///
/// # Errors
/// `Store`, `InMemory`, `Encoding`.
pub async fn status(url: &DatabaseUrl) -> Result<Vec<StepStatus>, MigrateError> {
    let mut conn = match url.file() {
        Some(file) if !file.exists() => return Ok(compare(Dialect::Sqlite, &[])),
        Some(file) => Conn::Sqlite(open_as_it_is(file).await?),
        None => connect(url).await?,
    };
    let dialect = conn.dialect();
    let rows = within(READ_TIMEOUT, async {
        check_encoding(&mut conn).await?;
        Ok(recorded(&mut conn).await?)
    });
    let rows = rows.await;
    close(conn).await;
    Ok(compare(dialect, &rows?))
}

/// Applies all steps that are missing. Returns their names.
///
/// Safe to call from several processes at once, and again after any of them was killed. If nothing is
/// missing, the database's user needs no right to create tables.
///
/// # Errors
/// Any but `DataDir` and `Pending`.
pub async fn up(url: &DatabaseUrl) -> Result<Vec<String>, MigrateError> {
    let _lock = lock_file(url).await?;
    let steps = status(url).await?;
    check_unchanged(&steps)?;
    if steps.iter().any(|step| step.state.is_pending()) {
        up_unlocked(url).await
    } else {
        Ok(Vec::new())
    }
}

/// Fails if a step was applied with another text.
pub(super) fn check_unchanged(steps: &[StepStatus]) -> Result<(), MigrateError> {
    match steps.iter().find(|step| step.state == StepState::Changed) {
        Some(step) => Err(MigrateError::Changed(step.name.clone())),
        None => Ok(()),
    }
}

/// As [`up`], for a process that holds the lock of the database file, if there is one.
pub(super) async fn up_unlocked(url: &DatabaseUrl) -> Result<Vec<String>, MigrateError> {
    let mut conn = connect_locked(url).await?;
    let applied = apply(&mut conn).await;
    close(conn).await;
    applied
}

/// Reverts the newest `count` steps, with everything in their tables. Returns their names.
///
/// # Errors
/// Any but `DataDir` and `Pending`; `Newer` if there are steps that this version doesn't know.
pub async fn down(url: &DatabaseUrl, count: usize) -> Result<Vec<String>, MigrateError> {
    let _lock = lock_file(url).await?;
    let mut conn = connect_locked(url).await?;
    let reverted = revert(&mut conn, count).await;
    close(conn).await;
    reverted
}

async fn lock_file(url: &DatabaseUrl) -> Result<Option<FileLock>, MigrateError> {
    match url.file() {
        Some(file) => Ok(Some(FileLock::acquire(file, Holder::Command).await?)),
        None => Ok(None),
    }
}

/// Opens a database file for reading, without changing its journal mode as other connections do: the
/// file may be empty, or a copy.
async fn open_as_it_is(file: &Path) -> Outcome<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .read_only(true)
        .disable_statement_logging();
    Ok(options.connect().await?)
}

async fn apply(conn: &mut Conn) -> Result<Vec<String>, MigrateError> {
    let dialect = conn.dialect();
    let before = recorded(conn).await?;
    if dialect == Dialect::MySql && before.iter().any(|row| !row.is_complete) {
        // Every statement of a step may be repeated, so the step is applied again.
        conn.raw("DELETE FROM hubbub_migrations WHERE success = FALSE")
            .await?;
    }
    let mut migrator = migrator(dialect);
    // Nodes of the previous version keep working after a newer one has migrated.
    migrator.set_ignore_missing(true);
    match conn {
        Conn::Sqlite(conn) => migrator.run(conn).await,
        Conn::Postgres(conn) => migrator.run(conn).await,
        Conn::MySql(conn) => migrator.run(conn).await,
    }
    .map_err(|error| fault_of(dialect, error))?;
    let was_missing = compare(dialect, &before).into_iter();
    Ok(was_missing
        .filter(|step| step.state.is_pending())
        .map(|step| step.name)
        .collect())
}

async fn revert(conn: &mut Conn, count: usize) -> Result<Vec<String>, MigrateError> {
    let dialect = conn.dialect();
    let rows = recorded(conn).await?;
    if dialect == Dialect::MySql && rows.iter().any(|row| !row.is_complete) {
        // The tables of an interrupted step are removed like the rest.
        conn.raw("UPDATE hubbub_migrations SET success = TRUE WHERE success = FALSE")
            .await?;
    }
    let mut reverted: Vec<StepStatus> = compare(dialect, &rows);
    reverted.retain(|step| step.state != StepState::Pending);
    if let Some(newest) = reverted.last()
        && newest.state == StepState::Newer
    {
        return Err(MigrateError::Newer(newest.version));
    }
    let kept = reverted.len().saturating_sub(count);
    let target = match kept.checked_sub(1) {
        Some(last) => reverted[last].version,
        None => 0,
    };
    let migrator = migrator(dialect);
    match conn {
        Conn::Sqlite(conn) => migrator.undo(conn, target).await,
        Conn::Postgres(conn) => migrator.undo(conn, target).await,
        Conn::MySql(conn) => migrator.undo(conn, target).await,
    }
    .map_err(|error| fault_of(dialect, error))?;
    let names = reverted.into_iter().skip(kept).map(|step| step.name);
    Ok(names.rev().collect())
}

fn fault_of(dialect: Dialect, error: SqlxError) -> MigrateError {
    match error {
        SqlxError::Execute(error) => Fault::from(error).into(),
        SqlxError::ExecuteMigration(error, version) => match Fault::from(error).into() {
            StoreError::Broken(text) => {
                let name = name_of(dialect, version);
                MigrateError::Store(StoreError::Broken(format!("migration {name}: {text}")))
            }
            unavailable => MigrateError::Store(unavailable),
        },
        SqlxError::VersionMismatch(version) => MigrateError::Changed(name_of(dialect, version)),
        SqlxError::VersionMissing(version) => MigrateError::Newer(version),
        error => MigrateError::Store(StoreError::Broken(error.to_string())),
    }
}

fn name_of(dialect: Dialect, version: i64) -> String {
    let step = steps(dialect).iter().find(|step| step.version() == version);
    match step {
        Some(step) => step.name.to_owned(),
        None => format!("{version:04}"),
    }
}

/// A row of the table of applied steps.
struct Recorded {
    version: i64,
    description: String,
    checksum: Vec<u8>,
    is_complete: bool,
    at: String,
}

/// The rows of the table of applied steps, in order; none if there is no table. Needs no right but to
/// read.
async fn recorded(conn: &mut Conn) -> Outcome<Vec<Recorded>> {
    let (exists, rows) = match conn.dialect() {
        Dialect::Sqlite => (
            "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'hubbub_migrations'",
            "SELECT version, description, checksum, CAST(success AS {bigint}), \
             strftime('%Y-%m-%dT%H:%M:%SZ', installed_on) FROM hubbub_migrations ORDER BY version",
        ),
        Dialect::Postgres => (
            "SELECT COUNT(*) FROM (SELECT to_regclass('hubbub_migrations') AS name) AS found \
             WHERE name IS NOT NULL",
            "SELECT version, description, checksum, CAST(CAST(success AS INTEGER) AS {bigint}), \
             to_char(installed_on AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
             FROM hubbub_migrations ORDER BY version",
        ),
        Dialect::MySql => (
            "SELECT COUNT(*) FROM information_schema.tables \
             WHERE table_schema = DATABASE() AND table_name = 'hubbub_migrations'",
            "SELECT version, description, checksum, CAST(success AS {bigint}), \
             DATE_FORMAT(installed_on, '%Y-%m-%dT%H:%i:%sZ') \
             FROM hubbub_migrations ORDER BY version",
        ),
    };
    let (tables,): (i64,) = conn.first(exists, Vec::new()).await?.unwrap_or_default();
    if tables == 0 {
        return Ok(Vec::new());
    }
    let rows: Vec<(i64, String, Vec<u8>, i64, String)> = conn.all(rows, Vec::new()).await?;
    Ok(rows
        .into_iter()
        .map(|(version, description, checksum, success, at)| Recorded {
            version,
            description,
            checksum,
            is_complete: success != 0,
            at,
        })
        .collect())
}

/// The steps of this version with their states, and those that only the database has.
fn compare(dialect: Dialect, rows: &[Recorded]) -> Vec<StepStatus> {
    let own = steps(dialect).iter().map(|step| {
        let row = rows.iter().find(|row| row.version == step.version());
        StepStatus {
            version: step.version(),
            name: step.name.to_owned(),
            state: state_of(step, row),
            applied_at: row.map(|row| row.at.clone()),
        }
    });
    let is_newer = |row: &&Recorded| steps(dialect).iter().all(|it| it.version() != row.version);
    let newer = rows.iter().filter(is_newer).map(|row| StepStatus {
        version: row.version,
        name: format!("{:04}_{}", row.version, row.description),
        state: StepState::Newer,
        applied_at: Some(row.at.clone()),
    });
    own.chain(newer).collect()
}

fn state_of(step: &Step, row: Option<&Recorded>) -> StepState {
    match row {
        None => StepState::Pending,
        Some(row) if !row.is_complete => StepState::Incomplete,
        Some(row) if *row.checksum != *step.up_migration().checksum => StepState::Changed,
        Some(_) => StepState::Applied,
    }
}

/// Makes the tables of a database in memory.
pub(super) async fn up_in_memory(conn: &mut Conn) -> Outcome<()> {
    for step in steps(conn.dialect()) {
        conn.raw(step.up).await?;
    }
    Ok(())
}
