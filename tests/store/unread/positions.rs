//! Positions of users in rooms.

use std::time::Duration;

use hubbub::domain::{RoomId, UserId};
use hubbub::store::{
    ArchiveStore as _, ArchivedEntry, Fence, NewPosition, Outbox, OutboxRow, PositionStore,
    ReadPosition, StoredKind, Unread,
};

use hubbub_test_support::database::DatabaseKind;

use crate::fixture::{TestStore, entry, in_room, room};

crate::on_every_database!(
    a_position_is_raised_and_set,
    one_row_announces_the_positions_of_a_second,
    a_row_has_nothing_to_announce_without_its_position,
    a_position_that_cannot_be_counted_holds_up_no_other,
    positions_hold_up_no_other_row,
    many_calls_at_once_leave_one_row,
    a_room_that_the_archive_does_not_know_has_positions,
    a_user_without_an_account_adds_no_room,
    only_the_first_join_sets_a_position,
    a_count_ends_at_a_thousand,
    a_message_that_mentions_a_user_twice_counts_once,
    a_missing_number_holds_up_the_projection_of_new_entries,
    clocks_that_differ_lose_no_message,
    a_late_message_is_counted_whatever_its_time,
    numbers_that_are_lost_hold_up_a_projection_for_a_minute_together,
    readers_are_those_that_have_read_so_far,
);

fn position(user: &str, name: &str, seq: u64) -> NewPosition {
    NewPosition {
        user: UserId::trusted(user),
        room: room(name),
        seq,
        hidden_seq: 0,
        has_feed: true,
    }
}

async fn raise(test: &TestStore, position: &NewPosition) -> ReadPosition {
    // The archive has a call of the same name.
    PositionStore::read(&test.store, position).await.unwrap()
}

fn exactly(count: u64) -> Unread {
    Unread {
        count,
        is_capped: false,
    }
}

async fn unread_in(test: &TestStore, user: &str, name: &str) -> Unread {
    let user = UserId::trusted(user);
    let found = test.store.unread_in(&user, &[room(name)]).await.unwrap();
    found[0].unread
}

async fn a_position_is_raised_and_set(test: &TestStore) {
    test.fill("r", 1..=10).await;
    let read = raise(test, &position("bob", "r", 4)).await;
    assert_eq!(
        (read.last_read_seq, read.unread, read.has_moved),
        (4, exactly(6), true)
    );
    let lower = raise(test, &position("bob", "r", 3)).await;
    assert_eq!((lower.last_read_seq, lower.has_moved), (4, false));
    let set = test.store.set(&position("bob", "r", 2)).await.unwrap();
    assert_eq!(
        (set.last_read_seq, set.unread, set.has_moved),
        (2, exactly(8), true)
    );
    let own = raise(test, &position("ann", "r", 1)).await;
    assert_eq!(own.unread, exactly(0));
    let without = NewPosition {
        has_feed: false,
        ..position("guest", "r", 5)
    };
    raise(test, &without).await;
    // Each of the two users with a feed has one row.
    assert_eq!(test.store.list(0, 10).await.unwrap().len(), 2);
}

const LEASE: Duration = Duration::from_secs(60);
const BOB: &str = "0190b0b0-0000-7000-8000-000000000b0b";

/// Claims the positions that are due. Their feeds and payloads.
async fn claimed(test: &TestStore) -> Vec<OutboxRow> {
    test.store.claim_positions(100, LEASE).await.unwrap()
}

fn payloads(rows: &[OutboxRow]) -> Vec<&str> {
    rows.iter().map(|row| row.payload.as_str()).collect()
}

async fn wait(test: &TestStore) -> Duration {
    test.store.next_due_position().await.unwrap().unwrap()
}

