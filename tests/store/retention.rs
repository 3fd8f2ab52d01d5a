//! Deleting old entries.

use hubbub::domain::{Epoch, Head, Timestamp};
use hubbub::store::{
    ArchiveStore as _, DeletedPart, Fence, NewEpoch, RetentionClaim, RetentionRun,
};

use crate::fixture::{Conflict, Stored, TestStore, entry, in_room, room};

crate::on_every_database!(
    a_late_commit_does_not_add_what_retention_has_deleted,
    entries_expire_up_to_the_first_that_is_young,
    expired_entries_are_deleted_in_steps,
    a_step_deletes_few_rows_of_other_tables,
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
    let part = |entries, bytes, has_more| DeletedPart {
        entries,
        bytes,
        has_more,
    };
    assert_eq!(step().await.unwrap(), part(4, bytes(0..4), true));
    assert_eq!(store.seqs("r").await, (5..=10).collect::<Vec<_>>());
    let known = store.room("r").await;
    assert_eq!((known.first, known.oldest, known.head), (5, 5, 10));
    assert_eq!(step().await.unwrap(), part(3, bytes(4..7), false));
    assert_eq!(step().await.unwrap(), part(0, 0, false));
    let audit = store.store.audit(&room("r")).await.unwrap();
    assert_eq!((audit.entries, audit.first, audit.cut), (3, 8, 7));
    assert_eq!((audit.missing, audit.lost), (vec![], 0));
    assert_eq!(store.seqs("s").await, [1, 2, 3]);
    assert_eq!(store.store.close_holes(&room("r")).await.unwrap(), []);
    let unknown = store.store.delete_up_to(&room("x"), 7, 4).await;
    assert_eq!(unknown.unwrap(), part(0, 0, false));
}

/// Rows of a table for each of the messages 1 to 4.
async fn fill_table(store: &TestStore, into: &str, row: fn(u64, u64) -> String) {
    let counts = [(1, 3), (2, 30), (3, 2), (4, 9)];
    let rows = counts
        .into_iter()
        .flat_map(|(seq, count)| (0..count).map(move |index| row(seq, index)));
    store.insert(into, rows).await;
}

async fn count(store: &TestStore, table: &str) -> u64 {
    let text = format!("SELECT CAST(COUNT(*) AS CHAR(9)) FROM {table}");
    store.lines(&text).await[0].trim().parse().unwrap()
}

async fn a_step_deletes_few_rows_of_other_tables(store: &TestStore) {
    store.fill("r", 1..=6).await;
    let reactions = "hubbub_reactions (room_no, seq, emoji, user_id, at)";
    fill_table(store, reactions, |seq, user| {
        format!("(1, {seq}, 'e{}', 'u{user}', 1)", user % 3)
    })
    .await;
    let mentions = "hubbub_mentions (room_no, seq, user_id, author_id)";
    fill_table(store, mentions, |seq, user| {
        format!("(1, {seq}, 'u{user}', 'ann')")
    })
    .await;
    let positions = "hubbub_thread_positions (room_no, root_seq, read_seq, user_id)";
    fill_table(store, positions, |seq, user| {
        format!("(1, {seq}, 9, 'u{user}')")
    })
    .await;
    let tables = [
        "hubbub_reactions",
        "hubbub_mentions",
        "hubbub_thread_positions",
    ];
    let (mut entries, mut steps) = (Vec::new(), 0);
    loop {
        let mut before = Vec::new();
        for table in tables {
            before.push(count(store, table).await);
        }
        let part = store.store.delete_up_to(&room("r"), 5, 2).await.unwrap();
        steps += 1;
        assert!(steps < 20);
        entries.push(part.entries);
        for (table, before) in tables.into_iter().zip(before) {
            let deleted = before - count(store, table).await;
            assert!(deleted <= 10, "{table}: {deleted}");
        }
        let first = store.seqs("r").await[0];
        assert_eq!(store.room("r").await.first, first);
        if !part.has_more {
            break;
        }
    }
    // The message 2 takes two steps by itself, and goes with a third one.
    assert_eq!(entries, [1, 0, 0, 1, 1, 2, 0]);
    assert_eq!(store.seqs("r").await, [6]);
    for table in tables {
        assert_eq!(count(store, table).await, 0, "{table}");
    }
}

async fn numbering_goes_on_after_everything_was_deleted(store: &TestStore) {
    store.fill("r", 1..=5).await;
    // Not beyond the last entry.
    let deleted = store.store.delete_up_to(&room("r"), 99, 100).await.unwrap();
    assert_eq!(deleted.entries, 5);
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
    assert_eq!(counted, (deleted.entries, deleted.bytes));
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
    assert_eq!(deleted.entries, 4);
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
