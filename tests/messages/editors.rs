//! Concurrent changes of one message on three nodes.

use hubbub_test_support::client::Client;
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::SharedStorage;
use serde_json::{Value, json};

use crate::fixture::{SECRET, UNLIMITED, User, room};

const EDITORS: usize = 20;

/// What each edit was answered with: its version, or `None` for a conflict.
async fn edit_at_once(editors: &[Client], room: &str, id: &str, version: Option<u64>) -> Vec<u64> {
    let edits = editors.iter().enumerate().map(|(number, editor)| {
        let edit = json!({
            "room_id": room, "id": id, "version": version,
            "content": format!("by editor {number}, having seen {version:?}"),
        });
        editor.ask("edit_message", edit)
    });
    let answers = futures_util::future::join_all(edits).await;
    let mut versions = Vec::new();
    for answer in answers {
        if answer["ok"] == true {
            versions.push(answer["version"].as_u64().unwrap());
        } else {
            assert_eq!(answer["code"], "conflict", "{answer}");
            let current = answer["message"]["version"].as_u64().unwrap();
            assert!(Some(current) != version, "{answer}");
        }
    }
    versions
}

/// The versions of the edits that the client has received, and the last content.
fn received(client: &Client) -> (Vec<u64>, Value) {
    let edits = client.events("message_edited");
    let versions = edits.iter().map(|edit| {
        let version = edit["message"]["version"].as_u64().unwrap();
        assert!(version >= edit["seq"].as_u64().unwrap());
        version
    });
    let last = edits.last().unwrap()["message"]["content"].clone();
    (versions.collect(), last)
}

async fn editors_make_one_order(kind: DatabaseKind) {
    let database = TestDatabase::new(kind);
    let storage = SharedStorage::new(&database.url);
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(storage.start_node(&[SECRET, UNLIMITED]).await);
    }
    let address = |number: usize| nodes[number % 3].address();
    let ann = User::sign_up(address(0), "ann").await;
    let bob = User::sign_up(address(1), "bob").await;
    let chat = ann.group(&[&bob], "all").await;
    let room = room(&chat);
    let mut editors = Vec::new();
    for number in 0..EDITORS {
        let editor = ann.at(address(number)).connect().await;
        editor.done("join", json!({"room_id": room})).await;
        editors.push(editor);
    }
    let reader = bob.at(address(2)).connect().await;
    reader.done("join", json!({"room_id": room})).await;
    let sent = ann.send(&chat, "first").await;
    let (id, first) = (sent["id"].as_str().unwrap(), sent["seq"].as_u64().unwrap());

    // Of edits of the same version one is made.
    let made = edit_at_once(&editors, &room, id, Some(first)).await;
    assert_eq!(made.len(), 1, "{made:?}");
    assert!(made[0] > first);

    // Without a version each is made, in one order.
    let mut versions = edit_at_once(&editors, &room, id, None).await;
    assert_eq!(versions.len(), EDITORS);
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), EDITORS, "each edit has its own number");
    let last = versions[EDITORS - 1];
    let path = format!("/api/v1/rooms/{room}/messages/{id}");
    let stored = bob.done("GET", &path, Value::Null, 200).await;
    assert_eq!(stored["version"], last);
    for client in editors.iter().chain([&reader]) {
        let has_last = |client: &Client| {
            let edits = client.events("message_edited");
            edits.last().is_some_and(|edit| edit["seq"] == last)
        };
        client.eventually("the last edit", has_last).await;
        let (received, content) = received(client);
        assert!(received.is_sorted(), "{received:?}");
        assert_eq!(
            (received.last(), &content),
            (Some(&last), &stored["content"])
        );
    }
    let list = ann
        .done("GET", &format!("{path}/versions"), Value::Null, 200)
        .await;
    let listed: Vec<u64> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["version"].as_u64().unwrap())
        .collect();
    let expected = [&[first, made[0]][..], &versions].concat();
    assert_eq!(listed, expected);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn editors_on_three_nodes_make_one_order_on_postgres() {
    editors_make_one_order(DatabaseKind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn editors_on_three_nodes_make_one_order_on_mariadb() {
    editors_make_one_order(DatabaseKind::MariaDb).await;
}