async fn one_row_announces_the_positions_of_a_second(test: &TestStore) {
    test.fill("r", 1..=10).await;
    for seq in 1..=4 {
        raise(test, &position(BOB, "r", seq)).await;
    }
    // The first after a quiet second is due at once, with the newest position.
    assert_eq!(wait(test).await, Duration::ZERO);
    let first = claimed(test).await;
    let expected = r#"{"target_room_id":"r","last_read_seq":4,"unread":6}"#;
    assert_eq!(payloads(&first), [expected]);
    let room = first[0].room.as_ref().unwrap();
    assert_eq!(room.as_str(), format!("user:{BOB}"));
    assert_eq!(first[0].kind, "read");
    // The next ones don't change the row that was claimed. They have a row that is due later.
    raise(test, &position(BOB, "r", 5)).await;
    test.store.set(&position(BOB, "r", 2)).await.unwrap();
    raise(test, &position(BOB, "s", 1)).await;
    let other = claimed(test).await;
    let expected = r#"{"target_room_id":"s","last_read_seq":1,"unread":0}"#;
    assert_eq!(
        payloads(&other),
        [expected],
        "another room waits for nothing"
    );
    let later = wait(test).await;
    assert!(
        !later.is_zero() && later <= Duration::from_secs(1),
        "{later:?}"
    );
    test.execute("UPDATE hubbub_outbox SET due_at = due_at - 1000")
        .await;
    // They wait for the first one, which may be published later.
    assert_eq!(claimed(test).await, []);
    let done = async |rows: &[OutboxRow]| {
        let claims: Vec<_> = rows.iter().map(OutboxRow::claim).collect();
        Outbox::done(&test.store, &claims).await.unwrap();
    };
    done(&first).await;
    let second = claimed(test).await;
    let expected = r#"{"target_room_id":"r","last_read_seq":2,"unread":8}"#;
    assert_eq!(payloads(&second), [expected]);
    done(&[other, second].concat()).await;
    assert_eq!(test.store.list(0, 10).await.unwrap().len(), 0);
    assert_eq!(test.store.next_due_position().await.unwrap(), None);
}

async fn a_row_has_nothing_to_announce_without_its_position(test: &TestStore) {
    test.fill("r", 1..=3).await;
    raise(test, &position(BOB, "r", 1)).await;
    test.execute("DELETE FROM hubbub_positions").await;
    assert_eq!(claimed(test).await, []);
    assert_eq!(test.store.list(0, 10).await.unwrap().len(), 0);
}

async fn a_position_that_cannot_be_counted_holds_up_no_other(test: &TestStore) {
    test.fill("r", 1..=3).await;
    test.fill("s", 1..=3).await;
    while test.store.project_unread(&[room("r")]).await.unwrap() {}
    let other = BOB.replace("b0b", "b0c");
    raise(test, &position(BOB, "r", 1)).await;
    raise(test, &position(&other, "s", 1)).await;
    raise(test, &position(BOB, "s", 2)).await;
    // Damaged.
    let nothing = match test.kind() {
        DatabaseKind::Sqlite => "x''",
        _ => "''",
    };
    test.execute(&format!("UPDATE hubbub_unread_blocks SET map = {nothing}"))
        .await;
    let rows = claimed(test).await;
    let expected = [
        r#"{"target_room_id":"s","last_read_seq":1,"unread":2}"#,
        r#"{"target_room_id":"s","last_read_seq":2,"unread":1}"#,
    ];
    assert_eq!(payloads(&rows), expected);
    let states = test.store.list(0, 10).await.unwrap();
    let given_up: Vec<bool> = states.iter().map(|state| state.has_failed).collect();
    assert_eq!(given_up, [true, false, false]);
}

async fn positions_hold_up_no_other_row(test: &TestStore) {
    test.fill("r", 1..=3).await;
    raise(test, &position(BOB, "r", 1)).await;
    let feed = format!("user:{BOB}");
    for (room, kind) in [("r", "message_deleted"), (&feed, "session_ended")] {
        test.execute(&format!(
            "INSERT INTO hubbub_outbox (room_id, type, payload) VALUES ('{room}', '{kind}', '{{}}')"
        ))
        .await;
    }
    let positions = claimed(test).await;
    assert_eq!(positions.len(), 1);
    // Also not in the same feed, while another worker publishes the position.
    let others = test.store.claim(100, LEASE).await.unwrap();
    let mut kinds: Vec<&str> = others.iter().map(|row| row.kind.as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["message_deleted", "session_ended"]);
    raise(test, &position(BOB, "s", 1)).await;
    let next = test.store.next_due().await.unwrap();
    assert!(next > Some(LEASE / 2), "those that are claimed: {next:?}");
    assert_eq!(test.store.claim(100, LEASE).await.unwrap(), []);
    assert_eq!(claimed(test).await.len(), 1);
}

