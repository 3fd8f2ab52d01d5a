//! Deletions: what is deleted is gone, and its place is kept.

use hubbub_test_support::client::Client;
use serde_json::{Value, json};

use crate::fixture::{User, await_about, eventually, node, occupant, room, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_message_leaves_a_tombstone() {
    let node = node(&[]).await;
    let ann = occupant(&node, "ann", "lobby").await;
    let bob = occupant(&node, "bob", "lobby").await;
    let sent = send(&ann, "lobby", "a secret").await;
    let id = &sent["id"];
    let edit = json!({"room_id": "lobby", "id": id, "content": "another secret"});
    ann.done("edit_message", edit.clone()).await;
    let target = json!({"room_id": "lobby", "id": id});
    let refused = bob.ask("delete_message", target.clone()).await;
    assert_eq!(refused["code"], "forbidden", "{refused}");
    let deleted = ann.done("delete_message", target.clone()).await;
    let event = await_about(&bob, "message_deleted", id).await;
    assert_eq!(
        (&event["seq"], &event["target_seq"]),
        (&deleted["seq"], &sent["seq"])
    );
    assert_eq!(
        (&event["deleted_by"], &event["user_id"]),
        (&json!("ann"), &json!("ann"))
    );
    let again = ann.done("delete_message", target.clone()).await;
    assert_eq!(again["seq"], deleted["seq"], "nothing is announced twice");
    for (event, payload) in [
        ("edit_message", edit),
        (
            "react",
            json!({"room_id": "lobby", "id": id, "emoji": "+1"}),
        ),
        ("pin_message", target),
        (
            "message",
            json!({"room_id": "lobby", "content": "x", "thread_id": id}),
        ),
    ] {
        let refused = ann.ask(event, payload).await;
        assert_eq!(refused["code"], "message_deleted", "{event}: {refused}");
    }
    let history = bob.done("history", json!({"room_id": "lobby"})).await;
    assert!(!history.to_string().contains("secret"), "{history}");
    let tombstone = &history["messages"][0];
    assert_eq!(
        (&tombstone["deleted"], &tombstone["seq"]),
        (&json!(true), &sent["seq"])
    );
    assert_eq!(
        (&tombstone["id"], &tombstone["version"]),
        (id, &deleted["seq"])
    );
    assert_eq!(
        (
            tombstone.get("content"),
            history["messages"].as_array().unwrap().len()
        ),
        (None, 1)
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_has_the_deletion_at_the_place_of_every_earlier_event() {
    let node = node(&[]).await;
    let ann = occupant(&node, "ann", "lobby").await;
    let sent = send(&ann, "lobby", "a secret").await;
    let target = json!({"room_id": "lobby", "id": sent["id"]});
    let edit = json!({"room_id": "lobby", "id": sent["id"], "content": "another secret"});
    ann.done("edit_message", edit).await;
    ann.done("delete_message", target).await;
    let late = Client::connect(node.address(0)).await;
    late.done("authenticate", json!({"user_id": "late"})).await;
    let join = json!({"room_id": "lobby", "since_seq": 0, "epoch": sent["epoch"]});
    let joined = late.done("join", join).await;
    assert_eq!(joined["replayed"], 3, "{joined}");
    late.eventually("three deletions", |late| late.count("message_deleted") == 3)
        .await;
    let seqs: Vec<Value> = late
        .events("message_deleted")
        .iter()
        .map(|event| event["seq"].clone())
        .collect();
    assert_eq!(seqs, [json!(1), json!(2), json!(3)]);
    let story = format!("{:?}", late.story());
    assert!(!story.contains("secret"), "{story}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_message_is_absent_from_every_answer() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let chat = ann.group(&[], "all").await;
    let room = room(&chat);
    let messages = format!("/api/v1/rooms/{room}/messages");
    let key = [("idempotency-key", "k")];
    let body = json!({"content": "a secret"});
    let (_, _, sent) = ann.request_with("POST", &messages, &body, &key).await;
    let path = format!("{messages}/{}", sent["id"].as_str().unwrap());
    ann.done("PATCH", &path, json!({"content": "another secret"}), 200)
        .await;
    ann.done("PUT", &format!("{path}/reactions/+1/me"), Value::Null, 200)
        .await;
    let pin = format!("/api/v1/rooms/{room}/pins/{}", sent["id"].as_str().unwrap());
    ann.done("PUT", &pin, Value::Null, 200).await;
    let deleted = ann.done("DELETE", &path, Value::Null, 200).await;
    assert_eq!(
        (&deleted["ok"], &deleted["id"]),
        (&json!(true), &sent["id"])
    );
    let repeat = ann.done("DELETE", &path, Value::Null, 200).await;
    assert_eq!(repeat["seq"], deleted["seq"]);
    for path in [
        path.clone(),
        messages.clone(),
        format!("{path}/versions"),
        format!("{path}/reactions"),
        format!("/api/v1/rooms/{room}/pins"),
        format!("/rooms/{room}/messages"),
    ] {
        let (status, answer) = ann.get(&path).await;
        assert_eq!(status, 200, "{path}: {answer}");
        assert!(!answer.to_string().contains("secret"), "{path}: {answer}");
    }
    assert_eq!(ann.get(&path).await.1["deleted"], true);
    let (_, headers, replayed) = ann.request_with("POST", &messages, &body, &key).await;
    assert_eq!(headers["idempotency-replayed"], "true");
    assert!(!replayed.to_string().contains("secret"), "{replayed}");
    eventually(
        "the chat without its last message",
        || async { ann.get("/api/v1/chats").await.1 },
        |chats| !chats.to_string().contains("secret"),
    )
    .await;
    node.stop().await;
}
