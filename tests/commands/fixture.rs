//! Databases, and the program that works on them.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use hubbub::domain::{RoomId, Timestamp};
use hubbub::store::sql::{DatabaseUrl, Settings, SqlStore};
use hubbub::store::{
    ArchiveStore as _, ArchiveTransfer as _, ArchiveWindow, ArchivedEntry, RoomState,
};
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use serde_json::Value;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

pub use DatabaseKind::{MariaDb, Postgres, Sqlite};

/// `hubbub db`, without the environment of the test.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubbub"));
    command
        .env_clear()
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .arg("db")
        .args(arguments);
    command
}

/// The end of a command.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it ended by itself"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The summary of a command that could run.
    pub fn summary(&self) -> Value {
        assert!(self.code < 2, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

pub fn run(arguments: &[&str]) -> Ended {
    Ended::of(command(arguments).output().unwrap())
}

/// Runs a command on a database, and returns its summary.
pub fn summary(database: &TestDatabase, arguments: &[&str]) -> Value {
    let options = ["--json", "--database-url", &database.url];
    let ended = run(&[arguments, &options].concat());
    let summary = ended.summary();
    assert_eq!(ended.stderr, "", "no progress without a terminal");
    summary
}

/// The day on which the tests began: all demo data ends with it, even if the tests pass midnight.
pub fn today() -> &'static str {
    static TODAY: LazyLock<String> = LazyLock::new(|| Timestamp::now().to_string());
    &TODAY[..10]
}

/// A database with demo data.
pub fn seeded(kind: DatabaseKind, rooms: u64, messages: u64) -> TestDatabase {
    let database = TestDatabase::new(kind);
    let (rooms, messages) = (rooms.to_string(), messages.to_string());
    let options = [
        "seed",
        "--rooms",
        &rooms,
        "--messages",
        &messages,
        "--until",
        today(),
    ];
    let summary = summary(&database, &options);
    assert_eq!(summary["added_now"].to_string(), messages);
    database
}

pub async fn open(database: &TestDatabase) -> SqlStore {
    let url = DatabaseUrl::parse(&database.url).unwrap();
    SqlStore::open(&Settings::new(url)).await.unwrap()
}

/// Everything of a room.
pub type Contents = (RoomId, RoomState, Vec<ArchivedEntry>);

/// Everything of an archive, in the order of the rooms' names.
pub async fn contents(store: &SqlStore) -> Vec<Contents> {
    let mut contents = Vec::new();
    for (_, room) in store.rooms(0, usize::MAX).await.unwrap() {
        let state = store.room_state(&room).await.unwrap().unwrap();
        let window = ArchiveWindow::After(0);
        let entries = store.read(&room, window, usize::MAX, usize::MAX).await;
        contents.push((room, state, entries.unwrap()));
    }
    contents.sort_by(|one, other| one.0.cmp(&other.0));
    contents
}

/// The number of messages of the archive.
pub async fn count(store: &SqlStore) -> usize {
    contents(store).await.iter().map(|room| room.2.len()).sum()
}

/// Runs statements past the store.
pub async fn execute(database: &TestDatabase, text: &str) {
    if database.kind != Sqlite {
        database.sql(text);
        return;
    }
    execute_in(&database.file(), text).await;
}

async fn execute_in(file: &Path, text: &str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut connection = options.connect().await.unwrap();
    let done = sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection);
    done.await.unwrap();
    connection.close().await.unwrap();
}

/// Makes a database of SQLite with its tables, in which the insertion of a message costs so much CPU
/// time that no command can fill it between two polls of [`kill_when`].
pub async fn slow_database() -> TestDatabase {
    let database = TestDatabase::new(Sqlite);
    let migrated = Command::new(env!("CARGO_BIN_EXE_hubbub"))
        .env_clear()
        .args(["migrate", "up", "--database-url", &database.url])
        .output();
    assert!(migrated.unwrap().status.success());
    execute(
        &database,
        "CREATE TRIGGER slow AFTER INSERT ON hubbub_entries \
         BEGIN SELECT length(hex(randomblob(50000))); END",
    )
    .await;
    database
}

/// Makes a database of [`slow_database`] as fast as any other.
pub async fn speed_up(database: &TestDatabase) {
    execute(database, "DROP TRIGGER slow").await;
}

/// Runs a command until its database has so many messages, and kills it. The database is one of
/// [`slow_database`].
pub async fn kill_when(mut command: Command, database: &TestDatabase, messages: usize) {
    let mut child = command.spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(300);
    loop {
        assert!(std::time::Instant::now() < deadline, "it is too slow");
        let has_ended = child.try_wait().unwrap().is_some();
        assert!(!has_ended, "it ended before it was killed");
        if stored(database).await >= messages {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The number of messages, or 0 while the tables don't exist.
async fn stored(database: &TestDatabase) -> usize {
    const COUNT: &str = "SELECT COUNT(*) FROM hubbub_entries";
    if !database.file().exists() {
        return 0;
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(database.file())
        .read_only(true);
    let Ok(mut connection) = options.connect().await else {
        return 0;
    };
    let count: Result<i64, _> = sqlx::query_scalar(COUNT).fetch_one(&mut connection).await;
    connection.close().await.unwrap();
    usize::try_from(count.unwrap_or(0)).unwrap()
}
