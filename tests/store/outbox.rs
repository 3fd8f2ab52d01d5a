//! The outbox: rows are claimed in order, by one at a time, until they are done.

use std::collections::BTreeMap;
use std::time::Duration;

use hubbub::store::{Claim, Outbox, OutboxRow};

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
    an_urgent_row_passes_a_flood_of_other_rooms,
    an_urgent_row_waits_for_the_earlier_rows_of_its_room,
    a_room_takes_a_part_of_a_claim_only,
    rooms_that_wait_hide_no_other,
    a_claim_that_has_ended_changes_nothing,
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
    let claims: Vec<Claim> = first.iter().chain(&second).map(OutboxRow::claim).collect();
    for _ in 0..2 {
        store.done(&claims).await.unwrap();
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
    let claims: Vec<Claim> = claimed.iter().map(OutboxRow::claim).collect();
    store
        .retry(&claims, LEASE, "the log is away")
        .await
        .unwrap();
    let other = store.claim(10, LEASE).await.unwrap();
    assert_eq!(rooms(&other), ["b"]);
    store.done(&[other[0].claim()]).await.unwrap();
    // The second row waits for the first one, so it is not due.
    let next = store.next_due().await.unwrap().unwrap();
    assert!(next > LEASE / 2, "{next:?}");
    let listed = store.list(0, 10).await.unwrap();
    assert_eq!(listed[0].reason.as_deref(), Some("the log is away"));
    assert_eq!((listed[0].row.attempts, listed[0].has_failed), (1, false));
    store.retry(&claims, Duration::ZERO, "again").await.unwrap();
    assert_eq!(rooms(&store.claim(10, LEASE).await.unwrap()), ["a", "a"]);
}

async fn a_row_that_has_failed_holds_up_nothing_and_can_be_revived(test: &TestStore) {
    let store = &test.store;
    add(test, &["a", "a"]).await;
    let claimed = store.claim(1, LEASE).await.unwrap();
    let id = claimed[0].id;
    let reason = "ü".repeat(1000);
    store.fail(claimed[0].claim(), &reason).await.unwrap();
    let second = store.claim(10, LEASE).await.unwrap();
    assert_eq!(rooms(&second), ["a"]);
    store.done(&[second[0].claim()]).await.unwrap();
    assert_eq!(store.next_due().await.unwrap(), None);
    let listed = store.list(0, 10).await.unwrap();
    assert!(listed[0].has_failed && listed[0].row.id == id);
    assert_eq!(listed[0].reason.as_deref(), Some(&reason[..1000]));
    assert!(store.revive(id).await.unwrap());
    assert!(!store.revive(id).await.unwrap(), "it waits again");
    assert_eq!(store.next_due().await.unwrap(), Some(Duration::ZERO));
    let again = store.claim(10, LEASE).await.unwrap();
    // It was handed to the log before.
    assert_eq!((again[0].id, again[0].attempts), (id, 2));
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
                    let claim = row.claim();
                    done.send(row).unwrap();
                    tokio::task::yield_now().await;
                    store.done(&[claim]).await.unwrap();
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

/// Adds so many rows of one kind, in turn to rooms with these numbers.
pub async fn flood(test: &TestStore, count: usize, kind: &str, rooms: usize) {
    for first in (0..count).step_by(500) {
        let rows: Vec<String> = (first..count.min(first + 500))
            .map(|number| format!("('room{}', '{kind}', '{{\"n\":1}}')", number % rooms))
            .collect();
        let statement = format!(
            "INSERT INTO hubbub_outbox (room_id, type, payload) VALUES {}",
            rows.join(", ")
        );
        test.execute(&statement).await;
    }
}

pub async fn add_urgent(test: &TestStore, room: &str, kind: &str) {
    let statement = format!(
        "INSERT INTO hubbub_outbox (room_id, type, payload) VALUES ('{room}', '{kind}', '{{\"n\":1}}')"
    );
    test.execute(&statement).await;
}

async fn an_urgent_row_passes_a_flood_of_other_rooms(test: &TestStore) {
    flood(test, 5000, "chat_updated", 1000).await;
    add_urgent(test, "user:a", "session_ended").await;
    add_urgent(test, "user:b", "member_removed").await;
    let first = test.store.claim(200, LEASE).await.unwrap();
    assert_eq!(first.len(), 200);
    assert_eq!(rooms(&first)[..2], ["user:a", "user:b"]);
    // The others go on beside them, in their order.
    let others: Vec<i64> = first[2..].iter().map(|row| row.id).collect();
    assert!(others.is_sorted());
    assert_eq!(rooms(&first)[2], "room0");
}

/// The order within a room stays, and the urgent row brings those before it along.
async fn an_urgent_row_waits_for_the_earlier_rows_of_its_room(test: &TestStore) {
    let store = &test.store;
    flood(test, 2000, "chat_updated", 1000).await;
    add(test, &["a", "a"]).await;
    add_urgent(test, "a", "member_removed").await;
    add_urgent(test, "b", "session_ended").await;
    test.execute("UPDATE hubbub_outbox SET lease_until = 99999999999999 WHERE room_id = 'b'")
        .await;
    let claimed = store.claim(10, LEASE).await.unwrap();
    assert_eq!(rooms(&claimed)[..3], ["a", "a", "a"]);
    assert!(claimed[0].id < claimed[1].id && claimed[1].id < claimed[2].id);
    assert_eq!(claimed[2].kind, "member_removed");
    assert!(!rooms(&claimed).contains(&"b"), "another worker has it");
}

async fn a_room_takes_a_part_of_a_claim_only(test: &TestStore) {
    let store = &test.store;
    flood(test, 3000, "chat_updated", 1).await;
    add(test, &["a", "b"]).await;
    let claimed = store.claim(200, LEASE).await.unwrap();
    let flooded = rooms(&claimed)
        .iter()
        .filter(|room| **room == "room0")
        .count();
    assert!((1..200).contains(&flooded), "{flooded}");
    assert!(rooms(&claimed).ends_with(&["a", "b"]));
    // The later rows of the room wait for those that are claimed.
    assert!(store.claim(200, LEASE).await.unwrap().is_empty());
    let ids: Vec<i64> = claimed[..flooded].iter().map(|row| row.id).collect();
    assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]));
}

