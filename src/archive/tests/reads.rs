//! Log and archive read as one, wherever an entry is.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::archive::rooms::Rooms;
use crate::backplane::{BackplaneError, Entry};
use crate::domain::{Continuity, LogSpan};
use crate::store::EPOCHS_KEPT;

/// An event of a room or its node.
#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    /// The watermark is reported, and the log trimmed.
    Wait,
    /// Retention deletes that part of the room, in percent.
    Delete(u64),
    StopAndStart,
    CrashAndStart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_usize..12).prop_map(Step::Append),
        2 => Just(Step::Wait),
        1 => (0_u64..=100).prop_map(Step::Delete),
        1 => Just(Step::StopAndStart),
        1 => Just(Step::CrashAndStart),
    ]
}

/// The room as it should be read.
#[derive(Default)]
struct Model {
    /// Every acknowledged message that was not deleted, in order.
    kept: Vec<Appended>,
    head: u64,
}

impl Model {
    fn page(&self, window: Window, limit: usize) -> Vec<Appended> {
        let kept = self.kept.iter();
        let mut page: Vec<_> = match window {
            Window::After(seq) => {
                return kept
                    .filter(|kept| kept.seq > seq)
                    .take(limit)
                    .cloned()
                    .collect();
            }
            Window::Before(seq) => kept
                .filter(|kept| kept.seq < seq)
                .rev()
                .take(limit)
                .collect(),
            Window::Newest => kept.rev().take(limit).collect(),
        };
        page.reverse();
        page.into_iter().cloned().collect()
    }
}

async fn take(step: &Step, node: &mut Node, store: &FakeStore, model: &mut Model) {
    match step {
        Step::Append(count) => {
            for _ in 0..*count {
                let appended = node.append(&lobby(), "hello").await.unwrap();
                assert_eq!(appended.seq, model.head + 1, "numbering goes on");
                model.head = appended.seq;
                model.kept.push(appended);
            }
        }
        Step::Wait => tokio::time::sleep(Duration::from_millis(300)).await,
        Step::Delete(percent) => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let cut = model.head * percent / 100;
            node.backplane.hot_log.trim(&lobby(), cut).await.unwrap();
            store.delete_up_to(&lobby(), cut, 1000).await.unwrap();
            node.archive.shared.rooms.forget(&lobby());
            model.kept.retain(|kept| kept.seq > cut);
        }
        Step::StopAndStart => {
            node.archive.stop().await;
            *node = Setup::default().start(store).await;
        }
        Step::CrashAndStart => *node = Setup::default().start(store).await,
    }
}

async fn check(node: &Node, model: &Model) {
    let last = model.head + 2;
    let windows = (0..=last)
        .flat_map(|seq| [Window::After(seq), Window::Before(seq)])
        .chain([Window::Newest]);
    for window in windows {
        for limit in [1, 3, 8, 1000] {
            let slice = node.log.read(&lobby(), window, limit, usize::MAX).await;
            let slice = slice.unwrap();
            let read: Vec<_> = slice.entries.iter().map(position).collect();
            let page = model.page(window, limit);
            let expected: Vec<_> = page
                .into_iter()
                .map(|kept| (kept.seq, kept.epoch))
                .collect();
            assert_eq!(read, expected, "{window:?}, at most {limit}");
            check_span(&slice.span, model);
        }
    }
}

fn position(entry: &Entry) -> (u64, Epoch) {
    (entry.seq, entry.epoch.clone())
}

fn check_span(span: &LogSpan, model: &Model) {
    let first = model.kept.first().map_or(model.head + 1, |kept| kept.seq);
    assert_eq!(
        (span.head.seq, span.oldest, span.first),
        (model.head, first, first)
    );
    assert!(!span.is_cut_off);
    // A client continues without a gap, from any message that it has seen last.
    for seen in &model.kept {
        let continuity = span.continuity(Some(&seen.epoch), seen.seq);
        assert_eq!(continuity, Continuity::Clean, "{seen:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn log_and_archive_read_as_one(steps in prop::collection::vec(step(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = FakeStore::new();
            let mut node = Setup::default().start(&store).await;
            let mut model = Model::default();
            for step in &steps {
                take(step, &mut node, &store, &mut model).await;
                check(&node, &model).await;
            }
        });
    }
}

