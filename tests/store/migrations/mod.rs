//! `hubbub migrate` by real processes: several at once, killed anywhere, forwards and backwards.

/// Makes a test of each function for each database.
macro_rules! on_each {
    ($($name:ident),* $(,)?) => {
        mod sqlite_file { $(
            #[tokio::test]
            async fn $name() {
                super::$name(super::DatabaseKind::Sqlite).await;
            }
        )* }
        mod postgres { $(
            #[tokio::test]
            async fn $name() {
                super::$name(super::DatabaseKind::Postgres).await;
            }
        )* }
        mod mariadb { $(
            #[tokio::test]
            async fn $name() {
                super::$name(super::DatabaseKind::MariaDb).await;
            }
        )* }
    };
}

mod killed;
mod nodes;
mod refused;

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use crate::fixture::migrations;

/// The steps of the schema, oldest first.
fn steps(kind: DatabaseKind) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(migrations(kind))
        .unwrap()
        .filter_map(|file| {
            let name = file.unwrap().file_name().into_string().unwrap();
            Some(name.strip_suffix(".up.sql")?.to_owned())
        })
        .collect();
    names.sort_unstable();
    names
}

/// `hubbub` with this database, and nothing of this process's environment.
fn hubbub(database: &TestDatabase, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubbub"));
    command
        .args(arguments)
        .env_clear()
        .env("DATABASE_URL", &database.url)
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(database: &TestDatabase, arguments: &[&str]) -> Output {
    hubbub(database, arguments).output().unwrap()
}

/// The output of a command, which is killed if it doesn't end in time.
fn run_for(limit: Duration, mut command: Command) -> Output {
    let mut child = command.spawn().unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > limit {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

/// The output of `hubbub migrate …`, which must succeed.
fn migrate(database: &TestDatabase, arguments: &[&str]) -> String {
    let output = run(database, &[&["migrate"], arguments].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}{errors}");
    text
}

/// The states of all steps, and the exit code.
fn status(database: &TestDatabase) -> (Vec<String>, Option<i32>) {
    let output = run(database, &["migrate", "status"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let states = text.lines().map(|line| {
        let state = line.split('\t').nth(1);
        state.unwrap_or(line).to_owned()
    });
    (states.collect(), output.status.code())
}

fn assert_complete(database: &TestDatabase) {
    let applied = vec!["applied".to_owned(); steps(database.kind).len()];
    assert_eq!(status(database), (applied, Some(0)));
}

/// The tables of the database, in order.
async fn tables(database: &TestDatabase) -> Vec<String> {
    let text = match database.kind {
        DatabaseKind::Sqlite => {
            let mut connection = sqlite(database).await;
            // SQLite keeps a table of its own for numbered rows.
            let sql = "SELECT name FROM sqlite_master \
                WHERE type = 'table' AND name <> 'sqlite_sequence'";
            let rows: Vec<(String,)> = sqlx::query_as(sql)
                .fetch_all(&mut connection)
                .await
                .unwrap();
            connection.close().await.unwrap();
            rows.into_iter().map(|(name,)| name + "\n").collect()
        }
        DatabaseKind::Postgres => {
            database.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        }
        DatabaseKind::MariaDb => database.sql("SHOW TABLES"),
    };
    let mut names: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    names.sort_unstable();
    names
}

async fn sqlite(database: &TestDatabase) -> sqlx::SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(database.file())
        .create_if_missing(true);
    options.connect().await.unwrap()
}

/// Runs a statement past the code under test.
async fn execute(database: &TestDatabase, text: &str) {
    if database.kind != DatabaseKind::Sqlite {
        database.sql(text);
        return;
    }
    let mut connection = sqlite(database).await;
    let done = sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection);
    done.await.unwrap();
    connection.close().await.unwrap();
}

/// Starts `hubbub migrate up` in six processes at once. Returns the steps that each has applied.
fn six_starters(database: &TestDatabase) -> Vec<String> {
    let starters: Vec<Child> = (0..6)
        .map(|_| hubbub(database, &["migrate", "up"]).spawn().unwrap())
        .collect();
    let mut applied = Vec::new();
    for starter in starters {
        let output = starter.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let text = String::from_utf8(output.stdout).unwrap();
        let names = text
            .lines()
            .filter_map(|line| line.strip_prefix("applied "));
        applied.extend(names.map(ToOwned::to_owned));
    }
    applied.sort_unstable();
    applied
}

async fn six_starters_on_an_empty_database_apply_each_step_once(kind: DatabaseKind) {
    let database = TestDatabase::new(kind);
    assert_eq!(six_starters(&database), steps(kind));
    assert_complete(&database);
}

async fn six_starters_on_the_previous_schema_apply_the_last_step_once(kind: DatabaseKind) {
    let database = TestDatabase::new(kind);
    migrate(&database, &["up"]);
    for count in 1..=steps(kind).len() {
        migrate(&database, &["down", &count.to_string()]);
        let missing = &steps(kind)[steps(kind).len() - count..];
        assert_eq!(six_starters(&database), missing);
        assert_complete(&database);
    }
}

async fn down_to_nothing_and_up_again_leaves_foreign_tables_alone(kind: DatabaseKind) {
    let database = TestDatabase::new(kind);
    // An application that shares the database, and uses sqlx too.
    for statement in [
        "CREATE TABLE rooms (name VARCHAR(9))",
        "INSERT INTO rooms VALUES ('mine')",
        "CREATE TABLE _sqlx_migrations (version BIGINT)",
    ] {
        execute(&database, statement).await;
    }
    let foreign = tables(&database).await;
    migrate(&database, &["up"]);
    let complete = tables(&database).await;
    assert!(complete.len() > foreign.len() + 4, "{complete:?}");

    let reverted = migrate(&database, &["down", "100"]);
    let newest = steps(kind).last().unwrap().clone();
    assert!(
        reverted.starts_with(&format!("reverted {newest}\n")),
        "{reverted}"
    );
    assert_eq!(reverted.lines().count(), steps(kind).len());
    let left: Vec<String> = tables(&database).await;
    let left: Vec<_> = left
        .into_iter()
        .filter(|name| name != "hubbub_migrations")
        .collect();
    assert_eq!(left, foreign);
    assert_eq!(
        migrate(&database, &["down"]).lines().count(),
        1,
        "nothing is left to revert"
    );

    migrate(&database, &["up"]);
    assert_eq!(tables(&database).await, complete);
    execute(&database, "DELETE FROM rooms WHERE name = 'mine'").await;
}

async fn the_exit_code_of_the_status_says_whether_a_step_is_pending(kind: DatabaseKind) {
    let database = TestDatabase::new(kind);
    let all = |state: &str| vec![state.to_owned(); steps(kind).len()];
    assert_eq!(status(&database), (all("pending"), Some(1)));
    if kind == DatabaseKind::Sqlite {
        assert!(!database.file().exists(), "asking must not create the file");
    }
    migrate(&database, &["up"]);
    assert_eq!(status(&database), (all("applied"), Some(0)));
    migrate(&database, &["down"]);
    let mut states = all("applied");
    *states.last_mut().unwrap() = "pending".to_owned();
    assert_eq!(status(&database), (states, Some(1)));
}

async fn a_database_that_cannot_be_reached_has_an_exit_code_of_its_own(kind: DatabaseKind) {
    let mut database = TestDatabase::new(kind);
    let url = match kind {
        DatabaseKind::Sqlite => "sqlite:///nonexistent/hubbub.db".to_owned(),
        DatabaseKind::Postgres => "postgres://ann:hunter2@127.0.0.1:1/hubbub".to_owned(),
        DatabaseKind::MariaDb => "mysql://ann:hunter2@127.0.0.1:1/hubbub".to_owned(),
    };
    database.url = url;
    let failed = run(&database, &["migrate", "up"]);
    assert_eq!(failed.status.code(), Some(1));
    let errors = String::from_utf8(failed.stderr).unwrap();
    assert!(!errors.contains("hunter2"), "{errors}");
    if kind != DatabaseKind::Sqlite {
        assert_eq!(status(&database).1, Some(2));
    }
}

async fn steps_of_a_newer_version_stay_and_cannot_be_reverted(kind: DatabaseKind) {
    let database = TestDatabase::new(kind);
    migrate(&database, &["up"]);
    let row =
        "INSERT INTO hubbub_migrations (version, description, success, checksum, execution_time)";
    execute(
        &database,
        &format!("{row} VALUES (99, 'later', TRUE, 'x', 0)"),
    )
    .await;
    migrate(&database, &["up"]);
    let (states, code) = status(&database);
    assert_eq!(
        (states.last().map(String::as_str), code),
        (Some("newer"), Some(0))
    );
    let refused = run(&database, &["migrate", "down"]);
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && errors.contains("migrations up to 99"),
        "{errors}"
    );
}

on_each!(
    six_starters_on_an_empty_database_apply_each_step_once,
    six_starters_on_the_previous_schema_apply_the_last_step_once,
    down_to_nothing_and_up_again_leaves_foreign_tables_alone,
    the_exit_code_of_the_status_says_whether_a_step_is_pending,
    a_database_that_cannot_be_reached_has_an_exit_code_of_its_own,
    steps_of_a_newer_version_stay_and_cannot_be_reverted,
);

/// A node on a free port that is ended with the test.
struct Node(Child);

impl Node {
    fn start(database: &TestDatabase) -> Self {
        let node = hubbub(database, &["serve"])
            .env("SERVER_PORT", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(node)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_file_serves_one_node_and_can_be_read_beside_it() {
    let database = TestDatabase::new(DatabaseKind::Sqlite);
    let node = Node::start(&database);
    let begin = Instant::now();
    while status(&database).1 != Some(0) {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "the node doesn't migrate"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    for arguments in [
        ["serve", "--port=0"].as_slice(),
        &["migrate", "up"],
        &["migrate", "down"],
    ] {
        let refused = run_for(Duration::from_secs(20), hubbub(&database, arguments));
        let text = [refused.stdout, refused.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        let expected = format!("in use by a node (process id {})", node.0.id());
        assert!(
            !refused.status.success() && text.contains(&expected),
            "{arguments:?}: {text}"
        );
    }
    drop(node);
    migrate(&database, &["down"]);
}
