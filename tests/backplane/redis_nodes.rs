//! Several nodes on one Redis: one order, one event per change, and nodes that die, are given up, or stop.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use hubbub::backplane::redis::RedisSettings;
use hubbub::backplane::{Backplane, BackplaneError, BackplaneLimits, BusEvent, BusTopic};
use hubbub::domain::ChangeKind;
use parking_lot::Mutex;

use crate::fixture::{
    Fixture, GRACE, Recorder, SOON, conn, enter, eventually, limits, name, room, say, settings,
    user,
};
use crate::presence::{gone, offline, room_changes, statuses};

/// A node on a runtime of its own, so that it can die as a process does.
struct Doomed {
    runtime: tokio::runtime::Runtime,
    node: Backplane,
}

impl Doomed {
    async fn start(fixture: &mut Fixture, limits: BackplaneLimits) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let settings = crate::fixture::settings(&fixture.server().url());
        let node = runtime
            .spawn(hubbub::backplane::redis::connect(settings, limits))
            .await
            .unwrap()
            .unwrap();
        Self { runtime, node }
    }

    /// No task of it runs any more, and nothing was said.
    fn die(self) {
        self.runtime.shutdown_background();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_sees_the_same_events_once() {
    let fixture = Fixture::redis();
    let nodes = [fixture.start(limits()).await, fixture.start(limits()).await];
    let topics = [BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))];
    let recorders = [
        Recorder::on(&nodes[0], &topics).await,
        Recorder::on(&nodes[1], &topics).await,
    ];
    enter(&nodes[0], "ann", "c1", "lobby").await;
    assert_eq!(enter(&nodes[1], "ann", "c2", "lobby").await.roster.total, 1);
    let writers = nodes.clone().map(|node| {
        tokio::spawn(async move {
            for n in 0..50 {
                say(&node, "lobby", &n.to_string()).await;
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
    gone(&nodes[1], "lobby", "ann").await;
    offline(&nodes[0], "ann").await;
    let of_room = |events: Vec<BusEvent>| {
        events
            .into_iter()
            .filter(|event| !matches!(event, BusEvent::StatusChanged(_)))
            .collect::<Vec<_>>()
    };
    let first = recorders[0].events_until_said(&nodes[0], "lobby").await;
    let second = recorders[1].events_until_said(&nodes[1], "lobby").await;
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
    // The second recorder has also seen the first one's sentinel.
    second.truncate(first.len());
    assert_eq!(first, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_nodes_members_leave_once() {
    let mut fixture = Fixture::redis();
    let (alive, also_alive) = (fixture.start(limits()).await, fixture.start(limits()).await);
    let doomed = Doomed::start(&mut fixture, limits()).await;
    let recorder = Recorder::on(
        &alive,
        &[BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))],
    )
    .await;
    enter(&alive, "bob", "b1", "lobby").await;
    enter(&doomed.node, "ann", "a1", "lobby").await;
    enter(&doomed.node, "bob", "b2", "lobby").await;
    doomed.die();
    gone(&also_alive, "lobby", "ann").await;
    offline(&also_alive, "ann").await;
    let events = recorder.events_until_said(&alive, "lobby").await;
    let left: Vec<_> = room_changes(&events)
        .into_iter()
        .filter(|change| change.0 == ChangeKind::Left)
        .collect();
    assert_eq!(left, [(ChangeKind::Left, "ann".to_owned(), 1)]);
    eventually(SOON, "offline was told", async || {
        (statuses(&recorder.events()).len() == 2).then_some(())
    })
    .await;
    assert!(alive.presence.status(&user("bob")).await.unwrap().online);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_nodes_connections_do_not_count() {
    let mut fixture = Fixture::redis();
    let limits = BackplaneLimits {
        sockets_per_user: 1,
        ..limits()
    };
    let doomed = Doomed::start(&mut fixture, limits.clone()).await;
    doomed
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
    doomed.die();
    eventually(SOON, "a place", async || connect().await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_given_up_comes_back() {
    let mut fixture = Fixture::redis();
    let (one, two) = (fixture.start(limits()).await, fixture.start(limits()).await);
    let leases = fixture.server().cli(&["ZRANGE", "{p00}L", "0", "-1"]);
    assert_eq!(leases.lines().count(), 2);
    enter(&one, "ann", "c1", "lobby").await;
    enter(&two, "bob", "c2", "lobby").await;
    // As if both had slept through their leases and a third had given them up.
    for incarnation in leases.lines() {
        fixture
            .server()
            .cli(&["ZADD", "{p00}D", "9999999999999", incarnation]);
        fixture.server().cli(&["ZADD", "{p00}L", "1", incarnation]);
    }
    eventually(SOON, "both are reaped", async || {
        let now = fixture.server().cli(&["ZRANGE", "{p00}L", "0", "-1"]);
        (now.lines().count() == 2 && leases.lines().all(|old| !now.contains(old))).then_some(())
    })
    .await;
    eventually(SOON, "both are back", async || {
        let users = one.presence.roster(&room("lobby"), 10).await.unwrap().users;
        (users == [user("ann"), user("bob")]).then_some(())
    })
    .await;
    eventually(SOON, "online again", async || {
        one.presence
            .status(&user("ann"))
            .await
            .unwrap()
            .online
            .then_some(())
    })
    .await;
    // Who was reaped after they had come back has a grace, too.
    eventually(SOON, "no graces", async || {
        fixture
            .server()
            .cli(&["KEYS", "*}g"])
            .is_empty()
            .then_some(())
    })
    .await;
    // What was registered again counts once, so a leave counts at once.
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
async fn a_fenced_node_cannot_undo_the_reaping() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    enter(&node, "ann", "c1", "lobby").await;
    let incarnation = fixture.server().cli(&["ZRANGE", "{p00}L", "0", "-1"]);
    fixture
        .server()
        .cli(&["ZADD", "{p00}D", "9999999999999", &incarnation]);
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
    // Writes go through all the same, by a new incarnation.
    enter(&node, "bob", "c2", "lobby").await;
    node.presence
        .leave(&conn("c2"), &user("bob"), &room("lobby"))
        .await
        .unwrap();
    let now = fixture.server().cli(&["KEYS", "{c*}n:*"]);
    assert!(!now.contains(&format!("bob:{incarnation}")), "{now}");
    assert!(node.lifecycle.is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_leaves_its_connections_to_their_graces() {
    let fixture = Fixture::redis();
    let long = BackplaneLimits {
        presence_grace: GRACE * 3,
        ..limits()
    };
    let (stays, stops) = (fixture.start(long.clone()).await, fixture.start(long).await);
    let recorder = Recorder::on(&stays, &[BusTopic::Room(room("lobby"))]).await;
    enter(&stops, "ann", "c1", "lobby").await;
    enter(&stops, "bob", "c2", "lobby").await;
    let begun = std::time::Instant::now();
    stops.lifecycle.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    // Ann's client finds the other node in time, Bob's doesn't.
    enter(&stays, "ann", "c3", "lobby").await;
    gone(&stays, "lobby", "bob").await;
    offline(&stays, "bob").await;
    let events = recorder.events_until_said(&stays, "lobby").await;
    let expected = [
        (ChangeKind::Joined, "ann".to_owned(), 1),
        (ChangeKind::Joined, "bob".to_owned(), 2),
        (ChangeKind::Left, "bob".to_owned(), 1),
    ];
    assert_eq!(room_changes(&events), expected);
    assert!(stays.presence.status(&user("ann")).await.unwrap().online);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_with_a_crowd_is_reaped() {
    let mut fixture = Fixture::redis();
    let limits = BackplaneLimits {
        sockets_per_user: 10_000,
        ..limits()
    };
    let alive = fixture.start(limits.clone()).await;
    let doomed = Doomed::start(&mut fixture, limits).await;
    // Their hash has so many buckets that a scan which begins anew in each step loses its way among the emptied ones.
    let crowd = stream::iter(0..4000).map(|n| {
        let node = doomed.node.clone();
        async move { enter(&node, "ann", &format!("c{n}"), "lobby").await }
    });
    crowd.buffer_unordered(100).for_each(async |_| {}).await;
    doomed.die();
    gone(&alive, "lobby", "ann").await;
    offline(&alive, "ann").await;
    eventually(SOON, "nothing left", async || {
        fixture
            .server()
            .cli(&["KEYS", "*n:*"])
            .is_empty()
            .then_some(())
    })
    .await;
    eventually(SOON, "reaped", async || {
        (fixture.server().cli(&["ZCARD", "{p00}L"]) == "1").then_some(())
    })
    .await;
}

/// A node that beats this often.
async fn beating(
    fixture: &mut Fixture,
    limits: BackplaneLimits,
    beat_interval: Duration,
) -> Backplane {
    let settings = RedisSettings {
        beat_interval,
        ..settings(&fixture.server().url())
    };
    hubbub::backplane::redis::connect(settings, limits)
        .await
        .unwrap()
}

fn leases(fixture: &mut Fixture) -> Vec<String> {
    fixture
        .server()
        .cli(&["ZRANGE", "{p00}L", "0", "-1"])
        .lines()
        .map(ToOwned::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_redis_was_away_the_first_node_back_reaps_nobody() {
    let mut fixture = Fixture::redis();
    let late = beating(&mut fixture, limits(), Duration::from_secs(2)).await;
    let lease = leases(&mut fixture).remove(0);
    enter(&late, "ann", "c1", "lobby").await;
    let first = beating(&mut fixture, limits(), Duration::from_millis(100)).await;
    let recorder = Recorder::on(
        &first,
        &[BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))],
    )
    .await;
    // As after an outage that was longer than a lease.
    let away = "for _, inc in ipairs(redis.call('ZRANGE', '{p00}L', 0, -1)) do redis.call('ZADD', '{p00}L', 1, inc) end \
                redis.call('SET', '{p00}B', 1)";
    fixture.server().cli(&["EVAL", away, "0"]);
    let score = async |fixture: &mut Fixture| {
        let score = fixture.server().cli(&["ZSCORE", "{p00}L", &lease]);
        score.parse::<f64>().unwrap_or(0.0)
    };
    let given = eventually(SOON, "a lease that was prolonged", async || {
        Some(score(&mut fixture).await).filter(|score| *score > 1.0)
    })
    .await;
    eventually(SOON, "its own heartbeat", async || {
        (score(&mut fixture).await > given).then_some(())
    })
    .await;
    assert_eq!(fixture.server().cli(&["ZCARD", "{p00}D"]), "0");
    let events = recorder.events_until_said(&first, "lobby").await;
    assert!(events.is_empty(), "nobody came or went: {events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_node_that_was_reaped_is_back_before_anyone_is_told() {
    let mut fixture = Fixture::redis();
    let limits = BackplaneLimits {
        presence_grace: Duration::from_secs(6),
        ..limits()
    };
    let asleep = beating(&mut fixture, limits.clone(), Duration::from_secs(1)).await;
    let old = leases(&mut fixture).remove(0);
    enter(&asleep, "ann", "c1", "lobby").await;
    let awake = beating(&mut fixture, limits, Duration::from_millis(100)).await;
    let recorder = Recorder::on(
        &awake,
        &[BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))],
    )
    .await;
    fixture
        .server()
        .cli(&["ZADD", "{p00}D", "9999999999999", &old]);
    fixture.server().cli(&["ZADD", "{p00}L", "1", &old]);
    eventually(SOON, "it is reaped", async || {
        (!leases(&mut fixture).contains(&old)).then_some(())
    })
    .await;
    eventually(SOON, "it is back", async || {
        let held = fixture.server().cli(&["KEYS", "{c*}n:*"]);
        let graces = fixture.server().cli(&["KEYS", "*}g"]);
        (!held.is_empty() && !held.contains(&old) && graces.is_empty()).then_some(())
    })
    .await;
    let events = recorder.events_until_said(&awake, "lobby").await;
    assert!(events.is_empty(), "nobody came or went: {events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_reaps_who_is_dead() {
    let mut fixture = Fixture::redis();
    let dead = "redis.call('ZADD', '{p00}L', 1, 'dead') redis.call('SET', '{p00}B', redis.call('TIME')[1] .. '999')";
    fixture.server().cli(&["EVAL", dead, "0"]);
    // Its first heartbeat can do nothing with a claim, and must not take one from the second.
    let _node = beating(&mut fixture, limits(), Duration::from_secs(60)).await;
    eventually(SOON, "it is reaped", async || {
        (!leases(&mut fixture).contains(&"dead".to_owned())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_graces_end_together() {
    let mut fixture = Fixture::redis();
    let settings = RedisSettings {
        sweep_interval: Duration::from_secs(1),
        ..settings(&fixture.server().url())
    };
    let node = hubbub::backplane::redis::connect(settings, limits())
        .await
        .unwrap();
    let names: Vec<_> = (0..1500).map(|n| format!("user{n}")).collect();
    let all = stream::iter(&names).map(|who| enter(&node, who, who, "lobby"));
    all.buffer_unordered(100).for_each(async |_| {}).await;
    let places = [room("lobby")];
    for who in &names {
        node.presence
            .connection_lost(&conn(who), &user(who), &places)
            .await;
    }
    // At a hundred each second it would be 15 s.
    eventually(Duration::from_secs(7), "an empty room", async || {
        (node.presence.roster(&room("lobby"), 0).await.unwrap().total == 0).then_some(())
    })
    .await;
}

/// What is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// On one thread, so that all of the node's tasks log there.
#[tokio::test]
async fn an_orderly_stop_is_quiet() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("hubbub=warn")
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    enter(&node, "ann", "c1", "lobby").await;
    node.lifecycle.stop().await;
    let text = String::from_utf8_lossy(&log.0.lock()).into_owned();
    assert_eq!(text, "");
}