/// A client was away while the room went through many epochs.
#[tokio::test(start_paused = true)]
async fn a_client_resumes_in_an_epoch_that_is_older_than_those_that_are_listed() {
    let store = FakeStore::new();
    let rows: Vec<_> = (1..=40)
        .map(|seq| (lobby(), entry(&lobby(), seq)))
        .collect();
    store.writer(0).commit(&rows).await.unwrap();
    for number in 0..EPOCHS_KEPT + 5 {
        let epoch = Epoch::trusted(&format!("epoch {number}"));
        begin_epoch(&store, epoch, 40, &[]).await;
    }
    let node = Setup::default().start(&store).await;
    let room = lobby();
    let span = async |seen: &Epoch| {
        let newest = node.backplane.log.read(&room, Window::Newest, 1, 1).await;
        node.log
            .reach(&room, newest.unwrap().span, Some(seen))
            .await
    };
    let first = Epoch::trusted("e1");
    let reached = span(&first).await;
    assert_eq!(reached.continuity(Some(&first), 30), Continuity::Clean);
    assert_eq!(
        reached.continuity(Some(&first), 41),
        Continuity::Lost {
            last_shared: Some(40)
        }
    );
    let unknown = Epoch::trusted("unknown");
    let reached = span(&unknown).await;
    assert_eq!(
        reached.continuity(Some(&unknown), 30),
        Continuity::Lost { last_shared: None }
    );
    // Also where the log has all messages since 1.
    let all = LogSpan {
        oldest: 1,
        first: 1,
        ..reached
    };
    let reached = node.log.reach(&lobby(), all, Some(&first)).await;
    assert_eq!(reached.continuity(Some(&first), 30), Continuity::Clean);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_ends_at_its_number_of_bytes_across_log_and_archive() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    for number in 10..50 {
        node.append(&lobby(), &number.to_string()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let size = store.entries(&lobby())[0].record.len();
    for window in [Window::After(20), Window::Before(40), Window::Newest] {
        for (bytes, expected) in [(1, 1), (size, 1), (size * 5 + size / 2, 5), (size * 15, 15)] {
            let slice = node.log.read(&lobby(), window, 100, bytes).await.unwrap();
            assert_eq!(slice.entries.len(), expected, "{window:?}, {bytes} bytes");
        }
    }
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_database_is_away_the_log_is_read_alone_and_says_so() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    for number in 0..40 {
        node.append(&lobby(), &number.to_string()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    store.set_away(true);
    let room = lobby();
    let read = |window, limit| node.log.read(&room, window, limit, usize::MAX);
    let newest = read(Window::Newest, 5).await.unwrap();
    assert_eq!(newest.entries.len(), 5);
    assert!(newest.span.is_cut_off);
    assert_eq!(newest.span.continuity(None, 3), Continuity::Unreadable);
    assert!(read(Window::Before(20), 5).await.is_err());
    store.set_away(false);
    let archived = read(Window::Before(20), 5).await.unwrap();
    assert_eq!(archived.entries.len(), 5);
    assert!(!archived.span.is_cut_off);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_with_a_broken_message_is_refused_for_good() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    for _ in 1..=30 {
        node.append(&lobby(), "hi").await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    node.append(&lobby(), "hi").await.unwrap();
    assert!((1..=31).eq(node.seqs(&lobby(), Window::After(0), 31).await));
    store.set_record(&lobby(), 9, "null");
    for (window, limit) in [
        (Window::After(0), 31),
        (Window::After(8), 1),
        (Window::Before(10), 1),
    ] {
        let read = node.log.read(&lobby(), window, limit, usize::MAX).await;
        let error = read.unwrap_err();
        assert!(matches!(error, BackplaneError::Unreadable(_)), "{error}");
        assert!(error.to_string().contains("message 9:"), "{error}");
    }
    // Pages without it are read.
    assert!((1..=8).eq(node.seqs(&lobby(), Window::After(0), 8).await));
    assert!((10..=14).eq(node.seqs(&lobby(), Window::Before(15), 5).await));
    // Of a page that reaches into the log, that part is better than none.
    assert!((22..=30).eq(node.seqs(&lobby(), Window::Before(31), 25).await));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_another_node_has_recorded_ends_a_page() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    for number in 1..=40 {
        node.append(&lobby(), &number.to_string()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.seqs(&lobby(), Window::After(0), 3).await, [1, 2, 3]);
    store.lose(&lobby(), 10);
    store.record_loss(&lobby(), 10..=10).await.unwrap();
    // What comes before the loss is delivered; the next read shows it.
    assert_eq!(
        node.seqs(&lobby(), Window::After(5), 20).await,
        [6, 7, 8, 9]
    );
    let (room, window) = (lobby(), Window::After(9));
    let slice = node.log.read(&room, window, 3, usize::MAX).await.unwrap();
    let seqs: Vec<u64> = slice.entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, [11, 12, 13]);
    assert_eq!((slice.span.oldest, slice.span.first), (11, 1));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_room_that_was_forgotten_while_it_was_read_is_read_again() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    for number in 1..=20 {
        node.append(&lobby(), &number.to_string()).await.unwrap();
    }
    let rooms = Rooms::default();
    let read = async || {
        let room = rooms.get(&store, &lobby(), 1).await.unwrap();
        room.map_or(0, |room| room.first)
    };
    store.set_delay(Duration::from_millis(10));
    let forget = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        rooms.forget(&lobby());
    };
    let (first, ()) = tokio::join!(read(), forget);
    assert_eq!(first, 1);
    store.delete_up_to(&lobby(), 5, 100).await.unwrap();
    assert_eq!(read().await, 6);
    node.stop().await;
}
