//! Numbers without an entry.

use hubbub::store::{ArchiveStore as _, ArchiveTransfer as _, Fence, RoomAudit};

use crate::fixture::{Stored, TestStore, entry, in_room, room};

crate::on_every_database!(
    a_room_without_holes_begins_at_its_first_entry,
    the_oldest_number_is_after_the_last_loss,
    holes_are_closed_once,
    a_hole_below_the_mark_is_not_looked_for,
    marks_never_fall_and_never_pass_the_head,
    an_archive_may_begin_in_the_middle_of_a_room,
    a_loss_at_the_end_moves_the_head,
    a_loss_names_only_numbers_without_an_entry,
    an_entry_may_arrive_after_its_loss,
    a_late_commit_takes_its_numbers_out_of_the_recorded_losses,
    an_audit_finds_a_row_that_was_removed,
    holes_are_found_in_a_large_room,
    many_losses_are_recorded_one_by_one,
);

async fn extent(store: &TestStore) -> (u64, u64, u64, u64) {
    let room = store.room("r").await;
    (room.first, room.oldest, room.head, room.contiguous)
}

async fn a_room_without_holes_begins_at_its_first_entry(store: &TestStore) {
    store.fill("r", 1..=9).await;
    assert_eq!(extent(store).await, (1, 1, 9, 0));
    let closed = store.store.close_holes(&room("r")).await.unwrap();
    assert_eq!(closed, []);
    assert_eq!(extent(store).await, (1, 1, 9, 9));
    store.fill("r", 10..=12).await;
    assert_eq!(extent(store).await, (1, 1, 12, 9));
    store.fill("from the middle", 5..=7).await;
    let other = store.room("from the middle").await;
    assert_eq!((other.first, other.oldest, other.head), (5, 5, 7));
    assert_eq!(store.store.close_holes(&room("x")).await.unwrap(), []);
}

async fn the_oldest_number_is_after_the_last_loss(store: &TestStore) {
    store.fill("r", [1, 2, 4, 5, 8, 9]).await;
    assert_eq!(extent(store).await, (1, 1, 9, 0), "3, 6 and 7 may come");
    store.fill("r", [6, 7]).await;
    let closed = store.store.close_holes(&room("r")).await.unwrap();
    assert_eq!(closed, [3..=3]);
    assert_eq!(extent(store).await, (1, 4, 9, 9));
    store.fill("r", [11]).await;
    assert_eq!(extent(store).await, (1, 4, 11, 9), "10 may come");
    store.store.close_holes(&room("r")).await.unwrap();
    assert_eq!(extent(store).await, (1, 11, 11, 11));
}

async fn holes_are_closed_once(store: &TestStore) {
    store.fill("r", [2, 5, 6, 9]).await;
    let closed = store.store.close_holes(&room("r")).await.unwrap();
    assert_eq!(closed, [1..=1, 3..=4, 7..=8]);
    assert_eq!(extent(store).await, (2, 9, 9, 9));
    assert_eq!(store.store.close_holes(&room("r")).await.unwrap(), []);
    store.fill("r", [10, 12]).await;
    assert_eq!(extent(store).await, (2, 9, 12, 9));
    let closed = store.store.close_holes(&room("r")).await.unwrap();
    assert_eq!(closed, [11..=11]);
}

async fn a_hole_below_the_mark_is_not_looked_for(store: &TestStore) {
    store.fill("r", [3, 4, 7]).await;
    store.store.record_loss(&room("r"), 1..=2).await.unwrap();
    store
        .store
        .mark_contiguous(&[(room("r"), 4)])
        .await
        .unwrap();
    assert_eq!(extent(store).await, (3, 3, 7, 4));
    let closed = store.store.close_holes(&room("r")).await.unwrap();
    assert_eq!(closed, [5..=6]);
    store.fill("r", [8]).await;
    store
        .store
        .mark_contiguous(&[(room("r"), 8)])
        .await
        .unwrap();
    assert_eq!(extent(store).await, (3, 7, 8, 8));
}

