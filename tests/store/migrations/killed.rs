//! `hubbub migrate` killed anywhere: what it leaves is completed by the next.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use uuid::Uuid;

use super::{assert_complete, execute, hubbub, migrate, status, steps, tables};
use crate::fixture::migrations;

/// Kills `up` and `down` after random times, often. What they leave is completed by the next `up`. The
/// times are spread over the whole duration of `up`: the first ones end before the process can be
/// done. `HUBBUB_KILL_SEED` repeats the times of a run.
async fn a_migration_that_was_killed_anywhere_is_completed_by_the_next(kind: DatabaseKind) {
    const ROUNDS: u32 = 16;
    let database = TestDatabase::new(kind);
    let seed = std::env::var("HUBBUB_KILL_SEED").ok();
    let seed = seed.map_or_else(
        || Uuid::new_v4().as_u128() as u64,
        |seed| seed.parse().unwrap(),
    );
    eprintln!("HUBBUB_KILL_SEED={seed}");
    let begin = Instant::now();
    migrate(&database, &["up"]);
    let duration = begin.elapsed();
    let complete = tables(&database).await;
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        let arguments = if round % 2 == 0 {
            migrate(&database, &["down", "100"]);
            ["migrate", "up"].as_slice()
        } else {
            &["migrate", "down", "100"]
        };
        let mut victim = hubbub(&database, arguments).spawn().unwrap();
        // A Weyl sequence: as good as random for this purpose.
        let fraction = (seed.wrapping_add(u64::from(round))).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            as f64
            / u64::MAX as f64;
        let share = (f64::from(round) + fraction) / f64::from(ROUNDS);
        std::thread::sleep(duration.mul_f64(share));
        victim.kill().unwrap();
        if !victim.wait().unwrap().success() {
            interrupted += 1;
        }
        migrate(&database, &["up"]);
        assert_complete(&database);
        assert_eq!(tables(&database).await, complete, "round {round}");
    }
    assert!(interrupted > 0, "no process was killed before its end");
}

/// The statements of a step, without comments.
fn statements(kind: DatabaseKind, step: &str) -> Vec<String> {
    let file = migrations(kind).join(format!("{step}.up.sql"));
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"));
    let code: String = lines.map(|line| format!("{line}\n")).collect();
    let statements = code.split(';').map(|text| text.trim().to_owned());
    statements.filter(|text| !text.is_empty()).collect()
}

/// Every state in which a step can stop between two of its statements: on MySQL with the row that
/// sqlx writes first, elsewhere as leftovers, because there a step is one transaction.
async fn a_step_that_stopped_after_any_of_its_statements_is_completed(kind: DatabaseKind) {
    let database = TestDatabase::new(kind);
    migrate(&database, &["up"]);
    let complete = tables(&database).await;
    let steps = steps(kind);
    for (index, step) in steps.iter().enumerate() {
        let statements = statements(kind, step);
        for done in 0..=statements.len() {
            migrate(&database, &["down", &(steps.len() - index).to_string()]);
            if kind == DatabaseKind::MariaDb {
                let row = "INSERT INTO hubbub_migrations \
                           (version, description, success, checksum, execution_time)";
                let version = index + 1;
                execute(
                    &database,
                    &format!("{row} VALUES ({version}, 'x', FALSE, 'x', -1)"),
                )
                .await;
                assert_eq!(status(&database).0[index], "incomplete");
            }
            for statement in &statements[..done] {
                execute(&database, statement).await;
            }
            migrate(&database, &["up"]);
            assert_complete(&database);
            assert_eq!(
                tables(&database).await,
                complete,
                "{step} after {done} statements"
            );
        }
    }
}

on_each!(
    a_migration_that_was_killed_anywhere_is_completed_by_the_next,
    a_step_that_stopped_after_any_of_its_statements_is_completed,
);

/// A session that makes the next statement on a table of this name wait.
struct Obstacle {
    session: Child,
    name: String,
}

