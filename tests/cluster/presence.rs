//! Presence: one event per change for each watcher, on any node.

use serde_json::json;

use hubbub_test_support::client::Client;
use hubbub_test_support::node::Cluster;

async fn presence_changes(cluster: Cluster) {
    let last = cluster.nodes.len() - 1;
    let watcher = Client::member(cluster.address(0), "watcher", "room").await;
    let status = watcher
        .done("subscribe_status", json!({"target_user_id": "ann"}))
        .await;
    assert_eq!(
        (&status["is_online"], &status["version"]),
        (&json!(false), &json!(0))
    );
    assert_eq!(watcher.await_event("user_offline").await["initial"], true);
    // Two connections of one user: one event.
    let one = Client::member(cluster.address(last), "ann", "room").await;
    let two = Client::member(cluster.address(0), "ann", "room").await;
    watcher.await_event("user_joined").await;
    watcher.await_event("user_online").await;
    two.done("leave", json!({"room_id": "room"})).await;
    two.drop_transport();
    // An explicit leave counts at once; the loss of the last connection only after the grace.
    one.done("leave", json!({"room_id": "room"})).await;
    assert_eq!(watcher.await_event("user_left").await["user_id"], "ann");
    one.drop_transport();
    watcher
        .eventually("ann is offline", |watcher| {
            watcher.events("user_offline").len() == 2
        })
        .await;
    // Bob's events arrive after all earlier ones: so no event arrived twice.
    let bob = Client::member(cluster.address(last), "bob", "room").await;
    watcher
        .eventually("bob came", |watcher| {
            watcher.events("user_joined").len() == 2
        })
        .await;
    for (event, times) in [
        ("user_joined", 2),
        ("user_left", 1),
        ("user_online", 1),
        ("user_offline", 2),
    ] {
        assert_eq!(watcher.events(event).len(), times, "{event}");
    }
    assert!(
        one.events("user_joined").is_empty(),
        "nobody is told of one's own coming"
    );
    let versions: Vec<_> = ["user_offline", "user_online"]
        .iter()
        .flat_map(|event| watcher.events(event))
        .collect();
    assert_eq!(versions.len(), 3);
    drop(bob);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_one_event_on_one_node() {
    presence_changes(Cluster::alone(&[]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_one_event_on_two_nodes() {
    presence_changes(Cluster::of(2, &[]).await).await;
}

async fn reload(cluster: Cluster) {
    let last = cluster.nodes.len() - 1;
    let watcher = Client::member(cluster.address(0), "watcher", "room").await;
    watcher
        .done("subscribe_status", json!({"target_user_id": "ann"}))
        .await;
    let before = Client::member(cluster.address(last), "ann", "room").await;
    watcher.await_event("user_joined").await;
    before.drop_transport();
    before.eventually("closed", Client::is_closed).await;
    let after = Client::connect(cluster.address(0)).await;
    after.done("authenticate", json!({"user_id": "ann"})).await;
    let joined = after.done("join", json!({"room_id": "room"})).await;
    assert_eq!(joined["total"], 2);
    // Ann disconnects for good: those events arrive after any that the reload might have caused.
    after.drop_transport();
    watcher
        .eventually("ann left", |watcher| {
            !watcher.events("user_left").is_empty()
        })
        .await;
    watcher
        .eventually("ann is offline", |watcher| {
            watcher.events("user_offline").len() == 2
        })
        .await;
    for (event, times) in [("user_joined", 1), ("user_left", 1), ("user_online", 1)] {
        assert_eq!(watcher.events(event).len(), times, "{event}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_within_the_grace_causes_no_event_on_one_node() {
    reload(Cluster::alone(&[]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_within_the_grace_causes_no_event_on_two_nodes() {
    reload(Cluster::of(2, &[("PRESENCE_GRACE_MS", "3000")]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_reconnects_without_rejoining_leaves_and_stays_online() {
    let cluster = Cluster::alone(&[("PRESENCE_GRACE_MS", "300")]).await;
    let watcher = Client::member(cluster.address(0), "watcher", "room").await;
    let before = Client::member(cluster.address(0), "ann", "room").await;
    watcher.await_event("user_joined").await;
    before.drop_transport();
    let after = Client::connect(cluster.address(0)).await;
    after.done("authenticate", json!({"user_id": "ann"})).await;
    watcher.await_event("user_left").await;
    let status = watcher
        .done("subscribe_status", json!({"target_user_id": "ann"}))
        .await;
    assert_eq!(status["is_online"], true);
    cluster.stop().await;
}
