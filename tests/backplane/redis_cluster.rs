//! The same promises on Redis Cluster and behind Sentinel, also when slots move and primaries die.

use std::time::{Duration, Instant};

use hubbub::backplane::redis::connect;
use hubbub::backplane::{Backplane, BackplaneError, BusEvent, BusTopic, Window};
use hubbub::domain::{ChangeKind, Continuity};

use crate::fixture::{
    Recorder, conn, draft, enter, eventually, limits, name, room, say, settings, user,
};
use crate::presence::{gone, offline, room_changes};
use hubbub_test_support::server::{RedisServer, free_port};

/// Failing over takes the servers a few seconds.
const FAILOVER: Duration = Duration::from_secs(30);

struct Cluster {
    servers: Vec<RedisServer>,
}

impl Cluster {
    /// Three primaries, each with so many replicas.
    async fn start(replicas: usize) -> Self {
        let args = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "2000",
            "--cluster-replica-validity-factor",
            "0",
        ];
        let servers: Vec<_> = (0..3 * (1 + replicas))
            .map(|_| RedisServer::start_with(&args))
            .collect();
        let hosts: Vec<_> = servers
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.port))
            .collect();
        let replicas = replicas.to_string();
        let mut create = vec!["--cluster", "create"];
        create.extend(hosts.iter().map(String::as_str));
        create.extend(["--cluster-replicas", &replicas, "--cluster-yes"]);
        let said = servers[0].cli(&create);
        eventually(FAILOVER, &format!("a cluster: {said}"), async || {
            let ready = |server: &RedisServer| {
                let info = server.cli(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok")
                    && info.contains(&format!("cluster_known_nodes:{}", servers.len()))
            };
            servers.iter().all(ready).then_some(())
        })
        .await;
        Self { servers }
    }

    fn url(&self) -> String {
        format!(
            "redis-cluster://127.0.0.1:{}?node=127.0.0.1:{}",
            self.servers[0].port, self.servers[1].port
        )
    }

    fn id(&self, server: usize) -> String {
        self.servers[server].cli(&["CLUSTER", "MYID"])
    }

    /// Where the user's key with this beginning lies.
    fn tag_of(&self, key: &str) -> String {
        let keys = self
            .servers
            .iter()
            .map(|server| server.cli(&["KEYS", key]))
            .collect::<String>();
        keys.split_once('}').expect("a key").0.to_owned() + "}"
    }

    /// A partition's slot is between two servers from now on: the one still has its keys.
    fn begin_to_move(&self, tag: &str) -> Move {
        let slot = self.servers[0].cli(&["CLUSTER", "KEYSLOT", tag]);
        let served = |server: &RedisServer| !server.cli(&["GET", tag]).starts_with("MOVED");
        let from = self
            .servers
            .iter()
            .position(served)
            .expect("someone has the slot");
        let to = (from + 1) % 3;
        assert_eq!(
            self.servers[to].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)]),
            "OK"
        );
        assert_eq!(
            self.servers[from].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)]),
            "OK"
        );
        Move { slot, from, to }
    }

    /// Its keys go over, and all servers learn of it.
    fn finish(&self, Move { slot, from, to }: &Move) {
        let keys = self.servers[*from].cli(&["CLUSTER", "GETKEYSINSLOT", slot, "1000"]);
        let port = self.servers[*to].port.to_string();
        let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        migrate.extend(keys.lines());
        assert_eq!(
            self.servers[*from].cli(&migrate),
            "OK",
            "nothing of that name was made there"
        );
        for server in [*to, *from, (*to + 1) % 3] {
            self.servers[server].cli(&["CLUSTER", "SETSLOT", slot, "NODE", &self.id(*to)]);
        }
    }
}

/// A slot on its way from one server to another.
struct Move {
    slot: String,
    from: usize,
    to: usize,
}

/// Says something in every room until all of it arrives; how many events there are then. Slots move one after another,
/// and those that the last look didn't see are silent until the next one.
async fn every_room_again(node: &Backplane, recorder: &Recorder, rooms: &[String]) -> usize {
    eventually(FAILOVER, "every room again", async || {
        let heard = recorder.events().len();
        for place in rooms {
            node.log
                .append(
                    &draft(place, "ann", "again"),
                    Some(&uuid::Uuid::new_v4().to_string()),
                )
                .await
                .ok()?;
        }
        let all = async || (recorder.events().len() == heard + rooms.len()).then_some(());
        let patience =
            tokio::time::timeout(Duration::from_secs(1), eventually(FAILOVER, "all", all));
        patience.await.ok().map(|()| heard + rooms.len())
    })
    .await
}

