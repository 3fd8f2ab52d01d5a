//! The promises of the backplane on Redis Cluster and behind Sentinel, also while slots move and
//! after primaries die.

use std::time::{Duration, Instant};

use hubbub::backplane::redis::{StartError, connect};
use hubbub::backplane::{Backplane, BackplaneError, BusEvent, BusTopic, Window};
use hubbub::domain::{ChangeKind, Continuity};

use crate::fixture::{
    DEADLINE, Recorder, append_message, conn, connect_and_join, eventually, grant, least_rights,
    limits, message, name, room, settings, user,
};
use crate::presence::{room_changes, wait_until_left, wait_until_offline};
use hubbub_test_support::server::{RedisServer, free_port};

/// The deadline of waits that include a failover, which takes the servers a few seconds.
const FAILOVER: Duration = Duration::from_secs(30);

pub struct Cluster {
    servers: Vec<RedisServer>,
}

impl Cluster {
    /// Starts three primaries, each with this number of replicas.
    pub async fn start(replicas: usize) -> Self {
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
        let output = servers[0].cli(&create);
        eventually(
            FAILOVER,
            &format!("the cluster is ready: {output}"),
            async || {
                let ready = |server: &RedisServer| {
                    let info = server.cli(&["CLUSTER", "INFO"]);
                    info.contains("cluster_state:ok")
                        && info.contains(&format!("cluster_known_nodes:{}", servers.len()))
                };
                servers.iter().all(ready).then_some(())
            },
        )
        .await;
        Self { servers }
    }

    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    pub fn url(&self) -> String {
        format!(
            "redis-cluster://127.0.0.1:{}?node=127.0.0.1:{}",
            self.servers[0].port, self.servers[1].port
        )
    }

    fn id(&self, server: usize) -> String {
        self.servers[server].cli(&["CLUSTER", "MYID"])
    }

    /// The hash tag of the key that matches this pattern.
    fn hash_tag_of(&self, key: &str) -> String {
        let keys = self
            .servers
            .iter()
            .map(|server| server.cli(&["KEYS", key]))
            .collect::<String>();
        keys.split_once('}').expect("a key matches").0.to_owned() + "}"
    }

    /// Begins to move the slot of a partition from its server to the next one. Until
    /// [`finish_slot_move`](Self::finish_slot_move) the first server keeps the keys.
    fn begin_slot_move(&self, tag: &str) -> SlotMove {
        let slot = self.servers[0].cli(&["CLUSTER", "KEYSLOT", tag]);
        let served = |server: &RedisServer| !server.cli(&["GET", tag]).starts_with("MOVED");
        let from = self
            .servers
            .iter()
            .position(served)
            .expect("one server has the slot");
        let to = (from + 1) % 3;
        assert_eq!(
            self.servers[to].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)]),
            "OK"
        );
        assert_eq!(
            self.servers[from].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)]),
            "OK"
        );
        SlotMove { slot, from, to }
    }

    /// Moves the keys of the slot and announces the new owner to all servers.
    fn finish_slot_move(&self, SlotMove { slot, from, to }: &SlotMove) {
        let keys = self.servers[*from].cli(&["CLUSTER", "GETKEYSINSLOT", slot, "1000"]);
        let port = self.servers[*to].port.to_string();
        let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        migrate.extend(keys.lines());
        assert_eq!(
            self.servers[*from].cli(&migrate),
            "OK",
            "the target has no keys of these names"
        );
        for server in [*to, *from, (*to + 1) % 3] {
            self.servers[server].cli(&["CLUSTER", "SETSLOT", slot, "NODE", &self.id(*to)]);
        }
    }
}

/// A slot that is being moved from one server to another.
struct SlotMove {
    slot: String,
    from: usize,
    to: usize,
}

