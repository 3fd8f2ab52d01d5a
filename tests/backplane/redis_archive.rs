//! Redis with an archive behind it: loss of its data, restores by several nodes, and how long it keeps
//! what isn't archived.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hubbub::backplane::redis::connect;
use hubbub::backplane::{
    Appended, Backplane, BackplaneLimits, BusTopic, HotState, RestorePoint, RestoredSend, Window,
};
use hubbub::domain::{ChangeKind, Continuity, Epoch};

use crate::fixture::{
    DEADLINE, Recorder, append_message, conn, connect_and_join, eventually, limits, message, room,
    seqs, settings, user,
};
use crate::hot_log::{append_many, archived, span, watermark};
use crate::presence::room_changes;
use crate::redis_cluster::Cluster;
use crate::restore_source::{Source, going_on, head, new_room};
use hubbub_test_support::server::RedisServer;

const NUMBERING: &str = "hubbub:{c85}m:bG9iYnk";
const LOG: &str = "hubbub:{c85}h:bG9iYnk";
const UNARCHIVED: &str = "hubbub:{c85}a";
const CLAIM: &str = "hubbub:{c85}restore:bG9iYnk";

async fn start(server: &RedisServer, limits: BackplaneLimits, source: &Arc<Source>) -> Backplane {
    connect(settings(&server.url()), limits, Some(source.clone()))
        .await
        .unwrap()
}

fn ttl(server: &RedisServer, key: &str) -> i64 {
    server.cli(&["PTTL", key]).parse().unwrap()
}

