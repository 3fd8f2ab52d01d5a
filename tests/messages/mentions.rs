//! Mentions.

use std::time::{Duration, Instant};

use hubbub_test_support::database::{DatabaseKind, DatabaseServer};
use hubbub_test_support::node::SharedStorage;
use serde_json::{Value, json};

use crate::fixture::{OPEN, SECRET, UNLIMITED, User, eventually, node, occupant, room, send};

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

#[tokio::test(flavor = "multi_thread")]
async fn here_lists_a_hundred_users_of_a_larger_room() {
    let node = node(&[]).await;
    let sender = occupant(&node, "u000", "lobby").await;
    let mut others = Vec::new();
    for number in 1..=101 {
        others.push(occupant(&node, &format!("u{number:03}"), "lobby").await);
    }
    for content in ["@here", "@channel"] {
        let sent = send(&sender, "lobby", content).await;
        sender
            .eventually("the message", |sender| {
                let messages = sender.events("message");
                messages.iter().any(|message| message["id"] == sent["id"])
            })
            .await;
        let message = sender.events("message").pop().unwrap();
        let mentions = message["mentions"].as_array().unwrap();
        assert_eq!(mentions.len(), 100, "{content}");
        assert_eq!(
            (&mentions[0], &mentions[99]),
            (&json!("u001"), &json!("u100"))
        );
    }
    node.stop().await;
}

/// A database that has stopped responding: first the node does not know it, then it does.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_replies_are_sent_and_messages_without_mentions() {
    let server = DatabaseServer::start(DatabaseKind::Postgres);
    let storage = SharedStorage::new(&server.create_database("hubbub"));
    let app = storage.start_node(&[SECRET, OPEN, UNLIMITED]).await;
    let ann = User::sign_up(app.address(), "ann").await;
    let bob = User::sign_up(app.address(), "bob").await;
    let writer = ann.connect().await;
    writer.done("join", json!({"room_id": "lobby"})).await;
    let root = send(&writer, "lobby", "hello").await;
    let mentioned = |id: Value| {
        let writer = &writer;
        async move {
            writer
                .eventually("the message", |writer| {
                    let messages = writer.events("message");
                    messages.iter().any(|message| message["id"] == id)
                })
                .await;
            let messages = writer.events("message");
            let message = messages.iter().find(|message| message["id"] == id);
            message.unwrap()["mentions"].clone()
        }
    };
    let sent = send(&writer, "lobby", "@bob").await;
    assert_eq!(mentioned(sent["id"].clone()).await, json!([bob.id]));
    // A reply makes the archive follow the log.
    let reply_to =
        |root: &Value| json!({"room_id": "lobby", "content": "reply", "thread_id": root["id"]});
    writer.done("message", reply_to(&root)).await;
    let mut replies = 1;
    server.signal("-STOP");
    let unarchived = send(&writer, "lobby", "hello").await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let began = Instant::now();
        let sent = send(&writer, "lobby", "@bob").await;
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(mentioned(sent["id"].clone()).await, Value::Null);
        writer.done("message", reply_to(&root)).await;
        replies += 1;
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Its replies might be archived before it.
    let refused = writer.ask("message", reply_to(&unarchived)).await;
    assert_eq!(refused["code"], "unavailable");
    server.signal("-CONT");
    let root = || async {
        let history = json!({"room_id": "lobby", "around_seq": root["seq"], "limit": 1});
        let page = writer.ask("history", history).await;
        page["messages"][0]["thread"]["replies"].clone()
    };
    eventually("all replies", root, |found| *found == replies).await;
    let found = || async {
        let sent = send(&writer, "lobby", "@bob").await;
        mentioned(sent["id"].clone()).await
    };
    eventually("mentions", found, |mentions| *mentions == json!([bob.id])).await;
    app.stop().await;
}
