//! Loss of Redis's data: flushed scripts, flushed data, a tail of the log that may be lost; and the
//! data that appends write.

use std::time::Duration;

use hubbub::backplane::redis::{RedisSettings, connect};
use hubbub::backplane::{
    Backplane, BackplaneError, BackplaneLimits, BusEvent, BusTopic, Changes, Window,
};
use hubbub::domain::{ChangeKind, ConnId, Continuity, Head};

use crate::fixture::{
    DEADLINE, Fixture, Recorder, append_message, conn, connect_and_join, eventually, limits,
    message, name, room, settings, user,
};
use crate::presence::{room_changes, statuses, wait_until_left};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_scripts_are_loaded_again() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    assert_eq!(fixture.server().cli(&["SCRIPT", "FLUSH"]), "OK");
    assert_eq!(append_message(&node, "lobby", "hi").await.seq, 1);
    assert_eq!(
        connect_and_join(&node, "bob", "c2", "lobby")
            .await
            .roster
            .total,
        2
    );
    assert_eq!(
        node.log
            .read(&room("lobby"), Window::Newest, 10, 9999)
            .await
            .unwrap()
            .entries
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_redis_starts_new_epochs_and_its_members_are_restored() {
    let mut fixture = Fixture::redis();
    let (one, two) = (fixture.start(limits()).await, fixture.start(limits()).await);
    let recorder = Recorder::on(
        &one,
        &[BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))],
    )
    .await;
    connect_and_join(&one, "ann", "c1", "lobby").await;
    connect_and_join(&one, "cleo", "c3", "lobby").await;
    let before = connect_and_join(&two, "bob", "c2", "lobby").await;
    let old = append_message(&one, "lobby", "lost").await;
    let status = one.presence.status(&user("ann")).await.unwrap();
    recorder.wait_for(5).await;
    assert_eq!(fixture.server().cli(&["FLUSHALL"]), "OK");
    eventually(DEADLINE, "all members are restored", async || {
        let roster = one.presence.roster(&room("lobby"), 10).await.unwrap();
        (roster.total == 3 && roster.version > before.roster.version).then_some(())
    })
    .await;
    eventually(DEADLINE, "ann is online again", async || {
        let now = one.presence.status(&user("ann")).await.unwrap();
        (now.online && now.version > status.version).then_some(())
    })
    .await;
    let first = append_message(&one, "lobby", "new").await;
    assert_eq!(first.seq, 1);
    assert_ne!(first.epoch, old.epoch);
    let span = one
        .log
        .read(&room("lobby"), Window::Newest, 10, 9999)
        .await
        .unwrap()
        .span;
    assert_eq!(
        (span.past.len(), span.continuity(Some(&old.epoch), 1)),
        (0, Continuity::Lost { last_shared: None })
    );
    let events = recorder.events_until_sentinel(&one, "lobby").await;
    let changes = room_changes(&events[5..]);
    assert!(
        !changes.is_empty()
            && changes
                .iter()
                .all(|(kind, _, _)| *kind == ChangeKind::Restored),
        "{changes:?}"
    );
    assert!(changes.len() <= 2, "at most one for each node: {changes:?}");
    assert_eq!(statuses(&events).len(), 2);
    // The restored members are complete: they leave and are lost like others.
    one.presence
        .leave(&conn("c1"), &user("ann"), &room("lobby"))
        .await
        .unwrap();
    assert!(
        !one.presence
            .is_occupant(&room("lobby"), &user("ann"))
            .await
            .unwrap()
    );
    two.presence
        .connection_lost(&conn("c2"), &user("bob"), &[room("lobby")])
        .await;
    wait_until_left(&one, "lobby", "bob").await;
    assert_eq!(
        one.presence.roster(&room("lobby"), 10).await.unwrap().users,
        [user("cleo")]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_possibly_lost_tail_starts_an_epoch_that_continues_the_numbering() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    for _ in 0..3 {
        append_message(&node, "lobby", "old").await;
        append_message(&node, "attic", "old").await;
    }
    let joined = connect_and_join(&node, "ann", "c1", "lobby").await;
    let old = joined.span.head.epoch;
    assert_eq!(fixture.server().cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    let new = append_message(&node, "lobby", "new").await;
    assert_eq!(new.seq, 4);
    assert_ne!(new.epoch, old);
    let slice = node
        .log
        .read(&room("lobby"), Window::After(0), 10, 9999)
        .await
        .unwrap();
    assert_eq!(
        slice.span.past,
        [Head {
            epoch: old.clone(),
            seq: 3
        }]
    );
    let epochs: Vec<_> = slice
        .entries
        .iter()
        .map(|entry| entry.epoch.clone())
        .collect();
    assert_eq!(
        epochs,
        [old.clone(), old.clone(), old.clone(), new.epoch.clone()],
        "entries keep the epoch in which they were appended"
    );
    assert_eq!(slice.span.continuity(Some(&old), 3), Continuity::Clean);
    assert_eq!(
        slice.span.continuity(Some(&old), 4),
        Continuity::Lost {
            last_shared: Some(3)
        }
    );
    // A read and a join also start the new epoch, as an append does.
    let attic = node
        .log
        .read(&room("attic"), Window::After(0), 10, 9999)
        .await
        .unwrap()
        .span;
    assert_eq!((attic.head.seq, attic.past[0].seq), (3, 3));
    assert_eq!(
        connect_and_join(&node, "ann", "c1", "lobby").await.span,
        slice.span
    );
    // No member joined or left.
    let again = node
        .log
        .append(&message("lobby", "ann", "x"), Some("key"))
        .await
        .unwrap();
    assert_eq!((again.seq, again.epoch), (5, new.epoch));
    assert_eq!(
        node.presence
            .roster(&room("lobby"), 10)
            .await
            .unwrap()
            .version,
        joined.roster.version
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_lost_partition_is_restored() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let joined = connect_and_join(&node, "ann", "c1", "lobby").await;
    let recorder = Recorder::on(&node, &[BusTopic::Room(room("lobby"))]).await;
    // As if one server of a cluster had lost its data: the room's keys are gone, the lease remains.
    let keys = fixture.server().cli(&["KEYS", "hubbub:{c*"]);
    let keys: Vec<_> = ["DEL"].into_iter().chain(keys.lines()).collect();
    assert_ne!(fixture.server().cli(&keys), "0");
    let events = eventually(DEADLINE, "the room is restored", async || {
        Some(recorder.events()).filter(|events| !events.is_empty())
    })
    .await;
    let BusEvent::RoomChanged(_, change) = &events[0] else {
        panic!("{events:?}")
    };
    assert_eq!(
        (change.kind, change.total, change.previous),
        (ChangeKind::Restored, 1, 0)
    );
    assert!(change.version > joined.roster.version);
    let since = node
        .presence
        .room_changes(&room("lobby"), joined.roster.version)
        .await
        .unwrap();
    assert_eq!(since, Changes::TooOld);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disconnects_during_a_restoration_take_effect() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    for n in 0..50 {
        connect_and_join(&node, &format!("user{n}"), &format!("c{n}"), "lobby").await;
    }
    assert_eq!(fixture.server().cli(&["FLUSHALL"]), "OK");
    for n in 0..25 {
        node.presence
            .connection_lost(
                &conn(&format!("c{n}")),
                &user(&format!("user{n}")),
                &[room("lobby")],
            )
            .await;
        // Not a synchronisation: it spreads the disconnects over 500 ms, so that they overlap with
        // the restoration.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.presence
        .connect(&conn("new"), &user("new"), &name("new"))
        .await
        .unwrap();
    eventually(
        DEADLINE,
        "only members with a connection remain",
        async || {
            let page = node
                .presence
                .members(&room("lobby"), None, 100)
                .await
                .unwrap();
            (page.total == 25
                && page.members.iter().all(|(user_id, _)| {
                    user_id
                        .as_str()
                        .trim_start_matches("user")
                        .parse::<u32>()
                        .unwrap()
                        >= 25
                }))
            .then_some(())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_and_leaves_lost_in_a_promotion_are_reconciled() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    connect_and_join(&node, "bob", "c2", "lobby").await;
    let keys = fixture.server().cli(&["KEYS", "hubbub:{c*}n:*"]);
    // The node must have checked the room's partition under the present replication id. Sentinel:
    // only a check finds that the attic's partition was lost, and it restores a partition after it
    // has checked all of them.
    connect_and_join(&node, "ann", "c1", "attic").await;
    let attic = fixture.server().cli(&["KEYS", "hubbub:{c*}n:YXR0aWM:*"]);
    let attic = attic.split_once('n').unwrap().0.to_owned();
    assert!(!keys.starts_with(&attic), "the rooms have two partitions");
    let lost = fixture.server().cli(&["KEYS", &format!("{attic}*")]);
    let lost: Vec<_> = ["DEL"].into_iter().chain(lost.lines()).collect();
    assert_ne!(fixture.server().cli(&lost), "0");
    eventually(DEADLINE, "a check restores the attic", async || {
        let is_restored = node
            .presence
            .is_occupant(&room("attic"), &user("ann"))
            .await
            .unwrap();
        is_restored.then_some(())
    })
    .await;
    // The promoted replica lacks a leave (so it has Zoe's stray entry) and a join (Bob's), and it
    // has a connection of Ann's that the node doesn't know.
    let tag = keys.split_once('n').unwrap().0.to_owned();
    let of = |key: &str| format!("{tag}{key}:bG9iYnk");
    let redis = fixture.server();
    redis.cli(&["HSET", &keys, "stray", "zoe"]);
    redis.cli(&["HDEL", &keys, "c2"]);
    redis.cli(&["HSET", &of("k"), "zoe", "1"]);
    redis.cli(&["HDEL", &of("k"), "bob"]);
    redis.cli(&["ZADD", &of("u"), "0", "zoe"]);
    redis.cli(&["ZREM", &of("u"), "bob"]);
    let connections = redis.cli(&["KEYS", "hubbub:{p*}c:YW5u"]);
    let incarnation = redis.cli(&["HGET", &connections, "c1"]);
    redis.cli(&["HSET", &connections, "stray", &incarnation]);
    assert_eq!(redis.cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    eventually(DEADLINE, "the stray connection is removed", async || {
        let connections = node.presence.connections(&user("ann")).await.unwrap();
        (connections == [ConnId::trusted("c1")]).then_some(())
    })
    .await;
    eventually(DEADLINE, "the room has its members again", async || {
        let users = node.presence.roster(&room("lobby"), 9).await.unwrap().users;
        (users == [user("ann"), user("bob")]).then_some(())
    })
    .await;
}

/// Starts a node that checks for lost data every 2 seconds instead of every 500 ms.
async fn start_with_slow_checks(fixture: &mut Fixture) -> Backplane {
    let settings = RedisSettings {
        check_interval: Duration::from_secs(2),
        ..settings(&fixture.server().url())
    };
    connect(settings, limits(), None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_lost_in_a_promotion_before_the_first_check_is_restored() {
    let mut fixture = Fixture::redis();
    let node = start_with_slow_checks(&mut fixture).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    connect_and_join(&node, "bob", "c2", "lobby").await;
    let redis = fixture.server();
    // The lost tail is Bob's join. It is lost before the node's first check.
    let held = redis.cli(&["KEYS", "hubbub:{c85}n:*"]);
    redis.cli(&["HDEL", &held, "c2"]);
    redis.cli(&["HDEL", "hubbub:{c85}k:bG9iYnk", "bob"]);
    redis.cli(&["ZREM", "hubbub:{c85}u:bG9iYnk", "bob"]);
    let connections = redis.cli(&["KEYS", "hubbub:{p*}c:Ym9i"]);
    assert_eq!(redis.cli(&["DEL", &connections]), "1");
    assert_eq!(redis.cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    eventually(DEADLINE, "the room has its members again", async || {
        let users = node.presence.roster(&room("lobby"), 9).await.unwrap().users;
        let registered = fixture.server().cli(&["HKEYS", &connections]) == "c2";
        (users == [user("ann"), user("bob")] && registered).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leave_lost_in_a_promotion_is_repeated_in_an_empty_room() {
    let mut fixture = Fixture::redis();
    let node = start_with_slow_checks(&mut fixture).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    node.presence
        .leave(&conn("c1"), &user("ann"), &room("lobby"))
        .await
        .unwrap();
    let redis = fixture.server();
    let incarnation = redis.cli(&["ZRANGE", "hubbub:{p00}L", "0", "-1"]);
    redis.cli(&["SADD", &format!("hubbub:{{c85}}N:{incarnation}"), "bG9iYnk"]);
    redis.cli(&[
        "HSET",
        &format!("hubbub:{{c85}}n:bG9iYnk:{incarnation}"),
        "c1",
        "ann",
    ]);
    redis.cli(&["HSET", "hubbub:{c85}k:bG9iYnk", "ann", "1"]);
    redis.cli(&["ZADD", "hubbub:{c85}u:bG9iYnk", "0", "ann"]);
    assert_eq!(redis.cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    assert!(
        node.presence
            .is_occupant(&room("lobby"), &user("ann"))
            .await
            .unwrap()
    );
    wait_until_left(&node, "lobby", "ann").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_an_older_epoch_continues_from_it() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let mut next_epoch = async || {
        assert_eq!(fixture.server().cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
        node.log
            .read(&room("lobby"), Window::After(0), 10, 9999)
            .await
            .unwrap()
            .span
    };
    let old = append_message(&node, "lobby", "old").await;
    // Some epochs have no message. Yet a client that joined during one of them knows only that
    // epoch.
    let without_messages = [next_epoch().await, next_epoch().await].map(|span| span.head);
    next_epoch().await;
    let new = append_message(&node, "lobby", "new").await;
    assert!(
        without_messages
            .iter()
            .all(|head| head.seq == 1 && head.epoch != old.epoch)
    );
    let span = next_epoch().await;
    for epoch in without_messages
        .iter()
        .map(|head| &head.epoch)
        .chain([&old.epoch])
    {
        assert_eq!(span.continuity(Some(epoch), 1), Continuity::Clean);
        assert_eq!(
            span.continuity(Some(epoch), 2),
            Continuity::Lost {
                last_shared: Some(1)
            }
        );
    }
    assert_eq!(span.continuity(Some(&new.epoch), 2), Continuity::Clean);
    // Many epochs without messages do not displace those with messages, and the newest one of them
    // is still known.
    for _ in 0..10 {
        next_epoch().await;
    }
    let (last, span) = (next_epoch().await, next_epoch().await);
    assert_eq!(span.past.len(), 8);
    for (epoch, seq) in [(&old.epoch, 1), (&new.epoch, 2), (&last.head.epoch, 2)] {
        assert_eq!(span.continuity(Some(epoch), seq), Continuity::Clean);
    }
    // Many epochs with messages do displace the oldest one.
    for _ in 0..8 {
        append_message(&node, "lobby", "another").await;
        next_epoch().await;
    }
    let span = next_epoch().await;
    assert_eq!(
        span.continuity(Some(&old.epoch), 1),
        Continuity::Lost { last_shared: None }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_a_key_is_remembered_for_at_most_15_seconds() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    node.log
        .append(&message("lobby", "ann", "hi"), None)
        .await
        .unwrap();
    let known = fixture.server().cli(&["KEYS", "hubbub:{c85}i:*"]);
    assert_eq!(
        known.lines().count(),
        1,
        "a call that the client library repeats is recognised"
    );
    let left: u64 = fixture.server().cli(&["PTTL", &known]).parse().unwrap();
    assert!(left <= 15_000, "{left}");
}

/// The client library repeats a call if it doesn't know whether the first one arrived. The test
/// runs on one thread, so both messages are queued before the call is made.
#[tokio::test]
async fn a_repeated_call_gets_the_same_reply_and_takes_effect_once() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let both = async {
        let (with, without) = (
            message("lobby", "ann", "with a key"),
            message("attic", "bob", "without"),
        );
        tokio::join!(
            node.log.append(&with, Some("key")),
            node.log.append(&without, None)
        )
    };
    let calls = fixture.server().calls_during("without", both).await;
    let [call] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert!(call.contains("with a key"), "one call for both: {call}");
    let replies = [fixture.server().line(call), fixture.server().line(call)];
    assert_eq!(replies[0], replies[1]);
    let words: Vec<_> = replies[0].split_whitespace().collect();
    assert_eq!(
        (words.len(), words[2], words[4]),
        (5, "1", "1"),
        "the time, then epoch and seq of each: {words:?}"
    );
    for room_id in ["lobby", "attic"] {
        let slice = node
            .log
            .read(&room(room_id), Window::Newest, 10, 9999)
            .await
            .unwrap();
        assert_eq!(
            (slice.entries.len(), slice.span.head.seq),
            (1, 1),
            "{room_id}"
        );
    }
}

/// Redis recognises a repeat without more memory and refuses a new message. One call may hold both,
/// each with its own outcome.
#[tokio::test]
async fn a_redis_out_of_memory_still_recognises_repeats() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let first = node
        .log
        .append(&message("lobby", "ann", "hi"), Some("key"))
        .await
        .unwrap();
    append_message(&node, "attic", "hi").await;
    assert_eq!(
        fixture.server().cli(&["CONFIG", "SET", "maxmemory", "1"]),
        "OK"
    );
    let (again, new) = (
        message("lobby", "ann", "hi"),
        message("attic", "bob", "without a key"),
    );
    // The test runs on one thread, so both messages are queued before the call is made.
    let (again, new) = tokio::join!(
        node.log.append(&again, Some("key")),
        node.log.append(&new, None)
    );
    let again = again.unwrap();
    assert!(again.duplicate && (again.id, again.seq) == (first.id, first.seq));
    assert!(
        matches!(new, Err(BackplaneError::Unavailable(_))),
        "{new:?}"
    );
    assert_eq!(
        fixture.server().cli(&["CONFIG", "SET", "maxmemory", "0"]),
        "OK"
    );
    assert_eq!(
        append_message(&node, "attic", "there is memory again")
            .await
            .seq,
        2
    );
}

/// An append renews the retention only once in a while. It then renews it for 1/64 more than the
/// retention, so that the keys are kept for the whole retention after each append.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_append_renews_the_retention_of_log_and_numbering() {
    const TTL: u64 = 6400;
    let ttl = Duration::from_millis(TTL);
    let mut fixture = Fixture::redis();
    let node = fixture
        .start(BackplaneLimits {
            history_ttl: ttl,
            room_ttl: ttl,
            ..limits()
        })
        .await;
    let began = std::time::Instant::now();
    while began.elapsed() < ttl / 20 {
        node.log
            .append(&message("lobby", "ann", "hi"), None)
            .await
            .unwrap();
        let appended_at = std::time::Instant::now();
        for key in ["hubbub:{c85}h:bG9iYnk", "hubbub:{c85}m:bG9iYnk"] {
            let left: u64 = fixture.server().cli(&["PTTL", key]).parse().unwrap();
            let late = u64::try_from(appended_at.elapsed().as_millis()).unwrap() + 1;
            assert!(
                (TTL - late..=TTL + TTL / 64).contains(&left),
                "{key} expires in {left} ms, read within {late} ms"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_retention_applies_from_the_next_append() {
    let mut fixture = Fixture::redis();
    let short = Duration::from_secs(60);
    let before = fixture
        .start(BackplaneLimits {
            history_ttl: short,
            room_ttl: short,
            ..limits()
        })
        .await;
    before
        .log
        .append(&message("lobby", "ann", "hi"), None)
        .await
        .unwrap();
    let after = fixture
        .start(BackplaneLimits {
            history_ttl: short * 1000,
            room_ttl: short * 1000,
            ..limits()
        })
        .await;
    after
        .log
        .append(&message("lobby", "ann", "hi"), None)
        .await
        .unwrap();
    for key in ["hubbub:{c85}h:bG9iYnk", "hubbub:{c85}m:bG9iYnk"] {
        let left: u64 = fixture.server().cli(&["PTTL", key]).parse().unwrap();
        assert!(left > 59_000_000, "{key} expires in {left} ms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_numbering_of_broadcasts_never_expires() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    node.log
        .append(&message("broadcast", "ann", "hi"), None)
        .await
        .unwrap();
    let key = fixture.server().cli(&["KEYS", "*m:YnJvYWRjYXN0"]);
    assert_eq!(
        fixture.server().cli(&["PTTL", &key]),
        "-1",
        "{key} does not expire"
    );
}

/// One call appends messages of several rooms: a room that can't be written to must not hold back
/// the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unwritable_room_does_not_affect_other_rooms() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    append_message(&node, "lobby", "hi").await;
    // The key of the room's log holds a string instead of a stream.
    assert_eq!(
        fixture.server().cli(&["SET", "hubbub:{c85}h:bG9iYnk", "x"]),
        "OK"
    );
    let mut count_calls = || -> u64 {
        let stats = fixture.server().cli(&["INFO", "commandstats"]);
        let evals = stats
            .lines()
            .find(|line| line.starts_with("cmdstat_evalsha:calls="))
            .unwrap();
        evals
            .trim_start_matches("cmdstat_evalsha:calls=")
            .split(',')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    let before = count_calls();
    let all = (0..90).map(|n| {
        let (node, room_id) = (&node, ["lobby", "attic", "cellar"][n % 3]);
        async move {
            (
                room_id,
                node.log
                    .append(&message(room_id, "ann", "hi"), Some(&format!("key-{n}")))
                    .await,
            )
        }
    });
    let all = futures_util::future::join_all(all).await;
    assert!(
        count_calls() - before < 60,
        "one call appends to several rooms"
    );
    for (room_id, seqs) in [("attic", 1..=30), ("cellar", 1..=30)] {
        let numbers = all
            .iter()
            .filter(|(room, _)| *room == room_id)
            .map(|(_, outcome)| outcome.as_ref().unwrap().seq);
        assert_eq!(
            numbers.collect::<Vec<_>>(),
            seqs.collect::<Vec<u64>>(),
            "{room_id}"
        );
    }
    assert!(
        all.iter()
            .filter(|(room, _)| *room == "lobby")
            .all(|(_, outcome)| outcome.is_err())
    );
    assert_eq!(fixture.server().cli(&["DEL", "hubbub:{c85}h:bG9iYnk"]), "1");
    let next = append_message(&node, "lobby", "again").await.seq;
    let kept = node
        .log
        .read(&room("lobby"), Window::Newest, 10, 9999)
        .await
        .unwrap()
        .entries;
    assert_eq!(
        kept.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        [next],
        "no refused message is stored"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_twice_in_one_call_appends_one_message() {
    let fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let twice = (0..20).map(|n| {
        let node = &node;
        async move {
            node.log
                .append(
                    &message("lobby", "ann", "hi"),
                    Some(&format!("key-{}", n / 2)),
                )
                .await
                .unwrap()
        }
    });
    let outcomes = futures_util::future::join_all(twice).await;
    for pair in outcomes.chunks(2) {
        assert!(!pair[0].duplicate && pair[1].duplicate);
        assert_eq!((pair[0].seq, pair[0].id), (pair[1].seq, pair[1].id));
    }
    assert_eq!(outcomes[19].seq, 10);
}
