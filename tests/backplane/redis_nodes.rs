//! Several nodes on one Redis: one order of messages, one event per change, and nodes that die, are
//! reaped although they live, or stop.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use hubbub::backplane::redis::RedisSettings;
use hubbub::backplane::{Backplane, BackplaneError, BackplaneLimits, BusEvent, BusTopic};
use hubbub::domain::ChangeKind;
use hubbub_test_support::log::CollectedLog;

use crate::fixture::{
    DEADLINE, Fixture, GRACE, Recorder, append_message, conn, connect_and_join, eventually, limits,
    name, room, settings, user,
};
use crate::presence::{room_changes, statuses, wait_until_left, wait_until_offline};

/// A node on a runtime of its own, so that it can die like a process.
struct KillableNode {
    runtime: tokio::runtime::Runtime,
    node: Backplane,
}

impl KillableNode {
    async fn start(fixture: &mut Fixture, limits: BackplaneLimits) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let settings = crate::fixture::settings(&fixture.server().url());
        let node = runtime
            .spawn(hubbub::backplane::redis::connect(settings, limits, None))
            .await
            .unwrap()
            .unwrap();
        Self { runtime, node }
    }

    /// Ends all tasks of the node, without an orderly stop.
    fn kill(self) {
        self.runtime.shutdown_background();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_receives_the_same_events_once() {
    let fixture = Fixture::redis();
    let nodes = [fixture.start(limits()).await, fixture.start(limits()).await];
    let topics = [BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))];
    let recorders = [
        Recorder::on(&nodes[0], &topics).await,
        Recorder::on(&nodes[1], &topics).await,
    ];
    connect_and_join(&nodes[0], "ann", "c1", "lobby").await;
    assert_eq!(
        connect_and_join(&nodes[1], "ann", "c2", "lobby")
            .await
            .roster
            .total,
        1
    );
    let writers = nodes.clone().map(|node| {
        tokio::spawn(async move {
            for n in 0..50 {
                append_message(&node, "lobby", &n.to_string()).await;
            }
        })
    });
    for writer in writers {
        writer.await.unwrap();
    }
    nodes[0]
        .presence
        .connection_lost(&conn("c1"), &user("ann"), &[room("lobby")])
        .await;
    nodes[1]
        .presence
        .connection_lost(&conn("c2"), &user("ann"), &[room("lobby")])
        .await;
    wait_until_left(&nodes[1], "lobby", "ann").await;
    wait_until_offline(&nodes[0], "ann").await;
    let of_room = |events: Vec<BusEvent>| {
        events
            .into_iter()
            .filter(|event| !matches!(event, BusEvent::StatusChanged(_)))
            .collect::<Vec<_>>()
    };
    let first = recorders[0].events_until_sentinel(&nodes[0], "lobby").await;
    let second = recorders[1].events_until_sentinel(&nodes[1], "lobby").await;
    assert_eq!(
        room_changes(&first)
            .iter()
            .map(|change| change.0)
            .collect::<Vec<_>>(),
        [ChangeKind::Joined, ChangeKind::Left]
    );
    for events in [&first, &second] {
        assert_eq!(
            statuses(events)
                .iter()
                .map(|status| status.online)
                .collect::<Vec<_>>(),
            [true, false]
        );
    }
    let (first, mut second) = (of_room(first), of_room(second));
    // The second recorder has also received the first one's sentinel.
    second.truncate(first.len());
    assert_eq!(first, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_dead_node_leave_once() {
    let mut fixture = Fixture::redis();
    let (alive, also_alive) = (fixture.start(limits()).await, fixture.start(limits()).await);
    let killable = KillableNode::start(&mut fixture, limits()).await;
    let recorder = Recorder::on(
        &alive,
        &[BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))],
    )
    .await;
    connect_and_join(&alive, "bob", "b1", "lobby").await;
    connect_and_join(&killable.node, "ann", "a1", "lobby").await;
    connect_and_join(&killable.node, "bob", "b2", "lobby").await;
    killable.kill();
    wait_until_left(&also_alive, "lobby", "ann").await;
    wait_until_offline(&also_alive, "ann").await;
    let events = recorder.events_until_sentinel(&alive, "lobby").await;
    let left: Vec<_> = room_changes(&events)
        .into_iter()
        .filter(|change| change.0 == ChangeKind::Left)
        .collect();
    assert_eq!(left, [(ChangeKind::Left, "ann".to_owned(), 1)]);
    eventually(DEADLINE, "the offline status arrives", async || {
        (statuses(&recorder.events()).len() == 2).then_some(())
    })
    .await;
    assert!(alive.presence.status(&user("bob")).await.unwrap().online);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_dead_node_do_not_count() {
    let mut fixture = Fixture::redis();
    let limits = BackplaneLimits {
        sockets_per_user: 1,
        ..limits()
    };
    let killable = KillableNode::start(&mut fixture, limits.clone()).await;
    killable
        .node
        .presence
        .connect(&conn("a1"), &user("ann"), &name("ann"))
        .await
        .unwrap();
    let alive = fixture.start(limits).await;
    let connect = async || {
        alive
            .presence
            .connect(&conn("a2"), &user("ann"), &name("ann"))
            .await
    };
    assert!(matches!(
        connect().await,
        Err(BackplaneError::TooManyConnections)
    ));
    killable.kill();
    eventually(DEADLINE, "the connection is accepted", async || {
        connect().await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_node_that_was_reaped_registers_again() {
    let mut fixture = Fixture::redis();
    let (one, two) = (fixture.start(limits()).await, fixture.start(limits()).await);
    let leases = fixture
        .server()
        .cli(&["ZRANGE", "hubbub:{p00}L", "0", "-1"]);
    assert_eq!(leases.lines().count(), 2);
    connect_and_join(&one, "ann", "c1", "lobby").await;
    connect_and_join(&two, "bob", "c2", "lobby").await;
    // As if both nodes had been suspended until their leases expired, and a third node had
    // condemned them.
    for incarnation in leases.lines() {
        fixture
            .server()
            .cli(&["ZADD", "hubbub:{p00}D", "9999999999999", incarnation]);
        fixture
            .server()
            .cli(&["ZADD", "hubbub:{p00}L", "1", incarnation]);
    }
    eventually(DEADLINE, "both incarnations are reaped", async || {
        let now = fixture
            .server()
            .cli(&["ZRANGE", "hubbub:{p00}L", "0", "-1"]);
        (now.lines().count() == 2 && leases.lines().all(|old| !now.contains(old))).then_some(())
    })
    .await;
    eventually(DEADLINE, "both users are in the room", async || {
        let users = one.presence.roster(&room("lobby"), 10).await.unwrap().users;
        (users == [user("ann"), user("bob")]).then_some(())
    })
    .await;
    eventually(DEADLINE, "ann is online again", async || {
        one.presence
            .status(&user("ann"))
            .await
            .unwrap()
            .online
            .then_some(())
    })
    .await;
    // A user that was reaped after the node registered it again has a grace too, until it is
    // restored.
    eventually(DEADLINE, "no grace remains", async || {
        fixture
            .server()
            .cli(&["KEYS", "*}g"])
            .is_empty()
            .then_some(())
    })
    .await;
    // A connection that was registered again counts once, so its leave takes effect immediately.
    one.presence
        .leave(&conn("c1"), &user("ann"), &room("lobby"))
        .await
        .unwrap();
    assert!(
        !two.presence
            .is_occupant(&room("lobby"), &user("ann"))
            .await
            .unwrap()
    );
    assert!(
        two.presence
            .is_occupant(&room("lobby"), &user("bob"))
            .await
            .unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_incarnation_cannot_write() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    let incarnation = fixture
        .server()
        .cli(&["ZRANGE", "hubbub:{p00}L", "0", "-1"]);
    fixture
        .server()
        .cli(&["ZADD", "hubbub:{p00}D", "9999999999999", &incarnation]);
    for n in 0..256 {
        fixture.server().cli(&[
            "ZADD",
            &format!("{{c{n:02x}}}F"),
            "9999999999999",
            &incarnation,
        ]);
        fixture.server().cli(&[
            "ZADD",
            &format!("{{p{n:02x}}}F"),
            "9999999999999",
            &incarnation,
        ]);
    }
    // Writes succeed nevertheless, under a new incarnation.
    connect_and_join(&node, "bob", "c2", "lobby").await;
    node.presence
        .leave(&conn("c2"), &user("bob"), &room("lobby"))
        .await
        .unwrap();
    let now = fixture.server().cli(&["KEYS", "hubbub:{c*}n:*"]);
    assert!(!now.contains(&format!("bob:{incarnation}")), "{now}");
    assert!(node.lifecycle.is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_node_starts_the_graces_of_its_connections() {
    let fixture = Fixture::redis();
    let long = BackplaneLimits {
        presence_grace: GRACE * 3,
        ..limits()
    };
    let (stays, stops) = (fixture.start(long.clone()).await, fixture.start(long).await);
    let recorder = Recorder::on(&stays, &[BusTopic::Room(room("lobby"))]).await;
    connect_and_join(&stops, "ann", "c1", "lobby").await;
    connect_and_join(&stops, "bob", "c2", "lobby").await;
    let begun = std::time::Instant::now();
    stops.lifecycle.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    // Ann's client connects to the other node within the grace, Bob's doesn't.
    connect_and_join(&stays, "ann", "c3", "lobby").await;
    wait_until_left(&stays, "lobby", "bob").await;
    wait_until_offline(&stays, "bob").await;
    let events = recorder.events_until_sentinel(&stays, "lobby").await;
    let expected = [
        (ChangeKind::Joined, "ann".to_owned(), 1),
        (ChangeKind::Joined, "bob".to_owned(), 2),
        (ChangeKind::Left, "bob".to_owned(), 1),
    ];
    assert_eq!(room_changes(&events), expected);
    assert!(stays.presence.status(&user("ann")).await.unwrap().online);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_with_4000_connections_is_reaped() {
    let mut fixture = Fixture::redis();
    let limits = BackplaneLimits {
        sockets_per_user: 10_000,
        ..limits()
    };
    let alive = fixture.start(limits.clone()).await;
    let killable = KillableNode::start(&mut fixture, limits).await;
    // The hash of these connections has so many buckets that a scan that restarts in each step
    // would spend itself on buckets that are already empty.
    let crowd = stream::iter(0..4000).map(|n| {
        let node = killable.node.clone();
        async move { connect_and_join(&node, "ann", &format!("c{n}"), "lobby").await }
    });
    crowd.buffer_unordered(100).for_each(async |_| {}).await;
    killable.kill();
    wait_until_left(&alive, "lobby", "ann").await;
    wait_until_offline(&alive, "ann").await;
    eventually(
        DEADLINE,
        "no connection of the dead node remains",
        async || {
            fixture
                .server()
                .cli(&["KEYS", "*n:*"])
                .is_empty()
                .then_some(())
        },
    )
    .await;
    eventually(
        DEADLINE,
        "the lease of the dead node is removed",
        async || (fixture.server().cli(&["ZCARD", "hubbub:{p00}L"]) == "1").then_some(()),
    )
    .await;
}

/// Starts a node that sends a heartbeat at this interval.
async fn start_with_beat_interval(
    fixture: &mut Fixture,
    limits: BackplaneLimits,
    beat_interval: Duration,
) -> Backplane {
    let settings = RedisSettings {
        beat_interval,
        ..settings(&fixture.server().url())
    };
    hubbub::backplane::redis::connect(settings, limits, None)
        .await
        .unwrap()
}

fn leases(fixture: &mut Fixture) -> Vec<String> {
    fixture
        .server()
        .cli(&["ZRANGE", "hubbub:{p00}L", "0", "-1"])
        .lines()
        .map(ToOwned::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_the_first_node_back_reaps_no_other_node() {
    let mut fixture = Fixture::redis();
    let late = start_with_beat_interval(&mut fixture, limits(), Duration::from_secs(2)).await;
    let lease = leases(&mut fixture).remove(0);
    connect_and_join(&late, "ann", "c1", "lobby").await;
    let first = start_with_beat_interval(&mut fixture, limits(), Duration::from_millis(100)).await;
    let recorder = Recorder::on(
        &first,
        &[BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))],
    )
    .await;
    // As after an outage of Redis that was longer than a lease: all leases have expired.
    let expire_leases = "for _, inc in ipairs(redis.call('ZRANGE', 'hubbub:{p00}L', 0, -1)) do \
                redis.call('ZADD', 'hubbub:{p00}L', 1, inc) end \
                redis.call('SET', 'hubbub:{p00}B', 1)";
    fixture.server().cli(&["EVAL", expire_leases, "0"]);
    let score = async |fixture: &mut Fixture| {
        let score = fixture.server().cli(&["ZSCORE", "hubbub:{p00}L", &lease]);
        score.parse::<f64>().unwrap_or(0.0)
    };
    let prolonged = eventually(
        DEADLINE,
        "the first node prolongs the lease of the other",
        async || Some(score(&mut fixture).await).filter(|score| *score > 1.0),
    )
    .await;
    eventually(DEADLINE, "the other node sends a heartbeat", async || {
        (score(&mut fixture).await > prolonged).then_some(())
    })
    .await;
    assert_eq!(fixture.server().cli(&["ZCARD", "hubbub:{p00}D"]), "0");
    let events = recorder.events_until_sentinel(&first, "lobby").await;
    assert!(events.is_empty(), "no user joined or left: {events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reaped_live_node_returns_before_its_graces_end() {
    let mut fixture = Fixture::redis();
    let limits = BackplaneLimits {
        presence_grace: Duration::from_secs(6),
        ..limits()
    };
    let asleep =
        start_with_beat_interval(&mut fixture, limits.clone(), Duration::from_secs(1)).await;
    let old = leases(&mut fixture).remove(0);
    connect_and_join(&asleep, "ann", "c1", "lobby").await;
    let awake = start_with_beat_interval(&mut fixture, limits, Duration::from_millis(100)).await;
    let recorder = Recorder::on(
        &awake,
        &[BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))],
    )
    .await;
    fixture
        .server()
        .cli(&["ZADD", "hubbub:{p00}D", "9999999999999", &old]);
    fixture.server().cli(&["ZADD", "hubbub:{p00}L", "1", &old]);
    eventually(DEADLINE, "the expired incarnation is reaped", async || {
        (!leases(&mut fixture).contains(&old)).then_some(())
    })
    .await;
    eventually(DEADLINE, "the node has registered again", async || {
        let keys = fixture.server().cli(&["KEYS", "hubbub:{c*}n:*"]);
        let graces = fixture.server().cli(&["KEYS", "*}g"]);
        (!keys.is_empty() && !keys.contains(&old) && graces.is_empty()).then_some(())
    })
    .await;
    let events = recorder.events_until_sentinel(&awake, "lobby").await;
    assert!(events.is_empty(), "no user joined or left: {events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_starting_node_reaps_dead_nodes() {
    let mut fixture = Fixture::redis();
    let dead = "redis.call('ZADD', 'hubbub:{p00}L', 1, 'dead') \
                redis.call('SET', 'hubbub:{p00}B', redis.call('TIME')[1] .. '999')";
    fixture.server().cli(&["EVAL", dead, "0"]);
    // The first heartbeat of a node is handed no dead incarnations. It must not take a claim
    // either, because that would keep the second heartbeat from reaping.
    let _node = start_with_beat_interval(&mut fixture, limits(), Duration::from_secs(60)).await;
    eventually(DEADLINE, "the expired incarnation is reaped", async || {
        (!leases(&mut fixture).contains(&"dead".to_owned())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_graces_end_within_seconds() {
    let mut fixture = Fixture::redis();
    let settings = RedisSettings {
        sweep_interval: Duration::from_secs(1),
        ..settings(&fixture.server().url())
    };
    let node = hubbub::backplane::redis::connect(settings, limits(), None)
        .await
        .unwrap();
    let names: Vec<_> = (0..1500).map(|n| format!("user{n}")).collect();
    let all =
        stream::iter(&names).map(|user_id| connect_and_join(&node, user_id, user_id, "lobby"));
    all.buffer_unordered(100).for_each(async |_| {}).await;
    let rooms = [room("lobby")];
    for user_id in &names {
        node.presence
            .connection_lost(&conn(user_id), &user(user_id), &rooms)
            .await;
    }
    // At 100 graces per second it would take 15 s.
    eventually(Duration::from_secs(7), "the room is empty", async || {
        (node.presence.roster(&room("lobby"), 0).await.unwrap().total == 0).then_some(())
    })
    .await;
}

// The test runs on one thread, so that its subscriber receives the logs of all of the node's tasks.
#[tokio::test]
async fn an_orderly_stop_logs_no_warning() {
    let log = CollectedLog::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("hubbub=warn")
        .with_writer(log.writer())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    node.lifecycle.stop().await;
    assert_eq!(log.text(), "");
}