/// More rows than one statement reads are claimed or postponed, in many rooms and in one.
async fn rooms_that_wait_hide_no_other(test: &TestStore) {
    let store = &test.store;
    flood(test, 1500, "chat_updated", 1500).await;
    test.execute("UPDATE hubbub_outbox SET lease_until = 99999999999999")
        .await;
    flood(test, 3000, "chat_updated", 1).await;
    assert!(store.next_due().await.unwrap().unwrap() > LEASE);
    add(test, &["a"]).await;
    assert_eq!(store.next_due().await.unwrap(), Some(Duration::ZERO));
    assert_eq!(rooms(&store.claim(200, LEASE).await.unwrap()), ["a"]);
    // The earliest time counts, and not that of the first row.
    test.execute("UPDATE hubbub_outbox SET lease_until = 0, attempts = 1, due_at = 1 WHERE room_id = 'room9'")
        .await;
    assert_eq!(store.next_due().await.unwrap(), Some(Duration::ZERO));
    assert_eq!(rooms(&store.claim(200, LEASE).await.unwrap()), ["room9"]);
}

/// A worker that has stopped for longer than its lease must not disturb the next one.
async fn a_claim_that_has_ended_changes_nothing(test: &TestStore) {
    let store = &test.store;
    add(test, &["a", "b"]).await;
    let old = store.claim(10, LEASE).await.unwrap();
    test.execute("UPDATE hubbub_outbox SET lease_until = 1")
        .await;
    let new = store.claim(10, LEASE).await.unwrap();
    assert_eq!(new.len(), 2);
    let of_old: Vec<Claim> = old.iter().map(OutboxRow::claim).collect();
    store.done(&of_old).await.unwrap();
    store.retry(&of_old, Duration::ZERO, "late").await.unwrap();
    store.fail(of_old[0], "late").await.unwrap();
    let listed = store.list(0, 10).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(
        listed
            .iter()
            .all(|row| !row.has_failed && row.reason.is_none())
    );
    assert!(store.claim(10, LEASE).await.unwrap().is_empty(), "claimed");
    // The attempts never fall, so that no claim looks like an earlier one.
    store.fail(new[0].claim(), "on purpose").await.unwrap();
    assert!(store.revive(new[0].id).await.unwrap());
    let third = store.claim(10, LEASE).await.unwrap();
    assert_eq!(third[0].attempts, 3);
    store.done(&[new[0].claim(), new[1].claim()]).await.unwrap();
    assert_eq!(store.list(0, 10).await.unwrap().len(), 1);
    store.done(&[third[0].claim()]).await.unwrap();
    assert!(store.list(0, 10).await.unwrap().is_empty());
}
