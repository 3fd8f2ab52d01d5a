//! Epochs and runs.

use std::time::Duration;

use hubbub::domain::{Epoch, Head};
use hubbub::store::{
    ArchiveStore as _, ArchivedEntry, ArchivedEpoch, BeginOutcome, EPOCHS_KEPT, NewEpoch, Run,
};

use crate::concurrency::WriteLock;
use crate::fixture::{TestStore, entry, in_room, room};

crate::on_every_database!(
    a_new_epoch_ends_those_that_go_on,
    a_recorded_end_is_lowered,
    an_epoch_that_went_on_after_its_end_ends_after_its_own_entries,
    an_unknown_epoch_with_an_end_is_added,
    a_repeated_epoch_changes_nothing,
    an_epoch_does_not_begin_after_one_that_its_caller_does_not_know,
    an_epoch_does_not_begin_before_an_entry,
    of_two_epochs_that_begin_at_once_the_second_does_not,
    an_epoch_does_not_begin_once_its_caller_has_given_up,
    an_epoch_may_begin_before_any_entry,
    numbers_before_an_epoch_count_as_assigned_and_may_be_lost,
    a_commit_adds_epochs_that_are_unknown,
    the_newest_epochs_are_listed,
    an_epoch_is_found_however_old_it_is,
    runs_are_numbered_and_know_the_last_crash,
    the_deployment_has_one_id,
);

pub fn epoch(name: &str) -> Epoch {
    Epoch::trusted(name)
}

pub fn head(name: &str, seq: u64) -> Head {
    Head {
        epoch: epoch(name),
        seq,
    }
}

pub fn new(name: &str, after: u64, ends: &[Head]) -> NewEpoch {
    NewEpoch {
        epoch: epoch(name),
        after,
        run: 0,
        ends: ends.to_vec(),
        newest: None,
    }
}

/// Begins an epoch after those that the room has. Returns the ends as they are recorded.
pub async fn begin(store: &TestStore, new: NewEpoch) -> Vec<Head> {
    match store.begin_epoch("r", &new).await {
        BeginOutcome::Begun(ends) => ends,
        other => panic!("{other:?}"),
    }
}

/// Name, `after` and end of each epoch, newest first.
pub async fn known(store: &TestStore) -> Vec<(String, u64, Option<u64>)> {
    let epochs = store.room("r").await.epochs;
    let known = |epoch: ArchivedEpoch| (epoch.epoch.to_string(), epoch.after, epoch.ended);
    epochs.into_iter().map(known).collect()
}

pub fn expected(epochs: &[(&str, u64, Option<u64>)]) -> Vec<(String, u64, Option<u64>)> {
    let owned =
        |(name, after, ended): &(&str, u64, Option<u64>)| ((*name).to_owned(), *after, *ended);
    epochs.iter().map(owned).collect()
}

async fn a_new_epoch_ends_those_that_go_on(store: &TestStore) {
    store.fill("r", 1..=3).await;
    store.fill("other", 1..=3).await;
    begin(
        store,
        NewEpoch {
            run: 7,
            ..new("f", 3, &[])
        },
    )
    .await;
    let all = expected(&[("f", 3, None), ("e", 0, Some(3))]);
    assert_eq!(known(store).await, all);
    assert_eq!(store.room("r").await.epochs[0].run, 7);
    assert_eq!(store.room("other").await.epochs[0].ended, None);
    let later = ArchivedEntry {
        epoch: epoch("f"),
        ..entry(4)
    };
    store
        .commit(&in_room("r", std::slice::from_ref(&later)))
        .await;
    assert_eq!(store.all("r").await.last(), Some(&later));
    assert_eq!(known(store).await, all);
}

