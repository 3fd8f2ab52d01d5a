//! Commits that come late: the fence.

use std::time::Duration;

use hubbub::domain::{Epoch, RoomId, UserId};
use hubbub::store::{
    ArchiveStore as _, ArchivedEntry, BATCH_ENTRIES, BeginOutcome, CommitOutcome, Fence,
    PositionStore as _,
};

use crate::concurrency::{Session, WriteLock, insert, wait_for_a_blocked_session};
use crate::epochs::{begin, epoch, expected, head, in_epoch, known, new};
use crate::fixture::{Conflict, Stored, TestStore, entry, in_room, room};

crate::on_every_database!(
    a_fenced_commit_refuses_entries_after_the_end_of_their_epoch,
    a_fenced_commit_accepts_what_the_archive_has,
    a_fenced_commit_may_have_500_entries_of_500_rooms,
    no_entry_of_an_epoch_comes_after_its_end_by_a_fenced_commit,
    a_late_commit_refuses_an_epoch_that_the_room_went_on_without,
    a_late_commit_adds_the_first_epoch_of_a_room,
    late_commits_of_one_new_epoch_at_once_are_all_accepted,
    a_late_commit_accepts_an_unknown_epoch_up_to_the_end_that_a_restore_recorded,
    of_a_late_commit_and_another_epoch_only_the_first_is_accepted,
    an_attempt_that_is_repeated_counts_as_late,
);

async fn a_fenced_commit_refuses_entries_after_the_end_of_their_epoch(store: &TestStore) {
    store.fill("r", 1..=2).await;
    begin(store, new("f", 3, &[])).await;
    let late = [
        in_epoch("e", 3),
        in_epoch("e", 4),
        in_epoch("f", 4),
        in_epoch("e", 5),
    ];
    let mut batch = in_room("r", &late);
    batch.extend(in_room("new", &[in_epoch("e", 4)]));
    let expected = [Stored, Conflict, Stored, Conflict, Stored];
    // The numbers of the epochs are unknown to the writer, then known.
    let mut writer = store.store.writer(0);
    for _ in 0..2 {
        assert_eq!(
            writer.commit_with(&batch, Fence::EpochEnds).await.unwrap(),
            expected
        );
    }
    let all: Vec<(u64, Epoch)> = store
        .all("r")
        .await
        .into_iter()
        .map(|entry| (entry.seq, entry.epoch))
        .collect();
    let stored = [
        (1, epoch("e")),
        (2, epoch("e")),
        (3, epoch("e")),
        (4, epoch("f")),
    ];
    assert_eq!(all, stored);
    let refused = writer
        .commit_with(&in_room("r", &late[3..]), Fence::EpochEnds)
        .await;
    assert_eq!(refused.unwrap(), [Conflict]);
    assert_eq!(writer.commit_with(&[], Fence::EpochEnds).await.unwrap(), []);
    assert_eq!(store.seqs("r").await, [1, 2, 3, 4]);
}

async fn a_fenced_commit_accepts_what_the_archive_has(store: &TestStore) {
    let all = store.fill("r", 1..=5).await;
    begin(store, new("f", 5, &[head("e", 2)])).await;
    let mut writer = store.store.writer(0);
    let outcomes = writer
        .commit_with(&in_room("r", &all), Fence::EpochEnds)
        .await
        .unwrap();
    assert_eq!(outcomes, [Stored; 5]);
    let others = in_room("r", &[entry(4), entry(6)]);
    let outcomes = writer.commit_with(&others, Fence::EpochEnds).await.unwrap();
    assert_eq!(outcomes, [Conflict, Conflict]);
    assert_eq!(store.all("r").await, all);
}

async fn a_fenced_commit_may_have_500_entries_of_500_rooms(store: &TestStore) {
    let mut writer = store.store.writer(0);
    let mut later = batch_of_rooms(1);
    for seq in [1, 2] {
        let outcomes = writer
            .commit_with(&batch_of_rooms(seq), Fence::EpochEnds)
            .await
            .unwrap();
        assert_eq!(outcomes, [Stored; BATCH_ENTRIES]);
    }
    for (_, entry) in &mut later {
        entry.seq = 3;
        entry.id = uuid::Uuid::now_v7();
    }
    let ended = later[77].0.as_str();
    store.begin_epoch(ended, &new("f", 2, &[])).await;
    let outcomes = writer.commit_with(&later, Fence::EpochEnds).await.unwrap();
    let refused: Vec<usize> = (0..BATCH_ENTRIES)
        .filter(|index| outcomes[*index] == Conflict)
        .collect();
    assert_eq!(refused, [77]);
}

