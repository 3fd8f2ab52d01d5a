//! `hubbub db copy`.

use std::process::Command;

use hubbub::app::App;
use hubbub::domain::{Epoch, Head, RoomId};
use hubbub::store::{ArchiveStore as _, ArchiveTransfer as _, DirectoryTransfer as _, NewEpoch};
use hubbub_test_support::database::TestDatabase;
use hubbub_test_support::node::{self, http};
use serde_json::{Value, json};

use crate::fixture::{
    MariaDb, Postgres, Sqlite, command, contents, count, execute, kill_when, open, run, seeded,
    slow_database, speed_up, summary,
};

fn copy(from: &TestDatabase, to: &TestDatabase) -> Value {
    summary(from, &["copy", "--to", &to.url])
}

fn copy_command(from: &TestDatabase, to: &TestDatabase) -> Command {
    command(&["copy", "--database-url", &from.url, "--to", &to.url])
}

async fn assert_equal(one: &TestDatabase, other: &TestDatabase) {
    let (one, other) = (open(one).await, open(other).await);
    assert_eq!(contents(&one).await, contents(&other).await);
    let deployment = one.deployment().await.unwrap();
    assert_eq!(deployment, other.deployment().await.unwrap());
    assert_eq!(
        one.run_ends().await.unwrap(),
        other.run_ends().await.unwrap()
    );
}

/// An archive with everything that an archive can have: several epochs, losses, deleted messages, and
/// runs.
async fn varied() -> TestDatabase {
    let database = seeded(Sqlite, 12, 3000);
    let store = open(&database).await;
    let room = |number: u64| RoomId::trusted(&format!("demo-{number}"));
    store.delete_up_to(&room(1), 100, 1000).await.unwrap();
    let head = store.room(&room(2)).await.unwrap().unwrap().head;
    store
        .record_loss(&room(2), head + 1..=head + 5)
        .await
        .unwrap();
    let epoch = NewEpoch {
        epoch: Epoch::trusted("later"),
        after: head + 5,
        run: 1,
        ends: vec![Head {
            epoch: Epoch::trusted("unknown"),
            seq: 3,
        }],
        newest: store
            .room(&room(2))
            .await
            .unwrap()
            .unwrap()
            .epochs
            .first()
            .map(|it| it.epoch.clone()),
    };
    store.begin_epoch(&room(2), &epoch).await.unwrap();
    for ends in [false, true] {
        let run = store.begin_run().await.unwrap();
        if ends {
            store.end_run(run.number).await.unwrap();
        }
    }
    database
}

#[tokio::test]
async fn an_archive_goes_around_all_databases_and_comes_back_the_same() {
    let first = varied().await;
    let messages = count(&open(&first).await).await;
    let mut from = first;
    let mut all = Vec::new();
    for kind in [Postgres, MariaDb, Sqlite] {
        let to = TestDatabase::new(kind);
        let copied = copy(&from, &to);
        assert_eq!(copied["is_complete"], true, "{copied}");
        assert_eq!(copied["messages"], messages);
        assert_eq!(summary(&to, &["verify"])["is_complete"], true);
        all.push(std::mem::replace(&mut from, to));
    }
    assert_equal(&all[0], &from).await;
    assert_equal(&all[0], &all[1]).await;
    assert_equal(&all[0], &all[2]).await;
}

#[tokio::test]
async fn a_copy_that_was_killed_continues_and_is_no_archive_before_its_end() {
    let from = seeded(Sqlite, 5, 8000);
    let to = slow_database().await;
    for messages in [1, 2500, 5000] {
        kill_when(copy_command(&from, &to), &to, messages).await;
        let refused = open(&to).await.deployment().await.unwrap_err().to_string();
        assert!(refused.contains("incomplete copy"), "{refused}");
    }
    speed_up(&to).await;
    let copied = copy(&from, &to);
    assert_eq!(copied["is_complete"], true, "{copied}");
    assert!(copied["copied_now"].as_u64().unwrap() < 8000 - 2500);
    assert_equal(&from, &to).await;
}

#[tokio::test]
async fn a_copy_is_brought_up_to_date() {
    let from = seeded(Sqlite, 3, 600);
    let to = TestDatabase::new(Sqlite);
    copy(&from, &to);
    let store = open(&from).await;
    let room = RoomId::trusted("demo-1");
    store.delete_up_to(&room, 20, 1000).await.unwrap();
    let newest = store.room(&room).await.unwrap().unwrap().head;
    store
        .delete_up_to(&RoomId::trusted("demo-3"), newest, 1000)
        .await
        .unwrap();
    let from_more = summary(&from, &["seed", "--rooms", "4", "--messages", "2000"]);
    assert!(from_more["added_now"].as_u64().unwrap() > 0);
    let copied = copy(&from, &to);
    assert_eq!(copied["is_complete"], true, "{copied}");
    assert_equal(&from, &to).await;
}