async fn a_recorded_end_is_lowered(store: &TestStore) {
    store.fill("r", 1..=9).await;
    begin(store, new("f", 9, &[head("e", 7)])).await;
    let all = expected(&[("f", 9, None), ("e", 0, Some(7))]);
    assert_eq!(known(store).await, all);
    begin(store, new("g", 12, &[head("f", 10), head("e", 7)])).await;
    let all = expected(&[("g", 12, None), ("f", 9, Some(10)), ("e", 0, Some(7))]);
    assert_eq!(known(store).await, all);
    let ends = [head("f", 3), head("e", 7)];
    let recorded = begin(store, new("g", 12, &ends)).await;
    assert_eq!(recorded, [head("f", 3), head("e", 3)], "none is later");
    let all = expected(&[("g", 12, None), ("f", 9, Some(3)), ("e", 0, Some(3))]);
    assert_eq!(known(store).await, all);
}

/// Two primaries share the archive: one begins an epoch while the other goes on in its own.
async fn an_epoch_that_went_on_after_its_end_ends_after_its_own_entries(store: &TestStore) {
    let commit = async |entries: &[ArchivedEntry]| store.commit(&in_room("r", entries)).await;
    store.fill("r", 1..=5).await;
    begin(store, new("f", 5, &[])).await;
    commit(&[in_epoch("e", 6), in_epoch("e", 7)]).await;
    let recorded = begin(store, new("g", 7, &[head("e", 20)])).await;
    assert_eq!(recorded, [head("e", 7)]);
    commit(&[in_epoch("e", 8), in_epoch("g", 9), in_epoch("e", 10)]).await;
    let recorded = begin(store, new("h", 10, &[head("g", 9), head("e", 10)])).await;
    assert_eq!(
        recorded,
        [head("g", 9), head("e", 8)],
        "9 is of another epoch"
    );
    commit(&[in_epoch("h", 11), in_epoch("h", 13)]).await;
    begin(store, new("i", 13, &[])).await;
    commit(&[in_epoch("h", 14), in_epoch("h", 16)]).await;
    let recorded = begin(store, new("j", 16, &[head("h", 16)])).await;
    assert_eq!(recorded, [head("h", 14)], "15 is missing");
    let epochs = known(store).await;
    assert!(epochs.contains(&("e".to_owned(), 0, Some(8))), "{epochs:?}");
}

async fn an_unknown_epoch_with_an_end_is_added(store: &TestStore) {
    begin(store, new("f", 9, &[head("e", 7), head("d", 3)])).await;
    let all = expected(&[("f", 9, None), ("e", 7, Some(7)), ("d", 3, Some(3))]);
    assert_eq!(known(store).await, all);
}

async fn a_repeated_epoch_changes_nothing(store: &TestStore) {
    begin(store, new("e", 0, &[])).await;
    begin(store, new("f", 5, &[])).await;
    begin(store, new("f", 8, &[])).await;
    let late = store.begin_epoch("r", &new("e", 8, &[])).await;
    assert_eq!(late, BeginOutcome::Superseded);
    let all = expected(&[("f", 5, None), ("e", 0, Some(5))]);
    assert_eq!(known(store).await, all);
}

/// Two nodes restore the room, and one of them is suspended after it has read the room.
async fn an_epoch_does_not_begin_after_one_that_its_caller_does_not_know(store: &TestStore) {
    store.fill("r", 1..=3).await;
    let late = NewEpoch {
        newest: Some(epoch("e")),
        ..new("late", 3, &[head("e", 2)])
    };
    begin(store, new("f", 3, &[])).await;
    store.commit(&in_room("r", &[in_epoch("f", 4)])).await;
    let all = expected(&[("f", 3, None), ("e", 0, Some(3))]);
    for after in [3, 4] {
        let late = NewEpoch {
            after,
            ..late.clone()
        };
        let outcome = store.store.begin_epoch(&room("r"), &late).await.unwrap();
        assert_eq!(outcome, BeginOutcome::Superseded);
        assert_eq!(known(store).await, all);
    }
    // Of a room that was new to the archive.
    let late = new("late", 9, &[head("x", 9)]);
    let outcome = store.store.begin_epoch(&room("r"), &late).await.unwrap();
    assert_eq!(outcome, BeginOutcome::Superseded);
    assert_eq!(known(store).await, all);
    // The log of the caller knows the newest epoch, which a commit has added meanwhile.
    let known_to_log = new("g", 4, &[head("f", 4)]);
    let outcome = store.store.begin_epoch(&room("r"), &known_to_log).await;
    assert_eq!(outcome.unwrap(), BeginOutcome::Begun(vec![head("f", 4)]));
}

