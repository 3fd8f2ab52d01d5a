//! Chats while the database is away, with acknowledgements that don't wait for it.

use std::time::{Duration, Instant};

use hubbub_test_support::client::Client;
use hubbub_test_support::database::{DatabaseKind, DatabaseServer};
use hubbub_test_support::node::SharedStorage;
use serde_json::{Value, json};

use crate::fixture::{SECRET, User, room};

const DATABASE: &str = "chats";
/// Longer than a read of the database may take: so reads of all kinds fail in that time.
const OUTAGE: Duration = Duration::from_secs(9);
/// The longest time that one request may take in an outage.
const LATENCY: Duration = Duration::from_secs(1);

/// How the database goes away, and how it returns.
#[derive(Clone, Copy)]
enum Outage {
    /// Connections stay open, and nothing answers.
    Suspended,
    /// Connections are refused.
    Killed,
}

impl Outage {
    fn begin(self, server: &mut DatabaseServer) {
        match self {
            Self::Suspended => server.signal("-STOP"),
            Self::Killed => server.kill(),
        }
    }

    fn end(self, server: &mut DatabaseServer) {
        match self {
            Self::Suspended => server.signal("-CONT"),
            Self::Killed => server.run(),
        }
    }
}

/// Sends a request that must succeed soon.
async fn soon_done(client: &Client, event: &str, payload: Value) -> Value {
    let begun = Instant::now();
    let answer = client.done(event, payload).await;
    let took = begun.elapsed();
    assert!(took < LATENCY, "{event} took {took:?}");
    answer
}

/// Removes a member as soon as the database answers.
async fn remove(owner: &User, chat: &str, member: &User) {
    let path = format!("/api/v1/chats/{chat}/members/{}", member.id);
    let deadline = Instant::now() + Duration::from_secs(20);
    while owner.request("DELETE", &path, &Value::Null).await.0 != 200 {
        assert!(Instant::now() < deadline, "the database is not back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn await_refusal(client: &Client, room: &str) {
    let begun = Instant::now();
    let message = json!({"room_id": room, "content": "x"});
    while client.ask("message", message.clone()).await["code"] != "forbidden" {
        assert!(begun.elapsed() < Duration::from_secs(1), "still a member");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn members_go_on(outage: Outage) {
    let mut server = DatabaseServer::start_durable(DatabaseKind::Postgres);
    let url = server.create_database(DATABASE);
    let storage = SharedStorage::new(&url);
    let settings = [SECRET, ("RATE_EVENTS_PER_SEC", "0")];
    let one = storage.start_node(&settings).await;
    let other = storage.start_node(&settings).await;
    let ann = User::sign_up(one.address(), "ann").await;
    let bob = User::sign_up(other.address(), "bob").await;
    let cid = User::sign_up(other.address(), "cid").await;
    let eve = User::sign_up(other.address(), "eve").await;
    let chat = ann.group(&[&bob, &cid], "all").await;
    let room = room(&chat);
    let (of_ann, of_bob) = (ann.connect().await, bob.connect().await);
    let (of_cid, of_eve) = (cid.connect().await, eve.connect().await);
    for client in [&of_ann, &of_bob, &of_cid] {
        client.done("join", json!({"room_id": room})).await;
    }
    let message = json!({"room_id": room, "content": "x"});
    let first = of_ann.done("message", message.clone()).await;

    outage.begin(&mut server);
    let begun = Instant::now();
    let mut sent = 1;
    while begun.elapsed() < OUTAGE {
        for client in [&of_ann, &of_bob, &of_cid] {
            soon_done(client, "message", message.clone()).await;
            soon_done(client, "typing", json!({"room_id": room})).await;
        }
        sent += 3;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let last = soon_done(&of_ann, "message", message.clone()).await;
    of_bob
        .eventually("all messages", |bob| bob.seqs().len() > sent)
        .await;
    // Resumes within the log, also while the node has not yet received the newest message.
    let since = json!({"room_id": room, "since_seq": first["seq"], "epoch": first["epoch"]});
    let resumed = soon_done(&of_bob, "join", since.clone()).await;
    assert_eq!(
        (&resumed["recovered"], &resumed["seq"]),
        (&json!(true), &last["seq"]),
        "{resumed}"
    );
    for _ in 0..30 {
        let sending = of_ann.emit("message", &message);
        let resumed = soon_done(&of_bob, "join", since.clone()).await;
        assert_eq!(resumed["recovered"], true, "{resumed}");
        assert_eq!(sending.await.unwrap()["ok"], true);
    }
    let last = soon_done(&of_ann, "message", message.clone()).await;
    of_bob
        .eventually("still in the room", |bob| {
            bob.seqs().last() == last["seq"].as_u64().as_ref()
        })
        .await;
    // Nothing is known of a stranger.
    for event in ["join", "message"] {
        let refused = of_eve.ask(event, message.clone()).await;
        assert_eq!(refused["code"], "unavailable", "{event}: {refused}");
    }

    outage.end(&mut server);
    remove(&ann, &chat, &bob).await;
    await_refusal(&of_bob, &room).await;
    // A removal that is never announced.
    soon_done(&of_cid, "message", message.clone()).await;
    let delete = format!(
        "DELETE FROM hubbub_chat_members WHERE user_id = '{}'",
        cid.id
    );
    server.sql(Some(DATABASE), &delete);
    await_refusal(&of_cid, &room).await;
    assert_eq!(of_eve.ask("join", message).await["code"], "forbidden");
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_go_on_while_the_database_does_not_answer() {
    members_go_on(Outage::Suspended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_go_on_while_the_database_refuses_connections() {
    members_go_on(Outage::Killed).await;
}