/// An entry with this number in each of 500 rooms.
fn batch_of_rooms(seq: u64) -> Vec<(RoomId, ArchivedEntry)> {
    (0..BATCH_ENTRIES)
        .map(|number| (room(&format!("room {number}")), entry(seq)))
        .collect()
}

async fn no_entry_of_an_epoch_comes_after_its_end_by_a_fenced_commit(store: &TestStore) {
    let mut writer = store.store.writer(0);
    for round in 0..30 {
        let name = format!("room {round}");
        store.fill(&name, [1]).await;
        let late = in_room(&name, &[entry(2)]);
        let end = async {
            let end = new("f", 1, &[]);
            let begun = store.begin_epoch(&name, &end).await;
            (begun, store.seqs(&name).await)
        };
        let (outcomes, (begun, at_end)) =
            tokio::join!(writer.commit_with(&late, Fence::EpochEnds), end);
        let outcomes = outcomes.unwrap();
        assert_eq!(store.seqs(&name).await, at_end, "{round}: {outcomes:?}");
        let is_stored = outcomes == [Stored];
        assert_eq!(is_stored, at_end == [1, 2]);
        assert_eq!(is_stored, begun == BeginOutcome::Behind, "{round}");
    }
}

async fn commit_late(store: &TestStore, rows: &[(RoomId, ArchivedEntry)]) -> Vec<CommitOutcome> {
    let mut writer = store.store.writer(0);
    writer.commit_with(rows, Fence::KnownEpochs).await.unwrap()
}

/// Number and epoch of each entry.
async fn archived(store: &TestStore, name: &str) -> Vec<(u64, String)> {
    let all = store.all(name).await.into_iter();
    all.map(|entry| (entry.seq, entry.epoch.to_string()))
        .collect()
}

async fn a_late_commit_refuses_an_epoch_that_the_room_went_on_without(store: &TestStore) {
    store.commit(&in_room("r", &[in_epoch("f", 1)])).await;
    let lost = [in_epoch("e", 1), in_epoch("e", 2)];
    assert_eq!(
        commit_late(store, &in_room("r", &lost)).await,
        [Conflict; 2]
    );
    assert_eq!(known(store).await, expected(&[("f", 0, None)]));
    // Other entries of the commit are accepted, by a writer that has to look up their epochs, and by one
    // that knows them.
    let mut batch = in_room("r", &[in_epoch("f", 2), in_epoch("e", 3), in_epoch("f", 3)]);
    batch.extend(in_room("new", &[in_epoch("e", 1)]));
    let outcomes = [Stored, Conflict, Stored, Stored];
    let mut writer = store.store.writer(0);
    for _ in 0..2 {
        let committed = writer.commit_with(&batch, Fence::KnownEpochs).await;
        assert_eq!(committed.unwrap(), outcomes);
    }
    assert_eq!(store.seqs("new").await, [1]);
    let stored = [1, 2, 3].map(|seq| (seq, "f".to_owned()));
    assert_eq!(archived(store, "r").await, stored);
    // The present log has the entry after all.
    let adopted = writer
        .commit_with(&in_room("r", &[in_epoch("e", 4)]), Fence::EpochEnds)
        .await;
    assert_eq!(adopted.unwrap(), [Stored]);
}

async fn a_late_commit_adds_the_first_epoch_of_a_room(store: &TestStore) {
    let first = [in_epoch("e", 1), in_epoch("e", 2)];
    for _ in 0..2 {
        assert_eq!(commit_late(store, &in_room("r", &first)).await, [Stored; 2]);
    }
    assert_eq!(known(store).await, expected(&[("e", 0, None)]));
    // The log was lost between two entries of one commit.
    let lost_between = [
        in_epoch("z", 1),
        in_epoch("z", 2),
        in_epoch("a", 1),
        in_epoch("m", 1),
        in_epoch("m", 2),
    ];
    let outcomes = commit_late(store, &in_room("other", &lost_between)).await;
    assert_eq!(outcomes, [Conflict, Conflict, Conflict, Stored, Stored]);
    let stored = [1, 2].map(|seq| (seq, "m".to_owned()));
    assert_eq!(archived(store, "other").await, stored);
    assert_eq!(store.room("other").await.epochs.len(), 1);
}

