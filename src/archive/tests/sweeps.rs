//! Unarchived entries, and the watermarks of the hot log.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;

/// Appends messages behind the archive's back, as a node does that then dies.
async fn leave_unarchived(node: &Node, room: &RoomId, count: usize) -> Vec<Appended> {
    let mut appended = Vec::new();
    for number in 0..count {
        let message = message(room, &number.to_string());
        let record = record::encode(&message);
        let append = node
            .backplane
            .hot_log
            .append_record((&message).into(), None, record);
        appended.push(append.await.unwrap());
    }
    appended
}

/// The watermark of the room; `None` once everything is archived.
async fn watermark(node: &Node) -> Option<u64> {
    let unarchived = node.backplane.hot_log.unarchived(Duration::ZERO, 10).await;
    let rooms = unarchived.unwrap();
    assert!(rooms.len() <= 1);
    rooms.first().map(|room| room.watermark)
}

#[tokio::test(start_paused = true)]
async fn messages_that_a_node_left_unarchived_are_committed() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    let room = lobby();
    node.append(&room, "archived").await.unwrap();
    let left = leave_unarchived(&node, &room, 25).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(store.seqs(&room), [1]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let archived = store.entries(&room);
    let ids: Vec<_> = archived.iter().skip(1).map(|entry| entry.id).collect();
    let expected: Vec<_> = left.iter().map(|appended| appended.id).collect();
    assert_eq!(ids, expected);
    assert_eq!(watermark(&node).await, None);
    assert_eq!(node.archive.shared.counters.swept.get(), 25);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopping_lone_node_commits_what_its_senders_left() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    leave_unarchived(&node, &lobby(), 3).await;
    node.stop().await;
    assert_eq!(store.seqs(&lobby()), [1, 2, 3]);
    let next = Setup::default().start(&store).await;
    let appended = next.append(&lobby(), "next").await.unwrap();
    let before = &store.entries(&lobby())[2];
    assert_eq!((appended.seq, &appended.epoch), (4, &before.epoch));
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn numbers_that_the_log_no_longer_has_are_recorded_as_lost() {
    let store = FakeStore::new();
    let setup = Setup::default();
    let (node, log) = setup.start_with_faulty_log(&store).await;
    leave_unarchived(&node, &lobby(), 8).await;
    log.lost_up_to.store(5, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(store.seqs(&lobby()), [6, 7, 8]);
    let audit = store.audit(&lobby()).await.unwrap();
    assert_eq!((audit.lost, audit.missing), (5, Vec::new()));
    assert_eq!(watermark(&node).await, None);
    assert_eq!(node.append(&lobby(), "next").await.unwrap().seq, 9);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_report_that_failed_is_repeated() {
    let store = FakeStore::new();
    let (node, log) = Setup::default().start_with_faulty_log(&store).await;
    log.refuses_reports.store(true, Ordering::Relaxed);
    for content in ["a", "b", "c"] {
        node.append(&lobby(), content).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    log.refuses_reports.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(watermark(&node).await, None);
    assert_eq!(node.archive.shared.counters.swept.get(), 0);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_log_keeps_what_is_not_archived_and_trims_the_rest() {
    let store = FakeStore::new();
    let setup = Setup {
        acknowledge_commits: false,
        history_size: 5,
        ..Setup::default()
    };
    let node = setup.start(&store).await;
    node.know(&lobby()).await;
    store.set_away(true);
    for number in 0..20 {
        node.append(&lobby(), &number.to_string()).await.unwrap();
    }
    let oldest = async |window| {
        let hot = &node.backplane.hot_log;
        hot.read(&lobby(), window, 1, usize::MAX)
            .await
            .unwrap()
            .span
            .oldest
    };
    assert_eq!(oldest(Window::Newest).await, 1);
    store.set_away(false);
    tokio::time::sleep(Duration::from_secs(3)).await;
    node.append(&lobby(), "one more").await.unwrap();
    assert_eq!(oldest(Window::Newest).await, 17);
    assert_eq!(node.seqs(&lobby(), Window::After(0), 100).await.len(), 21);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn each_thousand_of_a_room_is_marked_in_the_archive() {
    let store = FakeStore::new();
    let setup = Setup {
        acknowledge_commits: false,
        backlog: 10_000,
        ..Setup::default()
    };
    let node = setup.start(&store).await;
    for (up_to, marked) in [(990, 0), (1010, 1010), (1500, 1010), (2000, 2000)] {
        let known = store.seqs(&lobby()).len();
        for _ in known..up_to {
            node.append(&lobby(), "hi").await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let room = store.room(&lobby()).await.unwrap().unwrap();
        assert_eq!((room.head, room.contiguous), (up_to as u64, marked));
    }
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopping_node_marks_how_far_its_rooms_are_complete() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    let rooms: Vec<RoomId> = (0..1200).map(|n| RoomId::trusted(&n.to_string())).collect();
    for room in &rooms {
        node.append(room, "first").await.unwrap();
        node.append(room, "second").await.unwrap();
    }
    node.stop().await;
    for room in &rooms {
        let archived = store.room(room).await.unwrap().unwrap();
        assert_eq!((archived.head, archived.contiguous), (2, 2), "{room}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_diverged_room_is_restored_although_nothing_uses_it() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    let first = node.append(&lobby(), "hi").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(watermark(&node).await, None);
    let hot = &node.backplane.hot_log;
    hot.diverged(&lobby(), &first.epoch, 0).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(store.room(&lobby()).await.unwrap().unwrap().epochs.len(), 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let epochs = store.room(&lobby()).await.unwrap().unwrap().epochs;
    assert_eq!((epochs.len(), epochs[1].ended), (2, Some(0)));
    assert_eq!(watermark(&node).await, None);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lone_node_does_not_continue_an_epoch_that_has_diverged() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    let first = node.append(&lobby(), "hi").await.unwrap();
    let hot = node.backplane.hot_log.clone();
    hot.diverged(&lobby(), &first.epoch, 0).await.unwrap();
    // This finds the room too.
    assert_eq!(watermark(&node).await, Some(0));
    node.stop().await;
    let next = Setup::default().start(&store).await;
    let appended = next.append(&lobby(), "next").await.unwrap();
    assert_eq!(appended.seq, 2);
    assert_ne!(appended.epoch, first.epoch);
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_report_that_is_dropped_is_made_again() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    let appended = node.append(&lobby(), "hi").await.unwrap();
    let shared = &node.archive.shared;
    let (hot, watermarks) = (&shared.hot, &shared.watermarks);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for room in ["a", "b"] {
        watermarks.add_lost(&RoomId::trusted(room), &appended.epoch, 2..=3);
    }
    let held = FaultyLog::new(hot.clone());
    held.holds_reports.store(true, Ordering::Relaxed);
    let held: Arc<dyn crate::backplane::HotLog> = held;
    {
        let mut report = Box::pin(watermarks.report(&held, &store));
        assert!(futures_util::poll!(&mut report).is_pending());
    }
    assert_eq!(watermarks.waiting(), 2);
    node.stop().await;
}
