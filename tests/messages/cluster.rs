//! The same on nodes that share Redis and PostgreSQL.

use futures_util::future::join_all;
use hubbub::app::App;
use hubbub_test_support::client::Client;
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::SharedStorage;
use serde_json::{Value, json};

use crate::fixture::{SECRET, await_about, send};

const OPEN: (&str, &str) = ("AUTH_MODE", "open");

/// The editors are connections of one user.
const SOCKETS: (&str, &str) = ("MAX_SOCKETS_PER_USER", "100");

/// So many nodes on one Redis and one PostgreSQL.
async fn nodes(count: usize) -> (SharedStorage, TestDatabase, Vec<App>) {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let storage = SharedStorage::new(&database.url);
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(storage.start_node(&[SECRET, OPEN, SOCKETS]).await);
    }
    (storage, database, nodes)
}

async fn stop(nodes: Vec<App>) {
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_on_one_node_reaches_the_others_and_their_replays() {
    let (_storage, _database, nodes) = nodes(2).await;
    let ann = Client::member(nodes[0].address(), "ann", "lobby").await;
    let bob = Client::member(nodes[1].address(), "bob", "lobby").await;
    let sent = send(&ann, "lobby", "a secret").await;
    let kept = send(&ann, "lobby", "helo").await;
    // From the other node, at once after the acknowledgement.
    let again = Client::member(nodes[1].address(), "ann", "lobby").await;
    let edit = json!({"room_id": "lobby", "id": kept["id"], "content": "hello"});
    let edited = again.done("edit_message", edit).await;
    let target = json!({"room_id": "lobby", "id": sent["id"]});
    again.done("delete_message", target).await;
    bob.done(
        "react",
        json!({"room_id": "lobby", "id": kept["id"], "emoji": "+1"}),
    )
    .await;
    for client in [&ann, &bob] {
        let event = await_about(client, "message_edited", &kept["id"]).await;
        assert_eq!(event["message"]["content"], "hello");
        await_about(client, "message_deleted", &sent["id"]).await;
        await_about(client, "reactions_changed", &kept["id"]).await;
    }
    for node in &nodes {
        let late = Client::connect(node.address()).await;
        late.done("authenticate", json!({"user_id": "late"})).await;
        let join = json!({"room_id": "lobby", "since_seq": 0, "epoch": sent["epoch"]});
        let joined = late.done("join", join).await;
        assert_eq!(joined["replayed"], 5, "{joined}");
        await_about(&late, "reactions_changed", &kept["id"]).await;
        let message = await_about(&late, "message", &kept["id"]).await;
        assert_eq!(
            (&message["content"], &message["version"]),
            (&json!("hello"), &edited["seq"])
        );
        let history = late.done("history", json!({"room_id": "lobby"})).await;
        assert_eq!(history["messages"][0]["deleted"], true, "{history}");
        assert_eq!(
            history["messages"][1]["reactions"][0]["count"], 1,
            "{history}"
        );
        let seen = format!("{:?}{history}", late.story());
        assert!(!seen.contains("secret"), "{seen}");
    }
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn editors_on_three_nodes_get_one_order() {
    let (_storage, _database, nodes) = nodes(3).await;
    let ann = Client::member(nodes[0].address(), "ann", "lobby").await;
    let sent = send(&ann, "lobby", "start").await;
    let mut editors = Vec::new();
    for number in 0..20 {
        let address = nodes[number % 3].address();
        editors.push(Client::member(address, "ann", "lobby").await);
    }
    let edits = editors.iter().enumerate().map(async |(number, editor)| {
        let edit = json!({"room_id": "lobby", "id": sent["id"], "content": format!("by {number}")});
        editor.done("edit_message", edit).await
    });
    let mut versions: Vec<u64> = join_all(edits)
        .await
        .iter()
        .map(|edited| edited["version"].as_u64().unwrap())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), 20, "each edit has a version of its own");
    let last = versions.last().copied();
    let is_last = |event: &Value| event["seq"].as_u64() == last;
    let mut contents = Vec::new();
    for editor in &editors {
        editor
            .eventually("the last edit", |editor| {
                editor.events("message_edited").iter().any(is_last)
            })
            .await;
        let mut events = editor.events("message_edited");
        events.retain(is_last);
        contents.push(events.remove(0)["message"]["content"].clone());
    }
    contents.dedup();
    assert_eq!(contents.len(), 1, "{contents:?}");
    let history = ann.done("history", json!({"room_id": "lobby"})).await;
    assert_eq!(history["messages"][0]["content"], contents[0]);
    stop(nodes).await;
}