/// Says something in every room until it arrives once, or an interruption tells why not.
async fn all_rooms_live(node: &Backplane, recorder: &Recorder, rooms: &[String], what: &str) {
    for place in rooms {
        let said = eventually(FAILOVER, "an append", async || {
            node.log
                .append(&draft(place, "ann", what), Some(what))
                .await
                .ok()
        })
        .await;
        eventually(FAILOVER, &format!("{what} in {place}"), async || {
            let heard = recorder.events().iter().any(
                |event| matches!(event, BusEvent::Message(at, entry) if at.as_str() == place && entry.seq == said.seq),
            );
            let told = recorder.interruptions().contains(&Some(BusTopic::Room(room(place))));
            (heard || told).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_the_promises_also_when_slots_move() {
    let cluster = Cluster::start(0).await;
    let (one, two) = (
        connect(settings(&cluster.url()), limits()).await.unwrap(),
        connect(settings(&cluster.url()), limits()).await.unwrap(),
    );
    assert!(one.lifecycle.is_up() && one.lifecycle.describe().contains("cluster"));
    let rooms: Vec<_> = (0..60).map(|n| format!("room{n}")).collect();
    let topics: Vec<_> = rooms
        .iter()
        .map(|place| BusTopic::Room(room(place)))
        .collect();
    let recorder = Recorder::on(&two, &topics).await;
    for place in &rooms {
        one.presence
            .connect(&conn("c1"), &user("ann"), &name("ann"))
            .await
            .unwrap();
        assert_eq!(
            one.presence
                .join(&conn("c1"), &user("ann"), &name("ann"), &room(place))
                .await
                .unwrap()
                .roster
                .total,
            1
        );
        assert_eq!(say(&one, place, "one").await.seq, 1);
        assert_eq!(say(&two, place, "two").await.seq, 2);
    }
    let events = recorder.wait_for(180).await;
    assert_eq!(events.len(), 180);
    assert_eq!(room_changes(&events).len(), 60);
    let heads = two
        .log
        .heads(&rooms.iter().map(|place| room(place)).collect::<Vec<_>>())
        .await
        .unwrap();
    assert!(
        heads
            .iter()
            .all(|head| head.as_ref().is_some_and(|head| head.seq == 2))
    );
    // Scripts are loaded again on every primary.
    for server in &cluster.servers {
        server.cli(&["SCRIPT", "FLUSH"]);
    }
    // A third of the first server's slots go to the second one.
    let moved = cluster.servers[0].cli(&[
        "--cluster",
        "reshard",
        &format!("127.0.0.1:{}", cluster.servers[0].port),
        "--cluster-from",
        &cluster.id(0),
        "--cluster-to",
        &cluster.id(1),
        "--cluster-slots",
        "2000",
        "--cluster-yes",
    ]);
    eventually(FAILOVER, &format!("moved slots: {moved}"), async || {
        (!recorder.interruptions().is_empty()).then_some(())
    })
    .await;
    let told = recorder.interruptions().len();
    assert!(told < 60, "only what has moved");
    let heard = every_room_again(&one, &recorder, &rooms).await;
    // Another server's history is another epoch, but nobody is told of a loss.
    let mut begun = 0;
    for (place, head) in rooms.iter().zip(heads.into_iter().flatten()) {
        let span = one
            .log
            .read(&room(place), Window::Newest, 0, 1)
            .await
            .unwrap()
            .span;
        assert_eq!(
            span.continuity(Some(&head.epoch), head.seq),
            Continuity::Clean
        );
        begun += usize::from(span.head.epoch != head.epoch);
    }
    assert!(
        (1..60).contains(&begun),
        "{begun} epochs for what has moved"
    );
    one.presence
        .connection_lost(
            &conn("c1"),
            &user("ann"),
            &rooms.iter().map(|place| room(place)).collect::<Vec<_>>(),
        )
        .await;
    for place in &rooms {
        gone(&two, place, "ann").await;
    }
    offline(&two, "ann").await;
    eventually(FAILOVER, "everyone has left", async || {
        (recorder.events().len() == heard + 60).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_done_without_the_data_while_slots_move() {
    let cluster = Cluster::start(0).await;
    let node = connect(settings(&cluster.url()), limits()).await.unwrap();
    enter(&node, "ann", "c1", "lobby").await;
    enter(&node, "bob", "c2", "lobby").await;
    let before = say(&node, "lobby", "before").await;
    // The slots of the room, of both users and of the leases begin to move, and stay between two servers for a while.
    let bob = cluster.tag_of("{p*}c:Ym9i");
    let moves = ["{c85}", "{pa1}", &bob, "{p00}"].map(|tag| cluster.begin_to_move(tag));
    let unavailable = |error: Option<BackplaneError>| {
        assert!(
            matches!(error, Some(BackplaneError::Unavailable(_))),
            "{error:?}"
        );
    };
    let begun = Instant::now();
    unavailable(
        node.log
            .append(&draft("lobby", "ann", "meanwhile"), Some("key"))
            .await
            .err(),
    );
    unavailable(
        node.log
            .read(&room("lobby"), Window::Newest, 9, 9999)
            .await
            .err(),
    );
    unavailable(
        node.presence
            .join(&conn("c1"), &user("ann"), &name("ann"), &room("lobby"))
            .await
            .err(),
    );
    unavailable(node.presence.roster(&room("lobby"), 9).await.err());
    unavailable(node.presence.status(&user("ann")).await.err());
    unavailable(
        node.presence
            .connect(&conn("c3"), &user("ann"), &name("ann"))
            .await
            .err(),
    );
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "refused at once, not sent in circles: {:?}",
        begun.elapsed()
    );
    node.presence
        .connection_lost(&conn("c2"), &user("bob"), &[room("lobby")])
        .await;
    for one in &moves {
        cluster.finish(one);
    }
    let after = eventually(FAILOVER, "an append", async || {
        node.log
            .append(&draft("lobby", "ann", "after"), Some("key"))
            .await
            .ok()
    })
    .await;
    assert_eq!(
        (after.seq, after.duplicate),
        (2, false),
        "it goes on counting"
    );
    let span = node
        .log
        .read(&room("lobby"), Window::Newest, 9, 9999)
        .await
        .unwrap()
        .span;
    assert_eq!(span.continuity(Some(&before.epoch), 1), Continuity::Clean);
    eventually(FAILOVER, "bob is gone", async || {
        let away = !node
            .presence
            .is_occupant(&room("lobby"), &user("bob"))
            .await
            .ok()?;
        (away && !node.presence.status(&user("bob")).await.ok()?.online).then_some(())
    })
    .await;
    assert_eq!(
        node.presence.roster(&room("lobby"), 9).await.unwrap().users,
        [user("ann")]
    );
    assert!(node.presence.status(&user("ann")).await.unwrap().online);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_survives_a_primary() {
    let mut cluster = Cluster::start(1).await;
    let node = connect(settings(&cluster.url()), limits()).await.unwrap();
    let rooms: Vec<_> = (0..30).map(|n| format!("room{n}")).collect();
    let topics: Vec<_> = rooms
        .iter()
        .map(|place| BusTopic::Room(room(place)))
        .collect();
    let recorder = Recorder::on(&node, &topics).await;
    enter(&node, "ann", "c1", "room0").await;
    all_rooms_live(&node, &recorder, &rooms, "before").await;
    cluster.servers[0].kill();
    let begun = Instant::now();
    eventually(FAILOVER, "every append", async || {
        for place in &rooms {
            node.log
                .append(&draft(place, "ann", "after"), Some("after"))
                .await
                .ok()?;
        }
        Some(())
    })
    .await;
    eventually(FAILOVER, "up", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    eventually(FAILOVER, "an interruption", async || {
        (!recorder.interruptions().is_empty()).then_some(())
    })
    .await;
    println!("a primary's death was over after {:?}", begun.elapsed());
    every_room_again(&node, &recorder, &rooms).await;
    assert!(
        node.presence
            .is_occupant(&room("room0"), &user("ann"))
            .await
            .unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_leads_to_the_new_primary() {
    let mut primary = RedisServer::start();
    let replica = RedisServer::start_with(&[
        "--replicaof",
        "127.0.0.1",
        &primary.port.to_string(),
        "--repl-diskless-sync-delay",
        "0",
    ]);
    eventually(FAILOVER, "a replica", async || {
        replica
            .cli(&["INFO", "replication"])
            .contains("master_link_status:up")
            .then_some(())
    })
    .await;
    let sentinel = RedisServer::start_sentinel(free_port(), primary.port);
    let url = format!(
        "redis-sentinel://127.0.0.1:{}?sentinelServiceName=hub",
        sentinel.port
    );
    eventually(FAILOVER, "the sentinel knows", async || {
        sentinel
            .cli(&["SENTINEL", "replicas", "hub"])
            .contains(&replica.port.to_string())
            .then_some(())
    })
    .await;
    let node = connect(settings(&url), limits()).await.unwrap();
    assert!(node.lifecycle.is_up() && node.lifecycle.describe().contains("sentinel"));
    let recorder = Recorder::on(&node, &[BusTopic::Room(room("lobby"))]).await;
    enter(&node, "ann", "c1", "lobby").await;
    let before = say(&node, "lobby", "before").await;
    eventually(FAILOVER, "a copy", async || {
        replica
            .cli(&["--scan", "--pattern", "*h:*"])
            .contains("h:")
            .then_some(())
    })
    .await;
    primary.kill();
    let begun = Instant::now();
    let after = eventually(FAILOVER, "an append", async || {
        node.log
            .append(&draft("lobby", "ann", "after"), Some("after"))
            .await
            .ok()
    })
    .await;
    println!("a failover was over after {:?}", begun.elapsed());
    assert_eq!(after.seq, before.seq + 1);
    assert_ne!(
        after.epoch, before.epoch,
        "the promoted one may have lost the tail"
    );
    let slice = node
        .log
        .read(&room("lobby"), Window::After(0), 10, 9999)
        .await
        .unwrap();
    assert_eq!(
        slice
            .span
            .past
            .first()
            .map(|head| (head.epoch.clone(), head.seq)),
        Some((before.epoch, before.seq))
    );
    eventually(FAILOVER, "up", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    eventually(FAILOVER, "an interruption", async || {
        (!recorder.interruptions().is_empty()).then_some(())
    })
    .await;
    let events = recorder.events_until_said(&node, "lobby").await;
    assert!(
        room_changes(&events)
            .iter()
            .all(|change| change.0 != ChangeKind::Left),
        "nobody has left"
    );
    assert!(
        node.presence
            .is_occupant(&room("lobby"), &user("ann"))
            .await
            .unwrap()
    );
}
