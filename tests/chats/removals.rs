//! A member that is removed has no right any more, on any node.

use std::time::{Duration, Instant};

use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::SharedStorage;
use serde_json::{Value, json};

use crate::fixture::{SECRET, User, node, room};

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_takes_effect_at_once_on_its_node() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    for round in 0..20 {
        let chat = ann.group(&[&bob], "all").await;
        let room = room(&chat);
        let client = bob.connect().await;
        client.done("join", json!({"room_id": room})).await;
        client
            .done("message", json!({"room_id": room, "content": "x"}))
            .await;
        let member = format!("/api/v1/chats/{chat}/members/{}", bob.id);
        let remover = if round % 2 == 0 { &ann } else { &bob };
        remover.done("DELETE", &member, Value::Null, 200).await;
        for event in ["message", "history", "typing", "join"] {
            let payload = json!({"room_id": room, "content": "x"});
            let refused = client.ask(event, payload).await;
            assert_eq!(refused["code"], "forbidden", "{event}");
        }
        let path = format!("/api/v1/rooms/{room}/messages");
        assert_eq!(bob.get(&path).await.0, 404);
        assert_eq!(bob.get("/api/v1/chats").await.1["items"], json!([]));
        // Added again, it has its rights at once.
        let members = format!("/api/v1/chats/{chat}/members");
        ann.done("POST", &members, json!({"user_id": bob.id}), 201)
            .await;
        client.done("join", json!({"room_id": room})).await;
        ann.done("DELETE", &format!("/api/v1/chats/{chat}"), Value::Null, 200)
            .await;
        let refused = client.ask("history", json!({"room_id": room})).await;
        assert_eq!(refused["code"], "forbidden");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_takes_effect_on_another_node_within_a_second() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let storage = SharedStorage::new(&database.url);
    let one = storage.start_node(&[SECRET]).await;
    let other = storage.start_node(&[SECRET]).await;
    let ann = User::sign_up(one.address(), "ann").await;
    let bob = User::sign_up(other.address(), "bob").await;
    for _ in 0..3 {
        let chat = ann.group(&[&bob], "all").await;
        let room = room(&chat);
        let client = bob.connect().await;
        client.done("join", json!({"room_id": room})).await;
        let message = json!({"room_id": room, "content": "x"});
        client.done("message", message.clone()).await;
        let member = format!("/api/v1/chats/{chat}/members/{}", bob.id);
        ann.done("DELETE", &member, Value::Null, 200).await;
        let removed = Instant::now();
        while client.ask("message", message.clone()).await["code"] != "forbidden" {
            assert!(
                removed.elapsed() < Duration::from_millis(1500),
                "still a member"
            );
        }
        let path = format!("/api/v1/rooms/{room}/messages");
        assert_eq!(bob.get(&path).await.0, 404);
    }
    one.stop().await;
    other.stop().await;
}
