//! All occupants of a room lose their connections at once and return: each node reads the log once
//! for all of them.

use futures_util::future::join_all;
use serde_json::json;

use hubbub_test_support::client::Client;
use hubbub_test_support::node::{Cluster, metric};

const NODES: usize = 2;
const CLIENTS: usize = 100;

/// Reads of the log on a node so far, for catch-up and for replays.
async fn reads(cluster: &Cluster, node: usize) -> u64 {
    metric(cluster.address(node), "hubbub_replay_reads_total").await
        + metric(cluster.address(node), "hubbub_catch_ups_total").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_reads_the_log_once_on_each_node() {
    let cluster = Cluster::of(
        NODES,
        &[
            ("RATE_EVENTS_PER_SEC", "10000"),
            ("RATE_EVENTS_BURST", "10000"),
        ],
    )
    .await;
    let name = |n: usize| format!("user-{n}");
    let talker = Client::member(cluster.address(0), "talker", "room").await;
    let listener = Client::member(cluster.address(1), "listener", "room").await;
    let member = |n: usize| {
        let (address, user) = (cluster.address(n % NODES), name(n));
        async move { Client::member(address, &user, "room").await }
    };
    let first = join_all((0..CLIENTS).map(member)).await;
    first.iter().for_each(Client::drop_transport);
    let say = |n: usize| {
        talker.done(
            "message",
            json!({"room_id": "room", "content": n.to_string()}),
        )
    };
    for n in 0..200 {
        say(n).await;
    }
    let mut before = Vec::new();
    for node in 0..NODES {
        before.push(reads(&cluster, node).await);
    }
    let back = |n: usize| {
        let (address, since) = (cluster.address(n % NODES), 50 + n as u64 % 20);
        async move {
            let client = Client::connect(address).await;
            client
                .done("authenticate", json!({"user_id": name(n)}))
                .await;
            let answer = client
                .done("join", json!({"room_id": "room", "since_seq": since}))
                .await;
            assert_eq!(
                (&answer["recovered"], &answer["gap"]),
                (&json!(true), &json!(false)),
                "{answer}"
            );
            (since, client)
        }
    };
    let talk = async {
        for n in 200..300 {
            say(n).await;
        }
    };
    let (members, ()) = tokio::join!(join_all((0..CLIENTS).map(back)), talk);
    for (since, client) in &members {
        client
            .eventually("all came", |client| client.seqs().last() == Some(&300))
            .await;
        assert_eq!(client.seqs(), (since + 1..=300).collect::<Vec<_>>());
    }
    listener
        .eventually("all came", |client| {
            client.seqs() == (1..=300).collect::<Vec<_>>()
        })
        .await;
    for (node, before) in before.into_iter().enumerate() {
        let reads = reads(&cluster, node).await - before;
        // A second read happens only if the machine is so busy that the bus is 100 ms behind the
        // answers.
        assert!((1..=2).contains(&reads), "{reads} reads on node {node}");
        assert_eq!(
            metric(cluster.address(node), "hubbub_replays_total").await,
            CLIENTS as u64 / 2
        );
    }
    cluster.stop().await;
}
