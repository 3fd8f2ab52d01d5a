//! Read positions, what is unread, and receipts.

use serde_json::{Value, json};

use crate::fixture::{User, eventually, node, occupant, room, send};

/// The user's row of a room in `GET /api/v1/me/unread`.
async fn unread_in(user: &User, room: &str) -> Value {
    let answer = user
        .done("GET", "/api/v1/me/unread", Value::Null, 200)
        .await;
    let items = answer["items"].as_array().unwrap();
    let found = items.iter().find(|item| item["room_id"] == room);
    found.cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_messages_follow_from_the_position() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let chat = ann.group(&[&bob], "all").await;
    let room = room(&chat);
    bob.await_entries(&chat, 2).await;
    let mut sent = Vec::new();
    for content in ["1", "2", "3"] {
        sent.push(ann.send(&chat, content).await);
    }
    bob.send(&chat, "own").await;
    let is_three = |item: &Value| item["unread"] == 3;
    eventually("three", || unread_in(&bob, &room), is_three).await;
    let read = json!({"seq": sent[0]["seq"]});
    let path = format!("/api/v1/rooms/{room}/read");
    let position = bob.done("PUT", &path, read.clone(), 200).await;
    assert_eq!(
        (&position["last_read_seq"], &position["unread"]),
        (&sent[0]["seq"], &json!(2))
    );
    let delete = format!(
        "/api/v1/rooms/{room}/messages/{}",
        sent[1]["id"].as_str().unwrap()
    );
    ann.done("DELETE", &delete, Value::Null, 200).await;
    let is_one = |item: &Value| item["unread"] == 1;
    eventually("one", || unread_in(&bob, &room), is_one).await;
    let beyond = bob.done("PUT", &path, json!({"seq": 1_000_000}), 200).await;
    assert_eq!(beyond["unread"], 0);
    assert!(beyond["last_read_seq"].as_u64() < Some(1000), "{beyond}");
    let lower = bob.done("PUT", &path, read, 200).await;
    assert_eq!(
        lower["last_read_seq"], beyond["last_read_seq"],
        "never lowered"
    );
    let unread = format!("/api/v1/rooms/{room}/unread");
    let back = bob
        .done("POST", &unread, json!({"seq": sent[0]["seq"]}), 200)
        .await;
    assert_eq!(back["unread"], 2, "{back}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_get_receipts_and_the_user_the_position() {
    let node = node(&[("RECEIPTS_LIMIT", "2")]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let eve = User::sign_up(node.address(0), "eve").await;
    let chat = ann.group(&[&bob], "all").await;
    let room_id = room(&chat);
    let (of_ann, of_bob) = (ann.connect().await, bob.connect().await);
    for client in [&of_ann, &of_bob] {
        client.done("join", json!({"room_id": room_id})).await;
    }
    let sent = ann.send(&chat, "hello").await;
    let read = json!({"room_id": room_id, "seq": sent["seq"]});
    let acknowledged = of_bob.done("read", read.clone()).await;
    assert_eq!(acknowledged["last_read_seq"], sent["seq"]);
    assert_eq!(acknowledged["unread"], 0);
    let receipt = of_ann.await_event("read_receipt").await;
    let expected = json!({"room_id": room_id, "user_id": bob.id, "last_read_seq": sent["seq"]});
    assert_eq!(receipt, expected);
    let own = of_bob.await_event("read").await;
    assert_eq!(own["target_room_id"], room_id, "{own}");
    assert_eq!(own["last_read_seq"], sent["seq"]);
    assert_eq!(of_bob.count("read_receipt"), 0);
    let id = sent["id"].as_str().unwrap();
    let readers = format!("/api/v1/rooms/{room_id}/messages/{id}/readers");
    let readers = ann.done("GET", &readers, Value::Null, 200).await;
    assert_eq!(readers["items"][0]["user_id"], bob.id, "{readers}");
    // A room of three is too large here.
    let large = ann.group(&[&bob, &eve], "all").await;
    of_ann.done("join", json!({"room_id": room(&large)})).await;
    of_bob.done("join", json!({"room_id": room(&large)})).await;
    let sent = ann.send(&large, "hello").await;
    let read = json!({"room_id": room(&large), "seq": sent["seq"]});
    of_bob.done("read", read).await;
    // What follows in the same room has passed the place of a receipt.
    let typing = json!({"room_id": room(&large)});
    of_bob.done("typing", typing).await;
    of_ann.await_event("user_typing").await;
    assert_eq!(of_ann.count("read_receipt"), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_join_of_an_open_room_sets_the_position_to_its_head() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = occupant(&node, "bob", "lobby").await;
    send(&bob, "lobby", "before").await;
    let client = ann.connect().await;
    client.done("join", json!({"room_id": "lobby"})).await;
    let is_there = |item: &Value| item["last_read_seq"] == 1;
    eventually("the position", || unread_in(&ann, "lobby"), is_there).await;
    send(&bob, "lobby", "after").await;
    let is_one = |item: &Value| item["unread"] == 1;
    eventually("one", || unread_in(&ann, "lobby"), is_one).await;
    let read = bob
        .done("read", json!({"room_id": "lobby", "seq": 2}))
        .await;
    assert_eq!(
        (&read["last_read_seq"], &read["unread"]),
        (&json!(2), &json!(0))
    );
    client.await_event("read_receipt").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_a_user_without_an_account_get_the_position() {
    // Too many occupants for receipts: the user's own connections get the position nonetheless.
    let node = node(&[("RECEIPTS_LIMIT", "1")]).await;
    let ann = occupant(&node, "ann", "lobby").await;
    let (bob, other) = (
        occupant(&node, "bob", "lobby").await,
        occupant(&node, "bob", "lobby").await,
    );
    for content in ["1", "2", "3"] {
        send(&ann, "lobby", content).await;
    }
    bob.done("read", json!({"room_id": "lobby", "seq": 2}))
        .await;
    for client in [&bob, &other] {
        let read = client.await_event("read").await;
        let expected = json!({"room_id": "lobby", "last_read_seq": 2, "unread": 1});
        assert_eq!(read, expected, "not numbered");
    }
    // A position that does not move is not announced.
    bob.done("read", json!({"room_id": "lobby", "seq": 1}))
        .await;
    bob.done("typing", json!({"room_id": "lobby"})).await;
    ann.await_event("user_typing").await;
    assert_eq!((other.count("read"), ann.count("read")), (1, 0));
    assert_eq!(ann.count("read_receipt"), 0);
    node.stop().await;
}
