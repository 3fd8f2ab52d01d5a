//! Reads while the database is away.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::backplane::{BackplaneError, Slice};

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
        let Slice { entries, span } = slice.unwrap();
        assert!((22..=31).eq(entries.iter().map(|entry| entry.seq)));
        assert!(span.has_before(22));
        assert!((25..=31).eq(node.seqs(room, Window::After(24), 15).await));
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    store.set_stopped(false);
    store.set_away(false);
    node.stop().await;
}
