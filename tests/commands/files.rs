//! The files that a command leaves, and databases that have several names.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hubbub_test_support::database::TestDatabase;
use sqlx::ConnectOptions as _;

use crate::fixture::{
    Ended, MariaDb, Postgres, Sqlite, command, contents, count, open, run, seeded, slow_database,
    summary,
};

/// The names of the files of a database of SQLite.
fn files(database: &TestDatabase) -> Vec<String> {
    let directory = database.file().parent().unwrap().to_owned();
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// The number of messages in a copy of the file alone, as `cp` makes it.
async fn messages_of_the_file(database: &TestDatabase) -> usize {
    let copy = TestDatabase::new(Sqlite);
    std::fs::copy(database.file(), copy.file()).unwrap();
    count(&open(&copy).await).await
}

#[tokio::test]
async fn a_command_leaves_everything_in_the_file() {
    let only_the_file = ["hubbub.db", "hubbub.db.lock"];
    let from = seeded(Sqlite, 3, 500);
    assert_eq!(files(&from), only_the_file);
    assert_eq!(messages_of_the_file(&from).await, 500);

    let to = TestDatabase::new(Sqlite);
    summary(&from, &["copy", "--to", &to.url]);
    for database in [&from, &to] {
        assert_eq!(files(database), only_the_file);
        assert_eq!(messages_of_the_file(database).await, 500);
    }

    summary(&to, &["verify"]);
    assert_eq!(files(&to), only_the_file);
    let pruned = summary(&to, &["prune", "--older-than", "45"]);
    assert_eq!(files(&to), only_the_file);
    let kept = 500 - usize::try_from(pruned["messages"].as_u64().unwrap()).unwrap();
    assert_eq!(messages_of_the_file(&to).await, kept);
}

#[tokio::test]
async fn a_command_that_fails_leaves_everything_in_the_file() {
    let (from, to) = (seeded(Sqlite, 2, 100), seeded(Sqlite, 3, 50));
    let options = ["copy", "--database-url", &from.url, "--to", &to.url];
    assert_eq!(run(&options).code, 2);
    for database in [&from, &to] {
        assert_eq!(files(database), ["hubbub.db", "hubbub.db.lock"]);
    }
}

/// Waits until another connection sees messages.
async fn await_messages(database: &TestDatabase) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(database.file())
        .read_only(true);
    loop {
        assert!(Instant::now() < deadline, "nothing is copied");
        let mut connection = options.connect().await.unwrap();
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM hubbub_entries")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        sqlx::Connection::close(connection).await.unwrap();
        if count > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_command_that_is_interrupted_leaves_everything_in_the_file() {
    let from = seeded(Sqlite, 5, 8000);
    let to = slow_database().await;
    let child = command(&["copy", "--database-url", &from.url, "--to", &to.url])
        .spawn()
        .unwrap();
    await_messages(&to).await;
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(sent.success());
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert!(ended.stderr.contains("interrupted"), "{}", ended.stderr);
    assert_eq!(files(&to), ["hubbub.db", "hubbub.db.lock"]);
    let copied = messages_of_the_file(&to).await;
    assert!((1..8000).contains(&copied), "{copied}");
}

/// Other names of a database.
fn names(database: &TestDatabase) -> Vec<String> {
    if database.kind != Sqlite {
        return vec![database.url.replace("127.0.0.1", "localhost")];
    }
    let file = database.file();
    let directory = file.parent().unwrap();
    let (other, linked) = (directory.join("other.db"), directory.join("linked.db"));
    symlink(&file, &other).unwrap();
    std::fs::hard_link(&file, &linked).unwrap();
    let temporary = std::env::temp_dir();
    let relative = file.strip_prefix(&temporary).unwrap().to_owned();
    let dotted = PathBuf::from(format!("{}/./hubbub.db", directory.display()));
    [relative, dotted, other, linked]
        .map(|path| format!("sqlite://{}", path.display()))
        .to_vec()
}

#[tokio::test]
async fn a_database_is_not_copied_onto_itself_by_another_name() {
    for kind in [Sqlite, Postgres, MariaDb] {
        let database = seeded(kind, 2, 100);
        let before = contents(&open(&database).await).await;
        for name in names(&database) {
            let refused = run(&["copy", "--database-url", &database.url, "--to", &name]);
            assert_eq!(refused.code, 2, "{name}: {}", refused.stdout);
            let text = &refused.stderr;
            assert!(text.contains("is the database itself"), "{name}: {text}");
            let store = open(&database).await;
            hubbub::store::ArchiveStore::deployment(&store)
                .await
                .unwrap();
            assert_eq!(contents(&store).await, before);
        }
    }
}

#[test]
fn a_copy_without_a_destination_names_both_ways_to_give_one() {
    let from = seeded(Sqlite, 1, 10);
    for value in [None, Some("")] {
        let mut copy = command(&["copy", "--database-url", &from.url]);
        if let Some(value) = value {
            copy.env("COPY_TO", value);
        }
        let ended = Ended::of(copy.stdin(Stdio::null()).output().unwrap());
        let expected = "hubbub: name the destination with --to or COPY_TO\n";
        assert_eq!((ended.code, ended.stderr.as_str()), (2, expected));
    }
}

/// What `hubbub migrate up` says about an address, and the names of the files in the directory.
fn migrate_up(directory: &std::path::Path, url: &str) -> (String, Vec<String>) {
    let output = Command::new(env!("CARGO_BIN_EXE_hubbub"))
        .env_clear()
        .args(["migrate", "up", "--database-url", url])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let mut files: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort_unstable();
    (String::from_utf8(output.stderr).unwrap(), files)
}

#[test]
fn a_path_that_is_no_database_is_refused_and_left_alone() {
    let place = TestDatabase::new(Sqlite);
    let directory = place.file().parent().unwrap().to_owned();
    std::fs::create_dir(directory.join("folder.db")).unwrap();
    std::fs::write(directory.join("garbage.db"), "garbage").unwrap();
    for (name, expected) in [
        ("folder.db", vec!["folder.db", "is a directory"]),
        ("garbage.db", vec!["garbage.db", "no database of SQLite"]),
        (
            "nodir/x.db",
            vec!["nodir doesn't exist", "mkdir", "DATABASE_URL"],
        ),
    ] {
        let url = format!("sqlite://{}/{name}", directory.display());
        let (text, files) = migrate_up(&directory, &url);
        for expected in expected {
            assert!(text.contains(expected), "{name}: {text}");
        }
        assert_eq!(files, ["folder.db", "garbage.db"]);
    }
}
