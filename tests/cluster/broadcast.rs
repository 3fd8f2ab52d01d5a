//! Broadcasts reach every plain client of the cluster in one order and once each, also clients that
//! were away.

use std::time::Duration;

use serde_json::{Value, json};

use crate::plain::Plain;
use hubbub_test_support::node::{Cluster, http};

const SECRET: &str = "a secret of at least thirty-two bytes";
const JSON: (&str, &str) = ("content-type", "application/json");

async fn broadcast(
    cluster: &Cluster,
    node: usize,
    headers: &[(&str, &str)],
    body: &Value,
) -> (u16, Value) {
    let headers = [&[JSON], headers].concat();
    let (status, _, answer) = http(
        cluster.address(node),
        "POST",
        "/api/broadcast",
        &headers,
        &body.to_string(),
    )
    .await;
    (status, answer)
}

/// Sends a broadcast that must be accepted; returns its `seq`.
async fn say(cluster: &Cluster, node: usize, body: Value) -> u64 {
    let (status, answer) = broadcast(cluster, node, &[], &body).await;
    assert_eq!((status, &answer["ok"]), (202, &json!(true)), "{answer}");
    answer["seq"].as_u64().unwrap()
}

fn token(user: &str, role: Option<&str>) -> String {
    hubbub::auth::mint(SECRET, user, None, role, Duration::from_secs(60)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_may_take_the_place_of_data() {
    let cluster = Cluster::alone(&[]).await;
    let client = Plain::connect(cluster.address(0), "ann").await;
    say(&cluster, 0, json!({"type": "a", "payload": {"id": 1}})).await;
    say(
        &cluster,
        0,
        json!({"type": "a", "payload": [2], "data": null}),
    )
    .await;
    say(&cluster, 0, json!({"type": "a", "payload": 0, "data": 3})).await;
    client
        .eventually("all came", |client| client.broadcasts().len() == 3)
        .await;
    assert_eq!(client.of("a"), [json!({"id": 1}), json!([2]), json!(3)]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_post_reaches_every_plain_client_of_the_cluster_in_one_order() {
    let cluster = Cluster::of(3, &[]).await;
    let mut clients = Vec::new();
    for n in 0..9 {
        clients.push(Plain::connect(cluster.address(n % 3), &format!("user-{n}")).await);
    }
    for n in 0..30 {
        let seq = say(
            &cluster,
            n % 3,
            json!({"type": "task_created", "data": {"id": n, "title": "é"}}),
        )
        .await;
        assert_eq!(seq, n as u64 + 1);
    }
    for client in &clients {
        client
            .eventually("all came", |client| client.broadcasts().len() >= 30)
            .await;
        assert_eq!(client.broadcasts(), (1..=30).collect::<Vec<_>>());
        assert_eq!(client.of("task_created")[7], json!({"id": 7, "title": "é"}));
        assert_eq!(
            client.frames().len(),
            30,
            "nothing else arrives unrequested"
        );
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_answered() {
    let cluster = Cluster::alone(&[]).await;
    let client = Plain::connect(cluster.address(0), "ann").await;
    client.tell("ping", &json!(null));
    assert_eq!(
        client
            .await_frame("a pong", |frame| frame["type"] == "pong")
            .await,
        json!({"type": "pong"})
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connected_clients_counts_socket_io_and_plain_clients() {
    let cluster = Cluster::alone(&[]).await;
    let address = cluster.address(0);
    let plain = Plain::connect(address, "ann").await;
    let socket = hubbub_test_support::client::Client::member(address, "bob", "room").await;
    let health = http(address, "GET", "/health", &[], "").await.2;
    assert_eq!(health["connectedClients"], 2);
    let (status, answer) = broadcast(&cluster, 0, &[], &json!({"type": "a"})).await;
    assert_eq!(
        (status, &answer["connectedClients"], &answer["duplicate"]),
        (202, &json!(2), &json!(false))
    );
    plain.drop_transport();
    socket.drop_transport();
    let gone = async || http(address, "GET", "/health", &[], "").await.2["connectedClients"] == 0;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !gone().await {
        assert!(
            std::time::Instant::now() < deadline,
            "clients that are gone count"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_that_is_repeated_is_delivered_once() {
    let cluster = Cluster::of(2, &[]).await;
    let client = Plain::connect(cluster.address(0), "ann").await;
    let key = [("idempotency-key", "order-17")];
    let body = json!({"type": "task_updated", "data": {"id": 1}});
    let (_, first) = broadcast(&cluster, 0, &key, &body).await;
    let (status, again) = broadcast(&cluster, 1, &key, &body).await;
    assert_eq!(
        (status, &again["seq"], &again["duplicate"]),
        (202, &first["seq"], &json!(true)),
        "{again}"
    );
    say(&cluster, 1, json!({"type": "last"})).await;
    client
        .await_frame("the last", |frame| frame["type"] == "last")
        .await;
    assert_eq!(client.broadcasts(), [1, 2]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_away_receives_missed_broadcasts_on_another_node() {
    let cluster = Cluster::of(2, &[("HISTORY_SIZE", "20")]).await;
    let first = Plain::with(cluster.address(0), "user_id=ann&since_seq=&epoch=", &[])
        .await
        .unwrap();
    let start = first
        .await_frame("where it stands", |frame| frame["type"] == "resumed")
        .await["payload"]
        .clone();
    assert_eq!(
        (&start["seq"], &start["gap"], &start["replayed"]),
        (&json!(0), &json!(false), &json!(0))
    );
    for n in 0..5 {
        say(&cluster, 0, json!({"type": "task_created", "data": n})).await;
    }
    first
        .eventually("all came", |client| client.broadcasts().len() == 5)
        .await;
    let epoch = first.frames().last().unwrap()["epoch"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(start["epoch"], epoch.as_str());
    first.drop_transport();
    for n in 5..9 {
        say(&cluster, 0, json!({"type": "task_created", "data": n})).await;
    }
    let resumed = async |seq: u64, epoch: &str| {
        let query = format!("user_id=ann&since_seq={seq}&epoch={epoch}");
        let client = Plain::with(cluster.address(1), &query, &[]).await.unwrap();
        client
            .await_frame("where it stands", |frame| frame["type"] == "resumed")
            .await;
        client
    };
    let back = resumed(5, &epoch).await;
    say(&cluster, 0, json!({"type": "task_created", "data": 9})).await;
    back.eventually("all came", |client| client.broadcasts().len() >= 5)
        .await;
    let frames = back.frames();
    assert_eq!(
        frames[0],
        json!({"type": "resumed", "payload":
        {"seq": 9, "epoch": epoch, "recovered": true, "gap": false, "replayed": 4}})
    );
    assert_eq!(back.broadcasts(), [6, 7, 8, 9, 10]);
    let stranger = resumed(5, "another").await;
    assert_eq!(stranger.of("resumed")[0]["gap"], true);
    for n in 10..60 {
        say(&cluster, 0, json!({"type": "task_created", "data": n})).await;
    }
    let late = resumed(5, &epoch).await;
    let answer = &late.of("resumed")[0];
    assert_eq!(
        (&answer["gap"], &answer["recovered"]),
        (&json!(true), &json!(false))
    );
    let replayed = answer["replayed"].as_u64().unwrap();
    late.eventually("the remaining broadcasts arrive", |client| {
        client.broadcasts().last() == Some(&60)
    })
    .await;
    assert_eq!(
        late.broadcasts(),
        (60 - replayed + 1..=60).collect::<Vec<_>>()
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broadcasting_requires_a_configured_role() {
    let body = json!({"type": "a"});
    for (roles, plain, publisher) in [
        (None, 202, 202),
        (Some("publisher, admin"), 403, 202),
        (Some("admin"), 403, 403),
    ] {
        let mut settings = vec![("JWT_SECRET", SECRET), ("API_KEYS", "key")];
        settings.extend(roles.map(|roles| ("BROADCAST_ROLES", roles)));
        let cluster = Cluster::alone(&settings).await;
        let by = async |bearer: &str| {
            broadcast(
                &cluster,
                0,
                &[("authorization", &format!("Bearer {bearer}"))],
                &body,
            )
            .await
            .0
        };
        assert_eq!(by("key").await, 202);
        assert_eq!(by(&token("ann", None)).await, plain, "{roles:?}");
        assert_eq!(
            by(&token("ann", Some("publisher"))).await,
            publisher,
            "{roles:?}"
        );
        assert_eq!(by("nonsense").await, 401);
        assert_eq!(broadcast(&cluster, 0, &[], &body).await.0, 401);
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broadcasts_have_a_rate_and_a_required_shape() {
    let cluster = Cluster::alone(&[("RATE_BROADCASTS_PER_SEC", "1")]).await;
    for body in [
        json!({}),
        json!([]),
        json!({"type": "message"}),
        json!({"type": ""}),
        json!({"type": 1}),
    ] {
        let (status, answer) = broadcast(&cluster, 0, &[], &body).await;
        assert_eq!(
            (status, &answer["code"]),
            (400, &json!("bad_request")),
            "{body} {answer}"
        );
    }
    let large = json!({"type": "a", "data": "x".repeat(17_000)});
    assert_eq!(broadcast(&cluster, 0, &[], &large).await.0, 413);
    let mut refused = 0;
    for _ in 0..40 {
        let (status, answer) = broadcast(&cluster, 0, &[], &json!({"type": "a"})).await;
        if status == 429 {
            assert_eq!(answer["code"], "rate_limited");
            refused += 1;
        }
    }
    assert!((20..=30).contains(&refused), "{refused}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_of_broadcasts_is_closed_to_chat() {
    let cluster = Cluster::alone(&[]).await;
    let address = cluster.address(0);
    let socket = hubbub_test_support::client::Client::connect(address).await;
    socket.done("authenticate", json!({"user_id": "bob"})).await;
    let plain = Plain::chat(address, "ann").await;
    let room = json!({"room_id": "broadcast", "content": "x"});
    for event in ["join", "message", "history", "typing"] {
        assert_eq!(
            socket.ask(event, room.clone()).await["code"],
            "forbidden",
            "{event}"
        );
        assert_eq!(
            plain.ask(event, room.clone()).await["code"],
            "forbidden",
            "{event}"
        );
    }
    let (status, answer) = hubbub_test_support::node::post(address, &room).await;
    assert_eq!((status, &answer["code"]), (403, &json!("forbidden")));
    for route in ["/rooms/broadcast/messages", "/rooms/broadcast/users"] {
        assert_eq!(http(address, "GET", route, &[], "").await.0, 403, "{route}");
    }
    cluster.stop().await;
}
