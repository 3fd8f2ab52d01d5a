//! What happens to Redis's data: scripts forgotten, everything flushed, a tail that may be lost.

use std::time::Duration;

use hubbub::backplane::redis::{RedisSettings, connect};
use hubbub::backplane::{
    Backplane, BackplaneError, BackplaneLimits, BusEvent, BusTopic, Changes, Window,
};
use hubbub::domain::{ChangeKind, Continuity, Head};

use crate::fixture::{
    Fixture, Recorder, SOON, conn, draft, enter, eventually, limits, name, room, say, settings,
    user,
};
use crate::presence::{gone, room_changes, statuses};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_are_loaded_again() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    enter(&node, "ann", "c1", "lobby").await;
    assert_eq!(fixture.server().cli(&["SCRIPT", "FLUSH"]), "OK");
    assert_eq!(say(&node, "lobby", "hi").await.seq, 1);
    assert_eq!(enter(&node, "bob", "c2", "lobby").await.roster.total, 2);
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
async fn a_flushed_redis_begins_anew_and_gets_its_members_back() {
    let mut fixture = Fixture::redis();
    let (one, two) = (fixture.start(limits()).await, fixture.start(limits()).await);
    let recorder = Recorder::on(
        &one,
        &[BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))],
    )
    .await;
    enter(&one, "ann", "c1", "lobby").await;
    enter(&one, "cleo", "c3", "lobby").await;
    let before = enter(&two, "bob", "c2", "lobby").await;
    let old = say(&one, "lobby", "lost").await;
    let status = one.presence.status(&user("ann")).await.unwrap();
    recorder.wait_for(5).await;
    assert_eq!(fixture.server().cli(&["FLUSHALL"]), "OK");
    eventually(SOON, "everyone is back", async || {
        let roster = one.presence.roster(&room("lobby"), 10).await.unwrap();
        (roster.total == 3 && roster.version > before.roster.version).then_some(())
    })
    .await;
    eventually(SOON, "ann is online again", async || {
        let now = one.presence.status(&user("ann")).await.unwrap();
        (now.online && now.version > status.version).then_some(())
    })
    .await;
    let first = say(&one, "lobby", "anew").await;
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
    let events = recorder.events_until_said(&one, "lobby").await;
    let changes = room_changes(&events[5..]);
    assert!(
        !changes.is_empty()
            && changes
                .iter()
                .all(|(kind, _, _)| *kind == ChangeKind::Restored),
        "{changes:?}"
    );
    assert!(changes.len() <= 2, "one for each node: {changes:?}");
    assert_eq!(statuses(&events).len(), 2);
    // What was put back is whole: it goes away like anything else.
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
    gone(&one, "lobby", "bob").await;
    assert_eq!(
        one.presence.roster(&room("lobby"), 10).await.unwrap().users,
        [user("cleo")]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_may_be_lost_begins_an_epoch_that_counts_on() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    for _ in 0..3 {
        say(&node, "lobby", "old").await;
        say(&node, "attic", "old").await;
    }
    let joined = enter(&node, "ann", "c1", "lobby").await;
    let old = joined.span.head.epoch;
    assert_eq!(fixture.server().cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    let new = say(&node, "lobby", "new").await;
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
        "entries keep the epoch in which they were given"
    );
    assert_eq!(slice.span.continuity(Some(&old), 3), Continuity::Clean);
    assert_eq!(
        slice.span.continuity(Some(&old), 4),
        Continuity::Lost {
            last_shared: Some(3)
        }
    );
    // A read and a join see it as an append does.
    let attic = node
        .log
        .read(&room("attic"), Window::After(0), 10, 9999)
        .await
        .unwrap()
        .span;
    assert_eq!((attic.head.seq, attic.past[0].seq), (3, 3));
    assert_eq!(enter(&node, "ann", "c1", "lobby").await.span, slice.span);
    // Nobody came or went.
    let again = node
        .log
        .append(&draft("lobby", "ann", "x"), Some("key"))
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
async fn one_partition_that_was_lost_is_put_back() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let joined = enter(&node, "ann", "c1", "lobby").await;
    let recorder = Recorder::on(&node, &[BusTopic::Room(room("lobby"))]).await;
    // As when one server of a cluster has lost its data: the room's keys are gone, the lease is not.
    let keys = fixture.server().cli(&["KEYS", "{c*"]);
    let keys: Vec<_> = ["DEL"].into_iter().chain(keys.lines()).collect();
    assert_ne!(fixture.server().cli(&keys), "0");
    let events = eventually(SOON, "a restored room", async || {
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
async fn what_is_done_while_data_is_lost_stays_done() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    for n in 0..50 {
        enter(&node, &format!("user{n}"), &format!("c{n}"), "lobby").await;
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
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.presence
        .connect(&conn("new"), &user("new"), &name("new"))
        .await
        .unwrap();
    eventually(SOON, "only the living", async || {
        let page = node
            .presence
            .members(&room("lobby"), None, 100)
            .await
            .unwrap();
        (page.total == 25
            && page.members.iter().all(|(who, _)| {
                who.as_str()
                    .trim_start_matches("user")
                    .parse::<u32>()
                    .unwrap()
                    >= 25
            }))
        .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_promotion_forgot_is_mended() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    enter(&node, "ann", "c1", "lobby").await;
    enter(&node, "bob", "c2", "lobby").await;
    // Long enough for the node to have seen the replid.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // The promoted one has a departure less (a stray entry) and an arrival less (Bob's).
    let keys = fixture.server().cli(&["KEYS", "{c*}n:*"]);
    let tag = keys.split_once('n').unwrap().0.to_owned();
    let of = |key: &str| format!("{tag}{key}:bG9iYnk");
    let redis = fixture.server();
    redis.cli(&["HSET", &keys, "ghost", "zoe"]);
    redis.cli(&["HDEL", &keys, "c2"]);
    redis.cli(&["HSET", &of("k"), "zoe", "1"]);
    redis.cli(&["HDEL", &of("k"), "bob"]);
    redis.cli(&["ZADD", &of("u"), "0", "zoe"]);
    redis.cli(&["ZREM", &of("u"), "bob"]);
    assert_eq!(redis.cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    eventually(SOON, "mended", async || {
        let users = node.presence.roster(&room("lobby"), 9).await.unwrap().users;
        (users == [user("ann"), user("bob")]).then_some(())
    })
    .await;
}

/// A node that looks for lost data only after a while.
async fn slow_to_look(fixture: &mut Fixture) -> Backplane {
    let settings = RedisSettings {
        check_interval: Duration::from_secs(2),
        ..settings(&fixture.server().url())
    };
    connect(settings, limits()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_promotion_forgot_in_the_first_moments_is_mended() {
    let mut fixture = Fixture::redis();
    let node = slow_to_look(&mut fixture).await;
    enter(&node, "ann", "c1", "lobby").await;
    enter(&node, "bob", "c2", "lobby").await;
    let redis = fixture.server();
    // Bob's arrival was the tail that is lost, before the node has looked for the first time.
    let places = redis.cli(&["KEYS", "{c85}n:*"]);
    redis.cli(&["HDEL", &places, "c2"]);
    redis.cli(&["HDEL", "{c85}k:bG9iYnk", "bob"]);
    redis.cli(&["ZREM", "{c85}u:bG9iYnk", "bob"]);
    let connections = redis.cli(&["KEYS", "{p*}c:Ym9i"]);
    assert_eq!(redis.cli(&["DEL", &connections]), "1");
    assert_eq!(redis.cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    eventually(SOON, "mended", async || {
        let users = node.presence.roster(&room("lobby"), 9).await.unwrap().users;
        let registered = fixture.server().cli(&["HKEYS", &connections]) == "c2";
        (users == [user("ann"), user("bob")] && registered).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_departure_that_a_promotion_forgot_is_said_again_where_nobody_is_left() {
    let mut fixture = Fixture::redis();
    let node = slow_to_look(&mut fixture).await;
    enter(&node, "ann", "c1", "lobby").await;
    node.presence
        .leave(&conn("c1"), &user("ann"), &room("lobby"))
        .await
        .unwrap();
    let redis = fixture.server();
    let incarnation = redis.cli(&["ZRANGE", "{p00}L", "0", "-1"]);
    redis.cli(&["SADD", &format!("{{c85}}N:{incarnation}"), "bG9iYnk"]);
    redis.cli(&[
        "HSET",
        &format!("{{c85}}n:bG9iYnk:{incarnation}"),
        "c1",
        "ann",
    ]);
    redis.cli(&["HSET", "{c85}k:bG9iYnk", "ann", "1"]);
    redis.cli(&["ZADD", "{c85}u:bG9iYnk", "0", "ann"]);
    assert_eq!(redis.cli(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    assert!(
        node.presence
            .is_occupant(&room("lobby"), &user("ann"))
            .await
            .unwrap()
    );
    gone(&node, "lobby", "ann").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_knows_an_older_epoch_goes_on_from_it() {
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
    let old = say(&node, "lobby", "old").await;
    // Nothing is said in some of them, and yet whoever joined in one knows only that one.
    let silent = [next_epoch().await, next_epoch().await].map(|span| span.head);
    next_epoch().await;
    let new = say(&node, "lobby", "new").await;
    assert!(
        silent
            .iter()
            .all(|head| head.seq == 1 && head.epoch != old.epoch)
    );
    let span = next_epoch().await;
    for epoch in silent.iter().map(|head| &head.epoch).chain([&old.epoch]) {
        assert_eq!(span.continuity(Some(epoch), 1), Continuity::Clean);
        assert_eq!(
            span.continuity(Some(epoch), 2),
            Continuity::Lost {
                last_shared: Some(1)
            }
        );
    }
    assert_eq!(span.continuity(Some(&new.epoch), 2), Continuity::Clean);
    // Many silent ones do not push those out in which something was said, and the newest of them is known.
    for _ in 0..10 {
        next_epoch().await;
    }
    let (last, span) = (next_epoch().await, next_epoch().await);
    assert_eq!(span.past.len(), 8);
    for (epoch, seq) in [(&old.epoch, 1), (&new.epoch, 2), (&last.head.epoch, 2)] {
        assert_eq!(span.continuity(Some(epoch), seq), Continuity::Clean);
    }
    // But many in which something was said do.
    for _ in 0..8 {
        say(&node, "lobby", "on and on").await;
        next_epoch().await;
    }
    let span = next_epoch().await;
    assert_eq!(
        span.continuity(Some(&old.epoch), 1),
        Continuity::Lost { last_shared: None }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_without_a_key_is_known_for_moments_only() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    node.log
        .append(&draft("lobby", "ann", "hi"), None)
        .await
        .unwrap();
    let known = fixture.server().cli(&["KEYS", "{c85}i:*"]);
    assert_eq!(
        known.lines().count(),
        1,
        "a call that is sent again by itself is known"
    );
    let left: u64 = fixture.server().cli(&["PTTL", &known]).parse().unwrap();
    assert!(left <= 15_000, "{left}");
}

/// The client library sends a call again when it doesn't know whether the first one arrived.
/// On one thread both are there before the call is made.
#[tokio::test]
async fn a_call_that_comes_twice_is_answered_twice_and_done_once() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let both = async {
        let (with, without) = (
            draft("lobby", "ann", "with a key"),
            draft("attic", "bob", "without"),
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
    let answers = [fixture.server().line(call), fixture.server().line(call)];
    assert_eq!(answers[0], answers[1]);
    let words: Vec<_> = answers[0].split_whitespace().collect();
    assert_eq!(
        (words.len(), words[2], words[4]),
        (5, "1", "1"),
        "time, and epoch and seq of each: {words:?}"
    );
    for place in ["lobby", "attic"] {
        let slice = node
            .log
            .read(&room(place), Window::Newest, 10, 9999)
            .await
            .unwrap();
        assert_eq!(
            (slice.entries.len(), slice.span.head.seq),
            (1, 1),
            "{place}"
        );
    }
}

/// What is known can be said without memory; what is new is refused, each by itself.
#[tokio::test]
async fn a_redis_without_memory_still_knows_what_was_said() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let said = node
        .log
        .append(&draft("lobby", "ann", "hi"), Some("key"))
        .await
        .unwrap();
    say(&node, "attic", "hi").await;
    assert_eq!(
        fixture.server().cli(&["CONFIG", "SET", "maxmemory", "1"]),
        "OK"
    );
    let (again, new) = (
        draft("lobby", "ann", "hi"),
        draft("attic", "bob", "without a key"),
    );
    // On one thread both are there before the call is made.
    let (again, new) = tokio::join!(
        node.log.append(&again, Some("key")),
        node.log.append(&new, None)
    );
    let again = again.unwrap();
    assert!(again.duplicate && (again.id, again.seq) == (said.id, said.seq));
    assert!(
        matches!(new, Err(BackplaneError::Unavailable(_))),
        "{new:?}"
    );
    assert_eq!(
        fixture.server().cli(&["CONFIG", "SET", "maxmemory", "0"]),
        "OK"
    );
    assert_eq!(say(&node, "attic", "there is room again").await.seq, 2);
}

/// An append sees to it once in a while only, and then for that while longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_every_append_the_log_and_the_numbering_are_kept_for_their_whole_time() {
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
            .append(&draft("lobby", "ann", "hi"), None)
            .await
            .unwrap();
        let asked = std::time::Instant::now();
        for key in ["{c85}h:bG9iYnk", "{c85}m:bG9iYnk"] {
            let left: u64 = fixture.server().cli(&["PTTL", key]).parse().unwrap();
            let late = u64::try_from(asked.elapsed().as_millis()).unwrap() + 1;
            assert!(
                (TTL - late..=TTL + TTL / 64).contains(&left),
                "{key} has {left} ms left, asked within {late} ms"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_time_holds_from_the_next_append_on() {
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
        .append(&draft("lobby", "ann", "hi"), None)
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
        .append(&draft("lobby", "ann", "hi"), None)
        .await
        .unwrap();
    for key in ["{c85}h:bG9iYnk", "{c85}m:bG9iYnk"] {
        let left: u64 = fixture.server().cli(&["PTTL", key]).parse().unwrap();
        assert!(left > 59_000_000, "{key} has {left} ms left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_numbering_of_broadcasts_outlives_any_silence() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    node.log
        .append(&draft("broadcast", "ann", "hi"), None)
        .await
        .unwrap();
    let key = fixture.server().cli(&["KEYS", "*m:YnJvYWRjYXN0"]);
    assert_eq!(
        fixture.server().cli(&["PTTL", &key]),
        "-1",
        "{key} doesn't expire"
    );
}

/// Messages of several rooms share a call: one room that can't be written to must not keep back the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_cannot_be_written_to_is_refused_by_itself() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    say(&node, "lobby", "hi").await;
    // Its log is no stream any more.
    assert_eq!(fixture.server().cli(&["SET", "{c85}h:bG9iYnk", "x"]), "OK");
    let mut calls = || -> u64 {
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
    let before = calls();
    let all = (0..90).map(|n| {
        let (node, place) = (&node, ["lobby", "attic", "cellar"][n % 3]);
        async move {
            (
                place,
                node.log
                    .append(&draft(place, "ann", "hi"), Some(&format!("key-{n}")))
                    .await,
            )
        }
    });
    let all = futures_util::future::join_all(all).await;
    assert!(calls() - before < 60, "rooms share calls");
    for (place, seqs) in [("attic", 1..=30), ("cellar", 1..=30)] {
        let places = all
            .iter()
            .filter(|(room, _)| *room == place)
            .map(|(_, place)| place.as_ref().unwrap().seq);
        assert_eq!(
            places.collect::<Vec<_>>(),
            seqs.collect::<Vec<u64>>(),
            "{place}"
        );
    }
    assert!(
        all.iter()
            .filter(|(room, _)| *room == "lobby")
            .all(|(_, place)| place.is_err())
    );
    assert_eq!(fixture.server().cli(&["DEL", "{c85}h:bG9iYnk"]), "1");
    let next = say(&node, "lobby", "again").await.seq;
    let kept = node
        .log
        .read(&room("lobby"), Window::Newest, 10, 9999)
        .await
        .unwrap()
        .entries;
    assert_eq!(
        kept.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        [next],
        "nothing of what was refused"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_twice_in_one_call_is_one_message() {
    let fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let twice = (0..20).map(|n| {
        let node = &node;
        async move {
            node.log
                .append(
                    &draft("lobby", "ann", "hi"),
                    Some(&format!("key-{}", n / 2)),
                )
                .await
                .unwrap()
        }
    });
    let places = futures_util::future::join_all(twice).await;
    for pair in places.chunks(2) {
        assert!(!pair[0].duplicate && pair[1].duplicate);
        assert_eq!((pair[0].seq, pair[0].id), (pair[1].seq, pair[1].id));
    }
    assert_eq!(places[19].seq, 10);
}
