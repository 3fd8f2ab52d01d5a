//! The same on nodes that share Redis and PostgreSQL.

use hubbub::app::App;
use hubbub_test_support::client::Client;
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::SharedStorage;
use serde_json::json;

use crate::fixture::{OPEN, SECRET, await_about, send};

/// So many nodes on one Redis and one PostgreSQL.
async fn nodes(count: usize) -> (SharedStorage, TestDatabase, Vec<App>) {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let storage = SharedStorage::new(&database.url);
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(storage.start_node(&[SECRET, OPEN]).await);
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
