//! Comings and goings: one event for each change, for each watcher, on whichever node.

use serde_json::json;

use hubbub_test_support::client::Client;
use hubbub_test_support::node::Cluster;

async fn comings_and_goings(cluster: Cluster) {
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
    // Two sockets of one user: told of once.
    let one = Client::member(cluster.address(last), "ann", "room").await;
    let two = Client::member(cluster.address(0), "ann", "room").await;
    watcher.await_event("user_joined").await;
    watcher.await_event("user_online").await;
    two.done("leave", json!({"room_id": "room"})).await;
    two.drop_transport();
    // An explicit leave counts at once; the last socket's loss only after the grace.
    one.done("leave", json!({"room_id": "room"})).await;
    assert_eq!(watcher.await_event("user_left").await["user_id"], "ann");
    one.drop_transport();
    watcher
        .eventually("ann is offline", |watcher| {
            watcher.events("user_offline").len() == 2
        })
        .await;
    // Whoever comes after is told of after everything before: so nothing was told twice.
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
async fn each_change_is_told_once_on_one_node() {
    comings_and_goings(Cluster::alone(&[]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_told_once_on_two_nodes() {
    comings_and_goings(Cluster::of(2, &[]).await).await;
}

async fn a_reload_makes_no_noise(cluster: Cluster) {
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
    // Gone for good now: what is told then comes after all that might have been told of the reload.
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
async fn a_reload_within_the_grace_makes_no_noise_on_one_node() {
    a_reload_makes_no_noise(Cluster::alone(&[]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_within_the_grace_makes_no_noise_on_two_nodes() {
    a_reload_makes_no_noise(Cluster::of(2, &[("PRESENCE_GRACE_MS", "3000")]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_back_but_does_not_rejoin_leaves_and_stays_online() {
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
