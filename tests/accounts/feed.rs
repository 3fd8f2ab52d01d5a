//! The personal feed, and the end of sessions as connections learn of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hubbub_test_support::client::Client;
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::{Cluster, SharedStorage, metric};
use serde_json::{Value, json};

use crate::fixture::{MEMORY, Rest, SECRET, expect, log_in, sign_up};

/// A connection of the session.
async fn connect(address: SocketAddr, session: &Value) -> Client {
    let token = session["access_token"].as_str().unwrap();
    let client = Client::with_token(address, token).await;
    client.await_event("connect").await;
    client.done("authenticate", json!({})).await;
    client
}

/// Ends a session as a thief does who has copied its refresh token: the token is used twice.
async fn end_by_reuse(address: SocketAddr, session: &Value) {
    let body = json!({"refresh_token": session["refresh_token"]});
    for status in [200, 401] {
        let rest = Rest::anonymous(address);
        expect(
            rest.post("/api/v1/auth/refresh", body.clone()).await,
            status,
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_reaches_every_connection_of_its_user() {
    // So that the metrics need no key.
    let open = ("AUTH_MODE", "open");
    let grace = ("REFRESH_GRACE_SECS", "0");
    let node = Cluster::alone(&[SECRET, MEMORY, open, grace]).await;
    let address = node.address(0);
    let one = sign_up(address, "ann").await;
    let (_, other) = log_in(address, "ann", "correct horse").await;
    let clients = [connect(address, &one).await, connect(address, &other).await];
    let began = Instant::now();
    end_by_reuse(address, &one).await;
    let ended = clients[0].await_event("exception").await;
    assert_eq!(ended["code"], "unauthorized");
    clients[0].await_event("disconnect").await;
    let told = clients[1].await_event("session_ended").await;
    assert_eq!(told["reason"], "token_reused");
    assert_eq!(
        told["room_id"],
        format!("user:{}", one["user"]["id"].as_str().unwrap())
    );
    assert_eq!(told["seq"], 1);
    assert!(
        told["epoch"].is_string() && told["timestamp"].is_string(),
        "{told}"
    );
    // The change is in the archive, too.
    let published = async || metric(address, "hubbub_outbox_published_total").await;
    while published().await < 1 {
        assert!(began.elapsed() < Duration::from_secs(10), "never published");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(metric(address, "hubbub_outbox_retries_total").await, 0);
    assert_eq!(Rest::of(address, &one).me().await.0, 401);
    assert_eq!(Rest::of(address, &other).me().await.0, 200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_resumes_the_feed_and_enters_rooms() {
    let open = ("AUTH_MODE", "open");
    let grace = ("REFRESH_GRACE_SECS", "0");
    let node = Cluster::alone(&[SECRET, MEMORY, open, grace]).await;
    let address = node.address(0);
    let session = sign_up(address, "ann").await;
    let (_, stolen) = log_in(address, "ann", "correct horse").await;
    let writer = connect(address, &session).await;
    for room in ["one", "two"] {
        writer.done("join", json!({"room_id": room})).await;
        for text in ["a", "b", "c"] {
            let message = json!({"room_id": room, "content": text});
            writer.done("message", message).await;
        }
    }
    end_by_reuse(address, &stolen).await;
    writer.await_event("session_ended").await;

    let reader = connect(address, &session).await;
    let rooms = json!({"one": {"since_seq": 1}, "two": null, "broadcast": {}});
    let ack = reader
        .done("sync", json!({"since_seq": 0, "rooms": rooms}))
        .await;
    assert_eq!(ack["feed"]["seq"], 1, "{ack}");
    assert_eq!(ack["feed"]["recovered"], true);
    assert_eq!(ack["rooms"]["one"]["replayed"], 2);
    assert_eq!(ack["rooms"]["two"]["replayed"], 0);
    assert_eq!(ack["rooms"]["broadcast"]["code"], "forbidden");
    reader
        .eventually("the replays", |reader| {
            reader.count("message") == 2 && reader.count("session_ended") == 1
        })
        .await;
    let story = reader.story();
    let position = |wanted: &dyn Fn(&(String, Value)) -> bool| story.iter().position(wanted);
    let acknowledged = position(&|(name, answer)| name == "ack" && answer[1]["feed"].is_object());
    for event in ["message", "session_ended", "room_users"] {
        assert!(
            acknowledged < position(&|(name, _)| name == event),
            "{story:?}"
        );
    }
    let message = json!({"room_id": "two", "content": "d"});
    writer.done("message", message).await;
    reader
        .eventually("live messages", |reader| reader.count("message") == 3)
        .await;
    let seqs: Vec<u64> = reader.seqs();
    assert_eq!(seqs, [2, 3, 4]);

    let anonymous = Client::connect(address).await;
    anonymous
        .done("authenticate", json!({"user_id": "eve"}))
        .await;
    let ack = anonymous.done("sync", json!({"rooms": {"one": {}}})).await;
    assert_eq!(ack["feed"], Value::Null);
    for bad in [
        json!({"rooms": []}),
        json!({"rooms": {"a b\n": {}}}),
        json!({"rooms": {"a": 1}}),
    ] {
        assert_eq!(anonymous.ask("sync", bad).await["code"], "bad_request");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_closes_the_sockets_on_other_nodes_within_a_second() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let storage = SharedStorage::new(&database.url);
    // The user connects two hundred times.
    let settings = [SECRET, ("RATE_USER_CONNECTS_PER_SEC", "0")];
    let one = storage.start_node(&settings).await;
    let other = storage.start_node(&settings).await;
    sign_up(one.address(), "ann").await;
    for round in 0..100 {
        let (_, session) = log_in(one.address(), "ann", "correct horse").await;
        let near = connect(one.address(), &session).await;
        let far = connect(other.address(), &session).await;
        let began = Instant::now();
        let rest = Rest::of(one.address(), &session);
        let ended = expect(rest.post("/api/v1/auth/logout", json!({})).await, 200);
        assert_eq!(
            (&ended["sessions"], &ended["sockets_closed"]),
            (&json!(1), &json!(2))
        );
        for client in [&near, &far] {
            assert_eq!(
                client.await_event("exception").await["code"],
                "unauthorized"
            );
            client.await_event("disconnect").await;
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "round {round}: {took:?}");
        for node in [&one, &other] {
            let refused = Rest::of(node.address(), &session).me().await;
            assert_eq!(refused.0, 401, "round {round}");
        }
    }
    one.stop().await;
    other.stop().await;
}
