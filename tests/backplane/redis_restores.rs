//! Redis with an archive behind it: rooms that are restored after a loss of data, or because Redis has
//! forgotten them.

use std::time::Duration;

use futures_util::future::join_all;
use hubbub::backplane::redis::connect;
use hubbub::backplane::{Appended, BackplaneLimits, BusTopic, RestorePoint, RestoredSend, Window};
use hubbub::domain::{ChangeKind, Continuity};

use crate::fixture::{
    DEADLINE, Recorder, append_message, connect_and_join, eventually, limits, message, room, seqs,
    settings, user,
};
use crate::hot_log::{append_many, archived, diverge, span, watermark};
use crate::presence::room_changes;
use crate::redis_archive::{LOG, NUMBERING, start, ttl};
use crate::restore_source::{Source, going_on, head, new_room};
use hubbub_test_support::server::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_possibly_lost_end_is_restored_before_it_is_continued() {
    let server = RedisServer::start();
    let source = Source::new();
    let node = start(&server, limits(), &source).await;
    let old = append_many(&node, "lobby", 5).await;
    archived(&node, "lobby", &old, vec![1..=2, 4..=4]).await;
    assert_eq!(server.cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    // The archive takes 3 to 5 meanwhile, and begins an epoch.
    let past = vec![head(old.as_str(), 5)];
    let point = RestorePoint {
        past: past.clone(),
        keep_entries: true,
        ..going_on("e2", 5)
    };
    source.set("lobby", point);
    let new = append_message(&node, "lobby", "new").await;
    assert_eq!((new.seq, new.epoch.as_str()), (6, "e2"));
    let calls = source.calls("lobby");
    let hot = calls[1].as_ref().unwrap();
    assert!(hot.is_stale);
    assert_eq!(
        (&hot.head, hot.watermark, hot.shared, hot.oldest),
        (&head(old.as_str(), 5), Some(2), None, 1)
    );
    assert_eq!(hot.archived, [4..=4]);
    assert_eq!(source.pages("lobby"), [[3, 5]]);
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, [1, 2, 3, 4, 5, 6]);
    let span = span(&node, "lobby").await;
    assert_eq!(span.past, past);
    assert_eq!(span.continuity(Some(&old), 5), Continuity::Clean);
    assert_eq!(watermark(&node, "lobby").await, Some((5, 6)));
    // What was reported before the restore, about the earlier epoch, is known already.
    archived(&node, "lobby", &old, vec![1..=6]).await;
    assert_eq!(watermark(&node, "lobby").await, Some((5, 6)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_many_unarchived_entries_are_given_to_the_archive() {
    let server = RedisServer::start();
    let source = Source::new();
    let node = start(&server, limits(), &source).await;
    let messages: Vec<_> = (0..1200)
        .map(|n| message("lobby", "ann", &n.to_string()))
        .collect();
    join_all(
        messages
            .iter()
            .map(|message| node.log.append(message, None)),
    )
    .await;
    assert_eq!(server.cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    let point = RestorePoint {
        watermark: 1000,
        keep_entries: true,
        ..going_on("e2", 1200)
    };
    source.set("lobby", point);
    // Entries above the watermark are readable, however many there are.
    let slice = node
        .log
        .read(&room("lobby"), Window::After(0), 9999, usize::MAX)
        .await
        .unwrap();
    assert_eq!((slice.entries.len(), slice.span.oldest), (1200 - 200, 201));
    let pages = source.pages("lobby");
    assert!(pages.iter().all(|page| page.len() <= 500));
    assert_eq!(pages.concat(), (1..=1200).collect::<Vec<_>>());
    assert_eq!(watermark(&node, "lobby").await, Some((1000, 1200)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_with_60_000_unarchived_entries_is_restored() {
    let server = RedisServer::start();
    let source = Source::new();
    let node = start(&server, limits(), &source).await;
    let mut epoch = append_message(&node, "lobby", "first").await.epoch;
    for _ in 0..30 {
        let message = message("lobby", "ann", "hi");
        let appends = (0..2000).map(|_| node.log.append(&message, None));
        join_all(appends).await;
    }
    let mut read = 0;
    for (cause, next) in [("lost", 60_001), ("diverged", 60_002)] {
        if cause == "lost" {
            assert_eq!(server.cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
        } else {
            diverge(&node, "lobby", &epoch, 7).await;
        }
        let point = RestorePoint {
            watermark: 0,
            keep_entries: true,
            ..going_on(cause, next)
        };
        source.set("lobby", point);
        let appended = append_message(&node, "lobby", "next").await;
        assert_eq!((appended.seq, appended.epoch.as_str()), (next + 1, cause));
        epoch = appended.epoch;
        let pages = source.pages("lobby");
        assert!(pages.iter().all(|page| page.len() <= 500));
        assert_eq!(
            pages.iter().map(Vec::len).sum::<usize>() as u64,
            read + next
        );
        read += next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_rolled_back_continues_where_the_archive_ends() {
    let mut server = RedisServer::start();
    let source = Source::new();
    let node = start(&server, limits(), &source).await;
    let key = Some("key");
    let old = append_many(&node, "lobby", 2).await;
    let kept = node
        .log
        .append(&message("lobby", "ann", "kept"), key)
        .await
        .unwrap();
    assert_eq!(server.cli(&["SAVE"]), "OK");
    let rolled_back = message("lobby", "bob", "rolled back");
    let rolled_back = node.log.append(&rolled_back, key).await.unwrap();
    assert_eq!(rolled_back.seq, 4);
    server.kill();
    server.run();
    source.set(
        "lobby",
        RestorePoint {
            past: vec![head(old.as_str(), 4)],
            sends: vec![RestoredSend {
                user: user("bob"),
                key: "key".into(),
                position: rolled_back.clone(),
            }],
            ..going_on("e2", 4)
        },
    );
    let span = eventually(DEADLINE, "Redis is back", async || {
        let lobby = room("lobby");
        Some(node.log.read(&lobby, Window::Newest, 0, 0).await.ok()?.span)
    })
    .await;
    assert_eq!((&span.head, span.oldest), (&head("e2", 4), 5));
    let hot = source.calls("lobby")[1].clone().unwrap();
    assert_eq!(
        (hot.head.seq, hot.is_stale, hot.watermark),
        (3, true, Some(0))
    );
    assert_eq!(source.pages("lobby"), [[1, 2, 3]]);
    // Repeats of both sends are recognised, though Redis has lost one of them.
    for (sender, position) in [("ann", kept), ("bob", rolled_back)] {
        let repeat = node
            .log
            .append(&message("lobby", sender, "x"), key)
            .await
            .unwrap();
        let expected = Appended {
            duplicate: true,
            ..position
        };
        assert_eq!(repeat, expected);
    }
    assert_eq!(append_message(&node, "lobby", "new").await.seq, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_redis_is_restored_with_its_members() {
    let server = RedisServer::start();
    let source = Source::new();
    let (one, two) = (
        start(&server, limits(), &source).await,
        start(&server, limits(), &source).await,
    );
    let recorder = Recorder::on(&one, &[BusTopic::Room(room("lobby"))]).await;
    connect_and_join(&one, "ann", "c1", "lobby").await;
    connect_and_join(&two, "bob", "c2", "lobby").await;
    let old = append_many(&one, "lobby", 7).await;
    source.set(
        "lobby",
        RestorePoint {
            past: vec![head(old.as_str(), 7)],
            ..going_on("e2", 7)
        },
    );
    assert_eq!(server.cli(&["FLUSHALL"]), "OK");
    eventually(DEADLINE, "all members are restored", async || {
        let roster = two.presence.roster(&room("lobby"), 10).await.unwrap();
        (roster.total == 2).then_some(())
    })
    .await;
    assert_eq!(server.cli(&["HMGET", NUMBERING, "e", "s"]), "e2\n7");
    assert_eq!(append_message(&one, "lobby", "new").await.seq, 8);
    assert_eq!(source.calls("lobby"), [None, None], "once for both nodes");
    let events = recorder.events_until_sentinel(&one, "lobby").await;
    let changes = room_changes(&events);
    assert_eq!(
        changes[..2]
            .iter()
            .map(|change| change.0)
            .collect::<Vec<_>>(),
        [ChangeKind::Joined; 2]
    );
    assert!(
        changes[2..]
            .iter()
            .all(|change| change.0 == ChangeKind::Restored),
        "{changes:?}"
    );
    assert_eq!(server.cli(&["GET", "hubbub:{p00}A"]), "archive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_redis_has_forgotten_is_restored() {
    let server = RedisServer::start();
    let limits = BackplaneLimits {
        history_ttl: Duration::from_millis(100),
        room_ttl: Duration::from_millis(200),
        ..limits()
    };
    let source = Source::new();
    let node = start(&server, limits, &source).await;
    let epoch = append_many(&node, "lobby", 2).await;
    archived(&node, "lobby", &epoch, vec![1..=2]).await;
    eventually(DEADLINE, "the room is forgotten", async || {
        (server.cli(&["EXISTS", NUMBERING, LOG]) == "0").then_some(())
    })
    .await;
    source.set("lobby", going_on(epoch.as_str(), 2));
    let next = append_message(&node, "lobby", "three").await;
    assert_eq!((next.seq, next.epoch), (3, epoch));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_room_keeps_the_ranges_that_the_archive_has() {
    let server = RedisServer::start();
    let source = Source::new();
    let node = start(&server, limits(), &source).await;
    let old = append_many(&node, "lobby", 9).await;
    archived(&node, "lobby", &old, vec![1..=2, 5..=6, 8..=9]).await;
    assert_eq!(server.cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    let point = RestorePoint {
        past: vec![head(old.as_str(), 9)],
        watermark: 2,
        keep_entries: true,
        ..going_on("e2", 9)
    };
    source.set("lobby", point);
    source.block();
    let restored = {
        let node = node.clone();
        tokio::spawn(async move { span(&node, "lobby").await })
    };
    source.wait_for_pages("lobby", 1).await;
    assert_eq!(source.pages("lobby"), [[3, 4, 7]]);
    // Meanwhile another node reports.
    archived(&node, "lobby", &old, vec![3..=3]).await;
    source.open();
    assert_eq!(restored.await.unwrap().head, head("e2", 9));
    assert_eq!(watermark(&node, "lobby").await, Some((3, 9)));
    archived(&node, "lobby", &old, vec![4..=4]).await;
    assert_eq!(watermark(&node, "lobby").await, Some((6, 9)));
    archived(&node, "lobby", &old, vec![7..=7]).await;
    assert_eq!(watermark(&node, "lobby").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_from_before_the_archive_goes_on() {
    let server = RedisServer::start();
    let without = connect(settings(&server.url()), limits(), None)
        .await
        .unwrap();
    let epoch = append_many(&without, "lobby", 3).await;
    without.lifecycle.stop().await;
    let source = Source::new();
    let node = start(&server, limits(), &source).await;
    source.set("lobby", new_room());
    assert_eq!(append_message(&node, "lobby", "four").await.seq, 4);
    let hot = source.calls("lobby")[0].clone().unwrap();
    assert_eq!(
        (&hot.head, hot.watermark, hot.is_stale),
        (&head(epoch.as_str(), 3), None, false)
    );
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, [1, 2, 3, 4]);
    assert_eq!(watermark(&node, "lobby").await, Some((0, 4)));
    assert_eq!((ttl(&server, NUMBERING), ttl(&server, LOG)), (-1, -1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_was_used_without_its_archive_is_restored() {
    let server = RedisServer::start();
    let source = Source::new();
    let node = start(&server, limits(), &source).await;
    append_many(&node, "lobby", 3).await;
    append_many(&node, "attic", 3).await;
    node.lifecycle.stop().await;
    assert_eq!(server.cli(&["DEL", "hubbub:{p00}A"]), "1");
    let without = connect(settings(&server.url()), limits(), None)
        .await
        .unwrap();
    let used = append_message(&without, "lobby", "four").await;
    assert_eq!(used.seq, 4);
    assert!(ttl(&server, NUMBERING) > 0 && ttl(&server, LOG) > 0);
    without.lifecycle.stop().await;
    let node = start(&server, limits(), &source).await;
    source.set("lobby", going_on("e2", 9));
    assert_eq!(append_message(&node, "lobby", "ten").await.seq, 10);
    let hot = source.calls("lobby")[1].clone().unwrap();
    assert_eq!(
        (hot.head.seq, &hot.head.epoch, hot.watermark),
        (4, &used.epoch, None)
    );
    // The other room is as it was.
    assert_eq!(append_message(&node, "attic", "four").await.seq, 4);
    assert_eq!(source.calls("attic").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_keys_of_sends_are_restored() {
    let server = RedisServer::start();
    let source = Source::new();
    let node = start(&server, limits(), &source).await;
    let sent = append_message(&node, "attic", "hi").await;
    let sends = (1..=1203).rev().map(|seq| RestoredSend {
        user: user("ann"),
        key: format!("key{seq}").into(),
        position: Appended {
            seq,
            ..sent.clone()
        },
    });
    source.set(
        "lobby",
        RestorePoint {
            sends: sends.collect(),
            ..going_on("e1", 1203)
        },
    );
    for seq in [1, 500, 501, 703, 704, 1203] {
        let repeat = message("lobby", "ann", "x");
        let repeat = node
            .log
            .append(&repeat, Some(&format!("key{seq}")))
            .await
            .unwrap();
        assert_eq!((repeat.seq, repeat.duplicate), (seq, true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_point_that_could_reuse_numbers_is_refused() {
    let server = RedisServer::start();
    let source = Source::new();
    let node = start(&server, limits(), &source).await;
    let epoch = append_many(&node, "lobby", 2).await;
    assert_eq!(server.cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    for point in [new_room(), going_on(epoch.as_str(), 2)] {
        source.set("lobby", point);
        let refused = node.log.append(&message("lobby", "ann", "hi"), None).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    // The log has no other end than its own one.
    let shorter = RestorePoint {
        keep_entries: true,
        ..going_on("e2", 1)
    };
    let longer = RestorePoint {
        keep_entries: true,
        ..going_on("e2", 3)
    };
    for point in [shorter, longer] {
        source.set("lobby", point);
        let refused = node.log.append(&message("lobby", "ann", "hi"), None).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    source.set("lobby", going_on("e2", 2));
    assert_eq!(append_message(&node, "lobby", "hi").await.seq, 3);
}
