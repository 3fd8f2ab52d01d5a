//! Several nodes on one Redis: one order, one event per change, and nodes that die, are given up, or stop.

use std::time::Duration;

use hubbub::backplane::{Backplane, BackplaneError, BackplaneLimits, BusEvent, Topic};
use hubbub::domain::ChangeKind;

use crate::fixture::{Fixture, GRACE, Recorder, SOON, conn, enter, eventually, limits, name, room, say, user};
use crate::presence::{gone, offline, room_changes, statuses};

/// A node on a runtime of its own, so that it can die as a process does.
struct Doomed {
    runtime: tokio::runtime::Runtime,
    node: Backplane,
}

impl Doomed {
    async fn start(fixture: &mut Fixture, limits: BackplaneLimits) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let settings = crate::fixture::settings(&fixture.server().url());
        let node = runtime.spawn(hubbub::backplane::redis::connect(settings, limits)).await.unwrap().unwrap();
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
    let topics = [Topic::Room(room("lobby")), Topic::User(user("ann"))];
    let recorders = [Recorder::on(&nodes[0], &topics).await, Recorder::on(&nodes[1], &topics).await];
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
    nodes[0].presence.lost(&conn("c1"), &user("ann"), &[room("lobby")]).await;
    nodes[1].presence.lost(&conn("c2"), &user("ann"), &[room("lobby")]).await;
    gone(&nodes[1], "lobby", "ann").await;
    offline(&nodes[0], "ann").await;
    let of_room = |events: Vec<BusEvent>| {
        events.into_iter().filter(|event| !matches!(event, BusEvent::StatusChanged(_))).collect::<Vec<_>>()
    };
    let first = recorders[0].events_until_said(&nodes[0], "lobby").await;
    let second = recorders[1].events_until_said(&nodes[1], "lobby").await;
    assert_eq!(
        room_changes(&first).iter().map(|change| change.0).collect::<Vec<_>>(),
        [ChangeKind::Joined, ChangeKind::Left]
    );
    for events in [&first, &second] {
        assert_eq!(statuses(events).iter().map(|status| status.online).collect::<Vec<_>>(), [true, false]);
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
    let recorder = Recorder::on(&alive, &[Topic::Room(room("lobby")), Topic::User(user("ann"))]).await;
    enter(&alive, "bob", "b1", "lobby").await;
    enter(&doomed.node, "ann", "a1", "lobby").await;
    enter(&doomed.node, "bob", "b2", "lobby").await;
    doomed.die();
    gone(&also_alive, "lobby", "ann").await;
    offline(&also_alive, "ann").await;
    let events = recorder.events_until_said(&alive, "lobby").await;
    let left: Vec<_> = room_changes(&events).into_iter().filter(|change| change.0 == ChangeKind::Left).collect();
    assert_eq!(left, [(ChangeKind::Left, "ann".to_owned(), 1)]);
    eventually(SOON, "offline was told", async || (statuses(&recorder.events()).len() == 2).then_some(())).await;
    assert!(alive.presence.status(&user("bob")).await.unwrap().online);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_nodes_connections_do_not_count() {
    let mut fixture = Fixture::redis();
    let limits = BackplaneLimits { sockets_per_user: 1, ..limits() };
    let doomed = Doomed::start(&mut fixture, limits.clone()).await;
    doomed.node.presence.connect(&conn("a1"), &user("ann"), &name("ann")).await.unwrap();
    let alive = fixture.start(limits).await;
    let connect = async || alive.presence.connect(&conn("a2"), &user("ann"), &name("ann")).await;
    assert!(matches!(connect().await, Err(BackplaneError::TooManyConnections)));
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
        fixture.server().cli(&["ZADD", "{p00}D", "9999999999999", incarnation]);
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
    eventually(SOON, "online again", async || one.presence.status(&user("ann")).await.unwrap().online.then_some(()))
        .await;
    // What was registered again counts once, so a leave counts at once.
    one.presence.leave(&conn("c1"), &user("ann"), &room("lobby")).await.unwrap();
    assert!(!two.presence.is_member(&room("lobby"), &user("ann")).await.unwrap());
    assert!(two.presence.is_member(&room("lobby"), &user("bob")).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_node_cannot_undo_the_reaping() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    enter(&node, "ann", "c1", "lobby").await;
    let incarnation = fixture.server().cli(&["ZRANGE", "{p00}L", "0", "-1"]);
    fixture.server().cli(&["ZADD", "{p00}D", "9999999999999", &incarnation]);
    for n in 0..256 {
        fixture.server().cli(&["ZADD", &format!("{{c{n:02x}}}F"), "9999999999999", &incarnation]);
        fixture.server().cli(&["ZADD", &format!("{{p{n:02x}}}F"), "9999999999999", &incarnation]);
    }
    // Writes go through all the same, by a new incarnation.
    enter(&node, "bob", "c2", "lobby").await;
    node.presence.leave(&conn("c2"), &user("bob"), &room("lobby")).await.unwrap();
    let now = fixture.server().cli(&["KEYS", "{c*}n:*"]);
    assert!(!now.contains(&format!("bob:{incarnation}")), "{now}");
    assert!(node.lifecycle.is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_leaves_its_connections_to_their_graces() {
    let fixture = Fixture::redis();
    let long = BackplaneLimits { presence_grace: GRACE * 3, ..limits() };
    let (stays, stops) = (fixture.start(long.clone()).await, fixture.start(long).await);
    let recorder = Recorder::on(&stays, &[Topic::Room(room("lobby"))]).await;
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