async fn marks_never_fall_and_never_pass_the_head(store: &TestStore) {
    store.fill("r", 1..=5).await;
    store.fill("s", 1..=5).await;
    let mark = |marks: Vec<(&'static str, u64)>| {
        let store = &store.store;
        async move {
            let marks: Vec<_> = marks
                .into_iter()
                .map(|(name, seq)| (room(name), seq))
                .collect();
            store.mark_contiguous(&marks).await.unwrap();
        }
    };
    mark(vec![("r", 4), ("s", 5), ("unknown", 3)]).await;
    mark(vec![("r", 2), ("s", 1)]).await;
    mark(vec![]).await;
    assert_eq!(extent(store).await, (1, 1, 5, 4));
    assert_eq!(store.room("s").await.contiguous, 5);
    assert_eq!(store.store.room(&room("unknown")).await.unwrap(), None);
    mark(vec![("r", 9)]).await;
    assert_eq!(extent(store).await, (1, 1, 5, 5));
}

async fn an_archive_may_begin_in_the_middle_of_a_room(store: &TestStore) {
    store.store.begin_at(&room("r"), 501).await.unwrap();
    assert_eq!(extent(store).await, (501, 501, 500, 500));
    store.fill("r", 501..=505).await;
    store.store.begin_at(&room("r"), 503).await.unwrap();
    store.store.begin_at(&room("r"), 1).await.unwrap();
    assert_eq!(extent(store).await, (501, 501, 505, 500));
    let audit = store.store.audit(&room("r")).await.unwrap();
    assert_eq!((audit.cut, audit.lost, audit.missing), (500, 0, vec![]));
    assert_eq!(store.store.close_holes(&room("r")).await.unwrap(), []);
    store.fill("s", [2, 3]).await;
    store.store.begin_at(&room("s"), 4).await.unwrap();
    let audit = store.store.audit(&room("s")).await.unwrap();
    assert_eq!((audit.cut, audit.missing), (0, vec![1..=1]));
}

async fn a_loss_at_the_end_moves_the_head(store: &TestStore) {
    store.fill("r", 1..=5).await;
    store.store.record_loss(&room("r"), 6..=8).await.unwrap();
    store.store.record_loss(&room("r"), 7..=9).await.unwrap();
    assert_eq!(extent(store).await, (1, 10, 9, 0));
    let audit = store.store.audit(&room("r")).await.unwrap();
    assert_eq!((audit.last, audit.lost, audit.missing), (5, 4, vec![]));
    store.fill("r", [10]).await;
    assert_eq!(extent(store).await, (1, 10, 10, 0));
    assert_eq!(store.store.close_holes(&room("r")).await.unwrap(), []);
    assert_eq!(extent(store).await, (1, 10, 10, 10));
    // Of a room that the archive doesn't know.
    store.store.record_loss(&room("new"), 1..=3).await.unwrap();
    let new = store.room("new").await;
    assert_eq!((new.first, new.oldest, new.head), (4, 4, 3));
}

async fn a_loss_names_only_numbers_without_an_entry(store: &TestStore) {
    store.fill("r", [1, 3, 4, 8]).await;
    store.store.record_loss(&room("r"), 2..=6).await.unwrap();
    let audit = store.store.audit(&room("r")).await.unwrap();
    assert_eq!((audit.lost, audit.missing), (3, vec![7..=7]));
    let closed = store.store.close_holes(&room("r")).await.unwrap();
    assert_eq!(closed, [7..=7]);
    let audit = store.store.audit(&room("r")).await.unwrap();
    assert_eq!((audit.lost, audit.missing), (4, vec![]));
}

async fn an_entry_may_arrive_after_its_loss(store: &TestStore) {
    store.fill("r", [1, 2, 6]).await;
    let closed = store.store.close_holes(&room("r")).await.unwrap();
    assert_eq!(closed, [3..=5]);
    assert_eq!(store.commit(&in_room("r", &[entry(4)])).await, [Stored]);
    assert_eq!(store.seqs("r").await, [1, 2, 4, 6]);
    let audit = store.store.audit(&room("r")).await.unwrap();
    assert_eq!((audit.entries, audit.lost, audit.missing), (4, 2, vec![]));
    store.fill("r", [3, 5, 8]).await;
    store.store.close_holes(&room("r")).await.unwrap();
    assert_eq!(extent(store).await, (1, 8, 8, 8));
    store.fill("r", [7]).await;
    store.store.record_loss(&room("r"), 1..=8).await.unwrap();
    assert_eq!(extent(store).await, (1, 1, 8, 8));
}