async fn an_epoch_does_not_begin_before_an_entry(store: &TestStore) {
    store.fill("r", 1..=3).await;
    let before = known(store).await;
    let outcome = store.begin_epoch("r", &new("f", 2, &[head("e", 1)])).await;
    assert_eq!(outcome, BeginOutcome::Behind);
    assert_eq!(known(store).await, before);
    begin(store, new("f", 3, &[])).await;
}

async fn of_two_epochs_that_begin_at_once_the_second_does_not(store: &TestStore) {
    for round in 0..30 {
        let name = room(&format!("room {round}"));
        store.fill(name.as_str(), [1]).await;
        let rival = |rival: &str| NewEpoch {
            newest: Some(epoch("e")),
            ..new(rival, 1, &[])
        };
        let (f, g) = (rival("f"), rival("g"));
        let (first, second) = tokio::join!(
            store.store.begin_epoch(&name, &f),
            store.store.begin_epoch(&name, &g)
        );
        let mut outcomes = [first.unwrap(), second.unwrap()];
        outcomes.sort_by_key(|outcome| *outcome == BeginOutcome::Superseded);
        let expected = [BeginOutcome::Begun(Vec::new()), BeginOutcome::Superseded];
        assert_eq!(outcomes, expected, "{round}");
        assert_eq!(store.room(name.as_str()).await.epochs.len(), 2);
    }
}

/// The restore has ended at its time limit, but its transaction waits for the database.
async fn an_epoch_does_not_begin_once_its_caller_has_given_up(store: &TestStore) {
    store.fill("r", 1..=3).await;
    let before = known(store).await;
    let lock = WriteLock::take(store).await;
    let new = NewEpoch {
        newest: Some(epoch("e")),
        ..new("f", 3, &[head("e", 2)])
    };
    let name = room("r");
    let begin = store.store.begin_epoch(&name, &new);
    let begin = tokio::time::timeout(Duration::from_millis(500), begin);
    assert!(begin.await.is_err(), "it waits for the lock");
    lock.release().await;
    store.wait_until_idle().await;
    assert_eq!(known(store).await, before);
    // One that is awaited begins after the same wait.
    let lock = WriteLock::take(store).await;
    let begin = async {
        let begin = store.store.begin_epoch(&name, &new).await;
        begin.unwrap()
    };
    let release = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        lock.release().await;
    };
    let (outcome, ()) = tokio::join!(begin, release);
    assert_eq!(outcome, BeginOutcome::Begun(vec![head("e", 2)]));
}

async fn an_epoch_may_begin_before_any_entry(store: &TestStore) {
    begin(store, new("e", 0, &[])).await;
    let known = store.room("r").await;
    assert_eq!((known.first, known.oldest, known.head), (1, 1, 0));
    assert_eq!(known.epochs.len(), 1);
    store.fill("r", [1]).await;
    assert_eq!(store.room("r").await.head, 1);
    assert_eq!(store.room("r").await.epochs.len(), 1);
}

/// A restore records where the log's epoch ended, and then the log is lost with all its entries.
async fn numbers_before_an_epoch_count_as_assigned_and_may_be_lost(store: &TestStore) {
    let extent = async || {
        let room = store.room("r").await;
        (room.first, room.oldest, room.head, room.contiguous)
    };
    begin(store, new("f", 7, &[head("e", 7)])).await;
    assert_eq!(extent().await, (8, 8, 7, 0));
    store.commit(&in_room("r", &[in_epoch("e", 2)])).await;
    assert_eq!(extent().await, (2, 2, 7, 0), "others may come");
    let closed = store.store.close_holes(&room("r")).await.unwrap();
    assert_eq!(closed, [1..=1, 3..=7]);
    assert_eq!(extent().await, (2, 8, 7, 7));
    assert_eq!(store.store.close_holes(&room("r")).await.unwrap(), []);
    let audit = store.store.audit(&room("r")).await.unwrap();
    assert_eq!((audit.entries, audit.lost, audit.missing), (1, 6, vec![]));
    store.commit(&in_room("r", &[in_epoch("f", 8)])).await;
    assert_eq!(extent().await, (2, 8, 8, 7));
}