/// Appends a message to every room, and repeats that until one round arrives completely. Returns
/// the number of events then. Slots move one after another: a room delivers nothing after its slot
/// has moved, until the node checks the slots again.
async fn wait_until_all_rooms_deliver(
    node: &Backplane,
    recorder: &Recorder,
    rooms: &[String],
) -> usize {
    eventually(FAILOVER, "all rooms deliver", async || {
        let before = recorder.events().len();
        for room_id in rooms {
            node.log
                .append(
                    &message(room_id, "ann", "again"),
                    Some(&uuid::Uuid::new_v4().to_string()),
                )
                .await
                .ok()?;
        }
        let all = async || (recorder.events().len() == before + rooms.len()).then_some(());
        let round = tokio::time::timeout(
            Duration::from_secs(1),
            eventually(FAILOVER, "all messages arrive", all),
        );
        round.await.ok().map(|()| before + rooms.len())
    })
    .await
}

/// Appends a message to every room, and waits until it arrives or the room is reported as
/// interrupted.
async fn append_to_all_rooms(
    node: &Backplane,
    recorder: &Recorder,
    rooms: &[String],
    content: &str,
) {
    for room_id in rooms {
        let appended = eventually(FAILOVER, "an append succeeds", async || {
            node.log
                .append(&message(room_id, "ann", content), Some(content))
                .await
                .ok()
        })
        .await;
        eventually(
            FAILOVER,
            &format!("{content} arrives in {room_id}"),
            async || {
                let has_arrived = recorder.events().iter().any(|event| {
                    matches!(
                        event,
                        BusEvent::Message(at, entry)
                            if at.as_str() == room_id && entry.seq == appended.seq
                    )
                });
                let is_interrupted = recorder
                    .interruptions()
                    .contains(&Some(BusTopic::Room(room(room_id))));
                (has_arrived || is_interrupted).then_some(())
            },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_presence_survive_a_resharding() {
    let cluster = Cluster::start(0).await;
    let (one, two) = (
        connect(settings(&cluster.url()), limits(), None)
            .await
            .unwrap(),
        connect(settings(&cluster.url()), limits(), None)
            .await
            .unwrap(),
    );
    assert!(one.lifecycle.is_up() && one.lifecycle.describe().contains("cluster"));
    let rooms: Vec<_> = (0..60).map(|n| format!("room{n}")).collect();
    let topics: Vec<_> = rooms
        .iter()
        .map(|room_id| BusTopic::Room(room(room_id)))
        .collect();
    let recorder = Recorder::on(&two, &topics).await;
    for room_id in &rooms {
        one.presence
            .connect(&conn("c1"), &user("ann"), &name("ann"))
            .await
            .unwrap();
        assert_eq!(
            one.presence
                .join(&conn("c1"), &user("ann"), &name("ann"), &room(room_id))
                .await
                .unwrap()
                .roster
                .total,
            1
        );
        assert_eq!(append_message(&one, room_id, "one").await.seq, 1);
        assert_eq!(append_message(&two, room_id, "two").await.seq, 2);
    }
    let events = recorder.wait_for(180).await;
    assert_eq!(events.len(), 180);
    assert_eq!(room_changes(&events).len(), 60);
    let heads = two
        .log
        .heads(
            &rooms
                .iter()
                .map(|room_id| room(room_id))
                .collect::<Vec<_>>(),
        )
        .await
        .unwrap();
    assert!(
        heads
            .iter()
            .all(|head| head.as_ref().is_some_and(|head| head.seq == 2))
    );
    // The node must load its scripts again on every primary.
    for server in &cluster.servers {
        server.cli(&["SCRIPT", "FLUSH"]);
    }
    // Move 2,000 slots, more than a third of the first server's, to the second server.
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
    eventually(FAILOVER, &format!("slots are moved: {moved}"), async || {
        (!recorder.interruptions().is_empty()).then_some(())
    })
    .await;
    let interruptions = recorder.interruptions().len();
    assert!(
        interruptions < 60,
        "only rooms that have moved are interrupted"
    );
    let delivered = wait_until_all_rooms_deliver(&one, &recorder, &rooms).await;
    // The history of another server is another epoch, but it continues the old one without a loss.
    let mut new_epochs = 0;
    for (room_id, head) in rooms.iter().zip(heads.into_iter().flatten()) {
        let span = one
            .log
            .read(&room(room_id), Window::Newest, 0, 1)
            .await
            .unwrap()
            .span;
        assert_eq!(
            span.continuity(Some(&head.epoch), head.seq),
            Continuity::Clean
        );
        new_epochs += usize::from(span.head.epoch != head.epoch);
    }
    assert!(
        (1..60).contains(&new_epochs),
        "{new_epochs} new epochs for the rooms that have moved"
    );
    one.presence
        .connection_lost(
            &conn("c1"),
            &user("ann"),
            &rooms
                .iter()
                .map(|room_id| room(room_id))
                .collect::<Vec<_>>(),
        )
        .await;
    for room_id in &rooms {
        wait_until_left(&two, room_id, "ann").await;
    }
    wait_until_offline(&two, "ann").await;
    eventually(FAILOVER, "ann leaves every room", async || {
        (recorder.events().len() == delivered + 60).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_refused_while_their_slot_is_moving() {
    let cluster = Cluster::start(0).await;
    let node = connect(settings(&cluster.url()), limits(), None)
        .await
        .unwrap();
    connect_and_join(&node, "ann", "c1", "lobby").await;
    connect_and_join(&node, "bob", "c2", "lobby").await;
    let before = append_message(&node, "lobby", "before").await;
    // The slots of the room, of both users and of the leases begin to move. Until they have moved,
    // they are split between two servers.
    let bob = cluster.hash_tag_of("hubbub:{p*}c:Ym9i");
    let moves = ["hubbub:{c85}", "hubbub:{pa1}", &bob, "hubbub:{p00}"]
        .map(|tag| cluster.begin_slot_move(tag));
    let unavailable = |error: Option<BackplaneError>| {
        assert!(
            matches!(error, Some(BackplaneError::Unavailable(_))),
            "{error:?}"
        );
    };
    let begun = Instant::now();
    unavailable(
        node.log
            .append(&message("lobby", "ann", "meanwhile"), Some("key"))
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
        "refused without following redirections in a loop: {:?}",
        begun.elapsed()
    );
    node.presence
        .connection_lost(&conn("c2"), &user("bob"), &[room("lobby")])
        .await;
    for one in &moves {
        cluster.finish_slot_move(one);
    }
    let after = eventually(FAILOVER, "an append succeeds", async || {
        node.log
            .append(&message("lobby", "ann", "after"), Some("key"))
            .await
            .ok()
    })
    .await;
    assert_eq!(
        (after.seq, after.duplicate),
        (2, false),
        "the numbering continues"
    );
    let span = node
        .log
        .read(&room("lobby"), Window::Newest, 9, 9999)
        .await
        .unwrap()
        .span;
    assert_eq!(span.continuity(Some(&before.epoch), 1), Continuity::Clean);
    eventually(FAILOVER, "bob leaves and goes offline", async || {
        let has_left = !node
            .presence
            .is_occupant(&room("lobby"), &user("bob"))
            .await
            .ok()?;
        (has_left && !node.presence.status(&user("bob")).await.ok()?.online).then_some(())
    })
    .await;
    assert_eq!(
        node.presence.roster(&room("lobby"), 9).await.unwrap().users,
        [user("ann")]
    );
    assert!(node.presence.status(&user("ann")).await.unwrap().online);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_survives_the_death_of_a_primary() {
    let mut cluster = Cluster::start(1).await;
    let node = connect(settings(&cluster.url()), limits(), None)
        .await
        .unwrap();
    let rooms: Vec<_> = (0..30).map(|n| format!("room{n}")).collect();
    let topics: Vec<_> = rooms
        .iter()
        .map(|room_id| BusTopic::Room(room(room_id)))
        .collect();
    let recorder = Recorder::on(&node, &topics).await;
    connect_and_join(&node, "ann", "c1", "room0").await;
    append_to_all_rooms(&node, &recorder, &rooms, "before").await;
    cluster.servers[0].kill();
    let begun = Instant::now();
    eventually(FAILOVER, "an append to every room succeeds", async || {
        for room_id in &rooms {
            node.log
                .append(&message(room_id, "ann", "after"), Some("after"))
                .await
                .ok()?;
        }
        Some(())
    })
    .await;
    eventually(FAILOVER, "the node is up", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    eventually(FAILOVER, "an interruption is reported", async || {
        (!recorder.interruptions().is_empty()).then_some(())
    })
    .await;
    println!(
        "recovered from the death of a primary after {:?}",
        begun.elapsed()
    );
    wait_until_all_rooms_deliver(&node, &recorder, &rooms).await;
    assert!(
        node.presence
            .is_occupant(&room("room0"), &user("ann"))
            .await
            .unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_follows_sentinel_to_the_new_primary() {
    let mut primary = RedisServer::start();
    let replica = RedisServer::start_with(&[
        "--replicaof",
        "127.0.0.1",
        &primary.port.to_string(),
        "--repl-diskless-sync-delay",
        "0",
    ]);
    eventually(FAILOVER, "the replica is in sync", async || {
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
    eventually(FAILOVER, "the sentinel knows the replica", async || {
        sentinel
            .cli(&["SENTINEL", "replicas", "hub"])
            .contains(&replica.port.to_string())
            .then_some(())
    })
    .await;
    let node = connect(settings(&url), limits(), None).await.unwrap();
    assert!(node.lifecycle.is_up() && node.lifecycle.describe().contains("sentinel"));
    let recorder = Recorder::on(&node, &[BusTopic::Room(room("lobby"))]).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    let before = append_message(&node, "lobby", "before").await;
    eventually(FAILOVER, "the replica has a copy of the log", async || {
        replica
            .cli(&["--scan", "--pattern", "*h:*"])
            .contains("h:")
            .then_some(())
    })
    .await;
    primary.kill();
    let begun = Instant::now();
    let after = eventually(FAILOVER, "an append succeeds", async || {
        node.log
            .append(&message("lobby", "ann", "after"), Some("after"))
            .await
            .ok()
    })
    .await;
    println!("recovered from a failover after {:?}", begun.elapsed());
    assert_eq!(after.seq, before.seq + 1);
    assert_ne!(
        after.epoch, before.epoch,
        "the promoted replica may have lost the tail"
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
    eventually(FAILOVER, "the node is up", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    eventually(FAILOVER, "an interruption is reported", async || {
        (!recorder.interruptions().is_empty()).then_some(())
    })
    .await;
    let events = recorder.events_until_sentinel(&node, "lobby").await;
    assert!(
        room_changes(&events)
            .iter()
            .all(|change| change.0 != ChangeKind::Left),
        "no user has left"
    );
    assert!(
        node.presence
            .is_occupant(&room("lobby"), &user("ann"))
            .await
            .unwrap()
    );
}

/// The documented rights of a single server, and these.
fn least_rights_with(words: &str) -> Vec<String> {
    let mut rights = least_rights();
    rights.extend(words.split(' ').map(str::to_owned));
    rights
}

/// Gives the user of the nodes the documented rights on every server. Returns the URL with it.
fn restrict(cluster: &Cluster) -> String {
    let mut rights =
        least_rights_with("+cluster|slots +cluster|info +spublish +ssubscribe +sunsubscribe");
    rights.retain(|word| !["+publish", "+subscribe", "+unsubscribe"].contains(&word.as_str()));
    for server in &cluster.servers {
        grant(server, &rights);
    }
    cluster
        .url()
        .replace("redis-cluster://", "redis-cluster://hubbub:PASSWORD@")
}

/// How often the server has denied this command since its `ACL LOG` was reset.
fn denials_of(server: &RedisServer, command: &str) -> u64 {
    let log = server.cli(&["ACL", "LOG"]);
    let lines: Vec<_> = log.lines().map(str::trim).collect();
    let mut count = 0;
    let mut denials = 0;
    for pair in lines.windows(2) {
        if pair[0] == "count" {
            count = pair[1].parse().unwrap();
        } else if pair[0] == "object" && pair[1] == command {
            denials += count;
        }
    }
    denials
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_needs_the_documented_rights_on_every_server() {
    let cluster = Cluster::start(0).await;
    let url = restrict(&cluster);
    let node = connect(settings(&url), limits(), None).await.unwrap();
    assert!(node.lifecycle.is_up());
    let recorder = Recorder::on(&node, &[BusTopic::Room(room("lobby"))]).await;
    append_message(&node, "lobby", "hi").await;
    recorder.wait_for(1).await;
    for right in ["xadd", "ssubscribe", "spublish"] {
        for server in &cluster.servers {
            grant(server, &[format!("-{right}")]);
            let refused = connect(settings(&url), limits(), None).await.err();
            let named = format!("+{right}:");
            assert!(
                matches!(&refused, Some(StartError::Rights(text)) if text.contains(&named)),
                "without {right} on one server: {refused:?}"
            );
            grant(server, &[format!("+{right}")]);
        }
    }
    for server in &cluster.servers {
        server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
        let refused = connect(settings(&url), limits(), None).await.err();
        assert!(
            matches!(refused, Some(StartError::Policy(_))),
            "with an evicting policy on one server: {refused:?}"
        );
        server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    }
    let with_database = url.replacen('?', "/1?", 1);
    let refused = connect(settings(&with_database), limits(), None)
        .await
        .err();
    assert!(
        matches!(refused, Some(StartError::BadUrl(_))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_lost_on_one_server_of_a_cluster_takes_the_node_down_until_it_is_back() {
    let cluster = Cluster::start(0).await;
    let node = connect(settings(&restrict(&cluster)), limits(), None)
        .await
        .unwrap();
    // Topics on every server.
    let topics: Vec<_> = (0..30)
        .map(|n| BusTopic::Room(room(&format!("room{n}"))))
        .collect();
    let recorder = Recorder::on(&node, &topics).await;
    for right in ["ssubscribe", "spublish", "xadd"] {
        for server in &cluster.servers {
            server.cli(&["ACL", "LOG", "RESET"]);
            grant(server, &[format!("-{right}")]);
            eventually(
                DEADLINE,
                &format!("the node is down without {right} on port {}", server.port),
                async || (!node.lifecycle.is_up()).then_some(()),
            )
            .await;
            // The checks that follow leave it down.
            let denied = denials_of(server, right);
            eventually(DEADLINE, "the right is tried again", async || {
                assert!(
                    !node.lifecycle.is_up(),
                    "up without {right} on port {}",
                    server.port
                );
                (denials_of(server, right) >= denied + 5).then_some(())
            })
            .await;
            grant(server, &[format!("+{right}")]);
            eventually(DEADLINE, "the node is up again", async || {
                node.lifecycle.is_up().then_some(())
            })
            .await;
        }
    }
    let before = recorder.events().len();
    for n in 0..30 {
        append_message(&node, &format!("room{n}"), "hi").await;
    }
    recorder.wait_for(before + 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_behind_a_sentinel_needs_the_documented_rights() {
    let primary = RedisServer::start();
    let sentinel = RedisServer::start_sentinel(free_port(), primary.port);
    grant(&primary, &least_rights_with("+role +select"));
    let url = format!(
        "redis-sentinel://hubbub:PASSWORD@127.0.0.1:{}/1?sentinelServiceName=hub",
        sentinel.port
    );
    let node = connect(settings(&url), limits(), None).await.unwrap();
    eventually(FAILOVER, "the node is up", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    append_message(&node, "lobby", "hi").await;
    grant(&primary, &["-role".to_owned()]);
    let refused = connect(settings(&url), limits(), None).await.err();
    assert!(
        matches!(&refused, Some(StartError::Rights(text)) if text.contains("role")),
        "{refused:?}"
    );
}
