//! The commands beside running nodes.

use hubbub::app::App;
use hubbub::store::ArchiveTransfer as _;
use hubbub_test_support::client::Client;
use hubbub_test_support::database::TestDatabase;
use hubbub_test_support::node::{self, SharedStorage};
use serde_json::{Value, json};

use crate::fixture::{Ended, Postgres, Sqlite, command, execute, open, summary};

async fn send(client: &Client, content: &str) -> Value {
    let message = json!({"room_id": "lobby", "content": content});
    client.done("message", message).await
}

async fn join(node: &App, since: u64, epoch: &Value) -> (Client, Value) {
    let bob = Client::connect(node.address()).await;
    bob.done("authenticate", json!({"user_id": "bob"})).await;
    let since = json!({"room_id": "lobby", "since_seq": since, "epoch": epoch});
    let joined = bob.done("join", since).await;
    (bob, joined)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_message_that_is_removed_after_a_clean_stop_is_missed() {
    let database = TestDatabase::new(Sqlite);
    let node = node::start(&[("DATABASE_URL", database.url.as_str())]).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    for number in 1..=3 {
        send(&ann, &number.to_string()).await;
    }
    node.stop().await;
    let store = open(&database).await;
    let deployment = store.recorded_log().await.unwrap();
    assert_eq!(deployment.as_deref(), Some("memory 1"));
    let verified = summary(&database, &["verify"]);
    assert_eq!(verified["is_complete"], true, "{verified}");
    assert!(verified["record_bytes"].as_u64() > Some(0), "{verified}");
    execute(&database, "DELETE FROM hubbub_entries WHERE seq = 3").await;
    let verified = summary(&database, &["verify"]);
    assert_eq!(verified["is_complete"], false, "{verified}");
    let finding = &verified["findings"][0];
    assert_eq!(finding["kind"], "mark_beyond_end", "{verified}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_cut_clients_are_told_of_the_gap_and_numbering_goes_on() {
    let database = TestDatabase::new(Sqlite);
    let settings = [("DATABASE_URL", database.url.as_str())];
    let node = node::start(&settings).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    let mut last = Value::Null;
    for number in 1..=6 {
        last = send(&ann, &number.to_string()).await;
    }
    node.stop().await;
    execute(&database, "UPDATE hubbub_entries SET at = 1 WHERE seq <= 4").await;
    let pruned = summary(&database, &["prune", "--older-than", "1"]);
    assert_eq!(
        (&pruned["rooms"], &pruned["messages"]),
        (&json!(1), &json!(4))
    );

    let node = node::start(&settings).await;
    let (bob, joined) = join(&node, 2, &last["epoch"]).await;
    assert_eq!(
        (&joined["recovered"], &joined["gap"]),
        (&json!(false), &json!(true))
    );
    bob.eventually("what is kept", |bob| bob.seqs() == [5, 6])
        .await;
    let history = bob.done("history", json!({"room_id": "lobby"})).await;
    let seqs: Vec<_> = history["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| &message["seq"])
        .collect();
    assert_eq!(seqs, [&json!(5), &json!(6)]);
    assert_eq!(history["has_more"], false);
    let (_, joined) = join(&node, 4, &last["epoch"]).await;
    assert_eq!(
        (&joined["recovered"], &joined["gap"]),
        (&json!(true), &json!(false))
    );
    node.stop().await;

    // Now everything.
    execute(&database, "UPDATE hubbub_entries SET at = 1").await;
    summary(&database, &["prune", "--older-than", "1"]);
    let node = node::start(&settings).await;
    let (bob, joined) = join(&node, 5, &last["epoch"]).await;
    assert_eq!((&joined["gap"], &joined["seq"]), (&json!(true), &json!(6)));
    assert_eq!(send(&bob, "next").await["seq"], 7);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_and_archive_are_compared() {
    let database = TestDatabase::new(Postgres);
    let storage = SharedStorage::new(&database.url);
    let after_commit = [("ACK_AFTER", "archive")];
    let node = storage.start_node(&after_commit).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    for number in 1..=20 {
        send(&ann, &number.to_string()).await;
    }
    let verify = || {
        let mut verify = command(&["verify", "--json"]);
        verify.envs(storage.settings(&after_commit));
        Ended::of(verify.output().unwrap())
    };
    let deployment = open(&database).await.recorded_log().await.unwrap();
    assert!(deployment.is_some_and(|name| name.starts_with("redis ")));
    // The watermark is reported a moment after the commit.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let intact = loop {
        let summary = verify().summary();
        if summary["not_yet_archived"] == 0 || std::time::Instant::now() > deadline {
            break summary;
        }
    };
    assert_eq!(
        (&intact["is_complete"], &intact["has_log"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(intact["messages"], 20);

    // The last message of the archive is no hole, but the log has it as archived.
    execute(&database, "DELETE FROM hubbub_entries WHERE seq = 20").await;
    execute(
        &database,
        "UPDATE hubbub_entries SET at = at + 1, record = 'other', form = 0 WHERE seq = 3",
    )
    .await;
    let ended = verify();
    let found = ended.summary()["findings"].clone();
    let kinds: Vec<_> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        (ended.code, kinds),
        (1, vec!["unreadable_record", "other_in_log", "only_in_log"]),
        "{found}"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_trims_the_log_in_redis() {
    let database = TestDatabase::new(Postgres);
    let storage = SharedStorage::new(&database.url);
    let node = storage.start_node(&[]).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    let mut last = Value::Null;
    for number in 1..=5 {
        last = send(&ann, &number.to_string()).await;
    }
    let prune = || {
        let mut prune = command(&["prune", "--older-than", "1", "--json"]);
        prune.envs(storage.settings(&[]));
        Ended::of(prune.output().unwrap()).summary()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut deleted = 0;
    while deleted < 3 {
        assert!(
            std::time::Instant::now() < deadline,
            "the messages were not archived"
        );
        execute(&database, "UPDATE hubbub_entries SET at = 1 WHERE seq <= 3").await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        deleted += prune()["messages"].as_u64().unwrap();
    }
    // What is remembered of the room is renewed after ten seconds.
    let (bob, joined) = loop {
        let (bob, joined) = join(&node, 1, &last["epoch"]).await;
        if joined["gap"] == true {
            break (bob, joined);
        }
        assert!(std::time::Instant::now() < deadline, "{joined}");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    };
    assert_eq!(joined["recovered"], false);
    bob.eventually("what is kept", |bob| bob.seqs() == [4, 5])
        .await;
    node.stop().await;
}
