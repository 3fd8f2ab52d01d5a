//! Unread messages and mentions on three nodes, compared with a simple model.
//!
//! The nodes share Redis and a database. Users send, reply, mention, edit, delete, read, mark as unread, enter
//! and leave rooms and chats, each request at a random node; after each batch of concurrent requests the
//! unread messages of some users, asked at random nodes, must be those of the model. With
//! `ACK_AFTER=archive` they are so at once, with `ACK_AFTER=log` as soon as the archive has followed.
//!
//! `UNREAD_SEED` repeats the choices of a run. A million operations:
//! `cargo test --release --test messages unread::a_million -- --ignored --nocapture`; `UNREAD_OPERATIONS` is
//! another number of them.

mod connections;
mod model;
mod operations;
mod random;
mod world;

use std::net::SocketAddr;
use std::time::Instant;

use hubbub::app::App;
use hubbub::store::sql::{DatabaseUrl, Settings, SqlStore};
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::{SharedStorage, metric};
use uuid::Uuid;

use crate::fixture::{OPEN, SECRET, UNLIMITED, User};
use connections::Connections;
use random::Random;
use world::{NewWorld, USERS, World};

const NODES: usize = 3;

/// How long a run is, and on what.
struct Run {
    kind: DatabaseKind,
    ack_after: &'static str,
    /// Groups of users and rooms, which run side by side.
    worlds: u64,
    operations: u64,
}

fn seed() -> u64 {
    match std::env::var("UNREAD_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => u64::from_le_bytes(Uuid::new_v4().as_bytes()[..8].try_into().unwrap()),
    }
}

async fn sign_up(addresses: &[SocketAddr], world: u64) -> (Vec<User>, Vec<String>) {
    let mut users = Vec::new();
    let mut names = Vec::new();
    for number in 0..USERS {
        let name = format!("w{world}u{number}");
        users.push(User::sign_up(addresses[number % NODES], &name).await);
        names.push(name);
    }
    (users, names)
}

async fn run(run: Run) {
    let seed = seed();
    println!("UNREAD_SEED={seed}");
    let database = TestDatabase::new(run.kind);
    let storage = SharedStorage::new(&database.url);
    let settings = [
        SECRET,
        OPEN,
        UNLIMITED,
        ("ACK_AFTER", run.ack_after),
        ("MAX_SOCKETS_PER_USER", "1000"),
        ("RATE_USER_CONNECTS_PER_SEC", "0"),
    ];
    let mut nodes: Vec<App> = Vec::new();
    for _ in 0..NODES {
        nodes.push(storage.start_node(&settings).await);
    }
    let addresses: Vec<SocketAddr> = nodes.iter().map(App::address).collect();
    let store = Settings::new(DatabaseUrl::parse(&database.url).unwrap());
    let store = SqlStore::open(&store).await.unwrap();
    let mut seeds = Random::new(seed);
    let mut worlds = Vec::new();
    for number in 0..run.worlds {
        let (users, names) = sign_up(&addresses, number).await;
        let new = NewWorld {
            label: format!("w{number}"),
            seed: seeds.number(),
            connections: Connections::new(&addresses),
            store: store.clone(),
            is_exact: run.ack_after == "archive",
            users,
            names,
        };
        let operations = run.operations / run.worlds;
        worlds.push(tokio::spawn(steps(new, operations)));
    }
    let began = Instant::now();
    let (mut operations, mut without_mentions) = (0, 0);
    for world in worlds {
        let world = world.await.unwrap();
        operations += world.operations;
        without_mentions += world.without_mentions;
        world.stop().await;
    }
    let took = began.elapsed();
    println!(
        "{:?}, {}: {operations} operations in {took:?}",
        run.kind, run.ack_after
    );
    let (mut counted, mut conflicts) = (0, 0);
    for address in addresses {
        counted += metric(address, "hubbub_messages_without_mentions_total").await;
        conflicts += metric(address, "hubbub_archive_conflicts_total").await;
    }
    // Some of those that the nodes count would have mentioned nobody.
    assert!(
        without_mentions <= counted,
        "{without_mentions} messages without mentions"
    );
    assert_eq!(conflicts, 0, "log and archive agree");
    for node in nodes {
        node.stop().await;
    }
}

async fn steps(new: NewWorld, operations: u64) -> World {
    let mut world = World::new(new).await;
    while world.operations < operations {
        world.step().await;
    }
    world.check(0..USERS).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_have_the_unread_messages_of_the_model_on_postgres() {
    run(Run {
        kind: DatabaseKind::Postgres,
        ack_after: "archive",
        worlds: 3,
        operations: 1_500,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_have_the_unread_messages_of_the_model_on_mariadb() {
    run(Run {
        kind: DatabaseKind::MariaDb,
        ack_after: "archive",
        worlds: 3,
        operations: 1_500,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_agree_with_the_model_once_the_archive_has_followed_the_log() {
    run(Run {
        kind: DatabaseKind::Postgres,
        ack_after: "log",
        worlds: 3,
        operations: 1_000,
    })
    .await;
}

/// Half of them on each database.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes two hours or more in a debug build"]
async fn a_million_operations_on_three_nodes_leave_the_unread_messages_of_the_model() {
    let operations = match std::env::var("UNREAD_OPERATIONS") {
        Ok(operations) => operations.parse().unwrap(),
        Err(_) => 1_000_000,
    };
    for kind in [DatabaseKind::Postgres, DatabaseKind::MariaDb] {
        run(Run {
            kind,
            ack_after: "archive",
            worlds: 8,
            operations: operations / 2,
        })
        .await;
    }
}