impl Obstacle {
    /// Creates the table in a transaction, or a statement, that doesn't end.
    fn new(database: &TestDatabase, name: &str) -> Self {
        let port = url_part(database, ':')
            .split_once('/')
            .unwrap()
            .0
            .to_owned();
        let (program, arguments) = match database.kind {
            DatabaseKind::MariaDb => (
                "mariadb",
                vec![
                    "--no-defaults",
                    "-h",
                    "127.0.0.1",
                    "-P",
                    &port,
                    "-u",
                    "hubbub",
                    "-e",
                ],
            ),
            _ => (
                "psql",
                vec![
                    "-X",
                    "-q",
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-U",
                    "hubbub",
                    "-c",
                ],
            ),
        };
        let text = match database.kind {
            DatabaseKind::MariaDb => format!("CREATE TABLE {name} AS SELECT SLEEP(600) AS x"),
            _ => format!("BEGIN; CREATE TABLE {name} (x INT); SELECT pg_sleep(600)"),
        };
        let session = Command::new(program)
            .args(arguments)
            .arg(text)
            .arg(url_part(database, '/'))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let obstacle = Self {
            session,
            name: name.to_owned(),
        };
        let begin = Instant::now();
        while obstacle.id(database).is_empty() {
            assert!(
                begin.elapsed() < Duration::from_secs(10),
                "{name} is not created"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        obstacle
    }

    /// The server's id of the session; empty before it sleeps.
    fn id(&self, database: &TestDatabase) -> String {
        let name = &self.name;
        database.sql(&match database.kind {
            DatabaseKind::MariaDb => format!(
                "SELECT id FROM information_schema.processlist WHERE db = DATABASE() \
                 AND state = 'User sleep' AND info LIKE 'CREATE TABLE {name} AS%'"
            ),
            _ => format!(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
                 AND wait_event = 'PgSleep' AND query LIKE '%CREATE TABLE {name} %'"
            ),
        })
    }

    /// Ends the session; its table is undone.
    fn remove(mut self, database: &TestDatabase) {
        let id = self.id(database);
        database.sql(&match database.kind {
            DatabaseKind::MariaDb => format!("KILL {id}"),
            _ => format!("SELECT pg_terminate_backend({id})"),
        });
        self.session.wait().unwrap();
    }
}

/// What follows the last `separator` of the database's URL.
fn url_part(database: &TestDatabase, separator: char) -> &str {
    database.url.rsplit_once(separator).unwrap().1
}

/// Waits until a statement of another session waits for a lock.
fn await_blocked(database: &TestDatabase, victim: &mut Child) {
    let count = match database.kind {
        DatabaseKind::MariaDb => {
            "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() \
             AND state LIKE 'Waiting for table metadata lock%'"
        }
        _ => {
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND wait_event_type = 'Lock'"
        }
    };
    let begin = Instant::now();
    while database.sql(count) == "0" {
        if victim.try_wait().unwrap().is_some() || begin.elapsed() > Duration::from_secs(10) {
            let mut errors = String::new();
            let _ = victim.stderr.take().unwrap().read_to_string(&mut errors);
            panic!("the migration doesn't wait: {errors}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Kills `up` while the server runs a statement of a step, of each step in turn.
async fn a_migration_killed_within_a_statement_of_each_step_is_completed(kind: DatabaseKind) {
    let database = TestDatabase::new(kind);
    migrate(&database, &["up"]);
    let complete = tables(&database).await;
    let steps = steps(kind);
    for (index, step) in steps.iter().enumerate() {
        migrate(&database, &["down", &(steps.len() - index).to_string()]);
        let created = statements(kind, step);
        let created = created.iter().rev().find_map(|text| {
            let rest = text.strip_prefix("CREATE TABLE IF NOT EXISTS ")?;
            rest.split_whitespace().next()
        });
        let obstacle = Obstacle::new(&database, created.unwrap());
        let mut victim = hubbub(&database, &["migrate", "up"]).spawn().unwrap();
        await_blocked(&database, &mut victim);
        victim.kill().unwrap();
        victim.wait().unwrap();
        // The server still runs the statement, and holds the lock of the dead process.
        let successor = hubbub(&database, &["migrate", "up"]).spawn().unwrap();
        obstacle.remove(&database);
        let output = successor.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{step}: {errors}");
        assert_complete(&database);
        assert_eq!(tables(&database).await, complete, "{step}");
    }
}

#[tokio::test]
async fn postgres_a_migration_killed_within_a_statement_of_each_step_is_completed() {
    a_migration_killed_within_a_statement_of_each_step_is_completed(DatabaseKind::Postgres).await;
}

#[tokio::test]
async fn mariadb_a_migration_killed_within_a_statement_of_each_step_is_completed() {
    a_migration_killed_within_a_statement_of_each_step_is_completed(DatabaseKind::MariaDb).await;
}
