//! How rooms continue that the archive, the hot log or both know.

use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::archive::entry;
use crate::backplane::{
    BackplaneError, Entry, EntryKind, HotState, RestorePoint, RestoreSource, UnarchivedEntries,
    record,
};
use crate::domain::{ClientMsgId, Epoch, Head, Timestamp};
use crate::store::{ArchivedEpoch, ArchivedRoom, CommitOutcome, EPOCHS_KEPT};

const DEDUPE_TTL: Duration = Duration::from_secs(600);

fn head(epoch: &str, seq: u64) -> Head {
    Head {
        epoch: Epoch::trusted(epoch),
        seq,
    }
}

/// Entries as the hot log has them, of an epoch, now.
fn entries(epoch: &str, seqs: impl IntoIterator<Item = u64>) -> Vec<Entry> {
    let entry = |seq: u64| Entry {
        seq,
        epoch: Epoch::trusted(epoch),
        at: Timestamp::now(),
        kind: EntryKind::Message,
        record: record::encode(&message(&lobby(), &format!("{epoch} {seq}"))),
    };
    seqs.into_iter().map(entry).collect()
}

async fn archive(store: &FakeStore, entries: &[Entry]) -> Vec<CommitOutcome> {
    archive_in_run(store, 0, entries).await
}

async fn archive_in_run(store: &FakeStore, run: u64, entries: &[Entry]) -> Vec<CommitOutcome> {
    let rows: Vec<_> = entries
        .iter()
        .cloned()
        .filter_map(entry::of_entry)
        .map(|entry| (lobby(), entry))
        .collect();
    store.writer(run).commit(&rows).await.unwrap()
}

/// A hot log that is at that head, without entries above its watermark, and with as many archived ones as
/// `watermark - oldest + 1`.
fn hot(head: Head, oldest: u64, watermark: Option<u64>) -> HotState {
    HotState {
        head,
        past: Vec::new(),
        oldest,
        watermark,
        is_stale: false,
        shared: None,
        archived: Vec::new(),
    }
}

/// The entries of a log, in pages of 100.
struct Pages(Vec<Entry>);

#[async_trait]
impl UnarchivedEntries for Pages {
    async fn next_page(&mut self) -> Result<Vec<Entry>> {
        let rest = self.0.split_off(self.0.len().min(100));
        Ok(std::mem::replace(&mut self.0, rest))
    }
}

async fn cluster(store: &FakeStore) -> Arc<Restorer> {
    let store = Arc::new(store.clone());
    Restorer::new(store, None, DEDUPE_TTL).await.unwrap()
}

async fn alone(store: &FakeStore) -> Arc<Restorer> {
    let run = store.begin_run().await.unwrap();
    let store = Arc::new(store.clone());
    Restorer::new(store, Some(run), DEDUPE_TTL).await.unwrap()
}

async fn point(restorer: &Restorer, hot: Option<&HotState>) -> RestorePoint {
    point_with(restorer, hot, Vec::new()).await
}

/// The restore point of a log that has these entries above its watermark.
async fn point_with(
    restorer: &Restorer,
    hot: Option<&HotState>,
    entries: Vec<Entry>,
) -> RestorePoint {
    try_restore(restorer, hot, entries).await.unwrap()
}

async fn try_restore(
    restorer: &Restorer,
    hot: Option<&HotState>,
    entries: Vec<Entry>,
) -> Result<RestorePoint> {
    let mut pages = Pages(entries);
    restorer.restore_point(&lobby(), hot, &mut pages).await
}

async fn archived(store: &FakeStore) -> ArchivedRoom {
    store.room(&lobby()).await.unwrap().unwrap()
}

async fn epoch(store: &FakeStore, name: &str) -> ArchivedEpoch {
    let room = archived(store).await;
    let mut epochs = room.epochs.into_iter();
    epochs.find(|epoch| epoch.epoch.as_str() == name).unwrap()
}

