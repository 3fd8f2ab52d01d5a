//! Two nodes that share a Redis and a database server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hubbub::app::App;
use hubbub_test_support::client::Client;
use hubbub_test_support::database::{DatabaseKind, DatabaseServer, TestDatabase};
use hubbub_test_support::node::{SharedStorage, http, start};
use serde_json::{Value, json};

use super::lone::{DataDir, join};

/// Sends that wait for their acknowledgement at the same time.
const IN_FLIGHT: usize = 500;

/// Sends that many messages, and returns the last acknowledgement.
async fn send_many(client: &Client, count: usize) -> Value {
    let mut last = Value::Null;
    let mut sent = 0;
    while sent < count {
        let batch: Vec<_> = (sent..count.min(sent + IN_FLIGHT))
            .map(|number| {
                let message = json!({"room_id": "lobby", "content": number.to_string()});
                client.emit("message", &message)
            })
            .collect();
        sent += batch.len();
        for ack in batch {
            last = ack.await.unwrap();
            assert_eq!(last["ok"], true, "{last}");
        }
    }
    last
}

/// Joins as a client that had seen everything up to `seq`, and receives the rest.
async fn resume(address: SocketAddr, seq: u64, epoch: &Value, head: u64) -> Value {
    let bob = Client::connect(address).await;
    bob.done("authenticate", json!({"user_id": "bob"})).await;
    let since = json!({"room_id": "lobby", "since_seq": seq, "epoch": epoch});
    let joined = join(&bob, since).await;
    assert_eq!(joined["recovered"], true, "{joined}");
    assert_eq!(
        (&joined["gap"], &joined["seq"]),
        (&json!(false), &json!(head))
    );
    let missed = usize::try_from(head - seq).unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while bob.seqs().len() < missed {
        assert!(
            Instant::now() < deadline,
            "{} of {missed}",
            bob.seqs().len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bob.seqs(), (seq + 1..=head).collect::<Vec<_>>());
    joined
}

const UNLIMITED: &[(&str, &str)] = &[("RATE_EVENTS_PER_SEC", "0")];
const AFTER_COMMIT: &[(&str, &str)] = &[("ACK_AFTER", "archive")];

async fn a_long_absence(kind: DatabaseKind) {
    let database = TestDatabase::new(kind);
    let storage = SharedStorage::new(&database.url);
    let one = storage.start_node(UNLIMITED).await;
    let two = storage.start_node(UNLIMITED).await;
    let ann = Client::member(one.address(), "ann", "lobby").await;
    let last = send_many(&ann, 50_000).await;
    assert_eq!(last["seq"], 50_000);
    resume(two.address(), 3, &last["epoch"], 50_000).await;
    stop([one, two]).await;
}

async fn stop(nodes: [App; 2]) {
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_missed_50_000_messages_is_recovered_on_postgres() {
    a_long_absence(DatabaseKind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_missed_50_000_messages_is_recovered_on_mariadb() {
    a_long_absence(DatabaseKind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_missed_50_000_messages_is_recovered_on_sqlite() {
    let data = DataDir::new();
    let node = data.start(UNLIMITED).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    let last = send_many(&ann, 50_000).await;
    resume(node.address(), 3, &last["epoch"], 50_000).await;
    node.stop().await;
}

/// Redis loses everything; what was acknowledged is in the archive.
async fn redis_is_flushed(kind: DatabaseKind) {
    let database = TestDatabase::new(kind);
    let storage = SharedStorage::new(&database.url);
    let one = storage.start_node(AFTER_COMMIT).await;
    let two = storage.start_node(AFTER_COMMIT).await;
    let ann = Client::member(one.address(), "ann", "lobby").await;
    let keyed = json!({"room_id": "lobby", "content": "keyed", "client_msg_id": "k1"});
    let first = ann.done("message", keyed.clone()).await;
    let last = send_many(&ann, 30).await;
    storage.redis.cli(&["FLUSHALL"]);
    let joined = resume(two.address(), 3, &last["epoch"], 31).await;
    assert_ne!(joined["epoch"], last["epoch"], "a new epoch");
    let again = ann.done("message", keyed).await;
    assert_eq!(
        (&again["duplicate"], &again["seq"]),
        (&json!(true), &first["seq"])
    );
    let next = ann
        .done("message", json!({"room_id": "lobby", "content": "next"}))
        .await;
    assert_eq!(
        (&next["seq"], &next["epoch"]),
        (&json!(32), &joined["epoch"])
    );
    assert!(ann.events("room_reset").is_empty(), "nothing was lost");
    stop([one, two]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_goes_on_from_postgres_after_redis_was_flushed() {
    redis_is_flushed(DatabaseKind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_goes_on_from_mariadb_after_redis_was_flushed() {
    redis_is_flushed(DatabaseKind::MariaDb).await;
}

/// Redis loses everything, and the room is numbered anew without the database, which then returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_was_used_without_its_database_goes_on_from_it() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let storage = SharedStorage::new(&database.url);
    let node = storage.start_node(AFTER_COMMIT).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    let before = send_many(&ann, 10).await;
    node.stop().await;
    storage.redis.cli(&["FLUSHALL"]);
    let node = start(&[("REDIS_URL", &storage.redis.url())]).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    let meanwhile = send_many(&ann, 6).await;
    assert_eq!(meanwhile["seq"], 6);
    node.stop().await;
    let node = storage.start_node(AFTER_COMMIT).await;
    let ann = Client::connect(node.address()).await;
    ann.done("authenticate", json!({"user_id": "ann"})).await;
    let since = json!({"room_id": "lobby", "since_seq": 6, "epoch": meanwhile["epoch"]});
    let joined = join(&ann, since).await;
    assert_eq!(
        (&joined["recovered"], &joined["gap"], &joined["seq"]),
        (&json!(false), &json!(true), &json!(10)),
        "{joined}"
    );
    resume(node.address(), 3, &before["epoch"], 10).await;
    let next = json!({"room_id": "lobby", "content": "next"});
    let next = ann.done("message", next).await;
    assert_eq!(next["seq"], 11);
    node.stop().await;
}

/// Redis loses everything twice, so only the archive knows the earlier epochs.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_first_epoch_resumes_after_redis_was_flushed_twice() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let storage = SharedStorage::new(&database.url);
    let node = storage.start_node(AFTER_COMMIT).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    let first = send_many(&ann, 10).await;
    let mut epochs = vec![first["epoch"].clone()];
    for head in [10, 20] {
        storage.redis.cli(&["FLUSHALL"]);
        let joined = resume(node.address(), 3, &first["epoch"], head).await;
        assert!(!epochs.contains(&joined["epoch"]), "a new epoch");
        epochs.push(joined["epoch"].clone());
        send_many(&ann, 10).await;
    }
    for (seq, epoch) in [(3, &epochs[0]), (10, &epochs[0]), (13, &epochs[1])] {
        resume(node.address(), seq, epoch, 30).await;
    }
    node.stop().await;
}

async fn health(node: &App) -> (u16, Value) {
    let (status, _, body) = http(node.address(), "GET", "/health", &[], "").await;
    (status, body)
}

async fn await_health(node: &App, status: u16, database: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (found, body) = health(node).await;
        if found == status && body["database"] == database {
            return;
        }
        assert!(Instant::now() < deadline, "{found} {body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn the_database_is_away(kind: DatabaseKind) {
    let mut server = DatabaseServer::start_durable(kind);
    let url = server.create_database("away");
    let storage = SharedStorage::new(&url);
    let log = storage.start_node(&[]).await;
    let strict = storage.start_node(AFTER_COMMIT).await;
    let ann = Client::member(log.address(), "ann", "lobby").await;
    let bob = Client::member(strict.address(), "bob", "lobby").await;
    let before = send_many(&ann, 20).await;
    let (status, body) = health(&log).await;
    assert_eq!((status, &body["database"]), (200, &json!("ok")));

    server.kill();
    await_health(&log, 200, "down").await;
    assert_eq!(health(&log).await.1["status"], "degraded");
    await_health(&strict, 503, "down").await;
    assert_eq!(health(&strict).await.1["status"], "unhealthy");
    // Live messages, presence and resumes within the log go on.
    send_many(&ann, 20).await;
    bob.eventually("live messages", |bob| bob.seqs().len() == 40)
        .await;
    resume(strict.address(), 5, &before["epoch"], 40).await;
    let refused = bob
        .ask("message", json!({"room_id": "lobby", "content": "x"}))
        .await;
    assert_eq!(refused["code"], "unavailable", "{refused}");

    server.run();
    await_health(&strict, 200, "ok").await;
    await_health(&log, 200, "ok").await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while server
        .sql(Some("away"), "SELECT COUNT(*) FROM hubbub_entries")
        .trim()
        != "40"
    {
        assert!(Instant::now() < deadline, "not everything is archived");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(send_many(&bob, 1).await["seq"], 41);
    stop([log, strict]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_goes_on_while_postgres_is_away() {
    the_database_is_away(DatabaseKind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_goes_on_while_mariadb_is_away() {
    the_database_is_away(DatabaseKind::MariaDb).await;
}

/// A join that needs the database is refused while it does not respond, and the connection goes on.
async fn the_database_is_suspended(kind: DatabaseKind) {
    let server = DatabaseServer::start_durable(kind);
    let url = server.create_database("suspended");
    let storage = SharedStorage::new(&url);
    let small = [("HISTORY_SIZE", "10"), ("RATE_EVENTS_PER_SEC", "0")];
    let node = storage.start_node(&small).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    send_many(&ann, 60).await;
    // A node that stops reports its watermarks, so the next message trims the log.
    node.stop().await;
    let node = storage.start_node(&small).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    let last = send_many(&ann, 1).await;
    resume(node.address(), 2, &last["epoch"], 61).await;

    server.signal("-STOP");
    await_health(&node, 200, "down").await;
    let cy = Client::connect(node.address()).await;
    cy.done("authenticate", json!({"user_id": "cy"})).await;
    for from in [
        json!({"room_id": "lobby", "since_seq": 2}),
        json!({"room_id": "lobby", "since_seq": 2, "epoch": last["epoch"]}),
        json!({"room_id": "lobby", "limit": 20}),
    ] {
        let refused = cy.ask("join", from.clone()).await;
        assert_eq!(refused["code"], "unavailable", "{from}: {refused}");
    }
    let within = json!({"room_id": "lobby", "since_seq": 58, "epoch": last["epoch"]});
    assert_eq!(join(&cy, within).await["replayed"], 3);
    assert_eq!(send_many(&cy, 1).await["seq"], 62);
    let page = cy
        .done("history", json!({"room_id": "lobby", "limit": 2}))
        .await;
    assert_eq!(page["messages"][1]["seq"], 62);
    cy.eventually("replay and live message", |cy| {
        cy.seqs() == [59, 60, 61, 62]
    })
    .await;

    server.signal("-CONT");
    await_health(&node, 200, "ok").await;
    resume(node.address(), 2, &last["epoch"], 62).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_that_need_a_suspended_postgres_are_refused() {
    the_database_is_suspended(DatabaseKind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_that_need_a_suspended_mariadb_are_refused() {
    the_database_is_suspended(DatabaseKind::MariaDb).await;
}