/// The numbers of the entries that the archive was given at the last restore.
fn given(hot: &HotState) -> Vec<u64> {
    hot.unarchived.iter().map(|entry| entry.seq).collect()
}

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
    assert_eq!(given(hot), [3, 4, 5]);
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
async fn the_oldest_of_many_unarchived_entries_are_given_to_the_archive() {
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
    let hot = source.calls("lobby")[1].clone().unwrap();
    assert_eq!(given(&hot), (1..=1000).collect::<Vec<_>>());
    assert_eq!(watermark(&node, "lobby").await, Some((1000, 1200)));
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
    assert_eq!(given(&hot), [1, 2, 3]);
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
async fn two_nodes_restore_a_room_once() {
    let server = RedisServer::start();
    let (first, second) = (Source::new(), Source::new());
    let one = start(&server, limits(), &first).await;
    let two = start(&server, limits(), &second).await;
    first.set("lobby", going_on("e1", 7));
    second.set("lobby", going_on("e2", 9));
    first.block();
    let append = |node: &Backplane| {
        let node = node.clone();
        tokio::spawn(async move { append_message(&node, "lobby", "hi").await })
    };
    let on_first = append(&one);
    first.wait_for_calls("lobby", 1).await;
    server.cli(&["CONFIG", "SET", "slowlog-max-len", "100000"]);
    server.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    let on_second = append(&two);
    // Sentinel: the second node has tried to claim the room. The last argument of that call is the
    // number of bytes.
    eventually(DEADLINE, "the second node finds the claim", async || {
        server
            .cli(&["SLOWLOG", "GET", "-1"])
            .contains("\n1048576")
            .then_some(())
    })
    .await;
    first.open();
    let mut positions = [on_first.await.unwrap(), on_second.await.unwrap()]
        .map(|appended| (appended.seq, appended.epoch));
    positions.sort();
    let epoch = Epoch::trusted("e1");
    assert_eq!(positions, [(8, epoch.clone()), (9, epoch)]);
    assert!(second.calls("lobby").is_empty());
    assert_eq!(server.cli(&["EXISTS", CLAIM]), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_outlives_its_claim_changes_nothing() {
    let server = RedisServer::start();
    // A room from before the archive: its state doesn't show that it was restored meanwhile.
    let before = connect(settings(&server.url()), limits(), None)
        .await
        .unwrap();
    let epoch = append_many(&before, "lobby", 3).await;
    before.lifecycle.stop().await;
    let (first, second) = (Source::new(), Source::new());
    let one = start(&server, limits(), &first).await;
    let two = start(&server, limits(), &second).await;
    first.set("lobby", going_on("e1", 7));
    first.block();
    let paused = {
        let one = one.clone();
        tokio::spawn(async move { append_message(&one, "lobby", "late").await })
    };
    first.wait_for_calls("lobby", 1).await;
    // As if the claim had expired.
    assert_eq!(server.cli(&["DEL", CLAIM]), "1");
    assert_eq!(span(&two, "lobby").await.head, head(epoch.as_str(), 3));
    first.open();
    let late = paused.await.unwrap();
    assert_eq!((late.seq, late.epoch), (4, epoch));
    assert_eq!(first.calls("lobby").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_restore_gives_its_claim_up() {
    let server = RedisServer::start();
    let (first, second) = (Source::new(), Source::new());
    let one = start(&server, limits(), &first).await;
    let two = start(&server, limits(), &second).await;
    first.set_down(true);
    let refused = one.log.append(&message("lobby", "ann", "hi"), None).await;
    assert!(refused.is_err());
    assert_eq!(server.cli(&["EXISTS", CLAIM]), "0");
    assert_eq!(append_message(&two, "lobby", "hi").await.seq, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_rooms_of_a_call_do_not_wait_for_a_restore() {
    let server = RedisServer::start();
    let source = Source::new();
    let node = start(&server, limits(), &source).await;
    append_message(&node, "lobby", "known").await;
    source.block();
    let messages: Vec<_> = (0..40)
        .map(|n| message(["lobby", "attic"][n % 2], "ann", &n.to_string()))
        .collect();
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for (n, message) in messages.iter().enumerate() {
        let append = node.log.append(message, None);
        if n % 2 == 0 { &mut known } else { &mut unknown }.push(append);
    }
    let mut unknown = Box::pin(join_all(unknown));
    // The first poll begins the appends.
    assert!(futures_util::poll!(&mut unknown).is_pending());
    let known = join_all(known).await;
    let numbers = |appended: Vec<hubbub::backplane::Result<Appended>>| -> Vec<u64> {
        appended
            .into_iter()
            .map(|appended| appended.unwrap().seq)
            .collect()
    };
    assert_eq!(numbers(known), (2..=21).collect::<Vec<_>>());
    assert!(futures_util::poll!(&mut unknown).is_pending());
    source.open();
    assert_eq!(numbers(unknown.await), (1..=20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_keep_their_order_when_another_node_restores_the_room() {
    let server = RedisServer::start();
    let (first, second) = (Source::new(), Source::new());
    let one = start(&server, limits(), &first).await;
    let two = start(&server, limits(), &second).await;
    first.block();
    let messages: Vec<_> = (0..100)
        .map(|n| message("lobby", "ann", &n.to_string()))
        .collect();
    let mut begun = Vec::new();
    for message in &messages[..50] {
        let mut append = Box::pin(one.log.append(message, None));
        assert!(futures_util::poll!(&mut append).is_pending());
        begun.push(append);
    }
    first.wait_for_calls("lobby", 1).await;
    // The room can be used now, and the first node doesn't know it yet.
    server.cli(&["DEL", CLAIM]);
    assert_eq!(append_message(&two, "lobby", "hi").await.seq, 1);
    for message in &messages[50..] {
        let mut append = Box::pin(one.log.append(message, None));
        assert!(futures_util::poll!(&mut append).is_pending());
        begun.push(append);
    }
    first.open();
    let numbers: Vec<_> = join_all(begun)
        .await
        .into_iter()
        .map(|sent| sent.unwrap().seq)
        .collect();
    assert_eq!(numbers, (2..=101).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unarchived_entries_expire_in_no_case() {
    let server = RedisServer::start();
    let limits = BackplaneLimits {
        history_ttl: Duration::from_secs(1000),
        room_ttl: Duration::from_secs(2000),
        ..limits()
    };
    let node = start(&server, limits, &Source::new()).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    let epoch = append_many(&node, "lobby", 2).await;
    archived(&node, "lobby", &epoch, vec![1..=1]).await;
    node.presence
        .leave(&conn("c1"), &user("ann"), &room("lobby"))
        .await
        .unwrap();
    assert_eq!((ttl(&server, NUMBERING), ttl(&server, LOG)), (-1, -1));
    assert_eq!(server.cli(&["ZCARD", UNARCHIVED]), "1");
    archived(&node, "lobby", &epoch, vec![2..=2]).await;
    assert!((1_000_001..=2_100_000).contains(&ttl(&server, NUMBERING)));
    assert!((1..=1_000_000).contains(&ttl(&server, LOG)));
    assert_eq!(server.cli(&["EXISTS", UNARCHIVED]), "0");
    append_message(&node, "lobby", "three").await;
    assert_eq!((ttl(&server, NUMBERING), ttl(&server, LOG)), (-1, -1));
    // Members keep the numbering, not the log.
    connect_and_join(&node, "ann", "c1", "lobby").await;
    archived(&node, "lobby", &epoch, vec![3..=3]).await;
    assert_eq!(ttl(&server, NUMBERING), -1);
    assert!(ttl(&server, LOG) > 0);
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
async fn entries_up_to_the_head_may_stay_after_a_divergence() {
    let server = RedisServer::start();
    let source = Source::new();
    let node = start(&server, limits(), &source).await;
    let epoch = append_many(&node, "lobby", 5).await;
    node.hot_log
        .diverged(&room("lobby"), &epoch, 3)
        .await
        .unwrap();
    // Entries of a diverged room count as archived up to the last shared one.
    archived(&node, "lobby", &epoch, vec![1..=5]).await;
    let point = RestorePoint {
        watermark: 2,
        past: vec![head(epoch.as_str(), 3)],
        keep_entries: true,
        ..going_on("e2", 3)
    };
    source.set("lobby", point);
    assert_eq!(append_message(&node, "lobby", "new").await.seq, 4);
    assert_eq!(
        source.calls("lobby")[1].as_ref().unwrap().watermark,
        Some(3)
    );
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, [1, 2, 3, 4]);
    assert_eq!(watermark(&node, "lobby").await, Some((2, 4)));
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
    source.set("lobby", going_on("e2", 2));
    assert_eq!(append_message(&node, "lobby", "hi").await.seq, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_trimmed_once_it_is_archived() {
    let server = RedisServer::start();
    let limits = BackplaneLimits {
        history_size: 100,
        ..limits()
    };
    let node = start(&server, limits, &Source::new()).await;
    let messages: Vec<_> = (0..1000)
        .map(|n| message("lobby", "ann", &n.to_string()))
        .collect();
    let sent = join_all(
        messages
            .iter()
            .map(|message| node.log.append(message, None)),
    )
    .await;
    let epoch = sent[0].as_ref().unwrap().epoch.clone();
    assert_eq!(server.cli(&["XLEN", LOG]), "1000");
    let all = span(&node, "lobby").await;
    assert_eq!((all.oldest, all.recent), (1, 901));
    archived(&node, "lobby", &epoch, vec![1..=1000]).await;
    let length: u64 = server.cli(&["XLEN", LOG]).parse().unwrap();
    assert!((100..300).contains(&length), "{length}");
    assert_eq!(span(&node, "lobby").await.oldest, 901);
    node.hot_log.trim(&room("lobby"), 950).await.unwrap();
    assert_eq!(span(&node, "lobby").await.oldest, 951);
    assert_eq!(server.cli(&["XLEN", LOG]), "50");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_every_room_is_archived_and_restored() {
    let cluster = Cluster::start(0).await;
    let source = Source::new();
    let restore: Arc<dyn hubbub::backplane::RestoreSource> = source.clone();
    let node = connect(settings(&cluster.url()), limits(), Some(restore))
        .await
        .unwrap();
    let names: Vec<_> = (0..40).map(|n| format!("room{n}")).collect();
    let mut reports = Vec::new();
    for name in &names {
        source.set(name, going_on("e1", 10));
        let sent = append_message(&node, name, "hi").await;
        assert_eq!(sent.seq, 11);
        reports.push((room(name), sent.epoch, vec![11..=11]));
    }
    let mut found = Vec::new();
    for _ in 0..4 {
        let rooms = node.hot_log.unarchived(Duration::ZERO, 1000).await.unwrap();
        found.extend(
            rooms
                .into_iter()
                .map(|found| found.room.as_str().to_owned()),
        );
    }
    found.sort_unstable();
    let mut expected = names.clone();
    expected.sort_unstable();
    assert_eq!(found, expected);
    node.hot_log.advance_watermarks(&reports).await.unwrap();
    for _ in 0..4 {
        let rooms = node.hot_log.unarchived(Duration::ZERO, 1000).await.unwrap();
        assert!(rooms.is_empty(), "{rooms:?}");
    }
}
