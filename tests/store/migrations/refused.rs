//! Databases that can't be used, and rights that are too few.

use std::net::TcpListener;
use std::process::Child;
use std::time::{Duration, Instant};

use hubbub_test_support::database::{DatabaseKind, DatabaseServer, TestDatabase};

use super::{execute, hubbub, migrate, run, run_for, status, steps};

/// A database of PostgreSQL with another encoding than UTF-8.
fn encoded(encoding: &str) -> TestDatabase {
    let mut database = TestDatabase::new(DatabaseKind::Postgres);
    let name = format!("{}_{encoding}", database.url.rsplit_once('/').unwrap().1).to_lowercase();
    let server = DatabaseServer::shared(DatabaseKind::Postgres);
    let create = format!(
        "CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 \
         LC_COLLATE 'C' LC_CTYPE 'C'"
    );
    server.sql(None, &create);
    database.url = server.url(&name);
    database
}

#[tokio::test]
async fn postgres_a_database_that_cannot_have_every_character_is_refused() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let database = encoded(encoding);
        for (arguments, code) in [
            (&["migrate", "up"][..], 1),
            (&["migrate", "status"], 2),
            (&["serve", "--port=0"], 1),
            (&["db", "seed", "--messages=100"], 2),
        ] {
            let command = hubbub(&database, arguments);
            let refused = run_for(Duration::from_secs(20), command);
            let text = [refused.stdout, refused.stderr].concat();
            let text = String::from_utf8(text).unwrap();
            assert_eq!(refused.status.code(), Some(code), "{arguments:?}: {text}");
            for expected in [encoding, "ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0"] {
                assert!(text.contains(expected), "{arguments:?}: {text}");
            }
        }
    }
}

/// The port of a server that accepts connections and says nothing, and its socket.
fn silent_server() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn a_server_that_does_not_respond_ends_a_command_with_a_message() {
    let (_listener, port) = silent_server();
    let mut database = TestDatabase::new(DatabaseKind::Sqlite);
    let mut children: Vec<(String, Child)> = Vec::new();
    let begin = Instant::now();
    for scheme in ["postgres", "mysql"] {
        database.url = format!("{scheme}://ann:hunter2@127.0.0.1:{port}/hubbub");
        for arguments in [
            &["migrate", "up"][..],
            &["migrate", "down"],
            &["migrate", "status"],
            &["db", "verify"],
            &["db", "seed"],
        ] {
            let child = hubbub(&database, arguments).spawn().unwrap();
            children.push((format!("{scheme} {arguments:?}"), child));
        }
    }
    for (name, mut child) in children {
        while child.try_wait().unwrap().is_none() {
            if begin.elapsed() > Duration::from_secs(30) {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code().is_some(), "{name}: it hangs: {text}");
        let expected = format!("127.0.0.1:{port}");
        assert!(
            text.contains(&expected) && text.contains("within 5 s"),
            "{name}: {text}"
        );
    }
}

/// `hubbub migrate up --wait` waits for a server that starts later.
async fn up_waits_for_a_server(kind: DatabaseKind) {
    let mut server = DatabaseServer::start_durable(kind);
    let mut database = TestDatabase::new(DatabaseKind::Sqlite);
    database.url = server.create_database("later");
    server.kill();
    let mut waiting = hubbub(&database, &["migrate", "up", "--wait", "120"]);
    let mut waiting = waiting.spawn().unwrap();
    let stderr = std::io::BufReader::new(waiting.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(stderr);
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("trying again for 120 seconds"), "{first}");
    server.run();
    assert!(waiting.wait().unwrap().success(), "{:?}", lines.next());
    assert_eq!(status(&database).1, Some(0));
}

#[tokio::test]
async fn postgres_up_waits_for_a_server_that_starts_later() {
    up_waits_for_a_server(DatabaseKind::Postgres).await;
}

#[tokio::test]
async fn mariadb_up_waits_for_a_server_that_starts_later() {
    up_waits_for_a_server(DatabaseKind::MariaDb).await;
}

#[tokio::test]
async fn up_does_not_wait_when_the_server_refuses_the_database() {
    for kind in [DatabaseKind::Postgres, DatabaseKind::MariaDb] {
        let mut database = TestDatabase::new(DatabaseKind::Sqlite);
        database.url = DatabaseServer::shared(kind).url("no_such_database");
        let command = hubbub(&database, &["migrate", "up", "--wait", "3600"]);
        let refused = run_for(Duration::from_secs(20), command);
        let text = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{kind:?}: {text}");
        assert!(text.contains("no_such_database"), "{kind:?}: {text}");
    }
}

#[tokio::test]
async fn postgres_a_starting_node_logs_that_another_process_migrates() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let name = database.url.rsplit_once('/').unwrap().1.to_owned();
    let sql = "SELECT pg_advisory_lock(7527030527235334253), pg_sleep(600)";
    let url = database.url.clone();
    let mut holder = std::process::Command::new("psql")
        .args(["-X", "-q", "-d", &url, "-c", sql])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let is_held = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND wait_event = 'PgSleep'";
    let begin = Instant::now();
    while database.sql(is_held) == "0" {
        assert!(begin.elapsed() < Duration::from_secs(20), "{name}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut node = hubbub(&database, &["serve", "--port=0"]).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(node.stderr.take().unwrap()));
    let is_logged = lines.any(|line| line.unwrap().contains("another process migrates"));
    holder.kill().unwrap();
    holder.wait().unwrap();
    node.kill().unwrap();
    node.wait().unwrap();
    assert!(is_logged);
}

async fn a_changed_step_has_the_exit_code_of_a_pending_one(kind: DatabaseKind) {
    let database = TestDatabase::new(kind);
    migrate(&database, &["up"]);
    let change = "UPDATE hubbub_migrations SET checksum = 'x' WHERE version = 1";
    execute(&database, change).await;
    let (states, code) = status(&database);
    assert_eq!((states[0].as_str(), code), ("changed", Some(1)));
    let refused = run(&database, &["migrate", "up"]);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && text.contains("another text"),
        "{text}"
    );
}

on_each!(a_changed_step_has_the_exit_code_of_a_pending_one);

/// `up` with the rights of a node, on a database that has everything.
fn up_without_the_right_to_create_tables(kind: DatabaseKind, grants: &[&str]) {
    let mut database = TestDatabase::new(kind);
    migrate(&database, &["up"]);
    let name = database.url.rsplit_once('/').unwrap().1.to_owned();
    for grant in grants {
        database.sql(&grant.replace("NAME", &name));
    }
    let owner = std::mem::take(&mut database.url);
    database.url = owner.replace("hubbub@", &format!("{name}@"));
    let text = migrate(&database, &["up"]);
    assert!(text.starts_with("nothing to do"), "{text}");
    // A step that is missing needs the right.
    let newest = steps(kind).len();
    database.sql(&format!(
        "DELETE FROM hubbub_migrations WHERE version = {newest}"
    ));
    let refused = run(&database, &["migrate", "up"]);
    assert!(!refused.status.success());
}

#[tokio::test]
async fn postgres_up_needs_no_right_to_create_tables_when_nothing_is_pending() {
    up_without_the_right_to_create_tables(
        DatabaseKind::Postgres,
        &[
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            "CREATE USER NAME",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO NAME",
        ],
    );
}

#[tokio::test]
async fn mariadb_up_needs_no_right_to_create_tables_when_nothing_is_pending() {
    up_without_the_right_to_create_tables(
        DatabaseKind::MariaDb,
        &[
            "CREATE USER NAME@'127.0.0.1'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON NAME.* TO NAME@'127.0.0.1'",
        ],
    );
}
