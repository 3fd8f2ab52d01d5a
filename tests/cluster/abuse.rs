//! Rate limits of a connection, a user and an address, on one node and on several, and their
//! isolation from other clients.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use hubbub_test_support::client::Client;
use hubbub_test_support::node::{Cluster, http};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const JSON: (&str, &str) = ("content-type", "application/json");
const POST: &str = r#"{"room_id":"room","content":"x"}"#;

/// Sends `count` events at once; returns how many are refused for a rate, each with a time to
/// retry.
async fn refused(
    client: &Client,
    count: usize,
    event: &str,
    payload: impl Fn(usize) -> Value,
) -> usize {
    let told: Vec<_> = (0..count)
        .map(|n| client.emit(event, &payload(n)))
        .collect();
    let answers: Vec<Value> = join_all(told)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let refused = answers
        .iter()
        .filter(|answer| answer["code"] == "rate_limited");
    refused
        .inspect(|answer| {
            assert!(
                answer["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0),
                "{answer}"
            )
        })
        .count()
}

fn typing(_: usize) -> Value {
    json!({"room_id": "room"})
}

#[tokio::test(flavor = "multi_thread")]
async fn x_forwarded_for_counts_only_from_trusted_proxies() {
    let limits = [
        ("MAX_CONNECTIONS_PER_IP", "1"),
        ("RATE_IP_HANDSHAKES_PER_SEC", "0"),
    ];
    let trusting =
        Cluster::alone(&[&limits[..], &[("TRUSTED_PROXIES", "127.0.0.1")]].concat()).await;
    let direct = Cluster::alone(&[&limits[..], &[("TRUSTED_PROXIES", "none")]].concat()).await;
    for (cluster, from, status) in [
        (&trusting, "198.51.100.1", 200),
        (&trusting, "198.51.100.1", 429),
        (&trusting, "203.0.113.9, 198.51.100.1", 429),
        (&trusting, "198.51.100.2", 200),
        (&trusting, "2001:db8:0:1::1", 200),
        (&trusting, "2001:db8:0:1::2", 429),
        (&trusting, "2001:db8:0:2::1", 200),
        (&direct, "198.51.100.1", 200),
        (&direct, "198.51.100.2", 429),
    ] {
        let answer = http(
            cluster.address(0),
            "GET",
            POLLING,
            &[("x-forwarded-for", from)],
            "",
        )
        .await;
        assert_eq!(answer.0, status, "{from}: {}", answer.2);
        assert!(status == 200 || answer.1.contains_key("retry-after"));
    }
    trusting.stop().await;
    direct.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_and_bytes_of_a_connection_have_a_rate() {
    let cluster =
        Cluster::alone(&[("RATE_JOINS_PER_SEC", "1"), ("RATE_BYTES_PER_SEC", "2000")]).await;
    let address = cluster.address(0);
    let client = Client::member(address, "ann", "room").await;
    // 20 at once; while they are sent the rate may refill one.
    let joins = refused(&client, 30, "join", |_| json!({"room_id": "room"})).await;
    assert!((10..=11).contains(&joins), "{joins}");
    let bytes = refused(
        &client,
        50,
        "message",
        |_| json!({"room_id": "room", "content": "x".repeat(1000)}),
    )
    .await;
    assert!((12..=16).contains(&bytes), "{bytes}");
    let other = Client::member(address, "ann", "room").await;
    other
        .done(
            "message",
            json!({"room_id": "room", "content": "another socket has its own"}),
        )
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_one_rate_in_the_whole_cluster() {
    let settings = [
        ("RATE_USER_EVENTS_PER_SEC", "5"),
        ("RATE_USER_CONNECTS_PER_SEC", "0"),
    ];
    let cluster = Cluster::of(2, &settings).await;
    let near = Client::member(cluster.address(0), "ann", "room").await;
    let far = Client::member(cluster.address(1), "ann", "room").await;
    // A burst of 100 on one node …
    assert!(refused(&near, 150, "typing", typing).await >= 45);
    // … is known on the other as soon as that reports a charge of its own. The connection there has
    // sent almost nothing.
    far.done("typing", typing(0)).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while far.ask("typing", typing(0)).await["code"] != "rate_limited" {
        assert!(
            Instant::now() < deadline,
            "the other node never learns of the charges"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Client::member(cluster.address(1), "bob", "room")
        .await
        .done("typing", typing(0))
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_a_user_have_a_rate() {
    let cluster = Cluster::alone(&[
        ("RATE_USER_CONNECTS_PER_SEC", "1"),
        ("MAX_SOCKETS_PER_USER", "100"),
    ])
    .await;
    let mut codes = Vec::new();
    for _ in 0..25 {
        let client = Client::connect(cluster.address(0)).await;
        codes.push(
            client.ask("authenticate", json!({"user_id": "ann"})).await["code"] == "rate_limited",
        );
    }
    assert!(
        !codes[..20].contains(&true) && codes[20..].contains(&true),
        "{codes:?}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ignores_refusals_is_closed() {
    let settings = [
        ("RATE_EVENTS_PER_SEC", "5"),
        ("RATE_EVENTS_BURST", "20"),
        ("MAX_RATE_REFUSALS", "50"),
    ];
    let cluster = Cluster::alone(&settings).await;
    let (patient, greedy) = (
        Client::member(cluster.address(0), "patient", "room").await,
        Client::member(cluster.address(0), "greedy", "room").await,
    );
    refused(&patient, 60, "typing", typing).await;
    for _ in 0..1000 {
        drop(greedy.emit("typing", &typing(0)));
    }
    greedy
        .eventually("the transport is closed", Client::is_closed)
        .await;
    assert!(
        greedy.events("disconnect").is_empty(),
        "so that the client may come back"
    );
    assert!(!patient.is_closed());
    assert!(
        patient
            .ask("leave", json!({"room_id": "room"}))
            .await
            .is_object(),
        "still answered"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_have_a_rate_by_caller_and_requests_by_address() {
    let secret = "a secret of at least thirty-two bytes";
    let settings = [
        ("JWT_SECRET", secret),
        ("API_KEYS", "one,two"),
        ("RATE_POSTS_PER_SEC", "1"),
    ];
    let cluster = Cluster::alone(&settings).await;
    let post = async |key: &str| {
        http(
            cluster.address(0),
            "POST",
            "/messages",
            &[JSON, ("authorization", &format!("Bearer {key}"))],
            POST,
        )
        .await
    };
    for _ in 0..20 {
        assert_eq!(post("one").await.0, 201);
    }
    let mut last = post("one").await;
    if last.0 == 201 {
        last = post("one").await;
    }
    assert_eq!(
        (last.0, &last.2["code"], last.1["retry-after"].as_str()),
        (429, &json!("rate_limited"), "1")
    );
    assert_eq!(post("two").await.0, 201);
    cluster.stop().await;

    let settings = [
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("RATE_IP_EVENTS_PER_SEC", "1"),
    ];
    let cluster = Cluster::alone(&settings).await;
    let ask = async |from: &str, path: &str| {
        http(
            cluster.address(0),
            "GET",
            path,
            &[("x-forwarded-for", from)],
            "",
        )
        .await
        .0
    };
    let mut statuses = Vec::new();
    for _ in 0..25 {
        statuses.push(ask("198.51.100.1", "/rooms/room/users").await);
    }
    assert!(
        statuses[..20].iter().all(|status| *status == 200) && statuses[20..].contains(&429),
        "{statuses:?}"
    );
    assert_eq!(ask("198.51.100.2", "/rooms/room/users").await, 200);
    assert_eq!(
        ask("198.51.100.1", "/health").await,
        200,
        "a probe is never refused"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_connections_are_limited_and_authenticated_ones_do_not_count() {
    let cluster = Cluster::alone(&[("MAX_UNAUTHENTICATED", "1")]).await;
    let address = cluster.address(0);
    let one = Client::connect(address).await;
    let (status, headers, answer) = http(address, "GET", POLLING, &[], "").await;
    assert_eq!((status, &answer["code"]), (503, &json!("unavailable")));
    assert!(headers.contains_key("retry-after"));
    one.done("authenticate", json!({"user_id": "ann"})).await;
    let two = Client::connect(address).await;
    drop((one, two));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_beyond_the_rate_are_refused_before_any_token_is_checked() {
    let secret = "a secret of at least thirty-two bytes";
    let cluster = Cluster::alone(&[("JWT_SECRET", secret), ("MAX_HANDSHAKES_PER_SEC", "1")]).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let bad = [("authorization", "Bearer not-a-token")];
        let (status, headers, _) = http(cluster.address(0), "GET", POLLING, &bad, "").await;
        assert_eq!(headers.contains_key("retry-after"), status == 503);
        statuses.push(status);
    }
    assert!(
        statuses[0] == 200 && statuses[1..].contains(&503),
        "{statuses:?}"
    );
    cluster.stop().await;
}
