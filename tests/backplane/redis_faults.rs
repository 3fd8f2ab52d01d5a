//! Redis is down, slow, cut off, or refuses: calls fail fast, and the node recovers by itself
//! afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hubbub::backplane::redis::{RedisSettings, StartError, connect};
use hubbub::backplane::{Backplane, BackplaneError, BusTopic, Changes};
use hubbub::domain::{ChangeKind, RoomId};

use crate::fixture::{
    DEADLINE, Fixture, Recorder, append_message, conn, connect_and_join, eventually, limits,
    message, name, room, seqs, settings, subscribe, user,
};
use crate::presence::wait_until_left;
use hubbub_test_support::server::{DelayingProxy, RedisServer, free_port};

/// The longest that a call may take until the node has noticed that Redis is down.
const OUTAGE_CALL_LIMIT: Duration = Duration::from_millis(3300);
/// The longest that the recovery may take once Redis is back.
const RECOVERY: Duration = Duration::from_secs(5);

async fn every_call_fails_fast(node: &Backplane, within: Duration) {
    let (user_id, room_id, conn_id) = (user("ann"), room("lobby"), conn("c1"));
    let begun = Instant::now();
    let message = message("lobby", "ann", "hi");
    let unavailable = |error: Option<BackplaneError>| {
        assert!(
            matches!(error, Some(BackplaneError::Unavailable(_))),
            "{error:?}"
        )
    };
    tokio::join!(
        async { unavailable(node.log.append(&message, Some("key")).await.err()) },
        async {
            unavailable(
                node.log
                    .read(&room_id, hubbub::backplane::Window::Newest, 1, 1)
                    .await
                    .err(),
            )
        },
        async { unavailable(node.log.heads(std::slice::from_ref(&room_id)).await.err()) },
        async {
            unavailable(
                node.presence
                    .join(&conn_id, &user_id, &name("ann"), &room_id)
                    .await
                    .err(),
            )
        },
        async { unavailable(node.presence.status(&user_id).await.err()) },
        async {
            unavailable(
                node.presence
                    .leave(&conn_id, &user_id, &room("attic"))
                    .await
                    .err(),
            )
        },
        async {
            unavailable(
                node.bus
                    .subscribe(&BusTopic::Room(RoomId::trusted("another room")))
                    .await
                    .err(),
            )
        },
    );
    assert!(begun.elapsed() < within, "took {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_recovers_after_redis_restarts() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let topic = BusTopic::Room(room("lobby"));
    let recorder = Recorder::on(&node, std::slice::from_ref(&topic)).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    connect_and_join(&node, "bob", "c2", "lobby").await;
    let before = append_message(&node, "lobby", "before").await;
    fixture.server().kill();
    every_call_fails_fast(&node, OUTAGE_CALL_LIMIT).await;
    eventually(DEADLINE, "the node is down", async || {
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
    eventually(RECOVERY, "the node is up again", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    let after = eventually(RECOVERY, "an append succeeds", async || {
        node.log
            .append(&message("lobby", "ann", "after"), Some("after"))
            .await
            .ok()
    })
    .await;
    assert_eq!(after.seq, 1);
    assert_ne!(after.epoch, before.epoch);
    eventually(RECOVERY, "an interruption is reported", async || {
        recorder
            .interruptions()
            .contains(&Some(topic.clone()))
            .then_some(())
    })
    .await;
    let before_append = recorder.events().len();
    append_message(&node, "lobby", "delivered").await;
    eventually(RECOVERY, "the bus delivers the message", async || {
        (recorder.events().len() > before_append).then_some(())
    })
    .await;
    assert!(begun.elapsed() < RECOVERY, "took {:?}", begun.elapsed());
    // Redis came back empty: live connections are restored, the one lost meanwhile is not.
    eventually(DEADLINE, "ann is restored, and bob is not", async || {
        (node.presence.roster(&room("lobby"), 9).await.unwrap().users == [user("ann")])
            .then_some(())
    })
    .await;
    assert!(node.lifecycle.counters().errors > 0 && node.lifecycle.counters().interruptions > 0);
}

/// While thousands of joins are queued, an append does not wait behind them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_overtake_a_burst_of_joins() {
    const MANY: usize = 1500;
    let fixture = Fixture::redis();
    let node = Arc::new(fixture.start(limits()).await);
    append_message(&node, "lobby", "first").await;
    let joined = Arc::new(AtomicUsize::new(0));
    let joins = (0..MANY).map(|n| {
        let (node, joined, user_id) = (node.clone(), joined.clone(), format!("u{n}"));
        tokio::spawn(async move {
            node.presence
                .join(
                    &conn(&user_id),
                    &user(&user_id),
                    &name(&user_id),
                    &room("lobby"),
                )
                .await
                .unwrap();
            joined.fetch_add(1, Ordering::Relaxed);
        })
    });
    let joins: Vec<_> = joins.collect();
    eventually(DEADLINE, "the burst of joins is under way", async || {
        (joined.load(Ordering::Relaxed) > 50).then_some(())
    })
    .await;
    let before = joined.load(Ordering::Relaxed);
    append_message(&node, "lobby", "second").await;
    let meanwhile = joined.load(Ordering::Relaxed) - before;
    assert!(
        meanwhile < MANY / 5,
        "{meanwhile} of {MANY} joins finished before the append, after {before} others"
    );
    for join in joins {
        join.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_recovers_after_redis_hangs() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    connect_and_join(&node, "bob", "c2", "lobby").await;
    fixture.server().signal("-STOP");
    every_call_fails_fast(&node, OUTAGE_CALL_LIMIT).await;
    eventually(DEADLINE, "the node is down", async || {
        (!node.lifecycle.is_up()).then_some(())
    })
    .await;
    node.presence
        .connection_lost(&conn("c2"), &user("bob"), &[room("lobby")])
        .await;
    fixture.server().signal("-CONT");
    eventually(RECOVERY, "the node is up again", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    eventually(RECOVERY, "an append succeeds", async || {
        node.log
            .append(&message("lobby", "ann", "after"), Some("after"))
            .await
            .ok()
    })
    .await;
    wait_until_left(&node, "lobby", "bob").await;
    assert!(
        node.presence
            .is_occupant(&room("lobby"), &user("ann"))
            .await
            .unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_connect_leaves_no_stale_connection() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    // Redis has the script from now on, so a single call is enough to run it.
    node.presence
        .connect(&conn("c0"), &user("ann"), &name("ann"))
        .await
        .unwrap();
    fixture.server().signal("-STOP");
    // The client repeats the connect on the same socket, and then goes away.
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
    eventually(RECOVERY, "the node is up again", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    let late = eventually(
        DEADLINE,
        "bob is offline after the late connect",
        async || {
            Some(node.presence.status(&user("bob")).await.ok()?).filter(|status| !status.online)
        },
    )
    .await;
    assert_ne!(late.version, 0, "the connect took effect");
    assert_eq!(
        fixture
            .server()
            .cli(&["KEYS", "hubbub:{p*}c:*"])
            .lines()
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_during_its_own_disconnect_stays_registered() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let (conn_id, ann, username) = (conn("c1"), user("ann"), name("ann"));
    node.presence
        .connect(&conn_id, &ann, &username)
        .await
        .unwrap();
    // Without a second connection the partition would look as if it had lost data.
    node.presence
        .connect(&conn("c0"), &ann, &username)
        .await
        .unwrap();
    // Redis lacks the script for disconnects and has the one for connects. So the disconnect takes
    // two calls, and the second one arrives after the connect.
    fixture.server().cli(&["SCRIPT", "FLUSH"]);
    node.presence
        .connect(&conn("c2"), &user("bob"), &name("bob"))
        .await
        .unwrap();
    let ((), reconnected) = tokio::join!(
        node.presence.connection_lost(&conn_id, &ann, &[]),
        node.presence.connect(&conn_id, &ann, &username)
    );
    reconnected.unwrap();
    eventually(
        DEADLINE,
        "the connection is registered and has no grace",
        async || {
            let redis = fixture.server();
            let is_registered = redis.cli(&["HLEN", "hubbub:{pa1}c:YW5u"]) == "2"
                && redis.cli(&["ZCARD", "hubbub:{pa1}g"]) == "0";
            is_registered.then_some(())
        },
    )
    .await;
    assert!(node.presence.status(&ann).await.unwrap().online);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_leave_is_reverted() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    let joined = connect_and_join(&node, "bob", "c2", "lobby").await;
    // Redis has the script from now on, so a single call is enough to run it.
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
    // The caller got an error, so for the caller the connection is still in the room.
    let changes = eventually(DEADLINE, "two changes are published", async || {
        match node
            .presence
            .room_changes(&room("lobby"), joined.roster.version)
            .await
            .ok()?
        {
            Changes::Since(changes) => Some(changes).filter(|changes| changes.len() >= 2),
            Changes::TooOld => panic!("the version is known"),
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
    wait_until_left(&node, "lobby", "ann").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_subscription_is_renewed() {
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
    eventually(
        RECOVERY,
        "an interruption of every topic is reported",
        async || {
            let interruptions = recorder.interruptions();
            topics
                .iter()
                .all(|topic| interruptions.contains(&Some(topic.clone())))
                .then_some(())
        },
    )
    .await;
    // The interruption is reported once all later events will arrive.
    for n in 0..50 {
        append_message(&node, &format!("room{n}"), "hi").await;
    }
    assert_eq!(recorder.wait_for(50).await.len(), 50);
    assert!(node.lifecycle.is_up());
    fixture.server().cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually(RECOVERY, "an append succeeds", async || {
        node.log
            .append(&message("lobby", "ann", "after"), Some("after"))
            .await
            .ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_waits_for_a_redis_that_starts_later() {
    let port = free_port();
    let node = connect(
        settings(&format!("redis://127.0.0.1:{port}")),
        limits(),
        None,
    )
    .await
    .unwrap();
    assert!(!node.lifecycle.is_up());
    every_call_fails_fast(&node, Duration::from_millis(500)).await;
    let _server = RedisServer::start_on(port, &[]);
    eventually(RECOVERY, "the node is up", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    let recorder = Recorder::on(&node, &[]).await;
    subscribe(node.bus.as_ref(), &BusTopic::Room(room("lobby"))).await;
    append_message(&node, "lobby", "hi").await;
    recorder.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_fails_the_start() {
    let server = RedisServer::start_with(&["--requirepass", "secret"]);
    let url = |password: &str| RedisSettings {
        url: format!("redis://:{password}@127.0.0.1:{}", server.port),
        ..settings("")
    };
    let wrong = connect(url("wrong"), limits(), None).await.err();
    assert!(
        matches!(wrong, Some(StartError::WrongPassword(_))),
        "{wrong:?}"
    );
    let none = connect(settings(&server.url()), limits(), None).await.err();
    assert!(
        matches!(none, Some(StartError::WrongPassword(_))),
        "{none:?}"
    );
    let node = connect(url("secret"), limits(), None).await.unwrap();
    assert!(node.lifecycle.is_up() && !node.lifecycle.describe().contains("secret"));
    let nonsense = connect(settings("http://example.com"), limits(), None)
        .await
        .err();
    assert!(
        matches!(nonsense, Some(StartError::BadUrl(_))),
        "{nonsense:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_with_an_evicting_policy_is_refused() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let refused = connect(settings(&server.url()), limits(), None).await.err();
    assert!(
        matches!(&refused, Some(StartError::Policy(policy)) if policy == "allkeys-lru"),
        "{refused:?}"
    );
    // A Redis that starts later than the node is not used until its policy is corrected.
    let port = free_port();
    let node = connect(
        settings(&format!("redis://127.0.0.1:{port}")),
        limits(),
        None,
    )
    .await
    .unwrap();
    let late = RedisServer::start_on(port, &["--maxmemory-policy", "allkeys-lru"]);
    eventually(DEADLINE, "a heartbeat arrives", async || {
        (!late.cli(&["ZRANGE", "hubbub:{p00}L", "0", "-1"]).is_empty()).then_some(())
    })
    .await;
    assert!(!node.lifecycle.is_up());
    late.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    eventually(RECOVERY, "the node is up", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_to_a_slow_redis_fail_within_5_seconds() {
    let mut fixture = Fixture::redis();
    let proxy = DelayingProxy::to(fixture.server().port).await;
    let node = connect(
        settings(&format!("redis://127.0.0.1:{}", proxy.port)),
        limits(),
        None,
    )
    .await
    .unwrap();
    append_message(&node, "lobby", "first").await;
    proxy.set_delay(Duration::from_millis(1900));
    let append = async |n: usize| {
        let begun = Instant::now();
        let done = node
            .log
            .append(
                &message("lobby", "ann", &n.to_string()),
                Some(&n.to_string()),
            )
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
    proxy.set_delay(Duration::ZERO);
    // An append that was refused in the queue had no effect, and its retry takes effect once.
    for (n, done) in refused {
        assert!(
            matches!(done, Err(BackplaneError::Unavailable(_))),
            "{done:?}"
        );
        let again = eventually(RECOVERY, "an append succeeds", async || {
            append(*n).await.1.ok()
        })
        .await;
        assert!(!again.duplicate);
    }
    assert_eq!(
        seqs(node.log.as_ref(), "lobby").await,
        (1..=601).collect::<Vec<_>>()
    );
}