/// Each position is announced: by the row that is there, or by one that is added.
async fn many_calls_at_once_leave_one_row(test: &TestStore) {
    test.fill("r", 1..=40).await;
    let mut calls = Vec::new();
    for seq in 1..=40 {
        let store = test.store.clone();
        calls.push(tokio::spawn(async move {
            PositionStore::read(&store, &position(BOB, "r", seq)).await
        }));
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let rows = claimed(test).await;
    let expected = r#"{"target_room_id":"r","last_read_seq":40,"unread":0}"#;
    assert_eq!(payloads(&rows), [expected]);
}

async fn a_message_that_mentions_a_user_twice_counts_once(test: &TestStore) {
    let record = serde_json::json!({"content": "x", "mentions": ["@channel", "bob"]});
    let message = ArchivedEntry {
        record: record.to_string().into(),
        ..entry(2)
    };
    test.commit(&in_room("r", &[entry(1), message])).await;
    raise(test, &position("bob", "r", 1)).await;
    let bob = UserId::trusted("bob");
    let found = test.store.unread_in(&bob, &[room("r")]).await.unwrap();
    assert_eq!((found[0].mentions, found[0].unread), (1, exactly(1)));
}

async fn a_room_that_the_archive_does_not_know_has_positions(test: &TestStore) {
    let joined = [
        (UserId::trusted("bob"), room("new"), 3),
        (UserId::trusted("bob"), room("other"), 0),
    ];
    test.store.joined(&joined).await.unwrap();
    let read = raise(test, &position("cyd", "third", 2)).await;
    assert_eq!((read.last_read_seq, read.unread), (2, exactly(0)));
    let mut found = test.store.unread(&UserId::trusted("bob")).await.unwrap();
    found.sort_by(|one, other| one.room.cmp(&other.room));
    let found: Vec<_> = found
        .iter()
        .map(|room| (room.room.as_str(), room.last_read_seq))
        .collect();
    assert_eq!(found, [("new", 3), ("other", 0)]);
    test.fill("new", 1..=5).await;
    assert_eq!(unread_in(test, "bob", "new").await, exactly(2));
}

async fn a_user_without_an_account_adds_no_room(test: &TestStore) {
    let guest = NewPosition {
        has_feed: false,
        ..position("guest", "new", 0)
    };
    assert_eq!(raise(test, &guest).await, ReadPosition::default());
    let set = test.store.set(&guest).await.unwrap();
    assert_eq!(set, ReadPosition::default());
    assert_eq!(test.store.room(&room("new")).await.unwrap(), None);
}

async fn only_the_first_join_sets_a_position(test: &TestStore) {
    test.fill("r", 1..=5).await;
    let mut joined: Vec<_> = (0..450)
        .map(|number| (UserId::trusted(&format!("u{number}")), room("r"), 5))
        .collect();
    test.store.joined(&joined).await.unwrap();
    for join in &mut joined {
        join.2 = 2;
    }
    test.store.joined(&joined).await.unwrap();
    test.store.joined(&[]).await.unwrap();
    test.fill("r", 6..=8).await;
    assert_eq!(unread_in(test, "u449", "r").await, exactly(3));
    assert_eq!(test.store.list(0, 10).await.unwrap().len(), 0);
}

async fn a_count_ends_at_a_thousand(test: &TestStore) {
    test.fill("r", 1..=1001).await;
    let joined = [(UserId::trusted(BOB), room("r"), 0)];
    test.store.joined(&joined).await.unwrap();
    let capped = Unread {
        count: 1000,
        is_capped: true,
    };
    for _ in 0..2 {
        assert_eq!(unread_in(test, BOB, "r").await, capped);
        test.store.set(&position(BOB, "r", 1)).await.unwrap();
        assert_eq!(unread_in(test, BOB, "r").await, exactly(1000));
        let back = test.store.set(&position(BOB, "r", 0)).await.unwrap();
        assert_eq!(back.unread, capped);
        while test.store.project_unread(&[room("r")]).await.unwrap() {}
    }
    let rows = claimed(test).await;
    let payload = r#"{"target_room_id":"r","last_read_seq":0,"unread":1000,"capped":true}"#;
    assert_eq!(payloads(&rows), [payload]);
}

async fn a_missing_number_holds_up_the_projection_of_new_entries(test: &TestStore) {
    let now = hubbub::domain::Timestamp::now();
    let at = |seq| ArchivedEntry {
        at: now,
        ..entry(seq)
    };
    test.commit(&in_room("r", &[at(1), at(3)])).await;
    let joined = [(UserId::trusted("bob"), room("r"), 0)];
    test.store.joined(&joined).await.unwrap();
    test.store.project_unread(&[room("r")]).await.unwrap();
    assert_eq!(unread_in(test, "bob", "r").await, exactly(2));
    // A fresh commit, which does not look at the projection.
    test.commit(&in_room("r", &[at(2)])).await;
    assert_eq!(unread_in(test, "bob", "r").await, exactly(3));
    test.store.project_unread(&[room("r")]).await.unwrap();
    let change = ArchivedEntry {
        kind: StoredKind::CHANGE,
        user: UserId::nobody(),
        ..at(4)
    };
    test.commit(&in_room("r", &[change, at(5)])).await;
    assert_eq!(unread_in(test, "bob", "r").await, exactly(4));
}

/// Messages that were numbered so many milliseconds ago, by the clock of a log that differs.
fn numbered(ago: i64, seqs: &[u64]) -> Vec<(RoomId, ArchivedEntry)> {
    let now = hubbub::domain::Timestamp::now().0;
    let at = hubbub::domain::Timestamp(now.saturating_add_signed(-ago));
    let entry = |seq: &u64| ArchivedEntry { at, ..entry(*seq) };
    in_room("r", &seqs.iter().map(entry).collect::<Vec<_>>())
}

async fn project(test: &TestStore) {
    while test.store.project_unread(&[room("r")]).await.unwrap() {}
}

/// The missing numbers of the room have been missing for a minute more.
async fn a_minute_later(test: &TestStore) {
    test.execute("UPDATE hubbub_unread_rooms SET seen_at = seen_at - 60000")
        .await;
    project(test).await;
}

async fn projected(test: &TestStore) -> Vec<String> {
    let text = "SELECT CAST(projected_seq AS CHAR(5)) FROM hubbub_unread_rooms";
    let lines = test.lines(text).await;
    lines.iter().map(|line| line.trim().to_owned()).collect()
}

async fn clocks_that_differ_lose_no_message(test: &TestStore) {
    let joined = [(UserId::trusted("bob"), room("r"), 0)];
    test.commit(&numbered(90_000, &[1, 3])).await;
    test.store.joined(&joined).await.unwrap();
    project(test).await;
    assert_eq!(projected(test).await, ["1"]);
    // A first attempt, which does not look at the projection.
    test.commit(&numbered(90_000, &[2])).await;
    project(test).await;
    assert_eq!(projected(test).await, ["3"]);
    assert_eq!(unread_in(test, "bob", "r").await, exactly(3));
}

async fn a_late_message_is_counted_whatever_its_time(test: &TestStore) {
    let joined = [(UserId::trusted("bob"), room("r"), 0)];
    test.commit(&numbered(-90_000, &[1, 3, 5])).await;
    test.store.joined(&joined).await.unwrap();
    project(test).await;
    // It is not passed yet, but may be before the transaction ends.
    test.execute("UPDATE hubbub_unread_rooms SET seen_at = seen_at - 50000")
        .await;
    let late = |seq| numbered(-90_000, &[seq]);
    let mut writer = test.store.writer(0);
    writer
        .commit_with(&late(2), Fence::EpochEnds)
        .await
        .unwrap();
    a_minute_later(test).await;
    assert_eq!(projected(test).await, ["5"]);
    assert_eq!(unread_in(test, "bob", "r").await, exactly(4));
    writer
        .commit_with(&late(4), Fence::EpochEnds)
        .await
        .unwrap();
    project(test).await;
    assert_eq!(unread_in(test, "bob", "r").await, exactly(5));
}

async fn numbers_that_are_lost_hold_up_a_projection_for_a_minute_together(test: &TestStore) {
    test.commit(&numbered(0, &[1, 3, 5, 7, 8])).await;
    project(test).await;
    assert_eq!(projected(test).await, ["1"]);
    test.commit(&numbered(0, &[10])).await;
    a_minute_later(test).await;
    assert_eq!(projected(test).await, ["8"], "9 was not missing then");
    a_minute_later(test).await;
    assert_eq!(projected(test).await, ["10"]);
    // Old entries need no such time.
    test.commit(&numbered(4_000_000, &[20])).await;
    project(test).await;
    assert_eq!(projected(test).await, ["20"]);
}

async fn readers_are_those_that_have_read_so_far(test: &TestStore) {
    for (user, seq) in [("bob", 4), ("ann", 5), ("cyd", 3), ("zoë", 9)] {
        raise(test, &position(user, "r", seq)).await;
    }
    let readers = |after: Option<&'static str>, limit| async move {
        let after = after.map(UserId::trusted);
        let room = room("r");
        let found = test.store.readers(&room, 4, after.as_ref(), limit).await;
        let found = found.unwrap();
        let reader = |(user, seq, _): &(UserId, u64, _)| (user.as_str().to_owned(), *seq);
        found.iter().map(reader).collect::<Vec<_>>()
    };
    let pair = |user: &str, seq| (user.to_owned(), seq);
    assert_eq!(readers(None, 2).await, [pair("ann", 5), pair("bob", 4)]);
    assert_eq!(readers(Some("bob"), 2).await, [pair("zoë", 9)]);
    let unknown = test.store.readers(&room("x"), 0, None, 5).await.unwrap();
    assert_eq!(unknown.len(), 0);
}
