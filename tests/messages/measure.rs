//! Measurements, for docs/performance.md:
//! `cargo test --release --test messages measure -- --ignored --nocapture --test-threads 1`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hubbub_test_support::client::Client;
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::SharedStorage;
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::fixture::{OPEN, SECRET, UNLIMITED};

const SENDERS: usize = 20;
const CHANGERS: usize = 20;
const SECONDS: u64 = 10;

fn percentiles(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "{name}: {} calls, p50 {:?}, p99 {:?}, longest {:?}",
        times.len(),
        at(50),
        at(99),
        at(100)
    );
}

fn pace(per_second: u64) -> Interval {
    let mut pace = interval(Duration::from_micros(1_000_000 / per_second));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    pace
}

/// Sends 100 messages a second.
async fn send(client: Client, room: String) -> Vec<Duration> {
    let mut pace = pace(100);
    let mut times = Vec::new();
    for _ in 0..100 * SECONDS {
        pace.tick().await;
        let message = json!({"room_id": room, "content": "x".repeat(200)});
        let began = Instant::now();
        client.done("message", message).await;
        times.push(began.elapsed());
    }
    times
}

/// Changes 10 messages of its own a second.
async fn change(client: Client, room: String, event: &'static str) -> Vec<Duration> {
    let mut pace = pace(10);
    let mut times = Vec::new();
    for number in 0..10 * SECONDS {
        pace.tick().await;
        let message = json!({"room_id": room, "content": "y"});
        let sent = client.done("message", message).await;
        let change = json!({
            "room_id": room, "id": sent["id"], "content": format!("{number}"), "emoji": "+1",
        });
        let began = Instant::now();
        client.done(event, change).await;
        times.push(began.elapsed());
    }
    times
}

async fn measure_changes(kind: DatabaseKind, ack_after: &str) {
    let database = TestDatabase::new(kind);
    let storage = SharedStorage::new(&database.url);
    let settings = [SECRET, OPEN, UNLIMITED, ("ACK_AFTER", ack_after)];
    let nodes = [
        storage.start_node(&settings).await,
        storage.start_node(&settings).await,
    ];
    let mut tasks = Vec::new();
    for number in 0..SENDERS {
        let address = nodes[number % 2].address();
        let room = format!("room{number}");
        let client = Client::member(address, &format!("sender{number}"), &room).await;
        tasks.push(("message", tokio::spawn(send(client, room))));
    }
    for number in 0..CHANGERS {
        let address = nodes[number % 2].address();
        let (room, user) = (format!("room{number}"), format!("changer{number}"));
        let client = Client::member(address, &user, &room).await;
        let event = ["edit_message", "react", "delete_message"][number % 3];
        tasks.push((event, tokio::spawn(change(client, room, event))));
    }
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for (name, task) in tasks {
        times.entry(name).or_default().extend(task.await.unwrap());
    }
    for (name, times) in times {
        percentiles(&format!("{kind:?}, ACK_AFTER={ack_after}, {name}"), times);
    }
    for node in nodes {
        node.stop().await;
    }
}

/// 200 changes a second beside 2,000 messages a second.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure_the_acknowledgement_of_changes() {
    for kind in [DatabaseKind::Postgres, DatabaseKind::MariaDb] {
        for ack_after in ["log", "archive"] {
            measure_changes(kind, ack_after).await;
        }
    }
}

/// All members of a large room react to one message within ten seconds.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure_a_storm_of_reactions() {
    // Both ends of each connection are files of this process, which often may have 20,000.
    let members = 9_800;
    for kind in [DatabaseKind::Postgres, DatabaseKind::MariaDb] {
        let (took, longest) = reactions_of(kind, members, Duration::from_secs(10)).await;
        println!("{kind:?}: {members} reactions in {took:?}; longest acknowledgement {longest:?}");
    }
}

/// Returns how long all reactions took, and the longest one. Asserts the promises.
pub async fn reactions_of(
    kind: DatabaseKind,
    members: usize,
    within: Duration,
) -> (Duration, Duration) {
    let database = TestDatabase::new(kind);
    let storage = SharedStorage::new(&database.url);
    let unlimited = ("MAX_SOCKETS_PER_IP", "0");
    let settings = [SECRET, OPEN, UNLIMITED, unlimited];
    let nodes = [
        storage.start_node(&settings).await,
        storage.start_node(&settings).await,
    ];
    let mut clients = Vec::with_capacity(members);
    while clients.len() < members {
        let connecting = (clients.len()..members).take(100).map(|number| {
            let address = nodes[number % 2].address();
            async move { Client::member(address, &format!("user{number}"), "crowd").await }
        });
        clients.extend(futures_util::future::join_all(connecting).await);
    }
    let sent = clients[0]
        .done("message", json!({"room_id": "crowd", "content": "hi"}))
        .await;
    let began = Instant::now();
    let clients = Arc::new(clients);
    let reactions = (0..members).map(|number| {
        let (clients, id) = (clients.clone(), sent["id"].clone());
        tokio::spawn(async move {
            tokio::time::sleep(within * number as u32 / members as u32).await;
            let emoji = ["+1", "heart", "tada"][number % 3];
            let react = json!({"room_id": "crowd", "id": id, "emoji": emoji});
            let began = Instant::now();
            clients[number].done("react", react).await;
            began.elapsed()
        })
    });
    let reactions = futures_util::future::join_all(reactions).await;
    let longest = reactions.into_iter().map(Result::unwrap).max().unwrap();
    let took = began.elapsed();
    let total = |event: &serde_json::Value| -> u64 {
        let reactions = event["reactions"].as_array().unwrap();
        reactions
            .iter()
            .map(|reaction| reaction["count"].as_u64().unwrap())
            .sum()
    };
    for client in [&clients[0], &clients[1], &clients[members - 1]] {
        client
            .eventually("the exact totals", |client| {
                let changed = client.events("reactions_changed");
                changed
                    .last()
                    .is_some_and(|event| total(event) == members as u64)
            })
            .await;
        let changed = client.events("reactions_changed");
        // Two a second, the first at once, and the last after the end.
        let most = 2 * took.as_secs() as usize + 4;
        assert!(
            changed.len() <= most,
            "{} events in {took:?}",
            changed.len()
        );
        for event in &changed {
            for reaction in event["reactions"].as_array().unwrap() {
                assert!(reaction["user_ids"].as_array().unwrap().len() <= 20);
            }
        }
    }
    drop(clients);
    for node in nodes {
        node.stop().await;
    }
    (took, longest)
}
