//! Redis away, slow, cut off, or refusing: calls fail fast, and everything goes on by itself afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hubbub::backplane::redis::{RedisSettings, StartError, connect};
use hubbub::backplane::{Backplane, BackplaneError, BusTopic, Changes};
use hubbub::domain::{ChangeKind, RoomId};

use crate::fixture::{
    Fixture, Recorder, SOON, conn, draft, enter, eventually, limits, name, room, say, seqs,
    settings, subscribe, user,
};
use crate::presence::gone;
use hubbub_test_support::server::{RedisServer, SlowWay, free_port};

/// The longest that a call may take while Redis is away, and that the recovery may take.
const PROMPT: Duration = Duration::from_millis(3300);
const RECOVERY: Duration = Duration::from_secs(5);

async fn every_call_fails_fast(node: &Backplane, within: Duration) {
    let (who, place, with) = (user("ann"), room("lobby"), conn("c1"));
    let begun = Instant::now();
    let draft = draft("lobby", "ann", "hi");
    let unavailable = |error: Option<BackplaneError>| {
        assert!(
            matches!(error, Some(BackplaneError::Unavailable(_))),
            "{error:?}"
        )
    };
    tokio::join!(
        async { unavailable(node.log.append(&draft, Some("key")).await.err()) },
        async {
            unavailable(
                node.log
                    .read(&place, hubbub::backplane::Window::Newest, 1, 1)
                    .await
                    .err(),
            )
        },
        async { unavailable(node.log.heads(std::slice::from_ref(&place)).await.err()) },
        async {
            unavailable(
                node.presence
                    .join(&with, &who, &name("ann"), &place)
                    .await
                    .err(),
            )
        },
        async { unavailable(node.presence.status(&who).await.err()) },
        async { unavailable(node.presence.leave(&with, &who, &room("attic")).await.err()) },
        async {
            unavailable(
                node.bus
                    .subscribe(&BusTopic::Room(RoomId::trusted("never heard of")))
                    .await
                    .err(),
            )
        },
    );
    assert!(begun.elapsed() < within, "took {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stops_and_starts_is_survived() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let topic = BusTopic::Room(room("lobby"));
    let recorder = Recorder::on(&node, std::slice::from_ref(&topic)).await;
    enter(&node, "ann", "c1", "lobby").await;
    enter(&node, "bob", "c2", "lobby").await;
    let before = say(&node, "lobby", "before").await;
    fixture.server().kill();
    every_call_fails_fast(&node, PROMPT).await;
    eventually(SOON, "down", async || {
        (!node.lifecycle.is_up()).then_some(())
    })
    .await;
    every_call_fails_fast(&node, Duration::from_millis(500)).await;
    let begun = Instant::now();
    node.presence
        .connection_lost(&conn("c2"), &user("bob"), &[room("lobby")])
        .await;
    assert!(begun.elapsed() < Duration::from_millis(500));
    fixture.server().run();
    let begun = Instant::now();
    eventually(RECOVERY, "up again", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    let after = eventually(RECOVERY, "an append", async || {
        node.log
            .append(&draft("lobby", "ann", "after"), Some("after"))
            .await
            .ok()
    })
    .await;
    assert_eq!(after.seq, 1);
    assert_ne!(after.epoch, before.epoch);
    eventually(RECOVERY, "an interruption", async || {
        recorder
            .interruptions()
            .contains(&Some(topic.clone()))
            .then_some(())
    })
    .await;
    let heard = recorder.events().len();
    say(&node, "lobby", "heard").await;
    eventually(RECOVERY, "the bus", async || {
        (recorder.events().len() > heard).then_some(())
    })
    .await;
    assert!(begun.elapsed() < RECOVERY, "took {:?}", begun.elapsed());
    // Redis came back empty: who is alive is put back, who was lost meanwhile is not.
    eventually(SOON, "ann is back", async || {
        (node.presence.roster(&room("lobby"), 9).await.unwrap().users == [user("ann")])
            .then_some(())
    })
    .await;
    assert!(node.lifecycle.counters().errors > 0 && node.lifecycle.counters().interruptions > 0);
}

/// When thousands come at once, what is said goes past them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_goes_past_a_storm_of_joins() {
    const MANY: usize = 1500;
    let fixture = Fixture::redis();
    let node = Arc::new(fixture.start(limits()).await);
    say(&node, "lobby", "first").await;
    let joined = Arc::new(AtomicUsize::new(0));
    let joins = (0..MANY).map(|n| {
        let (node, joined, who) = (node.clone(), joined.clone(), format!("u{n}"));
        tokio::spawn(async move {
            node.presence
                .join(&conn(&who), &user(&who), &name(&who), &room("lobby"))
                .await
                .unwrap();
            joined.fetch_add(1, Ordering::Relaxed);
        })
    });
    let joins: Vec<_> = joins.collect();
    eventually(SOON, "the storm is on", async || {
        (joined.load(Ordering::Relaxed) > 50).then_some(())
    })
    .await;
    let before = joined.load(Ordering::Relaxed);
    say(&node, "lobby", "second").await;
    let meanwhile = joined.load(Ordering::Relaxed) - before;
    assert!(
        meanwhile < MANY / 5,
        "{meanwhile} of {MANY} joins went first, {before} were done"
    );
    for join in joins {
        join.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_is_survived() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    enter(&node, "ann", "c1", "lobby").await;
    enter(&node, "bob", "c2", "lobby").await;
    fixture.server().signal("-STOP");
    every_call_fails_fast(&node, PROMPT).await;
    eventually(SOON, "down", async || {
        (!node.lifecycle.is_up()).then_some(())
    })
    .await;
    node.presence
        .connection_lost(&conn("c2"), &user("bob"), &[room("lobby")])
        .await;
    fixture.server().signal("-CONT");
    eventually(RECOVERY, "up again", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    eventually(RECOVERY, "an append", async || {
        node.log
            .append(&draft("lobby", "ann", "after"), Some("after"))
            .await
            .ok()
    })
    .await;
    gone(&node, "lobby", "bob").await;
    assert!(
        node.presence
            .is_occupant(&room("lobby"), &user("ann"))
            .await
            .unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_that_came_late_is_no_ghost() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    // Redis knows the script from now on, so that one call does it.
    node.presence
        .connect(&conn("c0"), &user("ann"), &name("ann"))
        .await
        .unwrap();
    fixture.server().signal("-STOP");
    // A client repeats it on the same socket, and goes away.
    for _ in 0..2 {
        let refused = node
            .presence
            .connect(&conn("c1"), &user("bob"), &name("bob"))
            .await;
        assert!(
            matches!(refused, Err(BackplaneError::Unavailable(_))),
            "{refused:?}"
        );
    }
    fixture.server().signal("-CONT");
    eventually(RECOVERY, "up again", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    let late = eventually(SOON, "bob was there, and isn't", async || {
        Some(node.presence.status(&user("bob")).await.ok()?).filter(|status| !status.online)
    })
    .await;
    assert_ne!(late.version, 0, "it did happen");
    assert_eq!(
        fixture.server().cli(&["KEYS", "{p*}c:*"]).lines().count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_came_back_while_its_loss_was_said_stays() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let (with, ann, called) = (conn("c1"), user("ann"), name("ann"));
    node.presence.connect(&with, &ann, &called).await.unwrap();
    // Another one, or the partition would look as if it had lost data.
    node.presence
        .connect(&conn("c0"), &ann, &called)
        .await
        .unwrap();
    // Redis has forgotten the one script and knows the other, so that the loss is said twice, and the second time too late.
    fixture.server().cli(&["SCRIPT", "FLUSH"]);
    node.presence
        .connect(&conn("c2"), &user("bob"), &name("bob"))
        .await
        .unwrap();
    let ((), back) = tokio::join!(
        node.presence.connection_lost(&with, &ann, &[]),
        node.presence.connect(&with, &ann, &called)
    );
    back.unwrap();
    eventually(SOON, "it is registered, and has no grace", async || {
        let redis = fixture.server();
        let held =
            redis.cli(&["HLEN", "{pa1}c:YW5u"]) == "2" && redis.cli(&["ZCARD", "{pa1}g"]) == "0";
        held.then_some(())
    })
    .await;
    assert!(node.presence.status(&ann).await.unwrap().online);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leave_that_came_late_is_taken_back() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    enter(&node, "ann", "c1", "lobby").await;
    let joined = enter(&node, "bob", "c2", "lobby").await;
    // Redis knows the script from now on, so that one call does it.
    node.presence
        .leave(&conn("c1"), &user("ann"), &room("attic"))
        .await
        .unwrap();
    fixture.server().signal("-STOP");
    let refused = node
        .presence
        .leave(&conn("c1"), &user("ann"), &room("lobby"))
        .await;
    assert!(
        matches!(refused, Err(BackplaneError::Unavailable(_))),
        "{refused:?}"
    );
    fixture.server().signal("-CONT");
    // The caller was told that it failed, and has the connection in the room.
    let changes = eventually(SOON, "two changes", async || {
        match node
            .presence
            .room_changes(&room("lobby"), joined.roster.version)
            .await
            .ok()?
        {
            Changes::Since(changes) => Some(changes).filter(|changes| changes.len() >= 2),
            Changes::TooOld => panic!("it is known"),
        }
    })
    .await;
    let kinds: Vec<_> = changes.iter().map(|change| change.kind).collect();
    assert_eq!(kinds, [ChangeKind::Left, ChangeKind::Joined]);
    assert!(
        node.presence
            .is_occupant(&room("lobby"), &user("ann"))
            .await
            .unwrap()
    );
    node.presence
        .leave(&conn("c1"), &user("ann"), &room("lobby"))
        .await
        .unwrap();
    gone(&node, "lobby", "ann").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_subscription_is_taken_up_again() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let topics: Vec<_> = (0..50)
        .map(|n| BusTopic::Room(room(&format!("room{n}"))))
        .collect();
    let recorder = Recorder::on(&node, &topics).await;
    assert_ne!(
        fixture.server().cli(&["CLIENT", "KILL", "TYPE", "pubsub"]),
        "0"
    );
    eventually(RECOVERY, "interruptions", async || {
        let interruptions = recorder.interruptions();
        topics
            .iter()
            .all(|topic| interruptions.contains(&Some(topic.clone())))
            .then_some(())
    })
    .await;
    // "Interrupted" is said when everything that comes later arrives.
    for n in 0..50 {
        say(&node, &format!("room{n}"), "hi").await;
    }
    assert_eq!(recorder.wait_for(50).await.len(), 50);
    assert!(node.lifecycle.is_up());
    fixture.server().cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually(RECOVERY, "an append", async || {
        node.log
            .append(&draft("lobby", "ann", "after"), Some("after"))
            .await
            .ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_late_is_waited_for() {
    let port = free_port();
    let node = connect(settings(&format!("redis://127.0.0.1:{port}")), limits())
        .await
        .unwrap();
    assert!(!node.lifecycle.is_up());
    every_call_fails_fast(&node, Duration::from_millis(500)).await;
    let _server = RedisServer::start_on(port, &[]);
    eventually(RECOVERY, "up", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    let recorder = Recorder::on(&node, &[]).await;
    subscribe(node.bus.as_ref(), &BusTopic::Room(room("lobby"))).await;
    say(&node, "lobby", "hi").await;
    recorder.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_password_ends_the_start() {
    let server = RedisServer::start_with(&["--requirepass", "secret"]);
    let url = |password: &str| RedisSettings {
        url: format!("redis://:{password}@127.0.0.1:{}", server.port),
        ..settings("")
    };
    let wrong = connect(url("wrong"), limits()).await.err();
    assert!(
        matches!(wrong, Some(StartError::WrongPassword(_))),
        "{wrong:?}"
    );
    let none = connect(settings(&server.url()), limits()).await.err();
    assert!(
        matches!(none, Some(StartError::WrongPassword(_))),
        "{none:?}"
    );
    let node = connect(url("secret"), limits()).await.unwrap();
    assert!(node.lifecycle.is_up() && !node.lifecycle.describe().contains("secret"));
    let nonsense = connect(settings("http://example.com"), limits())
        .await
        .err();
    assert!(
        matches!(nonsense, Some(StartError::BadUrl(_))),
        "{nonsense:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_evicts_is_refused() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let refused = connect(settings(&server.url()), limits()).await.err();
    assert!(
        matches!(&refused, Some(StartError::Policy(policy)) if policy == "allkeys-lru"),
        "{refused:?}"
    );
    // One that comes later is not used until it is set right.
    let port = free_port();
    let node = connect(settings(&format!("redis://127.0.0.1:{port}")), limits())
        .await
        .unwrap();
    let late = RedisServer::start_on(port, &["--maxmemory-policy", "allkeys-lru"]);
    eventually(SOON, "a heartbeat", async || {
        (!late.cli(&["ZRANGE", "{p00}L", "0", "-1"]).is_empty()).then_some(())
    })
    .await;
    assert!(!node.lifecycle.is_up());
    late.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    eventually(RECOVERY, "up", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_waits_for_a_slow_redis_no_longer_than_it_may() {
    let mut fixture = Fixture::redis();
    let way = SlowWay::to(fixture.server().port).await;
    let node = connect(
        settings(&format!("redis://127.0.0.1:{}", way.port)),
        limits(),
    )
    .await
    .unwrap();
    say(&node, "lobby", "first").await;
    way.hold_back(Duration::from_millis(1900));
    let append = async |n: usize| {
        let begun = Instant::now();
        let done = node
            .log
            .append(&draft("lobby", "ann", &n.to_string()), Some(&n.to_string()))
            .await;
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{n} took {:?}: {done:?}",
            begun.elapsed()
        );
        (n, done)
    };
    let done = futures_util::future::join_all((0..600).map(append)).await;
    let refused: Vec<_> = done.iter().filter(|(_, done)| done.is_err()).collect();
    assert!(
        !refused.is_empty() && refused.len() < 600,
        "{} refused",
        refused.len()
    );
    way.hold_back(Duration::ZERO);
    // What was refused in the queue has not happened, and what is said again happens once.
    for (n, done) in refused {
        assert!(
            matches!(done, Err(BackplaneError::Unavailable(_))),
            "{done:?}"
        );
        let again = eventually(RECOVERY, "an append", async || append(*n).await.1.ok()).await;
        assert!(!again.duplicate);
    }
    assert_eq!(
        seqs(node.log.as_ref(), "lobby").await,
        (1..=601).collect::<Vec<_>>()
    );
}
