//! Members hear of changes: in the room of the chat, and in their personal feeds.

use hubbub_test_support::client::Client;
use serde_json::{Value, json};

use crate::fixture::{User, node, room};

/// The events of a room or feed with this name so far.
fn events_of(client: &Client, name: &str, room: &str) -> Vec<Value> {
    let mut events = client.events(name);
    events.retain(|event| event["room_id"] == room);
    events
}

async fn await_event_of(client: &Client, name: &str, room: &str) -> Value {
    let what = format!("{name} of {room}");
    client
        .eventually(&what, |client| !events_of(client, name, room).is_empty())
        .await;
    events_of(client, name, room).remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_heard_once_by_those_concerned() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let (of_ann, of_bob) = (ann.connect().await, bob.connect().await);
    let feed = |user: &User| format!("user:{}", user.id);
    let chat = ann.group(&[], "all").await;
    let room = room(&chat);
    let created = await_event_of(&of_ann, "chat_created", &feed(&ann)).await;
    assert_eq!(created["chat"]["id"], chat);
    assert_eq!(created["chat"]["my"], json!({"role": "owner"}));
    assert!(
        created["seq"].is_u64() && created["epoch"].is_string(),
        "{created}"
    );
    let own = await_event_of(&of_ann, "member_added", &feed(&ann)).await;
    assert_eq!(own["user_id"], ann.id);
    of_ann.done("join", json!({"room_id": room})).await;

    let path = format!("/api/v1/chats/{chat}/members");
    ann.done("POST", &path, json!({"user_id": bob.id}), 201)
        .await;
    for (client, hears) in [(&of_ann, room.clone()), (&of_bob, feed(&bob))] {
        client
            .eventually("bob is added", |client| {
                let added = events_of(client, "member_added", &hears);
                added.iter().any(|added| added["user_id"] == bob.id)
            })
            .await;
        let added = events_of(client, "member_added", &hears).pop().unwrap();
        assert_eq!(
            (&added["chat_id"], &added["target_room_id"]),
            (&json!(chat), &json!(room))
        );
        assert_eq!(
            (&added["username"], &added["role"]),
            (&json!("bob"), &json!("member"))
        );
    }
    let body = json!({"name": "team"});
    ann.done("PATCH", &format!("/api/v1/chats/{chat}"), body, 200)
        .await;
    let in_room = await_event_of(&of_ann, "chat_updated", &room).await;
    assert_eq!(
        (&in_room["chat"]["name"], in_room["chat"].get("my")),
        (&json!("team"), None)
    );
    let in_feed = await_event_of(&of_bob, "chat_updated", &feed(&bob)).await;
    assert_eq!(in_feed["chat"]["my"], json!({"role": "member"}));
    let member = format!("{path}/{}", bob.id);
    ann.done("DELETE", &member, Value::Null, 200).await;
    for (client, hears) in [(&of_ann, &room), (&of_bob, &feed(&bob))] {
        let removed = await_event_of(client, "member_removed", hears).await;
        assert_eq!(
            (&removed["user_id"], &removed["chat_id"]),
            (&json!(bob.id), &json!(chat))
        );
        assert_eq!(events_of(client, "chat_updated", hears).len(), 1);
    }
    // Each room has its numbers without a hole, and each event once.
    for (client, hears) in [(&of_ann, &feed(&ann)), (&of_bob, &feed(&bob))] {
        let story = client.story();
        let seqs: Vec<u64> = story
            .iter()
            .filter(|(name, event)| name != "ack" && event["room_id"] == **hears)
            .filter_map(|(_, event)| event["seq"].as_u64())
            .collect();
        let expected: Vec<u64> = (1..=seqs.len() as u64).collect();
        assert_eq!(seqs, expected, "{hears}");
    }
    assert!(
        events_of(&of_bob, "member_added", &room).is_empty(),
        "never joined"
    );
    node.stop().await;
}
