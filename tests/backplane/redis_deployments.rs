//! Several deployments on one Redis: they share no event, even where their databases, prefixes or
//! data are the same.

use std::sync::Arc;

use hubbub::backplane::redis::{KeyPrefix, RedisSettings, connect};
use hubbub::backplane::{Backplane, BackplaneError, BusEvent, BusTopic, Typing};

use crate::fixture::{
    DEADLINE, Recorder, append_message, conn, connect_and_join, eventually, grant, least_rights,
    limits, name, restricted_url, room, seqs, settings, user,
};
use crate::redis_cluster::Cluster;
use hubbub_test_support::server::RedisServer;

/// A node of one deployment, and everything that it hears.
struct Deployment {
    node: Backplane,
    recorder: Arc<Recorder>,
}

impl Deployment {
    async fn start(settings: RedisSettings) -> Self {
        let node = connect(settings, limits(), None).await.unwrap();
        let topics = [
            BusTopic::Room(room("lobby")),
            BusTopic::User(user("ann")),
            BusTopic::Nodes,
        ];
        let recorder = Recorder::on(&node, &topics).await;
        Self { node, recorder }
    }

    /// Publishes one event of each kind. `marker` is a part of each that names this deployment.
    async fn publish(&self, marker: &str) {
        append_message(&self.node, "lobby", marker).await;
        connect_and_join(&self.node, "ann", &format!("{marker}-ann"), "lobby").await;
        connect_and_join(&self.node, marker, &format!("{marker}-2"), "lobby").await;
        let typing = Typing {
            room: room("lobby"),
            user: user(marker),
            username: name(marker),
            typing: true,
        };
        self.node.bus.publish_typing(&typing).await.unwrap();
        self.node
            .bus
            .publish_disconnect(&user(marker))
            .await
            .unwrap();
    }

    /// All events up to those that this call publishes itself on each of the topics.
    async fn events(&self, marker: &str) -> Vec<BusEvent> {
        let end = user(&format!("end of {marker}"));
        self.node.bus.publish_disconnect(&end).await.unwrap();
        self.node
            .presence
            .connection_lost(&conn(&format!("{marker}-ann")), &user("ann"), &[])
            .await;
        eventually(DEADLINE, "ann is offline, and the end arrives", async || {
            let events = self.recorder.events();
            let is_offline = |event: &BusEvent| {
                matches!(event, BusEvent::StatusChanged(status) if !status.online)
            };
            let is_end =
                |event: &BusEvent| matches!(event, BusEvent::Disconnect(user) if *user == end);
            (events.iter().any(is_offline) && events.iter().any(is_end)).then_some(())
        })
        .await;
        self.recorder
            .events_until_sentinel(&self.node, "lobby")
            .await
    }
}

/// Two deployments publish events of every kind in the same room and about the same user. Each must
/// hear its own events only.
async fn assert_separate(first: RedisSettings, second: RedisSettings) {
    let one = Deployment::start(first).await;
    let two = Deployment::start(second).await;
    one.publish("one").await;
    two.publish("two").await;
    for (deployment, own, foreign) in [(&one, "one", "two"), (&two, "two", "one")] {
        let events = deployment.events(own).await;
        let is_foreign = |event: &&BusEvent| match event {
            BusEvent::Message(_, entry) => {
                String::from_utf8_lossy(&entry.record).contains(&format!("\"{foreign}\""))
            }
            BusEvent::RoomChanged(_, change) => change.user == user(foreign),
            BusEvent::Typing(typing) => typing.user == user(foreign),
            BusEvent::Receipt(receipt) => receipt.user == user(foreign),
            BusEvent::Disconnect(user) => user.as_str().ends_with(foreign),
            BusEvent::StatusChanged(_) => false,
        };
        let crossed: Vec<_> = events.iter().filter(is_foreign).collect();
        assert!(crossed.is_empty(), "{own} heard {crossed:?}");
        // Ann came online once and went offline once in each deployment, or came back within a
        // grace that the copied data holds.
        let changes = events
            .iter()
            .filter(|event| matches!(event, BusEvent::StatusChanged(_)))
            .count();
        assert!(changes <= 2, "{own} heard {changes} changes of ann");
        assert!(
            events
                .iter()
                .any(|event| matches!(event, BusEvent::Typing(_))),
            "{own} heard its own typing notice"
        );
    }
}

/// Copies all data of database 0 to database 1.
fn copy_to_database_1(redis: &RedisServer) {
    let keys = redis.cli(&["KEYS", "*"]);
    assert!(!keys.is_empty(), "there is data to copy");
    for key in keys.lines() {
        assert_eq!(redis.cli(&["COPY", key, key, "DB", "1"]), "1", "{key}");
    }
}