async fn a_commit_adds_epochs_that_are_unknown(store: &TestStore) {
    let mut writer = store.store.writer(4);
    let entries = [in_epoch("e", 5), in_epoch("f", 7), in_epoch("e", 6)];
    writer.commit(&in_room("r", &entries)).await.unwrap();
    let all = expected(&[("f", 6, None), ("e", 4, None)]);
    assert_eq!(known(store).await, all);
    let runs: Vec<u64> = store
        .room("r")
        .await
        .epochs
        .iter()
        .map(|epoch| epoch.run)
        .collect();
    assert_eq!(runs, [4, 4]);
    let epochs: Vec<Epoch> = store
        .all("r")
        .await
        .into_iter()
        .map(|entry| entry.epoch)
        .collect();
    assert_eq!(epochs, [epoch("e"), epoch("e"), epoch("f")]);
}

async fn the_newest_epochs_are_listed(store: &TestStore) {
    for number in 0..EPOCHS_KEPT as u64 + 5 {
        begin(store, new(&format!("e{number}"), number, &[])).await;
    }
    let epochs = store.room("r").await.epochs;
    assert_eq!(epochs.len(), EPOCHS_KEPT);
    assert_eq!(epochs[0].epoch, epoch(&format!("e{}", EPOCHS_KEPT + 4)));
    assert_eq!(epochs[EPOCHS_KEPT - 1].epoch, epoch("e5"));
}

async fn an_epoch_is_found_however_old_it_is(store: &TestStore) {
    store.fill("r", 1..=3).await;
    store.fill("other", 1..=3).await;
    for number in 0..EPOCHS_KEPT {
        begin(store, new(&format!("f{number}"), 3, &[])).await;
    }
    let listed = store.room("r").await.epochs;
    assert!(listed.iter().all(|listed| listed.epoch != epoch("e")));
    let found = async |name: &str, wanted: &str| {
        let found = store.store.epoch(&room(name), &epoch(wanted)).await;
        found.unwrap()
    };
    let first = ArchivedEpoch {
        epoch: epoch("e"),
        after: 0,
        ended: Some(3),
        run: 0,
    };
    assert_eq!(found("r", "e").await, Some(first.clone()));
    assert_eq!(found("r", "f63").await.as_ref(), listed.first());
    let open = ArchivedEpoch {
        ended: None,
        ..first
    };
    assert_eq!(found("other", "e").await, Some(open));
    assert_eq!(found("other", "f1").await, None);
    assert_eq!(found("r", "E").await, None);
    assert_eq!(found("unknown", "e").await, None);
}

pub fn in_epoch(name: &str, seq: u64) -> ArchivedEntry {
    ArchivedEntry {
        epoch: epoch(name),
        ..entry(seq)
    }
}

async fn runs_are_numbered_and_know_the_last_crash(store: &TestStore) {
    let run = |number, last_crashed| Run {
        number,
        last_crashed,
    };
    let store = &store.store;
    assert_eq!(store.begin_run().await.unwrap(), run(1, 0));
    store.end_run(1).await.unwrap();
    assert_eq!(store.begin_run().await.unwrap(), run(2, 0));
    assert_eq!(store.begin_run().await.unwrap(), run(3, 2));
    store.end_run(3).await.unwrap();
    store.end_run(3).await.unwrap();
    assert_eq!(store.begin_run().await.unwrap(), run(4, 2));
    let (first, second) = tokio::join!(store.begin_run(), store.begin_run());
    let mut numbers = [first.unwrap().number, second.unwrap().number];
    numbers.sort_unstable();
    assert_eq!(numbers, [5, 6]);
}

async fn the_deployment_has_one_id(store: &TestStore) {
    let other = hubbub::store::sql::SqlStore::open(&store.settings())
        .await
        .unwrap();
    let (first, second) = tokio::join!(store.store.deployment(), other.deployment());
    assert_eq!(first.unwrap(), second.unwrap());
}
