//! Commits that come late: the room may have gone on without their entries.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::archive::sweeper;
use crate::backplane::Unarchived;
use crate::domain::{ClientMsgId, Head};

/// The first epoch of a new room is in the log only, until the first commit.
#[tokio::test(start_paused = true)]
async fn a_message_that_is_sent_again_after_a_new_room_was_lost_is_archived_once() {
    for acknowledge_commits in [true, false] {
        let store = FakeStore::new();
        let setup = Setup {
            acknowledge_commits,
            ..Setup::default()
        };
        let (node, log) = setup.start_with_faulty_log(&store).await;
        node.know(&lobby()).await;
        store.set_stopped(true);
        let mut z = message(&lobby(), "z");
        z.client_msg_id = Some(ClientMsgId::trusted("z"));
        let mut commits = Vec::new();
        for content in ["x", "y"] {
            commits.push(node.place(&lobby(), content).await.unwrap().1);
        }
        commits.push(node.log.place(&z, Some("z")).await.unwrap().1);
        for commit in commits {
            assert_eq!(commit.wait().await.is_err(), acknowledge_commits);
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        store.set_away(true);
        store.set_stopped(false);
        // The commit is repeated after ever longer pauses: the next one is after those that follow here.
        tokio::time::sleep(Duration::from_millis(400)).await;

        // Redis loses all data, and this node and another one go on with what it has then.
        store.set_away(false);
        let other = setup.start(&store).await;
        log.replace(other.backplane.hot_log.clone());
        let mut again = message(&lobby(), "z");
        again.client_msg_id = Some(ClientMsgId::trusted("z"));
        let repeated = other.log.append(&again, Some("z")).await.unwrap();
        assert_eq!((repeated.seq, repeated.duplicate), (1, false));
        tokio::time::sleep(Duration::from_secs(3)).await;
        let archived = store.entries(&lobby());
        let ids: Vec<_> = archived.iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [again.id], "only one of the two");
        assert_eq!(node.archive.shared.counters.conflicts.get(), 3);

        // The room goes on in its epoch.
        let next = node.append(&lobby(), "next").await.unwrap();
        assert_eq!((next.seq, next.epoch), (2, repeated.epoch));
        node.stop().await;
        other.stop().await;
        assert_eq!(store.seqs(&lobby()), [1, 2]);
    }
}

/// A log that was used without an archive has epochs that the archive doesn't know.
#[tokio::test(start_paused = true)]
async fn swept_entries_of_an_unknown_epoch_are_committed_however_late() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    node.know(&lobby()).await;
    let message = message(&lobby(), "hi");
    let record = record::encode(&message);
    let hot = &node.backplane.hot_log;
    let left = hot
        .append_record((&message).into(), None, record)
        .await
        .unwrap();
    archive_in_other_epoch(&store, 5).await;
    let other = RoomId::trusted("other");
    node.know(&other).await;
    store.set_stopped(true);
    let (_, before) = node.place(&other, "first").await.unwrap();
    tokio::task::yield_now().await;
    let unarchived = Unarchived {
        room: lobby(),
        head: left.seq,
        watermark: 0,
        archived: Vec::new(),
    };
    let swept = sweeper::sweep(&node.archive.shared, &unarchived).await;
    swept.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.set_stopped(false);
    before.wait().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(store.seqs(&lobby()), [1, 5]);
    assert_eq!(node.archive.shared.counters.conflicts.get(), 0);
}

/// The sweeper has read an entry in the log, and the room moves on before the commit.
#[tokio::test(start_paused = true)]
async fn swept_entries_after_the_end_of_their_epoch_are_refused_at_once() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    let first = node.append(&lobby(), "1").await.unwrap();
    let message = message(&lobby(), "2");
    let record = record::encode(&message);
    let hot = &node.backplane.hot_log;
    let left = hot
        .append_record((&message).into(), None, record)
        .await
        .unwrap();
    begin_epoch(&store, Epoch::fresh(), first.seq, &[]).await;
    let unarchived = Unarchived {
        room: lobby(),
        head: left.seq,
        watermark: first.seq,
        archived: Vec::new(),
    };
    let swept = sweeper::sweep(&node.archive.shared, &unarchived).await;
    swept.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(store.seqs(&lobby()), [1]);
    assert!(node.archive.shared.counters.conflicts.get() > 0);
    node.stop().await;
}

/// The restore knew the lost log's epoch, and recorded where it ended.
#[tokio::test(start_paused = true)]
async fn late_messages_before_the_recorded_end_of_a_new_rooms_epoch_are_archived() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    node.know(&lobby()).await;
    store.set_away(true);
    let (first, first_commit) = node.place(&lobby(), "1").await.unwrap();
    let (_, second_commit) = node.place(&lobby(), "2").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    store.set_away(false);
    let ended = Head {
        epoch: first.epoch,
        seq: 1,
    };
    begin_epoch(&store, Epoch::fresh(), 1, &[ended]).await;
    first_commit.wait().await.unwrap();
    second_commit.wait().await.unwrap_err();
    assert_eq!(store.seqs(&lobby()), [1]);
}

/// The room moves on between the append and its reply.
#[tokio::test(start_paused = true)]
async fn an_entry_whose_append_took_long_is_committed_up_to_the_end_of_its_epoch_only() {
    let store = FakeStore::new();
    let (node, log) = Setup::default().start_with_faulty_log(&store).await;
    node.append(&lobby(), "1").await.unwrap();
    log.reply_delay.store(1000, Ordering::Relaxed);
    let moved_on = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        begin_epoch(&store, Epoch::fresh(), 1, &[]).await;
    };
    let room = lobby();
    let (placed, ()) = tokio::join!(node.place(&room, "2"), moved_on);
    placed.unwrap().1.wait().await.unwrap_err();
    assert_eq!(store.seqs(&lobby()), [1]);
    node.stop().await;
}

/// Archives a message with this number, of another epoch than the log's.
async fn archive_in_other_epoch(store: &FakeStore, seq: u64) {
    let row = (lobby(), entry(&lobby(), seq));
    store.writer(0).commit(&[row]).await.unwrap();
}