async fn late_commits_of_one_new_epoch_at_once_are_all_accepted(store: &TestStore) {
    for round in 0..30 {
        let name = format!("room {round}");
        // The archive knows the room, so that the commits wait for each other where they add the epoch.
        let joined = (UserId::trusted("ann"), room(&name), 0);
        store.store.joined(&[joined]).await.unwrap();
        let rows = [1, 2, 3].map(|seq| in_room(&name, &[in_epoch("e", seq)]));
        let outcomes = tokio::join!(
            commit_late(store, &rows[0]),
            commit_late(store, &rows[1]),
            commit_late(store, &rows[2]),
        );
        let expected = ([Stored].to_vec(), [Stored].to_vec(), [Stored].to_vec());
        assert_eq!(outcomes, expected, "{round}");
        assert_eq!(store.room(&name).await.epochs.len(), 1);
    }
}

async fn a_late_commit_accepts_an_unknown_epoch_up_to_the_end_that_a_restore_recorded(
    store: &TestStore,
) {
    begin(store, new("f", 2, &[head("e", 2)])).await;
    let late = [in_epoch("e", 1), in_epoch("e", 2), in_epoch("e", 3)];
    let outcomes = commit_late(store, &in_room("r", &late)).await;
    assert_eq!(outcomes, [Stored, Stored, Conflict]);
    assert_eq!(store.seqs("r").await, [1, 2]);
}

async fn of_a_late_commit_and_another_epoch_only_the_first_is_accepted(store: &TestStore) {
    for round in 0..30 {
        let name = format!("room {round}");
        let late = in_room(&name, &[in_epoch("e", 1)]);
        let other = in_room(&name, &[in_epoch("f", 2)]);
        let (late, other) = tokio::join!(commit_late(store, &late), commit_late(store, &other));
        let outcomes = [late[0], other[0]];
        assert!(
            outcomes == [Stored, Conflict] || outcomes == [Conflict, Stored],
            "{round}: {outcomes:?}"
        );
        assert_eq!(store.room(&name).await.epochs.len(), 1);
    }
}

/// The first attempt waits for another transaction and then loses; meanwhile the epoch ends.
async fn an_attempt_that_is_repeated_counts_as_late(store: &TestStore) {
    store.fill("r", [1]).await;
    let Some(mut session) = Session::begin(store).await else {
        return a_busy_attempt_counts_as_late(store).await;
    };
    // More rows than the store's transaction has: MariaDB undoes the smaller one.
    for seq in (30..60).chain([3]) {
        session.run(&insert(store.kind(), seq)).await.unwrap();
    }
    let mut writer = store.store.writer(0);
    // The writer knows the numbers of room and epoch: its first attempt is a single statement.
    let known = store.all("r").await;
    writer.commit(&in_room("r", &known)).await.unwrap();
    // Takes 2, and waits for 3.
    let commit = tokio::spawn(async move {
        let fresh = in_room("r", &[entry(2), entry(3), entry(4)]);
        writer.commit_with(&fresh, Fence::Fresh).await
    });
    wait_for_a_blocked_session(store).await;
    let end = "UPDATE hubbub_epochs SET ended_seq = 1 WHERE room_no = 1";
    session.run(end).await.unwrap();
    // Waits for 2: a deadlock, which the store's transaction loses.
    session.run(&insert(store.kind(), 2)).await.unwrap();
    session.run("COMMIT").await.unwrap();
    let outcomes = commit.await.unwrap().unwrap();
    assert_eq!(outcomes, [Conflict, Conflict, Conflict]);
    assert!(!store.seqs("r").await.contains(&4));
}

/// Another process writes for longer than SQLite waits, and then ends the epoch.
async fn a_busy_attempt_counts_as_late(store: &TestStore) {
    let mut writer = store.store.writer(0);
    let known = store.all("r").await;
    writer.commit(&in_room("r", &known)).await.unwrap();
    let WriteLock::Sqlite(mut other) = WriteLock::take(store).await else {
        panic!("the database is another one");
    };
    let commit = tokio::spawn(async move {
        let fresh = in_room("r", &[entry(2)]);
        writer.commit_with(&fresh, Fence::Fresh).await
    });
    // SQLite waits for 5 s, then the writer makes a pause of at most 10 ms.
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    let end = "UPDATE hubbub_epochs SET ended_seq = 1; COMMIT";
    sqlx::raw_sql(end).execute(&mut other).await.unwrap();
    assert_eq!(commit.await.unwrap().unwrap(), [Conflict]);
}
