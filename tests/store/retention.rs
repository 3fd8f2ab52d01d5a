//! Deleting old entries.

use hubbub::domain::{Epoch, Head, Timestamp};
use hubbub::store::{ArchiveStore as _, Fence, NewEpoch, RetentionClaim, RetentionRun};

use crate::fixture::{Conflict, Stored, TestStore, entry, in_room, room};

crate::on_every_database!(
    a_late_commit_does_not_add_what_retention_has_deleted,
    entries_expire_up_to_the_first_that_is_young,
    expired_entries_are_deleted_in_steps,
    numbering_goes_on_after_everything_was_deleted,
    losses_before_the_cut_are_forgotten,
    a_count_finds_what_would_be_deleted,
    a_run_of_retention_begins_unless_another_is_alive_or_has_done_its_work,
    old_runs_of_retention_are_forgotten,
    of_several_nodes_one_begins_a_run_of_retention,
);

/// An entry at a time.
async fn fill_at(store: &TestStore, entries: &[(u64, u64)]) {
    let entries: Vec<_> = entries
        .iter()
        .map(|(seq, at)| hubbub::store::ArchivedEntry {
            at: Timestamp(*at),
            ..entry(*seq)
        })
        .collect();
    store.commit(&in_room("r", &entries)).await;
}

async fn expired(store: &TestStore, cutoff: u64) -> Option<u64> {
    let expired = store.store.expired(&room("r"), Timestamp(cutoff)).await;
    expired.unwrap()
}

async fn entries_expire_up_to_the_first_that_is_young(store: &TestStore) {
    // The clock went back between 4 and 5.
    fill_at(store, &[(2, 100), (3, 200), (4, 500), (5, 300), (8, 600)]).await;
    assert_eq!(expired(store, 100).await, None);
    assert_eq!(expired(store, 101).await, Some(2));
    assert_eq!(expired(store, 400).await, Some(3));
    assert_eq!(expired(store, 600).await, Some(5));
    assert_eq!(expired(store, 601).await, Some(8));
    let unknown = store.store.expired(&room("x"), Timestamp(9)).await;
    assert_eq!(unknown.unwrap(), None);
    store.fill("large", 1..=10_500).await;
    let (large, cutoff) = (room("large"), Timestamp(10_400 * 1000));
    let many = store.store.expired(&large, cutoff).await;
    assert_eq!(many.unwrap(), Some(10_399));
}

async fn expired_entries_are_deleted_in_steps(store: &TestStore) {
    let entries = store.fill("r", 1..=10).await;
    store.fill("s", 1..=3).await;
    let bytes = |range: std::ops::Range<usize>| -> u64 {
        let records = entries[range].iter().map(|entry| entry.record.len() as u64);
        records.sum()
    };
    let name = room("r");
    let step = || store.store.delete_up_to(&name, 7, 4);
    assert_eq!(step().await.unwrap(), (4, bytes(0..4)));
    assert_eq!(store.seqs("r").await, (5..=10).collect::<Vec<_>>());
    let known = store.room("r").await;
    assert_eq!((known.first, known.oldest, known.head), (5, 5, 10));
    assert_eq!(step().await.unwrap(), (3, bytes(4..7)));
    assert_eq!(step().await.unwrap(), (0, 0));
    let audit = store.store.audit(&room("r")).await.unwrap();
    assert_eq!((audit.entries, audit.first, audit.cut), (3, 8, 7));
    assert_eq!((audit.missing, audit.lost), (vec![], 0));
    assert_eq!(store.seqs("s").await, [1, 2, 3]);
    assert_eq!(store.store.close_holes(&room("r")).await.unwrap(), []);
    let unknown = store.store.delete_up_to(&room("x"), 7, 4).await;
    assert_eq!(unknown.unwrap(), (0, 0));
}

async fn numbering_goes_on_after_everything_was_deleted(store: &TestStore) {
    store.fill("r", 1..=5).await;
    // Not beyond the last entry.
    let deleted = store.store.delete_up_to(&room("r"), 99, 100).await.unwrap();
    assert_eq!(deleted.0, 5);
    let known = store.room("r").await;
    assert_eq!((known.first, known.oldest, known.head), (6, 6, 5));
    let audit = store.store.audit(&room("r")).await.unwrap();
    assert_eq!((audit.first, audit.last, audit.cut), (0, 0, 5));
    store.fill("r", [6]).await;
    let known = store.room("r").await;
    assert_eq!((known.first, known.oldest, known.head), (6, 6, 6));
}

async fn losses_before_the_cut_are_forgotten(store: &TestStore) {
    store.fill("r", [1, 2, 5, 6, 9]).await;
    store.store.close_holes(&room("r")).await.unwrap();
    store.store.delete_up_to(&room("r"), 6, 100).await.unwrap();
    let audit = store.store.audit(&room("r")).await.unwrap();
    assert_eq!((audit.cut, audit.lost, audit.missing), (6, 2, vec![]));
    let known = store.room("r").await;
    assert_eq!((known.first, known.oldest, known.head), (9, 9, 9));
}

