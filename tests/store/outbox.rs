//! The outbox: rows are claimed in order, by one at a time, until they are done.

use std::collections::BTreeMap;
use std::time::Duration;

use hubbub::store::{Outbox, OutboxRow};

use crate::fixture::TestStore;
use hubbub_test_support::database::DatabaseKind;

crate::on_every_database!(
    rows_are_claimed_in_order_and_once,
    a_claim_ends_with_its_lease,
    a_row_that_is_postponed_holds_up_its_room_only,
    a_row_that_has_failed_holds_up_nothing_and_can_be_revived,
    a_row_with_a_later_time_holds_up_nothing,
    rows_of_a_room_stay_in_order_while_many_claim,
    a_row_that_is_no_text_spoils_no_claim,
);

const LEASE: Duration = Duration::from_secs(60);

/// Adds rows as an application does that shares the database.
async fn add(test: &TestStore, rooms: &[&str]) {
    for (number, room) in rooms.iter().enumerate() {
        let statement = format!(
            "INSERT INTO hubbub_outbox (room_id, type, payload) VALUES ('{room}', 'e', '{{\"n\":{number}}}')"
        );
        test.execute(&statement).await;
    }
}

fn rooms(rows: &[OutboxRow]) -> Vec<&str> {
    let rooms = rows.iter().filter_map(|row| row.room.as_ref());
    rooms.map(|room| room.as_str()).collect()
}

async fn rows_are_claimed_in_order_and_once(test: &TestStore) {
    let store = &test.store;
    add(test, &["a", "b", "a", "c"]).await;
    let first = store.claim(3, LEASE).await.unwrap();
    assert_eq!(rooms(&first), ["a", "b", "a"]);
    assert_eq!(
        (first[1].kind.as_str(), first[1].payload.as_str()),
        ("e", "{\"n\":1}")
    );
    assert_eq!(first[0].attempts, 1);
    let second = store.claim(3, LEASE).await.unwrap();
    assert_eq!(rooms(&second), ["c"]);
    assert!(store.claim(3, LEASE).await.unwrap().is_empty());
    let ids: Vec<i64> = first.iter().chain(&second).map(|row| row.id).collect();
    for _ in 0..2 {
        store.done(&ids).await.unwrap();
    }
    assert!(store.list(0, 10).await.unwrap().is_empty());
    assert_eq!(store.next_due().await.unwrap(), None);
}

async fn a_claim_ends_with_its_lease(test: &TestStore) {
    let store = &test.store;
    add(test, &["a", "a"]).await;
    assert_eq!(store.claim(1, LEASE).await.unwrap().len(), 1);
    // The second row waits for the first.
    assert!(store.claim(10, LEASE).await.unwrap().is_empty());
    test.execute("UPDATE hubbub_outbox SET lease_until = 1")
        .await;
    let again = store.claim(10, LEASE).await.unwrap();
    let attempts: Vec<u64> = again.iter().map(|row| row.attempts).collect();
    assert_eq!(attempts, [2, 1]);
}

async fn a_row_that_is_postponed_holds_up_its_room_only(test: &TestStore) {
    let store = &test.store;
    add(test, &["a", "a", "b"]).await;
    let claimed = store.claim(1, LEASE).await.unwrap();
    let ids: Vec<i64> = claimed.iter().map(|row| row.id).collect();
    store.retry(&ids, LEASE, "the log is away").await.unwrap();
    let other = store.claim(10, LEASE).await.unwrap();
    assert_eq!(rooms(&other), ["b"]);
    store.done(&[other[0].id]).await.unwrap();
    // The second row waits for the first one, so it is not due.
    let next = store.next_due().await.unwrap().unwrap();
    assert!(next > LEASE / 2, "{next:?}");
    let listed = store.list(0, 10).await.unwrap();
    assert_eq!(listed[0].reason.as_deref(), Some("the log is away"));
    assert_eq!((listed[0].row.attempts, listed[0].has_failed), (1, false));
    store.retry(&ids, Duration::ZERO, "again").await.unwrap();
    assert_eq!(rooms(&store.claim(10, LEASE).await.unwrap()), ["a", "a"]);
}

async fn a_row_that_has_failed_holds_up_nothing_and_can_be_revived(test: &TestStore) {
    let store = &test.store;
    add(test, &["a", "a"]).await;
    let claimed = store.claim(1, LEASE).await.unwrap();
    let id = claimed[0].id;
    let reason = "ü".repeat(1000);
    store.fail(id, &reason).await.unwrap();
    let second = store.claim(10, LEASE).await.unwrap();
    assert_eq!(rooms(&second), ["a"]);
    store.done(&[second[0].id]).await.unwrap();
    assert_eq!(store.next_due().await.unwrap(), None);
    let listed = store.list(0, 10).await.unwrap();
    assert!(listed[0].has_failed && listed[0].row.id == id);
    assert_eq!(listed[0].reason.as_deref(), Some(&reason[..1000]));
    assert!(store.revive(id).await.unwrap());
    assert!(!store.revive(id).await.unwrap(), "it waits again");
    assert_eq!(store.next_due().await.unwrap(), Some(Duration::ZERO));
    assert_eq!(store.claim(10, LEASE).await.unwrap()[0].id, id);
}

async fn a_row_with_a_later_time_holds_up_nothing(test: &TestStore) {
    let store = &test.store;
    add(test, &["a"]).await;
    test.execute("UPDATE hubbub_outbox SET due_at = 99999999999999")
        .await;
    add(test, &["a"]).await;
    assert_eq!(store.next_due().await.unwrap(), Some(Duration::ZERO));
    assert_eq!(store.claim(10, LEASE).await.unwrap().len(), 1);
    assert!(store.claim(10, LEASE).await.unwrap().is_empty());
}

/// Each row is done by one claim, and the rows of a room are done in their order.
async fn rows_of_a_room_stay_in_order_while_many_claim(test: &TestStore) {
    let names: Vec<String> = (0..60)
        .map(|number| format!("room{}", number % 7))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    add(test, &names).await;
    let (done, mut all) = tokio::sync::mpsc::unbounded_channel();
    let workers = (0..4).map(|_| {
        let (store, done) = (test.store.clone(), done.clone());
        tokio::spawn(async move {
            loop {
                let claimed = store.claim(3, LEASE).await.unwrap();
                if claimed.is_empty() && store.next_due().await.unwrap().is_none() {
                    return;
                }
                for row in claimed {
                    let id = row.id;
                    done.send(row).unwrap();
                    tokio::task::yield_now().await;
                    store.done(&[id]).await.unwrap();
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    drop(done);
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let mut count = 0;
    while let Some(row) = all.recv().await {
        assert_eq!(row.attempts, 1);
        let room = row.room.unwrap().as_str().to_owned();
        let before = last.insert(room, row.id).unwrap_or(0);
        assert!(before < row.id, "{before} and then {}", row.id);
        count += 1;
    }
    assert_eq!(count, 60);
}

/// Another program may write what it likes.
async fn a_row_that_is_no_text_spoils_no_claim(test: &TestStore) {
    if test.kind() != DatabaseKind::MariaDb {
        // The others refuse such a row themselves.
        return;
    }
    let insert = "INSERT INTO hubbub_outbox (room_id, type, payload) VALUES ('a', 'e', x'7bff7d')";
    test.execute(insert).await;
    add(test, &["b"]).await;
    let claimed = test.store.claim(10, LEASE).await.unwrap();
    assert_eq!(rooms(&claimed), ["a", "b"]);
    assert_eq!(test.store.list(0, 10).await.unwrap().len(), 2);
}