#[tokio::test]
async fn a_message_that_was_committed_late_is_copied_too() {
    let from = seeded(Sqlite, 1, 50);
    let late = contents(&open(&from).await).await.remove(0).2.remove(9);
    crate::fixture::execute(&from, "DELETE FROM hubbub_entries WHERE seq = 10").await;
    let to = TestDatabase::new(Sqlite);
    copy(&from, &to);
    let rows = [(RoomId::trusted("demo-1"), late)];
    open(&from).await.writer(0).commit(&rows).await.unwrap();
    let copied = copy(&from, &to);
    assert_eq!(copied["is_complete"], true, "{copied}");
    assert_equal(&from, &to).await;
}

#[tokio::test]
async fn a_copy_with_a_changed_message_differs_and_is_no_archive() {
    let (from, to) = (seeded(Sqlite, 2, 100), TestDatabase::new(Sqlite));
    copy(&from, &to);
    let change = "UPDATE hubbub_entries SET at = at + 1 WHERE seq = 5 AND room_no = \
                  (SELECT no FROM hubbub_rooms WHERE name = 'demo-1')";
    crate::fixture::execute(&to, change).await;
    let ended = run(&[
        "copy",
        "--json",
        "--database-url",
        &from.url,
        "--to",
        &to.url,
    ]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let copied = ended.summary();
    assert_eq!(copied["is_complete"], false, "{copied}");
    let findings = copied["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{copied}");
    assert_eq!(findings[0]["kind"], "differs");
    assert_eq!(findings[0]["room"], "demo-1");
    let refused = open(&to).await.deployment().await.unwrap_err().to_string();
    assert!(refused.contains("incomplete copy"), "{refused}");
}

/// A source in which each read finds other positions, or other chats, is as one that is in use.
#[tokio::test]
async fn a_database_in_use_is_not_reported_as_damaged() {
    let positions = "ALTER TABLE hubbub_positions RENAME TO positions; \
        CREATE VIEW hubbub_positions AS SELECT room_no, random() & 65535 AS read_seq, user_id, at \
        FROM positions; INSERT INTO positions (room_no, read_seq, user_id, at) VALUES (1, 1, 'ann', 1)";
    // Of two chats with one room the copy gets one.
    let chats = "ALTER TABLE hubbub_chats RENAME TO chats; \
        CREATE VIEW hubbub_chats AS SELECT id, room_id, kind, name, history, direct_key, created_by, \
        created_at, random() & 65535 AS updated_at FROM chats UNION ALL SELECT x'ffffffffffffffffffffffffffffffff', room_id, \
        kind, name, history, direct_key, created_by, created_at, updated_at FROM chats; \
        INSERT INTO chats (id, room_id, kind, history, direct_key, created_by, created_at, updated_at) \
        VALUES (zeroblob(16), 'chat:1', 0, 0, 'k', zeroblob(16), 1, 1)";
    for change in [positions, chats] {
        let (from, to) = (seeded(Sqlite, 2, 100), TestDatabase::new(Sqlite));
        execute(&from, change).await;
        let url = ["--database-url", &from.url, "--to", &to.url];
        let ended = run(&[&["copy", "--json"][..], &url].concat());
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        let copied = ended.summary();
        assert_eq!(copied["findings"], json!([]), "{copied}");
        assert_eq!(copied["is_complete"], false);
        let next = copied["next"].as_str().unwrap();
        assert!(next.contains("in use"), "{next}");
    }
}

#[tokio::test]
async fn a_database_with_another_archive_is_no_destination() {
    let (from, to) = (seeded(Sqlite, 2, 100), seeded(Sqlite, 3, 50));
    let before = contents(&open(&to).await).await;
    let ended = run(&["copy", "--database-url", &from.url, "--to", &to.url]);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("another archive"), "{}", ended.stderr);
    assert_eq!(contents(&open(&to).await).await, before);
}

