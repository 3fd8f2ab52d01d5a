//! Reads while the database is away.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::backplane::{BackplaneError, Slice};
use crate::domain::Continuity;

#[tokio::test(start_paused = true)]
async fn while_the_database_is_away_the_log_is_read_without_waiting_for_it() {
    let store = FakeStore::new();
    let setup = Setup {
        acknowledge_commits: false,
        ..Setup::default()
    };
    let node = setup.start(&store).await;
    let other = RoomId::trusted("other");
    for room in [&lobby(), &other] {
        for _ in 1..=30 {
            node.append(room, "hi").await.unwrap();
        }
    }
    // Until the log is trimmed to its size.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for room in [&lobby(), &other] {
        node.append(room, "hi").await.unwrap();
    }
    assert!((17..=31).eq(node.seqs(&lobby(), Window::Newest, 15).await));

    // It does not respond, and the node doesn't know it yet: then the node knows it.
    store.set_away(true);
    for knows in [false, true] {
        assert!((22..=31).eq(node.seqs(&lobby(), Window::Newest, 15).await));
        assert!((22..=29).eq(node.seqs(&lobby(), Window::Before(30), 15).await));
        let older = Window::Before(20);
        let from_archive = node.log.read(&lobby(), older, 5, usize::MAX).await;
        assert!(matches!(
            from_archive.unwrap_err(),
            BackplaneError::Unavailable(_)
        ));
        if !knows {
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert!(!node.log.archive_status().unwrap().is_up);
        }
    }

    // It does not respond at all.
    store.set_stopped(true);
    let began = Instant::now();
    for room in [&lobby(), &other] {
        let slice = node.log.read(room, Window::Newest, 15, usize::MAX).await;
        let Slice { entries, span, .. } = slice.unwrap();
        assert!((22..=31).eq(entries.iter().map(|entry| entry.seq)));
        assert!(span.has_before(22));
        assert!((25..=31).eq(node.seqs(room, Window::After(24), 15).await));
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    store.set_stopped(false);
    store.set_away(false);
    node.stop().await;
}

/// The span as a join sees it that asks the archive how far back it reaches.
async fn reach(node: &Node, room: &RoomId) -> crate::domain::LogSpan {
    let slice = node.backplane.log.read(room, Window::Newest, 1, 1).await;
    node.log.reach(room, slice.unwrap().span, None).await
}

#[tokio::test(start_paused = true)]
async fn a_room_is_cut_off_at_its_log_while_the_database_is_away() {
    let store = FakeStore::new();
    let setup = Setup {
        acknowledge_commits: false,
        ..Setup::default()
    };
    let node = setup.start(&store).await;
    for _ in 1..=31 {
        node.append(&lobby(), "hi").await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // An epoch that only the archive remembers.
    let ended = Head {
        epoch: Epoch::trusted("earlier"),
        seq: 29,
    };
    let current = reach(&node, &lobby()).await.head.epoch;
    begin_epoch(&store, current, 29, &[ended]).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    let reached = reach(&node, &lobby()).await;
    assert_eq!((reached.oldest, reached.is_cut_off), (1, false));
    let hot_oldest = 22;

    // The node learns that the database is away by the call itself, or knows it already.
    store.set_away(true);
    for age in [11, 0, 60] {
        tokio::time::sleep(Duration::from_secs(age)).await;
        let span = reach(&node, &lobby()).await;
        assert!(span.is_cut_off, "after {age} s");
        assert_eq!((span.oldest, span.recent), (hot_oldest, hot_oldest));
        let earlier = Epoch::trusted("earlier");
        for (epoch, seq, continuity) in [
            (None, 2, Continuity::Unreadable),
            (None, 21, Continuity::Clean),
            (Some(&earlier), 2, Continuity::Unreadable),
            (Some(&earlier), 25, Continuity::Clean),
        ] {
            assert_eq!(span.continuity(epoch, seq), continuity, "{epoch:?} {seq}");
        }
    }
    store.set_away(false);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(reach(&node, &lobby()).await.oldest, 1);
    node.stop().await;
}
