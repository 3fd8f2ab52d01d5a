//! Mentions.

use serde_json::{Value, json};

use crate::fixture::{User, eventually, node, room};

#[tokio::test(flavor = "multi_thread")]
async fn the_server_resolves_mentions() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let eve = User::sign_up(node.address(0), "eve").await;
    let chat = ann.group(&[&bob, &eve], "all").await;
    let of_bob = bob.connect().await;
    of_bob.done("join", json!({"room_id": room(&chat)})).await;
    let mut everybody = [bob.id.clone(), eve.id.clone()];
    everybody.sort();
    for (content, expected) in [
        ("hi @BOB and @nobody", json!([bob.id])),
        ("@here", json!([bob.id])),
        ("@channel!", json!(everybody)),
        ("@ann myself", Value::Null),
        ("bob@example.com", Value::Null),
    ] {
        let sent = ann.send(&chat, content).await;
        assert_eq!(
            sent.get("mentions").unwrap_or(&Value::Null),
            &expected,
            "{content}"
        );
    }
    let unread = eventually(
        "three mentions",
        || async { bob.get("/api/v1/me/unread").await.1 },
        |unread| unread["items"][0]["mentions"] == 3,
    )
    .await;
    assert_eq!(unread["items"][0]["room_id"], room(&chat));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_mentions_only_those_it_names_newly() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let chat = ann.group(&[&bob], "all").await;
    let sent = ann.send(&chat, "hello").await;
    let path = format!(
        "/api/v1/rooms/{}/messages/{}",
        room(&chat),
        sent["id"].as_str().unwrap()
    );
    let edited = ann
        .done("PATCH", &path, json!({"content": "hello @bob"}), 200)
        .await;
    assert_eq!(edited["mentions"], json!([bob.id]));
    let edited = ann.done("PATCH", &path, json!({"title": "t"}), 200).await;
    assert_eq!(
        edited["mentions"],
        json!([bob.id]),
        "the content is the same"
    );
    let unread = bob.done("GET", "/api/v1/me/unread", Value::Null, 200).await;
    assert_eq!(unread["items"][0]["mentions"], 1, "{unread}");
    let edited = ann
        .done("PATCH", &path, json!({"content": "hello"}), 200)
        .await;
    assert_eq!(edited.get("mentions"), None);
    node.stop().await;
}
