//! Connections that change to the token of a bot.

use hubbub_test_support::client::Client;
use serde_json::{Value, json};

use crate::fixture::{User, node, room};

/// Makes a token with these scopes.
async fn make_token(user: &User, scopes: &[&str]) -> Value {
    let body = json!({"name": "bot", "scopes": scopes, "expires_in_days": 7});
    let made = user.done("POST", "/api/v1/tokens", body, 201).await;
    made["token"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_read_ends_the_receipt_of_rooms_and_of_the_feed() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let chat = ann.group(&[&bob], "all").await;
    let room = room(&chat);
    let may_send = make_token(&bob, &["send"]).await;
    let may_read = make_token(&bob, &["read"]).await;
    let of_bob = bob.connect().await;
    of_bob.done("sync", json!({})).await;
    for room in ["lobby", &room] {
        of_bob.done("join", json!({"room_id": room})).await;
    }
    let of_ann = ann.connect().await;
    of_ann.done("join", json!({"room_id": room})).await;
    let told = |client: &Client| client.count("chat_created");
    let before = told(&of_bob);

    of_bob
        .done("authenticate", json!({"token": may_send}))
        .await;
    of_bob
        .eventually("told of both rooms", |bob| bob.count("exception") == 2)
        .await;
    let message = json!({"room_id": room, "content": "x"});
    of_ann.done("message", message.clone()).await;
    ann.group(&[&bob], "all").await;
    of_ann
        .eventually("the feed is published", |ann| told(ann) >= 1)
        .await;
    let refused = of_bob.ask("message", message.clone()).await;
    assert_eq!(refused["code"], "not_in_room");

    // Without a read token in between, nothing came. With one, the feed goes on.
    of_bob
        .done("authenticate", json!({"token": may_read}))
        .await;
    assert_eq!((of_bob.count("message"), told(&of_bob)), (0, before));
    ann.group(&[&bob], "all").await;
    of_bob
        .eventually("the feed goes on", |bob| told(bob) == before + 1)
        .await;
    node.stop().await;
}
