//! Passwords are hashed beside the chat, not in its way.

use std::time::{Duration, Instant};

use hubbub_test_support::client::Client;
use hubbub_test_support::node::Cluster;
use serde_json::json;

use crate::fixture::{MEMORY, SECRET, log_in, sign_up};

const LOGINS: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_at_once_do_not_delay_the_chat() {
    let settings = [
        SECRET,
        MEMORY,
        ("RATE_EVENTS_PER_SEC", "1000000"),
        // An attempt counts until it has succeeded.
        ("LOGIN_ATTEMPTS_PER_ACCOUNT", "0"),
    ];
    let node = Cluster::alone(&settings).await;
    let address = node.address(0);
    let ann = sign_up(address, "ann").await;
    let client = Client::with_token(address, ann["access_token"].as_str().unwrap()).await;
    client.await_event("connect").await;
    client.done("authenticate", json!({})).await;
    client.done("join", json!({"room_id": "lobby"})).await;
    let logins: Vec<_> = (0..LOGINS)
        .map(|_| tokio::spawn(async move { log_in(address, "ann", "correct horse").await.0 }))
        .collect();
    let mut times = Vec::new();
    while logins.iter().any(|login| !login.is_finished()) {
        let began = Instant::now();
        let message = json!({"room_id": "lobby", "content": "hi"});
        client.done("message", message).await;
        times.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for login in logins {
        assert_eq!(login.await.unwrap(), 200);
    }
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    println!("{} messages, p99 {p99:?}", times.len());
    assert!(times.len() >= 20, "too few messages for a percentile");
    assert!(
        p99 < Duration::from_millis(50),
        "p99 of {}: {p99:?}",
        times.len()
    );
    node.stop().await;
}
