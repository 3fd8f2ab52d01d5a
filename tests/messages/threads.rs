//! Threads.

use serde_json::{Value, json};

use crate::fixture::{UNLIMITED, User, eventually, node, occupant, room, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_names_a_message_of_the_room_that_is_no_reply() {
    let node = node(&[]).await;
    let ann = occupant(&node, "ann", "lobby").await;
    let root = send(&ann, "lobby", "root").await;
    let reply = json!({"room_id": "lobby", "content": "reply", "thread_id": root["id"]});
    let replied = ann.done("message", reply.clone()).await;
    let event = ann.events("message").into_iter();
    let received: Vec<Value> = event.filter(|event| event["id"] == replied["id"]).collect();
    assert!(
        received
            .iter()
            .all(|event| event["thread_id"] == root["id"])
    );
    let nested = json!({"room_id": "lobby", "content": "x", "thread_id": replied["id"]});
    assert_eq!(ann.ask("message", nested).await["code"], "bad_request");
    for id in ["0199d5b0-0000-7000-8000-000000000000", "x"] {
        let unknown = json!({"room_id": "lobby", "content": "x", "thread_id": id});
        assert_eq!(ann.ask("message", unknown).await["code"], "not_found");
    }
    ann.done("join", json!({"room_id": "elsewhere"})).await;
    let foreign = json!({"room_id": "elsewhere", "content": "x", "thread_id": root["id"]});
    assert_eq!(ann.ask("message", foreign).await["code"], "not_found");
    let history = eventually(
        "the thread",
        || async { ann.done("history", json!({"room_id": "lobby"})).await },
        |history| history["messages"][0].get("thread").is_some(),
    )
    .await;
    let thread = json!({"replies": 1, "last_seq": replied["seq"], "participants": ["ann"]});
    assert_eq!(history["messages"][0]["thread"], thread);
    assert_eq!(history["messages"][1]["thread_id"], root["id"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_is_read_page_by_page() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let chat = ann.group(&[&bob], "all").await;
    let root = ann.send(&chat, "root").await;
    let messages = format!("/api/v1/rooms/{}/messages", room(&chat));
    let mut replies = Vec::new();
    for content in ["1", "2", "3"] {
        let body = json!({"content": content, "thread_id": root["id"]});
        replies.push(bob.done("POST", &messages, body, 201).await);
    }
    ann.send(&chat, "beside").await;
    let path = format!("{messages}/{}/thread", root["id"].as_str().unwrap());
    let first = ann
        .done("GET", &format!("{path}?limit=2"), Value::Null, 200)
        .await;
    assert_eq!(first["root"]["content"], "root");
    assert_eq!(crate::fixture::contents(&first["items"]), ["1", "2"]);
    assert_eq!(first["has_more"], true);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = format!("{path}?limit=2&cursor={cursor}");
    let second = ann.done("GET", &second, Value::Null, 200).await;
    assert_eq!(crate::fixture::contents(&second["items"]), ["3"]);
    assert_eq!(second["has_more"], false);
    let threads = ann
        .done("GET", "/api/v1/me/threads", Value::Null, 200)
        .await;
    let thread = &threads["items"][0];
    assert_eq!(
        (&thread["thread_id"], &thread["unread"]),
        (&root["id"], &json!(3))
    );
    let read = json!({"seq": replies[1]["seq"], "thread_id": root["id"]});
    let position = format!("/api/v1/rooms/{}/read", room(&chat));
    let read = ann.done("PUT", &position, read, 200).await;
    assert_eq!(
        (&read["last_read_seq"], &read["unread"]),
        (&replies[1]["seq"], &json!(1))
    );
    let reply = format!("{messages}/{}", replies[2]["id"].as_str().unwrap());
    bob.done("DELETE", &reply, Value::Null, 200).await;
    let page = ann.done("GET", &path, Value::Null, 200).await;
    assert_eq!(page["root"]["thread"]["replies"], 2, "{page}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_has_every_reply_up_to_its_position() {
    let node = node(&[("ACK_AFTER", "log"), UNLIMITED]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let writer = ann.connect().await;
    writer.done("join", json!({"room_id": "lobby"})).await;
    let root = send(&writer, "lobby", "root").await;
    let id = root["id"].as_str().unwrap();
    let path = format!("/api/v1/rooms/lobby/messages/{id}/thread");
    for number in 1..=20 {
        let reply = json!({"room_id": "lobby", "content": "x", "thread_id": id});
        let reply = writer.done("message", reply).await;
        let thread = ann.done("GET", &path, Value::Null, 200).await;
        assert_eq!(thread["as_of"]["seq"], reply["seq"]);
        let replies = thread["items"].as_array().unwrap();
        assert_eq!(replies.len(), number, "{thread}");
    }
    node.stop().await;
}