#[tokio::test]
async fn a_copy_that_was_used_since_is_no_destination() {
    let (from, to) = (seeded(Sqlite, 1, 100), TestDatabase::new(Sqlite));
    copy(&from, &to);
    let mut other = contents(&open(&from).await).await.remove(0).2.remove(0);
    // Both go on from number 100.
    for database in [&from, &to] {
        other.seq = 101;
        other.id = uuid::Uuid::now_v7();
        let rows = [(RoomId::trusted("demo-1"), other.clone())];
        open(database).await.writer(0).commit(&rows).await.unwrap();
    }
    let ended = run(&["copy", "--database-url", &from.url, "--to", &to.url]);
    assert_eq!(ended.code, 2, "{}", ended.stdout);
    assert!(ended.stderr.contains("used since"), "{}", ended.stderr);
    // It is still an archive.
    open(&to).await.deployment().await.unwrap();
}

/// The rows of accounts, chats and the outbox, by table.
async fn directory(database: &TestDatabase) -> Vec<(&'static str, Vec<String>)> {
    let store = open(database).await;
    let mut tables = Vec::new();
    for (number, name) in store.directory_tables().into_iter().enumerate() {
        let (mut rows, mut last) = (Vec::new(), None);
        loop {
            let page = store.directory_page(number, last.as_ref()).await.unwrap();
            rows.extend(page.iter().map(|row| format!("{row:?}")));
            let Some(row) = page.last() else { break };
            last = Some(row.clone());
        }
        tables.push((name, rows));
    }
    tables
}

/// A request of the user with this access token; returns the body of the answer.
async fn request(node: &App, token: &Value, method: &str, path: &str, body: Value) -> Value {
    let authorization = format!("Bearer {}", token.as_str().unwrap_or_default());
    let key = uuid::Uuid::new_v4().to_string();
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
        ("idempotency-key", key.as_str()),
    ];
    let headers = &headers[usize::from(token.is_null())..];
    let (status, _, answer) = http(node.address(), method, path, headers, &body.to_string()).await;
    assert!(status < 300, "{method} {path}: {status} {answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_and_chats_go_around_all_databases_and_are_in_use_again() {
    const SECRET: (&str, &str) = ("JWT_SECRET", "a secret of at least thirty-two bytes");
    let first = TestDatabase::new(Sqlite);
    let settings = [SECRET, ("DATABASE_URL", &first.url), ("WORKERS", "off")];
    let node = node::start(&settings).await;
    let sign_up = async |name: &str| {
        let email = format!("{name}@example.com");
        let body = json!({"username": name, "email": email, "password": "correct horse"});
        request(&node, &Value::Null, "POST", "/api/v1/auth/signup", body).await
    };
    let (ann, bob) = (sign_up("ann").await, sign_up("bob").await);
    let (ann, bob) = (&ann["access_token"], &bob["user"]["id"]);
    let chat = request(&node, ann, "POST", "/api/v1/chats", json!({"user_id": bob})).await;
    let path = format!("/api/v1/users/{}", bob.as_str().unwrap());
    request(&node, ann, "PATCH", &path, json!({"role": "admin"})).await;
    let bot = json!({"name": "bot", "scopes": ["read"]});
    request(&node, ann, "POST", "/api/v1/tokens", bot).await;
    node.stop().await;
    // The tables that these requests leave empty.
    for rows in [
        "hubbub_invites VALUES (zeroblob(32), NULL, 1, 2)",
        "hubbub_account_tokens VALUES (zeroblob(32), x'00112233445566778899aabbccddeeff', 0, 'a@b', 3)",
        "hubbub_account_deletions VALUES (x'00112233445566778899aabbccddeeff', 1, 2, 3, 4, 5, NULL)",
        "hubbub_deletion_skips VALUES (x'00112233445566778899aabbccddeeff', 6)",
    ] {
        execute(&first, &format!("INSERT INTO {rows}")).await;
    }
    let expected = directory(&first).await;
    for (table, rows) in &expected {
        assert!(!rows.is_empty(), "{table} has no rows");
    }
    let mut from = first;
    for kind in [Postgres, MariaDb, Sqlite] {
        let to = TestDatabase::new(kind);
        for _ in 0..2 {
            let copied = copy(&from, &to);
            assert_eq!(copied["is_complete"], true, "{copied}");
        }
        assert_eq!(directory(&to).await, expected);
        from = to;
    }
    let node = node::start(&[SECRET, ("DATABASE_URL", &from.url)]).await;
    let log_in = json!({"username": "ann", "password": "correct horse"});
    let ann = request(&node, &Value::Null, "POST", "/api/v1/auth/login", log_in).await;
    let path = format!("/api/v1/chats/{}", chat["id"].as_str().unwrap());
    let found = request(&node, &ann["access_token"], "GET", &path, Value::Null).await;
    assert_eq!(found["room_id"], chat["room_id"]);
    node.stop().await;
}
