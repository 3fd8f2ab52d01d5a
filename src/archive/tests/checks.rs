//! The check of the archive for missing messages.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::archive::checker::attempt;

const DAY: u64 = 86_400_000;

/// Missing messages, and rooms with a wrong head, that the checks of the node have found.
fn found(node: &Node) -> (u64, u64) {
    let counters = &node.archive.shared.counters;
    (counters.gaps.get(), counters.head_mismatches.get())
}

/// A node with 45 messages in each of two rooms.
async fn filled(store: &FakeStore) -> (Node, Arc<FaultyLog>) {
    let setup = Setup {
        backlog: 10_000,
        ..Setup::default()
    };
    let (node, log) = setup.start_with_faulty_log(store).await;
    for room in [lobby(), RoomId::trusted("other")] {
        for number in 1..=45 {
            node.append(&room, &number.to_string()).await.unwrap();
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    (node, log)
}

#[tokio::test(start_paused = true)]
async fn a_check_finds_messages_that_are_missing_and_not_recorded_as_lost() {
    let store = FakeStore::new();
    let (node, _) = filled(&store).await;
    let shared = &node.archive.shared;
    assert!(attempt(shared, Timestamp(10 * DAY)).await.unwrap());
    assert_eq!(found(&node), (0, 0));
    for seq in [3, 4, 5, 11, 31, 40] {
        store.lose(&lobby(), seq);
    }
    store.record_loss(&lobby(), 4..=5).await.unwrap();
    let other = RoomId::trusted("other");
    store.lose(&other, 44);
    let far = Timestamp(Timestamp::now().0 + 2 * DAY);
    assert!(attempt(shared, far).await.unwrap());
    assert_eq!(found(&node), (5, 0));
    assert_eq!(shared.counters.checks.get(), 2);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn messages_that_wait_for_their_commit_are_not_missing() {
    let store = FakeStore::new();
    let (node, _) = filled(&store).await;
    // Another node has appended 46, and has not committed it yet.
    let waiting = message(&lobby(), "waiting");
    let record = record::encode(&waiting);
    let append = node
        .backplane
        .hot_log
        .append_record((&waiting).into(), None, record);
    assert_eq!(append.await.unwrap().seq, 46);
    node.append(&lobby(), "47").await.unwrap();
    assert_eq!(store.seqs(&lobby()).len(), 46);
    let missing = store.find_missing(&lobby(), 40).await.unwrap().missing;
    assert_eq!(missing, [46..=46]);
    let shared = &node.archive.shared;
    assert!(attempt(shared, Timestamp::now()).await.unwrap());
    assert_eq!(found(&node), (0, 0));
    node.stop().await;
}

/// As when another node commits a later message before an earlier one is committed.
#[tokio::test(start_paused = true)]
async fn a_number_that_is_missing_only_since_the_log_was_asked_is_not_judged() {
    let store = FakeStore::new();
    let (node, _) = filled(&store).await;
    store.lose(&lobby(), 41);
    // The fifth page has both; it is searched once more, and once again after the log was asked.
    store.lose_before_search(7, &lobby(), 44);
    let shared = &node.archive.shared;
    assert!(attempt(shared, Timestamp::now()).await.unwrap());
    assert!(!store.seqs(&lobby()).contains(&44));
    assert_eq!(found(&node), (1, 0));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_check_finds_a_log_that_ends_before_the_archive() {
    let store = FakeStore::new();
    let (node, log) = filled(&store).await;
    log.behind.store(1, Ordering::Relaxed);
    let shared = &node.archive.shared;
    assert!(attempt(shared, Timestamp::now()).await.unwrap());
    assert_eq!(found(&node), (0, 2));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_all_nodes_one_checks_once_a_day() {
    let store = FakeStore::new();
    let (first, _) = filled(&store).await;
    let second = Setup::default().start(&store).await;
    let now = Timestamp::now();
    assert!(attempt(&first.archive.shared, now).await.unwrap());
    let later = |millis| Timestamp(now.0 + millis);
    for (node, time, begins) in [
        (&second, later(1000), false),
        (&first, later(DAY - 60_000), false),
        (&second, later(DAY + 60_000), true),
    ] {
        let has_begun = attempt(&node.archive.shared, time).await;
        assert_eq!(has_begun.unwrap(), begins, "{time}");
    }
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_checks_some_minutes_after_its_start() {
    let store = FakeStore::new();
    let (node, _) = filled(&store).await;
    store.set_delay(Duration::from_millis(10));
    tokio::time::sleep(Duration::from_secs(250)).await;
    let checks = &node.archive.shared.counters.checks;
    assert_eq!(checks.get(), 0);
    // A step that takes 10 ms is followed by a pause of 990 ms: 2 rooms, 5 pages each.
    tokio::time::sleep(Duration::from_secs(55)).await;
    assert_eq!(checks.get(), 0);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(checks.get(), 1);
    node.stop().await;
}