/// The epoch is new, and the archive knows it as the last one, from that number on.
async fn assert_new_epoch(store: &FakeStore, point: &RestorePoint, after: u64) {
    let head = point.head.as_ref().expect("a new epoch");
    assert_eq!(head.seq, after);
    let latest = archived(store).await.epochs.remove(0);
    assert_eq!(
        (latest.epoch, latest.after, latest.ended),
        (head.epoch.clone(), after, None)
    );
}

#[tokio::test]
async fn a_room_that_nothing_knows_is_new() {
    let store = FakeStore::new();
    let point = point(&*cluster(&store).await, None).await;
    assert_eq!((point.head, point.watermark), (None, 0));
    assert!(store.room(&lobby()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_log_from_before_the_archive_is_adopted_with_its_entries() {
    let store = FakeStore::new();
    let hot = hot(head("e1", 1500), 501, None);
    let point = point(&*cluster(&store).await, Some(&hot)).await;
    assert_eq!((point.head, point.watermark), (None, 500));
    assert!(point.keep_entries);
    // The archive begins there.
    archive(&store, &entries("e1", 501..=503)).await;
    let audit = store.audit(&lobby()).await.unwrap();
    assert_eq!((audit.missing, audit.lost, audit.cut), (Vec::new(), 0, 500));
    assert_eq!(archived(&store).await.oldest, 501);
}

#[tokio::test]
async fn a_stale_log_that_the_archive_does_not_know_goes_on_in_a_new_epoch() {
    let store = FakeStore::new();
    let stale = HotState {
        is_stale: true,
        past: vec![head("e0", 2)],
        ..hot(head("e1", 7), 1, Some(0))
    };
    let point = point(&*cluster(&store).await, Some(&stale)).await;
    assert_new_epoch(&store, &point, 7).await;
    assert!(point.keep_entries);
    assert_eq!(point.past, [head("e1", 7), head("e0", 2)]);
    assert_eq!(epoch(&store, "e1").await.ended, Some(7));
}

#[tokio::test]
async fn the_numbers_of_an_adopted_log_that_is_lost_before_it_is_archived_are_not_assigned_again() {
    let store = FakeStore::new();
    let restorer = cluster(&store).await;
    let stale = HotState {
        is_stale: true,
        ..hot(head("e1", 7), 1, None)
    };
    point(&restorer, Some(&stale)).await;
    let lost = point(&restorer, None).await;
    assert_new_epoch(&store, &lost, 7).await;
    assert!(lost.past.contains(&head("e1", 7)), "{:?}", lost.past);
    let audit = store.audit(&lobby()).await.unwrap();
    assert_eq!((audit.missing, audit.lost), (Vec::new(), 7));
    assert_eq!(archived(&store).await.oldest, 8);
}

#[tokio::test]
async fn an_unknown_room_goes_on_at_the_end_of_the_archive_in_a_new_epoch() {
    let store = FakeStore::new();
    archive(&store, &entries("e1", 1..=5)).await;
    let point = point(&*cluster(&store).await, None).await;
    assert_new_epoch(&store, &point, 5).await;
    assert_eq!(point.watermark, 5);
    assert!(!point.keep_entries);
    assert_eq!(point.past, [head("e1", 5)]);
    assert_eq!(epoch(&store, "e1").await.ended, Some(5));
}

#[tokio::test]
async fn a_lone_node_goes_on_in_the_same_epoch_after_a_clean_end_only() {
    let store = FakeStore::new();
    let first = alone(&store).await;
    let run = first.run().unwrap().number;
    archive_in_run(&store, run, &entries("e1", 1..=5)).await;
    store.end_run(run).await.unwrap();
    let second = alone(&store).await;
    let clean = point(&second, None).await;
    assert_eq!(clean.head, Some(head("e1", 5)));
    assert!(clean.past.is_empty());
    // The second run crashes.
    let third = alone(&store).await;
    let crashed = point(&third, None).await;
    assert_new_epoch(&store, &crashed, 5).await;
    let run = third.run().unwrap().number;
    store.end_run(run).await.unwrap();
    let fourth = alone(&store).await;
    let clean = point(&fourth, None).await;
    assert_eq!(clean.head, crashed.head, "the epoch of the third run");
}

#[tokio::test]
async fn numbers_that_neither_log_nor_archive_has_are_recorded_as_lost() {
    let store = FakeStore::new();
    archive(&store, &entries("e1", [1, 2, 5, 8])).await;
    let restorer = cluster(&store).await;
    let point = point(&restorer, None).await;
    assert_new_epoch(&store, &point, 8).await;
    let audit = store.audit(&lobby()).await.unwrap();
    assert_eq!((audit.missing, audit.lost), (Vec::new(), 4));
    let room = archived(&store).await;
    assert_eq!((room.contiguous, room.oldest), (8, 8));
    assert_eq!(restorer.counters.lost.get(), 4);
}

#[tokio::test]
async fn sends_with_keys_are_restored_newest_first_as_far_as_they_count() {
    let store = FakeStore::new();
    let mut keyed = entries("e1", 1..=4);
    for entry in &mut keyed {
        let mut message = message(&lobby(), "hi");
        if entry.seq != 3 {
            let key = format!("k{}", entry.seq);
            message.client_msg_id = Some(ClientMsgId::trusted(&key));
        }
        entry.record = record::encode(&message);
    }
    keyed[0].at = Timestamp(keyed[0].at.0 - 601_000);
    archive(&store, &keyed).await;
    let point = point(&*cluster(&store).await, None).await;
    let sends: Vec<_> = point
        .sends
        .iter()
        .map(|send| (&*send.key, send.position.seq))
        .collect();
    assert_eq!(sends, [("k4", 4), ("k2", 2)]);
}

#[tokio::test]
async fn a_log_that_was_rolled_back_goes_on_at_the_end_of_the_archive() {
    let store = FakeStore::new();
    archive(&store, &entries("e1", 1..=5)).await;
    let rolled_back = HotState {
        is_stale: true,
        ..hot(head("e1", 3), 1, Some(3))
    };
    let point = point(&*cluster(&store).await, Some(&rolled_back)).await;
    assert_new_epoch(&store, &point, 5).await;
    assert!(!point.keep_entries);
    assert_eq!(point.watermark, 5);
    // The archive has the numbers 4 and 5 of that epoch: a client that saw them continues.
    assert_eq!(point.past, [head("e1", 5)]);
}

#[tokio::test]
async fn the_epoch_of_an_old_backup_of_the_log_is_found_however_many_came_after_it() {
    let store = FakeStore::new();
    archive(&store, &entries("e1", 1..=5)).await;
    for number in 0..EPOCHS_KEPT {
        begin_epoch(&store, Epoch::trusted(&format!("f{number}")), 5, &[]).await;
    }
    let backup = HotState {
        is_stale: true,
        ..hot(head("e1", 3), 1, Some(3))
    };
    let point = point(&*cluster(&store).await, Some(&backup)).await;
    // The archive has the numbers 4 and 5 of that epoch.
    assert!(point.past.contains(&head("e1", 5)), "{:?}", point.past);
    let ended = store.epoch(&lobby(), &Epoch::trusted("e1")).await.unwrap();
    assert_eq!(ended.unwrap().ended, Some(5));
}

#[tokio::test]
async fn a_log_that_went_on_after_another_had_ended_its_epoch_shares_what_is_archived() {
    let store = FakeStore::new();
    let restorer = cluster(&store).await;
    archive(&store, &entries("e1", 1..=5)).await;
    // The other primary begins an epoch, and this one goes on: with the archive up to 9.
    begin_epoch(&store, Epoch::trusted("other"), 5, &[]).await;
    archive(&store, &entries("e1", 6..=9)).await;
    archive(&store, &entries("other", 10..=11)).await;
    // Its replica is promoted without the newest two.
    let behind = HotState {
        is_stale: true,
        past: vec![head("e0", 2)],
        ..hot(head("e1", 7), 1, Some(7))
    };
    let point = point(&restorer, Some(&behind)).await;
    assert_new_epoch(&store, &point, 11).await;
    assert!(point.past.contains(&head("e1", 9)), "{:?}", point.past);
    assert!(point.past.contains(&head("e0", 2)), "{:?}", point.past);
    assert_eq!(epoch(&store, "e1").await.ended, Some(9));
}

#[tokio::test]
async fn a_stale_log_that_is_ahead_of_the_archive_keeps_its_entries() {
    let store = FakeStore::new();
    let all = entries("e1", 1..=6);
    archive(&store, &all[..4]).await;
    let stale = HotState {
        is_stale: true,
        ..hot(head("e1", 6), 1, Some(4))
    };
    let left = all[4..].to_vec();
    let point = point_with(&*cluster(&store).await, Some(&stale), left).await;
    assert_new_epoch(&store, &point, 6).await;
    assert!(point.keep_entries);
    assert_eq!(point.watermark, 6);
    assert_eq!(point.past, [head("e1", 6)]);
}

#[tokio::test]
async fn a_log_that_was_trimmed_before_the_archive_had_it_lost_these_numbers() {
    let store = FakeStore::new();
    archive(&store, &entries("e1", 1..=4)).await;
    // It was used without an archive for a while.
    let unwatched = hot(head("e1", 20), 11, None);
    let restorer = cluster(&store).await;
    let point = point(&restorer, Some(&unwatched)).await;
    assert_eq!((point.head, point.watermark), (None, 10));
    assert!(point.keep_entries);
    let audit = store.audit(&lobby()).await.unwrap();
    assert_eq!(audit.lost, 6);
    assert_eq!(archived(&store).await.head, 10);
}

#[tokio::test]
async fn numbers_before_the_log_that_the_archive_lacks_are_recorded_as_lost() {
    let store = FakeStore::new();
    archive(&store, &entries("e1", [1, 2, 4, 5, 8, 12])).await;
    let unwatched = hot(head("e1", 20), 7, None);
    let point = point(&*cluster(&store).await, Some(&unwatched)).await;
    assert_eq!(point.watermark, 6);
    let audit = store.audit(&lobby()).await.unwrap();
    let pending = vec![7..=7, 9..=11];
    assert_eq!(
        (audit.missing, audit.lost),
        (pending, 2),
        "3 and 6 are lost"
    );
}

#[tokio::test]
async fn after_a_divergence_the_room_goes_on_from_the_archive_with_what_it_takes() {
    let store = FakeStore::new();
    archive(&store, &entries("e1", 1..=3)).await;
    begin_epoch(&store, Epoch::trusted("e2"), 3, &[]).await;
    archive(&store, &entries("e1", 4..=5)).await;
    let diverged = HotState {
        shared: Some(3),
        past: vec![head("e1", 3)],
        ..hot(head("e2", 7), 1, Some(3))
    };
    let left = entries("e2", 4..=7);
    let point = point_with(&*cluster(&store).await, Some(&diverged), left).await;
    assert_new_epoch(&store, &point, 7).await;
    assert!(!point.keep_entries);
    assert_eq!(point.past, [head("e2", 3), head("e1", 3)]);
    let texts: Vec<_> = store
        .entries(&lobby())
        .iter()
        .map(|entry| (entry.seq, entry.epoch.as_str().to_owned()))
        .collect();
    let epochs = ["e1", "e1", "e1", "e1", "e1", "e2", "e2"];
    let expected: Vec<_> = (1..).zip(epochs.map(String::from)).collect();
    assert_eq!(texts, expected);
}

#[tokio::test]
async fn a_stale_log_whose_unarchived_entries_have_taken_numbers_goes_on_from_the_archive() {
    for archived_up_to in [4, 5, 6] {
        let store = FakeStore::new();
        // Another primary has numbered 4 and on, and the archive has its entries.
        archive(&store, &entries("e1", 1..=archived_up_to)).await;
        let stale = HotState {
            is_stale: true,
            past: vec![head("e1", 3)],
            ..hot(head("e2", 5), 1, Some(3))
        };
        let left = entries("e2", 4..=5);
        let point = point_with(&*cluster(&store).await, Some(&stale), left).await;
        assert_new_epoch(&store, &point, archived_up_to.max(5)).await;
        assert!(!point.keep_entries, "{archived_up_to}");
        let ended = point.past.iter().find(|head| head.epoch.as_str() == "e2");
        assert_eq!(ended, Some(&head("e2", 3)), "{archived_up_to}");
    }
}

#[tokio::test]
async fn a_room_cannot_be_restored_while_the_database_is_away() {
    let store = FakeStore::new();
    let restorer = cluster(&store).await;
    store.set_away(true);
    let restored = try_restore(&restorer, None, Vec::new()).await;
    assert!(restored.is_err());
}

#[tokio::test]
async fn entries_of_a_stale_log_are_committed_in_parts_of_limited_size() {
    let store = FakeStore::new();
    archive(&store, &entries("e1", 1..=1)).await;
    let mut left = entries("e1", 2..=801);
    for entry in &mut left {
        entry.record = record::encode(&message(&lobby(), &"x".repeat(10_000)));
    }
    let stale = HotState {
        is_stale: true,
        ..hot(head("e1", 801), 1, Some(1))
    };
    point_with(&*cluster(&store).await, Some(&stale), left).await;
    assert_eq!(store.seqs(&lobby()).len(), 801);
    assert!(store.commits().iter().all(|entries| *entries <= 104));
}

#[tokio::test]
async fn a_message_that_the_database_refuses_does_not_prevent_a_restore() {
    let store = FakeStore::new();
    let mut all = entries("e1", 1..=300);
    archive(&store, &all[..4]).await;
    all[9].record = record::encode(&message(&lobby(), "rotten"));
    store.refuse(Some("rotten"));
    let stale = HotState {
        is_stale: true,
        archived: vec![201..=300],
        ..hot(head("e1", 300), 1, Some(4))
    };
    let left = all[4..200].to_vec();
    let point = point_with(&*cluster(&store).await, Some(&stale), left).await;
    assert_new_epoch(&store, &point, 300).await;
    assert!(point.keep_entries);
    assert_eq!(point.watermark, 9);
    assert_eq!(store.seqs(&lobby()).len(), 199);
}

#[tokio::test]
async fn a_database_that_refuses_everything_prevents_a_restore() {
    let store = FakeStore::new();
    let all = entries("e1", 1..=40);
    archive(&store, &all[..4]).await;
    store.refuse(Some("content"));
    let stale = HotState {
        is_stale: true,
        ..hot(head("e1", 40), 1, Some(4))
    };
    let left = all[4..].to_vec();
    let restored = try_restore(&*cluster(&store).await, Some(&stale), left).await;
    assert!(restored.is_err());
    assert!(store.refusals() < 20, "{}", store.refusals());
}

#[tokio::test]
async fn restores_that_run_at_the_same_time_share_a_writer() {
    let store = FakeStore::new();
    let restorer = cluster(&store).await;
    let first = restorer.writer();
    assert!(Arc::ptr_eq(&first, &restorer.writer()));
    let weak = Arc::downgrade(&first);
    drop(first);
    assert!(weak.upgrade().is_none());
    drop(restorer.writer());
}

#[tokio::test]
async fn ranges_that_the_archive_has_raise_the_watermark_of_a_restored_room() {
    let store = FakeStore::new();
    let all = entries("e1", 1..=9);
    archive(&store, &all).await;
    let stale = HotState {
        is_stale: true,
        archived: vec![5..=6, 8..=9],
        ..hot(head("e1", 9), 1, Some(2))
    };
    for (left, watermark) in [(vec![3, 4, 7], 9), (vec![3, 4], 6), (vec![4, 7], 2)] {
        let left: Vec<_> = left
            .iter()
            .map(|seq: &usize| all[seq - 1].clone())
            .collect();
        let point = point_with(&*cluster(&store).await, Some(&stale), left).await;
        assert_eq!(point.watermark, watermark);
    }
}

/// A log that had expired, and was used without the archive from 1 on.
#[tokio::test]
async fn messages_of_a_log_that_was_used_without_the_archive_do_not_replace_archived_ones() {
    for last in [6, 10, 14] {
        let store = FakeStore::new();
        archive(&store, &entries("e1", 1..=10)).await;
        let unwatched = hot(head("x", last), 1, None);
        let left = entries("x", 1..=last);
        let point = point_with(&*cluster(&store).await, Some(&unwatched), left).await;
        assert_new_epoch(&store, &point, last.max(10)).await;
        assert!(!point.keep_entries);
        // A client that saw them is notified.
        assert!(point.past.contains(&head("x", 0)), "{:?}", point.past);
        assert_eq!(epoch(&store, "x").await.ended, Some(0));
        let archived = store.entries(&lobby());
        let of_log = archived.iter().filter(|entry| entry.epoch.as_str() == "x");
        let survivors: Vec<_> = of_log.map(|entry| entry.seq).collect();
        assert_eq!(survivors, (11..=last).collect::<Vec<_>>());
        let audit = store.audit(&lobby()).await.unwrap();
        assert_eq!((audit.missing, audit.lost), (Vec::new(), 0));
    }
}

/// As above, but the log has been trimmed: no entry of it shows that the numbers are others.
#[tokio::test]
async fn an_unknown_epoch_that_began_below_the_end_of_the_archive_shares_nothing_with_it() {
    let store = FakeStore::new();
    archive(&store, &entries("e1", 1..=10)).await;
    let unwatched = HotState {
        past: vec![head("x", 15)],
        ..hot(head("y", 20), 14, None)
    };
    let mut left = entries("x", 14..=15);
    left.extend(entries("y", 16..=20));
    let point = point_with(&*cluster(&store).await, Some(&unwatched), left).await;
    assert_new_epoch(&store, &point, 20).await;
    assert!(!point.keep_entries);
    assert!(point.past.contains(&head("y", 20)), "{:?}", point.past);
    assert!(point.past.contains(&head("x", 0)), "{:?}", point.past);
    let audit = store.audit(&lobby()).await.unwrap();
    assert_eq!((audit.missing, audit.lost), (Vec::new(), 3));
    assert_eq!(archived(&store).await.head, 20);
}

#[tokio::test]
async fn a_log_that_went_on_without_the_archive_is_archived_and_goes_on() {
    let store = FakeStore::new();
    archive(&store, &entries("e1", 1..=10)).await;
    let unwatched = HotState {
        past: vec![head("e1", 12)],
        ..hot(head("x", 15), 11, None)
    };
    let mut left = entries("e1", 11..=12);
    left.extend(entries("x", 13..=15));
    let point = point_with(&*cluster(&store).await, Some(&unwatched), left).await;
    assert_eq!((point.head, point.watermark), (None, 15));
    assert!(point.keep_entries);
    assert_eq!(store.seqs(&lobby()), (1..=15).collect::<Vec<_>>());
    assert_eq!(epoch(&store, "x").await.ended, None);
}

/// A restore that has read the room, and then waits for longer than another one takes.
#[tokio::test]
async fn a_restore_that_another_one_has_overtaken_changes_nothing() {
    let store = FakeStore::new();
    archive(&store, &entries("e1", 1..=5)).await;
    let restorer = cluster(&store).await;
    store.hold_next_begin();
    let delayed = tokio::spawn({
        let restorer = restorer.clone();
        async move { try_restore(&restorer, None, Vec::new()).await }
    });
    store.begin_is_held().await;
    begin_epoch(&store, Epoch::trusted("e2"), 5, &[]).await;
    archive(&store, &entries("e2", 6..=7)).await;
    let before = archived(&store).await;
    store.release_begin();
    let error = delayed.await.unwrap().unwrap_err();
    assert!(matches!(error, BackplaneError::Unavailable(_)), "{error}");
    assert_eq!(archived(&store).await, before);
    // The next restore takes the room as it is.
    let point = point(&restorer, None).await;
    assert_new_epoch(&store, &point, 7).await;
}

#[tokio::test]
async fn a_restore_during_which_messages_are_committed_decides_anew() {
    let store = FakeStore::new();
    let all = entries("e1", 1..=5);
    archive(&store, &all).await;
    let restorer = cluster(&store).await;
    let stale = HotState {
        is_stale: true,
        ..hot(head("e1", 5), 1, Some(5))
    };
    store.hold_next_begin();
    let restore = tokio::spawn({
        let (restorer, stale) = (restorer.clone(), stale.clone());
        async move { try_restore(&restorer, Some(&stale), Vec::new()).await }
    });
    store.begin_is_held().await;
    archive(&store, &entries("e1", 6..=8)).await;
    store.release_begin();
    let point = restore.await.unwrap().unwrap();
    assert_new_epoch(&store, &point, 8).await;
    assert!(!point.keep_entries);
    assert_eq!(point.past, [head("e1", 8)]);
    assert_eq!(archived(&store).await.epochs.len(), 2);
}

/// The first decision has committed the log's entries, by which the archive knows their epochs.
#[tokio::test]
async fn a_restore_that_decides_anew_remembers_which_epochs_it_did_not_know() {
    let store = FakeStore::new();
    archive(&store, &entries("e1", 1..=10)).await;
    let restorer = cluster(&store).await;
    let unwatched = HotState {
        past: vec![head("x", 15)],
        ..hot(head("y", 20), 14, None)
    };
    let mut left = entries("x", 14..=15);
    left.extend(entries("y", 16..=20));
    store.hold_next_begin();
    let restore = tokio::spawn({
        let restorer = restorer.clone();
        async move { try_restore(&restorer, Some(&unwatched), left).await }
    });
    store.begin_is_held().await;
    archive(&store, &entries("e1", 21..=21)).await;
    store.release_begin();
    let point = restore.await.unwrap().unwrap();
    assert_new_epoch(&store, &point, 21).await;
    assert!(!point.keep_entries);
    assert!(point.past.contains(&head("x", 0)), "{:?}", point.past);
}

#[tokio::test]
async fn a_restore_that_decides_anew_remembers_the_conflicts_of_its_commits() {
    let store = FakeStore::new();
    archive(&store, &entries("e1", 1..=5)).await;
    let restorer = cluster(&store).await;
    let stale = HotState {
        is_stale: true,
        past: vec![head("e1", 3)],
        ..hot(head("e2", 5), 1, Some(3))
    };
    store.hold_next_begin();
    let restore = tokio::spawn({
        let (restorer, left) = (restorer.clone(), entries("e2", 4..=5));
        async move { try_restore(&restorer, Some(&stale), left).await }
    });
    store.begin_is_held().await;
    archive(&store, &entries("e1", 6..=8)).await;
    store.release_begin();
    let point = restore.await.unwrap().unwrap();
    assert_new_epoch(&store, &point, 8).await;
    assert!(point.past.contains(&head("e2", 3)), "{:?}", point.past);
}
