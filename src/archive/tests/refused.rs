//! Entries that the database refuses although it responds.

use std::time::Duration;

use super::*;
use crate::backplane::BackplaneError;
use crate::domain::ClientMsgId;
use crate::store::MAX_RECORD_BYTES;

/// The values of two metrics: messages that were refused, and those that still are.
fn rejected(node: &Node) -> (u64, usize) {
    let shared = &node.archive.shared;
    (shared.counters.rejected.get(), shared.refused.len())
}

/// The watermark of the room; `None` once everything is archived.
async fn watermark(node: &Node, room: &RoomId) -> Option<u64> {
    let unarchived = node.backplane.hot_log.unarchived(Duration::ZERO, 10).await;
    let rooms = unarchived.unwrap();
    let room = rooms.iter().find(|unarchived| unarchived.room == *room)?;
    Some(room.watermark)
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_database_refuses_holds_up_only_its_room() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    let other = RoomId::trusted("other");
    for room in [&lobby(), &other] {
        node.append(room, "first").await.unwrap();
    }
    // What queues during the commit of one message is the next batch.
    store.set_delay(Duration::from_millis(10));
    let (_, before) = node.place(&other, "second").await.unwrap();
    tokio::task::yield_now().await;
    store.refuse(Some("rotten"));
    let mut commits = Vec::new();
    for number in 0..20 {
        commits.push(
            (node.place(&other, &format!("good {number}")).await)
                .unwrap()
                .1,
        );
    }
    let (_, bad) = node.place(&lobby(), "rotten").await.unwrap();
    let (_, after) = node.place(&lobby(), "after").await.unwrap();
    for number in 20..40 {
        commits.push(
            (node.place(&other, &format!("good {number}")).await)
                .unwrap()
                .1,
        );
    }
    before.wait().await.unwrap();
    for commit in commits {
        commit.wait().await.unwrap();
    }
    after.wait().await.unwrap();
    let refused = bad.wait().await.unwrap_err();
    assert!(matches!(refused, BackplaneError::Unavailable(_)));
    assert_eq!(store.seqs(&lobby()), [1, 3]);
    assert_eq!(store.seqs(&other).len(), 42);
    assert_eq!(rejected(&node), (1, 1));
    // Halves of 42, 21, 11, 6, 3 and 2 entries, and the message alone.
    assert!(store.refusals() <= 7, "{}", store.refusals());

    // Time passes: it is offered again, ever less often, and counted once.
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(node.archive.shared.health.is_up());
    assert_eq!(watermark(&node, &lobby()).await, Some(1));
    assert_eq!(watermark(&node, &other).await, None);
    assert_eq!(rejected(&node), (1, 1));
    let tries = store.refusals();
    assert!((10..=40).contains(&tries), "{tries}");
    assert_eq!(node.append(&lobby(), "still").await.unwrap().seq, 4);

    store.refuse(None);
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(store.seqs(&lobby()), [1, 2, 3, 4]);
    assert_eq!(watermark(&node, &lobby()).await, None);
    assert_eq!(rejected(&node), (1, 0));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn archived_messages_after_a_refused_one_are_not_committed_again() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    node.append(&lobby(), "first").await.unwrap();
    store.refuse(Some("rotten"));
    node.append(&lobby(), "rotten").await.unwrap_err();
    for number in 0..700 {
        let appended = node.append(&lobby(), &number.to_string()).await;
        assert_eq!(appended.unwrap().seq, number + 3);
    }
    // Left by a node that died.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let left = message(&lobby(), "left");
    let record = record::encode(&left);
    let hot_log = &node.backplane.hot_log;
    hot_log
        .append_record((&left).into(), None, record)
        .await
        .unwrap();
    let refusals = store.refusals();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(store.seqs(&lobby()).last(), Some(&703));
    let offers = store.refusals() - refusals;
    assert!((5..=40).contains(&offers), "{offers}");
    let offered = node.archive.shared.counters.swept.get();
    assert!(offered <= offers as u64 + 1, "{offered} in {offers} offers");
    assert_eq!(watermark(&node, &lobby()).await, Some(1));

    store.refuse(None);
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(watermark(&node, &lobby()).await, None);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeat_of_a_refused_message_is_not_acknowledged() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    node.append(&lobby(), "first").await.unwrap();
    store.refuse(Some("rotten"));
    for _ in 0..2 {
        let refused = node
            .log
            .append(&message(&lobby(), "rotten"), Some("k"))
            .await;
        assert!(refused.is_err());
    }
    store.refuse(None);
    let repeated = node
        .log
        .append(&message(&lobby(), "rotten"), Some("k"))
        .await;
    let repeated = repeated.unwrap();
    assert_eq!((repeated.seq, repeated.duplicate), (2, true));
    assert_eq!(store.seqs(&lobby()), [1, 2]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_database_that_refuses_everything_is_reported_as_down_and_the_backlog_stays_bounded() {
    let store = FakeStore::new();
    let setup = Setup {
        acknowledge_commits: false,
        backlog: 100,
        history_size: 1000,
        ..Setup::default()
    };
    let node = setup.start(&store).await;
    node.know(&lobby()).await;
    store.refuse(Some("content"));
    let mut placed = 0;
    let mut was_down = false;
    for _ in 0..300 {
        placed += u64::from(node.append(&lobby(), "hi").await.is_ok());
        tokio::time::sleep(Duration::from_millis(20)).await;
        was_down |= !node.archive.shared.health.is_up();
    }
    assert!(was_down);
    assert!((100..=200).contains(&placed), "{placed}");
    // That it responds to checks is not enough.
    node.append(&lobby(), "one more").await.unwrap_err();
    let is_up = || node.archive.shared.health.is_up();
    while is_up() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!is_up());
    store.refuse(None);
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(store.seqs(&lobby()).len() as u64, placed);
    assert_eq!(rejected(&node).1, 0);
    assert!(node.archive.shared.health.is_up());
    node.append(&lobby(), "back").await.unwrap();
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_no_database_takes_is_refused_before_it_gets_a_number() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    let mut large = message(&lobby(), "hi");
    large.content = "\u{1}".repeat(MAX_RECORD_BYTES / 6);
    large.client_msg_id = Some(ClientMsgId::trusted("k"));
    let refused = node.log.append(&large, Some("k")).await;
    assert!(
        matches!(refused, Err(BackplaneError::TooLarge)),
        "{refused:?}"
    );
    assert_eq!(node.append(&lobby(), "small").await.unwrap().seq, 1);
    node.stop().await;
}