async fn a_count_finds_what_would_be_deleted(store: &TestStore) {
    store.fill("r", 1..=10).await;
    let name = room("r");
    for cut in [0, 4, 7, 99] {
        let counted = store.store.count_up_to(&name, cut).await.unwrap();
        assert_eq!(counted.0, cut.min(10), "{cut}");
    }
    let counted = store.store.count_up_to(&name, 7).await.unwrap();
    let deleted = store.store.delete_up_to(&name, 7, 100).await.unwrap();
    assert_eq!(counted, deleted);
    let unknown = store.store.count_up_to(&room("x"), 7).await;
    assert_eq!(unknown.unwrap(), (0, 0));
}

const DAY: u64 = 86_400_000;

/// A run that began at that day, with that day as its cutoff.
fn run(day: u64) -> RetentionRun {
    RetentionRun::new(Timestamp(day * DAY), Timestamp(day * DAY))
}

/// A claim that a run of the day before, or one that is alive since then, prevents.
fn claim(day: u64) -> RetentionClaim {
    RetentionClaim {
        alive_since: Timestamp((day - 1) * DAY),
        done_since: Timestamp((day - 1) * DAY),
    }
}

async fn begin(store: &TestStore, run: &RetentionRun, claim: &RetentionClaim) -> bool {
    store.store.begin_retention(run, claim).await.unwrap()
}

async fn a_run_of_retention_begins_unless_another_is_alive_or_has_done_its_work(store: &TestStore) {
    assert_eq!(store.store.last_retention().await.unwrap(), None);
    let mut first = run(100);
    assert!(begin(store, &first, &claim(100)).await);
    assert!(!begin(store, &run(101), &claim(101)).await, "it is alive");
    first.reported_at = Timestamp(110 * DAY);
    store.store.report_retention(&first).await.unwrap();
    assert!(!begin(store, &run(111), &claim(111)).await, "it is still");
    assert_eq!(store.store.last_retention().await.unwrap(), None);
    let mut second = run(112);
    assert!(
        begin(store, &second, &claim(112)).await,
        "it was interrupted"
    );
    second.finished_at = Some(Timestamp(112 * DAY + 5));
    (second.rooms, second.entries, second.bytes) = (1, 2, 3);
    store.store.report_retention(&second).await.unwrap();
    let last = store.store.last_retention().await.unwrap();
    assert_eq!(last, Some(second));
    assert!(!begin(store, &run(113), &claim(113)).await, "it is done");
    assert!(begin(store, &run(114), &claim(114)).await);
}

async fn old_runs_of_retention_are_forgotten(store: &TestStore) {
    let mut first = run(100);
    assert!(begin(store, &first, &claim(100)).await);
    first.finished_at = Some(first.started_at);
    store.store.report_retention(&first).await.unwrap();
    assert!(begin(store, &run(190), &claim(190)).await);
    assert_eq!(store.store.last_retention().await.unwrap(), Some(first));
    assert!(begin(store, &run(195), &claim(195)).await);
    assert_eq!(store.store.last_retention().await.unwrap(), None);
}

async fn of_several_nodes_one_begins_a_run_of_retention(store: &TestStore) {
    let nodes = (0..8).map(|_| {
        let store = store.store.clone();
        tokio::spawn(async move { store.begin_retention(&run(100), &claim(100)).await })
    });
    let mut begun = 0;
    for node in nodes.collect::<Vec<_>>() {
        begun += usize::from(node.await.unwrap().unwrap());
    }
    assert_eq!(begun, 1);
}

/// A number was missing when retention deleted the entries around it.
async fn a_late_commit_does_not_add_what_retention_has_deleted(store: &TestStore) {
    store.fill("r", [1, 2, 4, 5]).await;
    store.fill("other", [1, 2]).await;
    let deleted = store.store.delete_up_to(&room("r"), 5, 100).await.unwrap();
    assert_eq!(deleted.0, 4);
    let mut late = in_room("r", &[entry(3), entry(6)]);
    late.extend(in_room("other", &[entry(3)]));
    let mut writer = store.store.writer(0);
    for fence in [Fence::EpochEnds, Fence::KnownEpochs] {
        let outcomes = writer.commit_with(&late, fence).await.unwrap();
        assert_eq!(outcomes, [Stored; 3]);
    }
    assert_eq!(store.seqs("r").await, [6]);
    assert_eq!(store.seqs("other").await, [1, 2, 3]);
    let audit = store.store.audit(&room("r")).await.unwrap();
    assert_eq!((audit.cut, audit.below_cut), (5, 0));
    // After the end of its epoch it is refused, as ever.
    let end = NewEpoch {
        epoch: Epoch::trusted("f"),
        after: 6,
        run: 0,
        ends: vec![Head {
            epoch: Epoch::trusted("e"),
            seq: 2,
        }],
        newest: None,
    };
    store.begin_epoch("r", &end).await;
    let outcomes = writer.commit_with(&late[..1], Fence::EpochEnds).await;
    assert_eq!(outcomes.unwrap(), [Conflict]);
}
