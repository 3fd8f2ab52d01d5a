//! Deleting old entries.

use hubbub::domain::Timestamp;
use hubbub::store::{ArchiveStore as _, RetentionReport};
use uuid::Uuid;

use crate::fixture::{TestStore, entry, in_room, room};

crate::on_every_database!(
    entries_expire_up_to_the_first_that_is_young,
    expired_entries_are_deleted_in_steps,
    numbering_goes_on_after_everything_was_deleted,
    losses_before_the_cut_are_forgotten,
    reports_are_saved_under_their_id,
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

async fn reports_are_saved_under_their_id(store: &TestStore) {
    let begun = |started_at| RetentionReport {
        id: Uuid::new_v4(),
        started_at: Timestamp(started_at),
        finished_at: None,
        cutoff: Timestamp(100),
        rooms: 0,
        entries: 0,
        bytes: 0,
    };
    let (first, second) = (begun(1000), begun(2000));
    store.store.save_retention_report(&first).await.unwrap();
    store.store.save_retention_report(&second).await.unwrap();
    let finished = RetentionReport {
        finished_at: Some(Timestamp(1500)),
        rooms: 2,
        entries: 30,
        bytes: 4000,
        ..first
    };
    for _ in 0..2 {
        store.store.save_retention_report(&finished).await.unwrap();
    }
    let reports = store.store.retention_reports(10).await.unwrap();
    assert_eq!(reports, [second.clone(), finished]);
    assert_eq!(store.store.retention_reports(1).await.unwrap(), [second]);
}