async fn a_late_commit_takes_its_numbers_out_of_the_recorded_losses(store: &TestStore) {
    store.fill("r", [1, 2, 7, 10]).await;
    store.fill("other", [1, 9]).await;
    for name in ["r", "other"] {
        store.store.close_holes(&room(name)).await.unwrap();
    }
    let lost = async |name| {
        let state = store.store.room_state(&room(name)).await.unwrap();
        state.unwrap().lost
    };
    assert_eq!(lost("r").await, [3..=6, 8..=9]);
    let mut writer = store.store.writer(0);
    let late = in_room("r", &[entry(4), entry(11)]);
    let outcomes = writer.commit_with(&late, Fence::EpochEnds).await.unwrap();
    assert_eq!(outcomes, [Stored, Stored]);
    assert_eq!(lost("r").await, [3..=3, 5..=6, 8..=9]);
    assert_eq!(extent(store).await, (1, 10, 11, 10));
    let rest: Vec<_> = [3, 5, 6, 8, 9].into_iter().map(entry).collect();
    writer
        .commit_with(&in_room("r", &rest), Fence::EpochEnds)
        .await
        .unwrap();
    assert_eq!(lost("r").await, []);
    assert_eq!(extent(store).await, (1, 1, 11, 10));
    assert_eq!(lost("other").await, [2..=8]);
}

async fn an_audit_finds_a_row_that_was_removed(store: &TestStore) {
    let entries = store.fill("r", 1..=9).await;
    store.fill("s", 1..=9).await;
    store.store.close_holes(&room("r")).await.unwrap();
    let whole = RoomAudit {
        entries: 9,
        bytes: entries.iter().map(|entry| entry.record.len() as u64).sum(),
        first: 1,
        last: 9,
        missing: vec![],
        lost: 0,
        cut: 0,
        below_one: 0,
        below_cut: 0,
    };
    assert_eq!(store.store.audit(&room("r")).await.unwrap(), whole);
    store
        .execute(
            "DELETE FROM hubbub_entries WHERE seq = 4 \
             AND room_no = (SELECT no FROM hubbub_rooms WHERE name = 'r')",
        )
        .await;
    let audit = store.store.audit(&room("r")).await.unwrap();
    assert_eq!((audit.entries, audit.missing), (8, vec![4..=4]));
    let other = store.store.audit(&room("s")).await.unwrap();
    assert_eq!((other.entries, other.missing), (9, vec![]));
    let unknown = store.store.audit(&room("x")).await.unwrap();
    assert_eq!(unknown, RoomAudit::default());
}

async fn holes_are_found_in_a_large_room(store: &TestStore) {
    // More than the keys of two pages, with holes within pages and where one ends.
    let holes = [1, 7, 9_999, 10_000, 10_001, 12_345, 22_000];
    store
        .fill("r", (1..=22_500).filter(|seq| !holes.contains(seq)))
        .await;
    let audit = store.store.audit(&room("r")).await.unwrap();
    let expected = vec![
        1..=1,
        7..=7,
        9_999..=10_001,
        12_345..=12_345,
        22_000..=22_000,
    ];
    assert_eq!(audit.entries, 22_500 - 7);
    assert_eq!(audit.missing, expected);
    assert_eq!(extent(store).await, (2, 2, 22_500, 0));
    let closed = store.store.close_holes(&room("r")).await.unwrap();
    assert_eq!(closed, expected);
    assert_eq!(extent(store).await, (2, 22_001, 22_500, 22_500));
}

async fn many_losses_are_recorded_one_by_one(store: &TestStore) {
    store.fill("r", (1..=60).filter(|seq| seq % 2 == 0)).await;
    // The oldest last, and in between an entry that was lost.
    for lost in (1..=60).rev().filter(|seq| seq % 2 == 1) {
        store
            .store
            .record_loss(&room("r"), lost..=lost)
            .await
            .unwrap();
    }
    store.fill("r", [55]).await;
    store.store.record_loss(&room("r"), 61..=61).await.unwrap();
    store.fill("r", [62]).await;
    let audit = store.store.audit(&room("r")).await.unwrap();
    assert_eq!((audit.lost, audit.missing), (30, vec![]));
    assert_eq!(extent(store).await, (2, 62, 62, 0));
    store.store.close_holes(&room("r")).await.unwrap();
    let audit = store.store.audit(&room("r")).await.unwrap();
    assert_eq!((audit.entries, audit.lost, audit.missing), (32, 30, vec![]));
}
