//! Edits and pins, over connections and by REST.

use hubbub_test_support::client::Client;
use serde_json::{Value, json};

use crate::fixture::{User, await_about, events_about, node, occupant, room, send};

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_reaches_everybody_and_histories_show_the_newest_text() {
    let node = node(&[]).await;
    let ann = occupant(&node, "ann", "lobby").await;
    let bob = occupant(&node, "bob", "lobby").await;
    let sent = send(&ann, "lobby", "helo").await;
    // At once after the acknowledgement.
    let edit = json!({"room_id": "lobby", "id": sent["id"], "content": "hello"});
    let edited = ann.done("edit_message", edit).await;
    assert_eq!(edited["id"], sent["id"]);
    assert_eq!(edited["version"], edited["seq"]);
    assert!(edited["seq"].as_u64() > sent["seq"].as_u64(), "{edited}");
    let event = await_about(&bob, "message_edited", &sent["id"]).await;
    assert_eq!(event["seq"], edited["seq"]);
    assert_eq!(event["room_id"], "lobby");
    let message = &event["message"];
    assert_eq!(
        (&message["content"], &message["seq"]),
        (&json!("hello"), &sent["seq"])
    );
    assert_eq!(message["version"], edited["version"]);
    assert!(message["edited_at"].is_string(), "{event}");
    let history = bob.done("history", json!({"room_id": "lobby"})).await;
    let messages = history["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 1, "{history}");
    assert_eq!(messages[0], *message);
    assert_eq!(history["seq"], edited["seq"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_changes_nothing_is_not_announced() {
    let node = node(&[]).await;
    let ann = occupant(&node, "ann", "lobby").await;
    let sent = send(&ann, "lobby", "hello").await;
    let edit = json!({"room_id": "lobby", "id": sent["id"], "content": "hello"});
    let same = ann.done("edit_message", edit).await;
    assert_eq!(
        (&same["version"], &same["seq"]),
        (&sent["seq"], &sent["seq"])
    );
    let next = send(&ann, "lobby", "next").await;
    assert_eq!(
        next["seq"].as_u64(),
        sent["seq"].as_u64().map(|seq| seq + 1)
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_carries_the_current_message() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let chat = ann.group(&[], "all").await;
    let sent = ann.send(&chat, "one").await;
    let path = format!(
        "/api/v1/rooms/{}/messages/{}",
        room(&chat),
        sent["id"].as_str().unwrap()
    );
    let body = json!({"content": "two", "version": sent["seq"]});
    let edited = ann.done("PATCH", &path, body.clone(), 200).await;
    assert_eq!(edited["content"], "two");
    assert!(edited["version"].as_u64() > sent["seq"].as_u64());
    let (status, refused) = ann
        .request(
            "PATCH",
            &path,
            &json!({"content": "three", "version": sent["seq"]}),
        )
        .await;
    assert_eq!((status, &refused["code"]), (409, &json!("conflict")));
    assert_eq!(refused["message"], edited, "{refused}");
    let stale = format!("\"{}\"", sent["seq"]);
    let headers = [("if-match", stale.as_str())];
    let three = json!({"content": "three"});
    let (status, _, refused) = ann.request_with("PATCH", &path, &three, &headers).await;
    assert_eq!((status, &refused["message"]), (409, &edited));
    let current = format!("\"{}\"", edited["version"]);
    let headers = [("if-match", current.as_str())];
    let (status, _, edited) = ann.request_with("PATCH", &path, &three, &headers).await;
    assert_eq!((status, &edited["content"]), (200, &json!("three")));
    let client = ann.connect().await;
    client.done("join", json!({"room_id": room(&chat)})).await;
    let edit = json!({"room_id": room(&chat), "id": sent["id"], "content": "four", "version": sent["seq"]});
    let refused = client.ask("edit_message", edit.clone()).await;
    assert_eq!(refused["code"], "conflict");
    assert_eq!(refused["message"], edited, "{refused}");
    let refused = ann
        .over_websocket("join", json!({"room_id": room(&chat)}))
        .await;
    assert_eq!(refused["ok"], true);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_merges_and_null_clears() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let chat = ann.group(&[], "all").await;
    let messages = format!("/api/v1/rooms/{}/messages", room(&chat));
    let body = json!({"content": "c", "title": "t", "payload": {"a": 1}, "client_msg_id": "m1"});
    let sent = ann.done("POST", &messages, body, 201).await;
    let path = format!("{messages}/{}", sent["id"].as_str().unwrap());
    let patch = json!({"title": null, "attachment_urls": ["https://a.example/x"]});
    let edited = ann.done("PATCH", &path, patch, 200).await;
    assert_eq!(edited.get("title"), None);
    assert_eq!(
        (&edited["content"], &edited["payload"]),
        (&json!("c"), &json!({"a": 1}))
    );
    assert_eq!(edited["attachment_urls"], json!(["https://a.example/x"]));
    assert_eq!(edited["client_msg_id"], "m1");
    let edited = ann.done("PATCH", &path, json!({"content": ""}), 200).await;
    assert_eq!(edited["content"], "");
    let empty = json!({"payload": null, "attachment_urls": []});
    let (status, refused) = ann.request("PATCH", &path, &empty).await;
    assert_eq!(
        (status, &refused["code"]),
        (400, &json!("bad_request")),
        "{refused}"
    );
    let long = json!({"content": "x".repeat(20_000)});
    let (status, refused) = ann.request("PATCH", &path, &long).await;
    assert_eq!((status, &refused["code"]), (413, &json!("too_large")));
    assert_eq!(ann.get(&path).await, (200, edited.clone()));
    let list = ann
        .done("GET", &format!("{path}/versions"), Value::Null, 200)
        .await;
    assert_eq!(
        (&list["has_more"], list.get("next_cursor")),
        (&json!(false), None)
    );
    assert_eq!(list["as_of"]["seq"], edited["version"]);
    assert_eq!(list["as_of"]["epoch"], sent["epoch"]);
    let versions = list["items"].as_array().unwrap();
    let mut cursor = String::new();
    for (version, has_more) in versions.iter().zip([true, true, false]) {
        let path = format!("{path}/versions?limit=1&cursor={cursor}");
        let page = ann.done("GET", &path, Value::Null, 200).await;
        assert_eq!(page["items"], json!([version]));
        assert_eq!(page["has_more"], has_more);
        cursor = page["next_cursor"].as_str().unwrap_or_default().to_owned();
    }
    let foreign = format!("{path}/versions?limit=201");
    assert_eq!(ann.get(&foreign).await.0, 400);
    assert_eq!(versions.len(), 3, "{versions:?}");
    assert_eq!(
        (&versions[0]["title"], &versions[0]["version"]),
        (&json!("t"), &sent["seq"])
    );
    assert_eq!(versions[2]["version"], edited["version"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_from_before_an_edit_has_the_newest_text() {
    let node = node(&[]).await;
    let ann = occupant(&node, "ann", "lobby").await;
    let sent = send(&ann, "lobby", "one").await;
    for content in ["two", "three"] {
        let edit = json!({"room_id": "lobby", "id": sent["id"], "content": content});
        ann.done("edit_message", edit).await;
    }
    let late = Client::connect(node.address(0)).await;
    late.done("authenticate", json!({"user_id": "late"})).await;
    let join = json!({"room_id": "lobby", "since_seq": 0, "epoch": sent["epoch"]});
    let joined = late.done("join", join).await;
    assert_eq!(
        (&joined["recovered"], &joined["replayed"]),
        (&json!(true), &json!(3))
    );
    late.eventually("all events", |late| {
        late.count("message") + late.count("message_edited") == 3
    })
    .await;
    let message = late.await_event("message").await;
    assert_eq!(
        (&message["content"], &message["seq"]),
        (&json!("three"), &sent["seq"])
    );
    for event in late.events("message_edited") {
        assert_eq!(event["message"]["content"], "three", "{event}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_is_announced_once_and_listed_with_its_message() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let chat = ann.group(&[], "all").await;
    let client = ann.connect().await;
    let room = room(&chat);
    client.done("join", json!({"room_id": room})).await;
    let sent = ann.send(&chat, "important").await;
    let target = json!({"room_id": room, "id": sent["id"]});
    let pinned = client.done("pin_message", target.clone()).await;
    let event = await_about(&client, "message_pinned", &sent["id"]).await;
    assert_eq!(
        (&event["seq"], &event["target_seq"]),
        (&pinned["seq"], &sent["seq"])
    );
    assert_eq!(event["user_id"], ann.id);
    let again = client.done("pin_message", target.clone()).await;
    assert_eq!(again["seq"], pinned["seq"]);
    let pins = format!("/api/v1/rooms/{room}/pins");
    let listed = ann.done("GET", &pins, Value::Null, 200).await;
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(items[0]["message"]["content"], "important");
    assert_eq!(items[0]["user_id"], ann.id);
    assert!(listed["as_of"]["seq"].as_u64() >= pinned["seq"].as_u64());
    let page = client.done("history", json!({"room_id": room})).await;
    let message = &page["messages"][0];
    assert_eq!(
        (&message["pinned"], &message["pinned_seq"]),
        (&json!(true), &pinned["seq"])
    );
    let path = format!("{pins}/{}", sent["id"].as_str().unwrap());
    let unpinned = ann.done("DELETE", &path, Value::Null, 200).await;
    assert_eq!(unpinned["ok"], true);
    await_about(&client, "message_unpinned", &sent["id"]).await;
    assert_eq!(
        events_about(&client, "message_pinned", &sent["id"]).len(),
        1
    );
    let listed = ann.done("GET", &pins, Value::Null, 200).await;
    assert_eq!(listed["items"], json!([]));
    ann.done("PUT", &path, Value::Null, 200).await;
    let listed = ann.done("GET", &pins, Value::Null, 200).await;
    assert_eq!(listed["items"][0]["message"]["id"], sent["id"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn editors_of_one_message_get_one_order_or_a_conflict() {
    let node = node(&[]).await;
    let ann = occupant(&node, "ann", "lobby").await;
    let sent = send(&ann, "lobby", "start").await;
    let mut editors = Vec::new();
    for _ in 0..8 {
        editors.push(occupant(&node, "ann", "lobby").await);
    }
    let edits: Vec<_> = editors
        .iter()
        .enumerate()
        .map(|(number, editor)| {
            let content = format!("by {number}");
            let edit = json!({"room_id": "lobby", "id": sent["id"], "content": content, "version": sent["seq"]});
            editor.ask("edit_message", edit)
        })
        .collect();
    let answers = futures_util::future::join_all(edits).await;
    let done = answers.iter().filter(|answer| answer["ok"] == true).count();
    assert_eq!(done, 1, "{answers:?}");
    for answer in answers.iter().filter(|answer| answer["ok"] != true) {
        assert_eq!(answer["code"], "conflict", "{answer}");
        assert!(answer["message"]["version"].as_u64() > sent["seq"].as_u64());
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_changes_are_not_configured() {
    let node = node(&[("DATABASE_URL", "none")]).await;
    let ann = occupant(&node, "ann", "lobby").await;
    let sent = send(&ann, "lobby", "hello").await;
    let id = &sent["id"];
    for (event, payload) in [
        (
            "edit_message",
            json!({"room_id": "lobby", "id": id, "content": "x"}),
        ),
        ("delete_message", json!({"room_id": "lobby", "id": id})),
        (
            "react",
            json!({"room_id": "lobby", "id": id, "emoji": "+1"}),
        ),
        ("pin_message", json!({"room_id": "lobby", "id": id})),
        ("unpin_message", json!({"room_id": "lobby", "id": id})),
        ("read", json!({"room_id": "lobby", "seq": 1})),
        (
            "message",
            json!({"room_id": "lobby", "content": "x", "thread_id": id}),
        ),
    ] {
        let refused = ann.ask(event, payload).await;
        assert_eq!(refused["code"], "not_configured", "{event}: {refused}");
    }
    let message = format!("/api/v1/rooms/lobby/messages/{}", id.as_str().unwrap());
    for (method, path) in [
        ("GET", message.clone()),
        ("PATCH", message.clone()),
        ("DELETE", message),
        ("GET", "/api/v1/rooms/lobby/pins".to_owned()),
        ("GET", "/api/v1/me/unread".to_owned()),
    ] {
        let headers = [("authorization", "Bearer x")];
        let answer =
            hubbub_test_support::node::http(node.address(0), method, &path, &headers, "").await;
        assert_eq!(
            (answer.0, &answer.2["code"]),
            (501, &json!("not_configured")),
            "{path}"
        );
    }
    node.stop().await;
}
