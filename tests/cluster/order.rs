//! All occupants see one order without a hole or a repeat, from any sender and at any time of
//! joining.

use std::time::Duration;

use serde_json::{Value, json};

use hubbub_test_support::client::Client;
use hubbub_test_support::node::{Cluster, post};

const FAST: &[(&str, &str)] = &[
    ("RATE_EVENTS_PER_SEC", "100000"),
    ("RATE_EVENTS_BURST", "100000"),
    ("HISTORY_SIZE", "20000"),
];

fn contents(client: &Client) -> Vec<(u64, String)> {
    let content = |message: &Value| {
        (
            message["seq"].as_u64().unwrap(),
            message["content"].as_str().unwrap().to_owned(),
        )
    };
    client.events("message").iter().map(content).collect()
}

async fn five_thousand(cluster: Cluster) {
    let mut members = Vec::new();
    for node in 0..cluster.nodes.len() {
        for n in 0..3 {
            members.push(
                Client::member(cluster.address(node), &format!("user-{node}-{n}"), "room").await,
            );
        }
    }
    let sender = &members[0];
    let answers: Vec<_> = (0..5000)
        .map(|n| {
            sender.emit(
                "message",
                &json!({"room_id": "room", "content": n.to_string()}),
            )
        })
        .collect();
    for (n, answer) in answers.into_iter().enumerate() {
        let answer = tokio::time::timeout(Duration::from_secs(60), answer)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (&answer["ok"], answer["seq"].as_u64()),
            (&json!(true), Some(n as u64 + 1)),
            "{answer}"
        );
    }
    let expected: Vec<_> = (0..5000).map(|n| (n + 1, n.to_string())).collect();
    for member in &members {
        member
            .eventually("all came", |member| member.seqs().len() >= 5000)
            .await;
        assert_eq!(contents(member), expected);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_messages_at_once_keep_their_order_on_one_node() {
    five_thousand(Cluster::alone(FAST).await).await;
}

/// On a runtime with one thread, where the write scheduler itself writes.
#[tokio::test]
async fn five_thousand_messages_at_once_keep_their_order_on_one_thread() {
    five_thousand(Cluster::alone(FAST).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_messages_at_once_keep_their_order_on_three_nodes() {
    five_thousand(Cluster::of(3, FAST).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_senders_on_three_nodes_make_one_sequence() {
    let cluster = Cluster::of(3, FAST).await;
    let mut members = Vec::new();
    for n in 0..6 {
        members.push(Client::member(cluster.address(n % 3), &format!("user-{n}"), "room").await);
    }
    let mut answers = Vec::new();
    for n in 0..250 {
        for sender in &members[..4] {
            answers.push(sender.emit(
                "message",
                &json!({"room_id": "room", "content": format!("{n}")}),
            ));
        }
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap()["ok"], true);
    }
    members[0]
        .eventually("all came", |member| member.seqs().len() >= 1000)
        .await;
    let sequence = contents(&members[0]);
    assert_eq!(members[0].seqs(), (1..=1000).collect::<Vec<_>>());
    for member in &members {
        member
            .eventually("all came", |member| member.seqs().len() >= 1000)
            .await;
        assert_eq!(contents(member), sequence);
    }
    cluster.stop().await;
}

async fn joins_while_others_send(cluster: Cluster) {
    let nodes = cluster.nodes.len();
    let talker = Client::member(cluster.address(0), "talker", "room").await;
    for joins in 0..100_u64 {
        let send = |n: u64| {
            talker.emit(
                "message",
                &json!({"room_id": "room", "content": n.to_string()}),
            )
        };
        for n in 0..5 {
            drop(send(n));
        }
        let since = joins;
        let joiner = Client::connect(cluster.address(joins as usize % nodes)).await;
        joiner
            .done(
                "authenticate",
                json!({"user_id": format!("joiner-{joins}")}),
            )
            .await;
        let answer = joiner.emit("join", &json!({"room_id": "room", "since_seq": since}));
        for n in 0..5 {
            drop(send(n));
        }
        let answer = answer.await.unwrap();
        assert_eq!(
            (&answer["recovered"], &answer["gap"]),
            (&json!(true), &json!(false)),
            "{answer}"
        );
        let last = send(99).await.unwrap()["seq"].as_u64().unwrap();
        joiner
            .eventually("it has caught up", |joiner| {
                joiner.seqs().last() == Some(&last)
            })
            .await;
        assert_eq!(joiner.seqs(), (since + 1..=last).collect::<Vec<_>>());
        joiner.drop_transport();
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_joins_while_others_send_find_no_hole_on_one_node() {
    joins_while_others_send(Cluster::alone(FAST).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_joins_while_others_send_find_no_hole_on_two_nodes() {
    joins_while_others_send(Cluster::of(2, FAST).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_repeated_everywhere_at_once_is_delivered_once() {
    let cluster = Cluster::of(2, FAST).await;
    let first = Client::member(cluster.address(0), "ann", "room").await;
    let second = Client::member(cluster.address(1), "ann", "room").await;
    for n in 0..20 {
        let message = json!({"room_id": "room", "user_id": "ann", "content": "hi", "client_msg_id": format!("m{n}")});
        let (a, b, (_, c)) = tokio::join!(
            first.ask("message", message.clone()),
            second.ask("message", message.clone()),
            post(cluster.address(1), &message)
        );
        let answers = [a, b, c];
        assert_eq!(
            answers
                .iter()
                .filter(|answer| answer["duplicate"] == false)
                .count(),
            1,
            "{answers:?}"
        );
        for field in ["id", "seq", "epoch", "timestamp"] {
            assert!(
                answers
                    .iter()
                    .all(|answer| answer[field] == answers[0][field]),
                "{answers:?}"
            );
        }
    }
    for member in [&first, &second] {
        member
            .eventually("all came", |member| member.seqs().len() >= 20)
            .await;
        assert_eq!(member.seqs(), (1..=20).collect::<Vec<_>>());
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_clients_that_send_at_once_are_all_answered() {
    let cluster = Cluster::alone(&[]).await;
    let address = cluster.address(0);
    let clients = (0..500).map(|n| async move {
        let client = Client::connect(address).await;
        client
            .done("authenticate", json!({"user_id": format!("user-{n}")}))
            .await;
    });
    futures_util::future::join_all(clients).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_announces_the_time_and_closes_evenly() {
    let cluster = Cluster::alone(&[]).await;
    let address = cluster.address(0);
    let mut clients = Vec::new();
    for n in 0..10 {
        clients.push(Client::member(address, &format!("user-{n}"), "room").await);
    }
    let node = cluster.nodes.into_iter().next().unwrap();
    let drained = tokio::spawn(node.drain(Duration::from_secs(1)));
    for client in &clients {
        let notice = client.await_event("going_away").await;
        assert!(
            notice["reconnect_in_ms"].as_u64().unwrap() < 1000,
            "{notice}"
        );
    }
    let (status, _, body) =
        hubbub_test_support::node::http(address, "GET", "/readyz", &[], "").await;
    assert_eq!((status, &body["status"]), (503, &json!("draining")));
    assert!(
        clients.iter().any(|client| !client.is_closed()),
        "not all at once"
    );
    for client in &clients {
        client.eventually("closed", Client::is_closed).await;
        assert!(
            client.events("disconnect").is_empty(),
            "a DISCONNECT would keep it from coming back"
        );
    }
    drained.await.unwrap();
}
