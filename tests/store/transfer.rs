//! Copying and checking an archive.

use hubbub::domain::Epoch;
use hubbub::store::{ArchiveStore as _, ArchiveTransfer as _, ArchivedEpoch, RoomState};
use uuid::Uuid;

use crate::fixture::{TestStore, room};

crate::on_every_database!(
    the_state_of_a_room_is_read_as_it_was_set,
    a_copy_is_no_archive_before_it_is_finished,
    a_database_with_another_archive_is_no_destination,
    the_last_runs_are_copied,
    ids_are_listed_in_order,
    a_mark_is_found_until_it_is_removed,
    the_name_of_the_log_is_replaced_only_if_it_is_the_expected_one,
);

fn epoch(name: &str, after: u64, ended: Option<u64>, run: u64) -> ArchivedEpoch {
    ArchivedEpoch {
        epoch: Epoch::trusted(name),
        after,
        ended,
        run,
    }
}

async fn the_state_of_a_room_is_read_as_it_was_set(store: &TestStore) {
    let name = room("r");
    assert_eq!(store.store.room_state(&name).await.unwrap(), None);
    let mut state = RoomState {
        contiguous: 7,
        cut: 3,
        epochs: vec![epoch("a", 0, Some(5), 1), epoch("b", 5, None, 2)],
        lost: vec![4..=4, 6..=7],
    };
    for _ in 0..2 {
        store.store.set_room_state(&name, &state).await.unwrap();
        let read = store.store.room_state(&name).await.unwrap();
        assert_eq!(read.as_ref(), Some(&state));
    }
    state.epochs[1].ended = Some(9);
    state.epochs.push(epoch("c", 9, None, 0));
    state.lost = vec![6..=8];
    state.contiguous = 9;
    store.store.set_room_state(&name, &state).await.unwrap();
    let read = store.store.room_state(&name).await.unwrap();
    assert_eq!(read, Some(state));
}

async fn a_copy_is_no_archive_before_it_is_finished(store: &TestStore) {
    let source = Uuid::new_v4();
    assert!(store.store.begin_copy(source).await.unwrap());
    store.fill("r", 1..=3).await;
    let refused = store.store.deployment().await.unwrap_err().to_string();
    assert!(refused.contains("incomplete copy"), "{refused}");
    // It may be continued, but not from another archive.
    assert!(store.store.begin_copy(source).await.unwrap());
    assert!(!store.store.begin_copy(Uuid::new_v4()).await.unwrap());
    store.store.finish_copy(source, &[]).await.unwrap();
    assert_eq!(store.store.deployment().await.unwrap(), source);
    // It may be brought up to date.
    assert!(store.store.begin_copy(source).await.unwrap());
}

async fn a_database_with_another_archive_is_no_destination(store: &TestStore) {
    store.fill("r", [1]).await;
    let own = store.store.deployment().await.unwrap();
    assert!(!store.store.begin_copy(Uuid::new_v4()).await.unwrap());
    assert_eq!(store.store.deployment().await.unwrap(), own);
}

async fn the_last_runs_are_copied(store: &TestStore) {
    assert_eq!(store.store.run_ends().await.unwrap(), []);
    for ends in [true, false, true, true] {
        let run = store.store.begin_run().await.unwrap();
        if ends {
            store.store.end_run(run.number).await.unwrap();
        }
    }
    let ends = store.store.run_ends().await.unwrap();
    assert_eq!(ends, [(2, false), (4, true)]);
    let source = store.store.deployment().await.unwrap();
    store.store.finish_copy(source, &ends).await.unwrap();
    assert_eq!(store.store.run_ends().await.unwrap(), ends);
    let next = store.store.begin_run().await.unwrap();
    assert_eq!((next.number, next.last_crashed), (5, 2));
}

async fn ids_are_listed_in_order(store: &TestStore) {
    let entries = store.fill("r", 1..=20).await;
    let mut expected: Vec<Uuid> = entries.iter().map(|entry| entry.id).collect();
    expected.sort();
    let first = store.store.ids(Uuid::nil(), 8).await.unwrap();
    assert_eq!(first, expected[..8]);
    let rest = store.store.ids(expected[7], 100).await.unwrap();
    assert_eq!(rest, expected[7..]);
}

async fn a_mark_is_found_until_it_is_removed(store: &TestStore) {
    assert_eq!(store.store.mark().await.unwrap(), None);
    for mark in [Some(Uuid::new_v4()), Some(Uuid::new_v4()), None] {
        store.store.set_mark(mark).await.unwrap();
        assert_eq!(store.store.mark().await.unwrap(), mark);
    }
    // It is no part of the archive.
    store.store.deployment().await.unwrap();
}

async fn the_name_of_the_log_is_replaced_only_if_it_is_the_expected_one(store: &TestStore) {
    let store = &store.store;
    assert_eq!(store.recorded_log().await.unwrap(), None);
    let records = [
        ("memory 1", None, true),
        ("memory 2", None, false),
        ("redis a: 0", Some("memory 2"), false),
        ("redis a: 0", Some("memory 1"), true),
        ("redis b: 0", Some("memory 1"), false),
        ("redis b: 0", Some("redis a: 0"), true),
    ];
    let mut recorded = "";
    for (name, replaced, is_recorded) in records {
        let outcome = store.record_log(name, replaced).await.unwrap();
        assert_eq!(outcome, is_recorded, "{name} in place of {replaced:?}");
        if is_recorded {
            recorded = name;
        }
        let found = store.recorded_log().await.unwrap();
        assert_eq!(found.as_deref(), Some(recorded));
    }
}
