//! Positions, and the messages after them.

mod model;
mod positions;
mod threads;
mod world;

use hubbub::store::sql::SqlStore;
use uuid::Uuid;

use crate::fixture::{TestStore, settings};
use world::World;

crate::on_every_database!(unread_messages_are_those_of_a_simple_model);

/// Runs random operations. The seed, of the variable `UNREAD_SEED` or random, is printed.
async fn run(store: SqlStore, operations: u64) {
    let given = std::env::var("UNREAD_SEED").ok();
    let seed = match given {
        Some(seed) => seed.parse().unwrap(),
        None => u64::from_le_bytes(Uuid::new_v4().as_bytes()[..8].try_into().unwrap()),
    };
    println!("UNREAD_SEED={seed}");
    let mut world = World::new(store, seed).await;
    for _ in 0..operations {
        world.step().await;
    }
}

async fn unread_messages_are_those_of_a_simple_model(test: &TestStore) {
    run(test.store.clone(), 1_000).await;
}

async fn run_in_memory(operations: u64) {
    let store = SqlStore::open(&settings("sqlite::memory:")).await.unwrap();
    run(store, operations).await;
}

#[tokio::test]
async fn twenty_thousand_operations_leave_the_same_unread_messages_as_the_model() {
    run_in_memory(20_000).await;
}

#[tokio::test]
#[ignore = "takes half an hour"]
async fn a_million_operations_leave_the_same_unread_messages_as_the_model() {
    run_in_memory(1_000_000).await;
}