fn in_database(redis: &RedisServer, database: u8) -> RedisSettings {
    settings(&format!("{}/{database}", redis.url()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_in_two_databases_never_meet() {
    let redis = RedisServer::start();
    assert_separate(in_database(&redis, 0), in_database(&redis, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_that_began_with_the_same_data_never_meet() {
    let redis = RedisServer::start();
    let original = connect(in_database(&redis, 0), limits(), None)
        .await
        .unwrap();
    append_message(&original, "lobby", "before the copy").await;
    original.lifecycle.stop().await;
    copy_to_database_1(&redis);
    assert_separate(in_database(&redis, 0), in_database(&redis, 1)).await;
    let copy = connect(in_database(&redis, 1), limits(), None)
        .await
        .unwrap();
    assert_eq!(
        seqs(copy.log.as_ref(), "lobby").await,
        [1, 2, 3],
        "the copy has the message before it, its own one, and the sentinel"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_with_two_prefixes_in_one_database_never_meet() {
    let redis = RedisServer::start();
    let with_prefix = |prefix: &str| RedisSettings {
        prefix: KeyPrefix::parse(prefix).unwrap(),
        ..settings(&redis.url())
    };
    // One is the beginning of the other.
    assert_separate(with_prefix("chat:"), with_prefix("chat:test:")).await;
    let keys = redis.cli(&["KEYS", "*"]);
    for key in keys.lines() {
        assert!(
            key.starts_with("chat:{") || key.starts_with("chat:test:{"),
            "{key} has no prefix"
        );
    }
}

/// The key with the id of the deployment.
const ID: &str = "hubbub:{p00}I";

async fn name_of(node: &Backplane) -> String {
    node.lifecycle.deployment().await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_that_share_their_data_have_the_same_name_of_the_deployment() {
    let (server, other_server) = (RedisServer::start(), RedisServer::start());
    let cluster = Cluster::start(0).await;
    grant(&server, &least_rights());
    let mut names = Vec::new();
    for settings in [
        settings(&restricted_url(&server)),
        RedisSettings {
            prefix: KeyPrefix::parse("hubbub:test:").unwrap(),
            ..settings(&server.url())
        },
        settings(&format!("{}/1", server.url())),
        settings(&other_server.url()),
        settings(&cluster.url()),
    ] {
        let one = connect(settings.clone(), limits(), None).await.unwrap();
        let two = connect(settings, limits(), None).await.unwrap();
        let (first, second) = tokio::join!(name_of(&one), name_of(&two));
        assert_eq!(first, second);
        assert!(!names.contains(&first), "{first} in {names:?}");
        names.push(first);
        one.lifecycle.stop().await;
        two.lifecycle.stop().await;
    }
    assert_eq!(
        names[0],
        format!("redis hubbub: 0 {}", server.cli(&["GET", ID]))
    );
    assert_eq!(server.cli(&["TTL", ID]), "-1", "it never expires");
    // A database that began as a copy.
    let copied = server.line(&format!("COPY {ID} {ID} DB 1 REPLACE"));
    assert_eq!(copied, "1");
    let copy = settings(&format!("{}/1", server.url()));
    let copy = connect(copy, limits(), None).await.unwrap();
    assert_ne!(name_of(&copy).await, names[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_have_the_same_new_name_of_the_deployment_after_redis_was_flushed() {
    let mut server = RedisServer::start();
    let one = connect(settings(&server.url()), limits(), None)
        .await
        .unwrap();
    let two = connect(settings(&server.url()), limits(), None)
        .await
        .unwrap();
    let before = name_of(&one).await;
    assert_eq!(name_of(&one).await, before);
    server.cli(&["FLUSHALL"]);
    let after = name_of(&one).await;
    assert_ne!(after, before);
    assert_eq!(name_of(&two).await, after);
    server.kill();
    let lost = one.lifecycle.deployment().await;
    assert!(
        matches!(lost, Err(BackplaneError::Unavailable(_))),
        "{lost:?}"
    );
    server.run();
    let again = eventually(DEADLINE, "the node reads the name again", async || {
        one.lifecycle.deployment().await.ok()
    })
    .await;
    assert!(again.is_some_and(|name| name != after));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_finds_another_layout_sets_no_id_of_the_deployment() {
    let server = RedisServer::start();
    let node = connect(settings(&server.url()), limits(), None)
        .await
        .unwrap();
    server.cli(&["SET", "hubbub:{p00}V", "3"]);
    eventually(DEADLINE, "the node is down", async || {
        (!node.lifecycle.is_up()).then_some(())
    })
    .await;
    node.lifecycle.deployment().await.unwrap_err();
    assert_eq!(server.cli(&["EXISTS", ID]), "0");
}
