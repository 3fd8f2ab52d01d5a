//! Acknowledgements: when they are sent, and when an append is refused.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::backplane::{NewChange, change_record};

#[tokio::test(start_paused = true)]
async fn an_acknowledged_message_is_in_the_archive() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    let appended = node.append(&lobby(), "hi").await.unwrap();
    assert_eq!(appended.seq, 1);
    let entries = store.entries(&lobby());
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].id, entries[0].at), (appended.id, appended.at));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_has_its_position_before_its_commit() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    node.know(&lobby()).await;
    store.set_stopped(true);
    let (appended, commit) = node.place(&lobby(), "hi").await.unwrap();
    assert_eq!(appended.seq, 1);
    assert!(!commit.is_done());
    assert_eq!(node.seqs(&lobby(), Window::Newest, 10).await, [1]);
    store.set_stopped(false);
    commit.wait().await.unwrap();
    assert_eq!(store.seqs(&lobby()), [1]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_waiting_for_commits_a_message_is_acknowledged_while_the_database_is_away() {
    let store = FakeStore::new();
    let setup = Setup {
        acknowledge_commits: false,
        ..Setup::default()
    };
    let node = setup.start(&store).await;
    node.know(&lobby()).await;
    store.set_away(true);
    node.append(&lobby(), "hi").await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    node.append(&lobby(), "still here").await.unwrap();
    assert!(store.seqs(&lobby()).is_empty());
    store.set_away(false);
    node.stop().await;
    assert_eq!(store.seqs(&lobby()), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_reply_was_lost_is_repeated_and_stores_nothing_twice() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    store.lose_replies(3);
    node.append(&lobby(), "hi").await.unwrap();
    assert_eq!(store.commits(), [1, 1, 1, 1]);
    assert_eq!(store.seqs(&lobby()), [1]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_send_that_waits_too_long_is_refused_and_committed_later() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    node.know(&lobby()).await;
    store.set_stopped(true);
    let began = Instant::now();
    let refused = node.append(&lobby(), "hi").await;
    assert!(refused.is_err());
    let waited = began.elapsed();
    let expected = Duration::from_secs(4)..Duration::from_secs(5);
    assert!(expected.contains(&waited), "{waited:?}");
    let began = Instant::now();
    let refused = node.append(&lobby(), "again").await;
    assert!(refused.is_err());
    assert!(began.elapsed().is_zero(), "refused at once, unnumbered");
    store.set_stopped(false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(store.seqs(&lobby()), [1]);
    assert_eq!(node.append(&lobby(), "back").await.unwrap().seq, 2);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_backlog_refuses_appends_before_they_get_a_number() {
    let store = FakeStore::new();
    let setup = Setup {
        acknowledge_commits: false,
        backlog: 3,
        ..Setup::default()
    };
    let node = setup.start(&store).await;
    node.know(&lobby()).await;
    store.set_away(true);
    for content in ["a", "b", "c"] {
        node.append(&lobby(), content).await.unwrap();
    }
    assert!(node.append(&lobby(), "d").await.is_err());
    store.set_away(false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(node.append(&lobby(), "e").await.unwrap().seq, 4);
    node.stop().await;
    assert_eq!(store.seqs(&lobby()), [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn everything_that_queued_during_a_commit_is_the_next_one() {
    let store = FakeStore::new();
    let setup = Setup {
        history_size: 1000,
        backlog: 10_000,
        ..Setup::default()
    };
    let node = setup.start(&store).await;
    store.set_delay(Duration::from_millis(20));
    let mut commits = Vec::new();
    for number in 0..700 {
        let (_, commit) = node.place(&lobby(), &number.to_string()).await.unwrap();
        commits.push(commit);
        tokio::task::yield_now().await;
    }
    for commit in commits {
        commit.wait().await.unwrap();
    }
    assert_eq!(store.commits(), [1, 500, 199]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_commit_ends_with_the_epoch() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    node.append(&lobby(), "1").await.unwrap();
    store.set_away(true);
    let (_, second) = node.place(&lobby(), "2").await.unwrap();
    let (_, third) = node.place(&lobby(), "3").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    store.set_away(false);
    begin_epoch(&store, Epoch::fresh(), 2, &[]).await;
    second.wait().await.unwrap();
    assert!(third.wait().await.is_err());
    assert_eq!(store.seqs(&lobby()), [1, 2]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_has_waited_for_long_is_committed_up_to_the_end_of_its_epoch_only() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    node.append(&lobby(), "1").await.unwrap();
    store.set_delay(Duration::from_millis(600));
    let (_, second) = node.place(&lobby(), "2").await.unwrap();
    tokio::task::yield_now().await;
    let (_, third) = node.place(&lobby(), "3").await.unwrap();
    let (_, fourth) = node.place(&lobby(), "4").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    begin_epoch(&store, Epoch::fresh(), 3, &[]).await;
    second.wait().await.unwrap();
    third.wait().await.unwrap();
    assert!(fourth.wait().await.is_err());
    assert_eq!(store.commits(), [1, 1, 2]);
    assert_eq!(store.seqs(&lobby()), [1, 2, 3]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_archive_refuses_a_second_message_with_a_number() {
    let store = FakeStore::new();
    let ours = Setup::default().start(&store).await;
    let theirs = Setup::default().start(&store).await;
    // Both logs begin to number the room: two primaries during a partition.
    for node in [&ours, &theirs] {
        node.know(&lobby()).await;
    }
    let first = theirs.append(&lobby(), "theirs").await.unwrap();
    let (second, commit) = ours.place(&lobby(), "ours").await.unwrap();
    assert_eq!((first.seq, second.seq), (1, 1));
    commit.wait().await.unwrap_err();
    let archived = store.entries(&lobby());
    assert_eq!(archived.len(), 1);
    assert_eq!(archived[0].id, first.id);
    // The room continues from the archive.
    let next = ours.append(&lobby(), "ours again").await.unwrap();
    assert_eq!(next.seq, 2);
    assert_ne!(next.epoch, second.epoch);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_send_waits_for_the_commit_of_the_first() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    node.know(&lobby()).await;
    store.set_stopped(true);
    let first = message(&lobby(), "hi");
    let (_, lost) = node.log.place(&first, Some("k")).await.unwrap();
    drop(lost);
    store.set_stopped(false);
    let repeated = node.log.append(&message(&lobby(), "hi"), Some("k")).await;
    let repeated = repeated.unwrap();
    assert!(repeated.duplicate);
    assert_eq!((repeated.seq, repeated.id), (1, first.id));
    assert_eq!(store.seqs(&lobby()), [1]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_task_that_commits_costs_one_batch() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    node.append(&lobby(), "before").await.unwrap();
    store.panic_once();
    assert!(node.append(&lobby(), "in it").await.is_err());
    assert_eq!(node.append(&lobby(), "after").await.unwrap().seq, 3);
    assert_eq!(node.archive.shared.queue.backlog().bytes, 0);
    // The sweeper takes the entry of the batch.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(store.seqs(&lobby()), [1, 2, 3]);
    node.stop().await;
}

fn changes(count: u128) -> Vec<NewChange> {
    (0..count)
        .map(|number| {
            let id = uuid::Uuid::from_u128(number + 1);
            let fields = format!("{{\"n\":{number}}}");
            let record = change_record::encode(&lobby(), "session_ended", id, &fields);
            NewChange::complete(id, record)
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn changes_of_a_room_share_a_commit() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    let (positions, outcome) = node.log.announce_all(&lobby(), &changes(50)).await;
    assert!(positions.len() == 50 && outcome.is_ok());
    assert_eq!(store.seqs(&lobby()), (1..=50).collect::<Vec<u64>>());
    assert_eq!(store.commits(), [50]);
    // A repeat finds them.
    let (positions, outcome) = node.log.announce_all(&lobby(), &changes(50)).await;
    assert!(positions.len() == 50 && outcome.is_ok());
    assert_eq!(store.commits(), [50]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn changes_behind_one_that_is_not_committed_count_as_not_announced() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    store.refuse(Some("\"n\":2}"));
    let (positions, outcome) = node.log.announce_all(&lobby(), &changes(5)).await;
    assert_eq!(positions.len(), 2);
    assert!(outcome.is_err());
    store.refuse(None);
    let (positions, outcome) = node.log.announce_all(&lobby(), &changes(5)).await;
    assert!(positions.len() == 5 && outcome.is_ok());
    let records: Vec<_> = store
        .entries(&lobby())
        .into_iter()
        .map(|entry| entry.record)
        .collect();
    let expected: Vec<_> = changes(5).into_iter().map(|change| change.record).collect();
    assert_eq!(records, expected);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_too_large_ends_the_series_before_it() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    let mut changes = changes(3);
    changes[1].record = bytes::Bytes::from(vec![b'x'; crate::store::MAX_RECORD_BYTES + 1]);
    let (positions, outcome) = node.log.announce_all(&lobby(), &changes).await;
    assert_eq!(positions.len(), 1);
    assert!(matches!(
        outcome,
        Err(crate::backplane::BackplaneError::TooLarge)
    ));
    assert_eq!(store.seqs(&lobby()), [1]);
    node.stop().await;
}
