//! Redis with an archive behind it: how long it keeps entries that are not archived, and a cluster.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hubbub::backplane::redis::connect;
use hubbub::backplane::{Backplane, BackplaneLimits};

use crate::fixture::{
    append_message, conn, connect_and_join, limits, message, room, settings, user,
};
use crate::hot_log::{append_many, archived, span};
use crate::redis_cluster::Cluster;
use crate::restore_source::{Source, going_on};
use hubbub_test_support::server::RedisServer;

/// The keys of the room `lobby`.
pub const NUMBERING: &str = "hubbub:{c85}m:bG9iYnk";
pub const LOG: &str = "hubbub:{c85}h:bG9iYnk";
const UNARCHIVED: &str = "hubbub:{c85}a";

/// Starts a node with that archive.
pub async fn start(
    server: &RedisServer,
    limits: BackplaneLimits,
    source: &Arc<Source>,
) -> Backplane {
    connect(settings(&server.url()), limits, Some(source.clone()))
        .await
        .unwrap()
}

/// The milliseconds until a key expires; -1 if it doesn't.
pub fn ttl(server: &RedisServer, key: &str) -> i64 {
    server.cli(&["PTTL", key]).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unarchived_entries_expire_in_no_case() {
    let server = RedisServer::start();
    let limits = BackplaneLimits {
        history_ttl: Duration::from_secs(1000),
        room_ttl: Duration::from_secs(2000),
        ..limits()
    };
    let node = start(&server, limits, &Source::new()).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    let epoch = append_many(&node, "lobby", 2).await;
    archived(&node, "lobby", &epoch, vec![1..=1]).await;
    node.presence
        .leave(&conn("c1"), &user("ann"), &room("lobby"))
        .await
        .unwrap();
    assert_eq!((ttl(&server, NUMBERING), ttl(&server, LOG)), (-1, -1));
    assert_eq!(server.cli(&["ZCARD", UNARCHIVED]), "1");
    archived(&node, "lobby", &epoch, vec![2..=2]).await;
    assert!((1_000_001..=2_100_000).contains(&ttl(&server, NUMBERING)));
    assert!((1..=1_000_000).contains(&ttl(&server, LOG)));
    assert_eq!(server.cli(&["EXISTS", UNARCHIVED]), "0");
    append_message(&node, "lobby", "three").await;
    assert_eq!((ttl(&server, NUMBERING), ttl(&server, LOG)), (-1, -1));
    // Members keep the numbering, not the log.
    connect_and_join(&node, "ann", "c1", "lobby").await;
    archived(&node, "lobby", &epoch, vec![3..=3]).await;
    assert_eq!(ttl(&server, NUMBERING), -1);
    assert!(ttl(&server, LOG) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_trimmed_once_it_is_archived() {
    let server = RedisServer::start();
    let limits = BackplaneLimits {
        history_size: 100,
        ..limits()
    };
    let node = start(&server, limits, &Source::new()).await;
    let messages: Vec<_> = (0..1000)
        .map(|n| message("lobby", "ann", &n.to_string()))
        .collect();
    let sent = join_all(
        messages
            .iter()
            .map(|message| node.log.append(message, None)),
    )
    .await;
    let epoch = sent[0].as_ref().unwrap().epoch.clone();
    assert_eq!(server.cli(&["XLEN", LOG]), "1000");
    let all = span(&node, "lobby").await;
    assert_eq!((all.oldest, all.recent), (1, 901));
    archived(&node, "lobby", &epoch, vec![1..=1000]).await;
    let length: u64 = server.cli(&["XLEN", LOG]).parse().unwrap();
    assert!((100..300).contains(&length), "{length}");
    assert_eq!(span(&node, "lobby").await.oldest, 901);
    node.hot_log.trim(&room("lobby"), 950).await.unwrap();
    assert_eq!(span(&node, "lobby").await.oldest, 951);
    assert_eq!(server.cli(&["XLEN", LOG]), "50");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_every_room_is_archived_and_restored() {
    let cluster = Cluster::start(0).await;
    let source = Source::new();
    let restore: Arc<dyn hubbub::backplane::RestoreSource> = source.clone();
    let node = connect(settings(&cluster.url()), limits(), Some(restore))
        .await
        .unwrap();
    let names: Vec<_> = (0..40).map(|n| format!("room{n}")).collect();
    let mut reports = Vec::new();
    for name in &names {
        source.set(name, going_on("e1", 10));
        let sent = append_message(&node, name, "hi").await;
        assert_eq!(sent.seq, 11);
        reports.push((room(name), sent.epoch, vec![11..=11]));
    }
    let mut found = Vec::new();
    for _ in 0..4 {
        let rooms = node.hot_log.unarchived(Duration::ZERO, 1000).await.unwrap();
        found.extend(
            rooms
                .into_iter()
                .map(|found| found.room.as_str().to_owned()),
        );
    }
    found.sort_unstable();
    let mut expected = names.clone();
    expected.sort_unstable();
    assert_eq!(found, expected);
    node.hot_log.advance_watermarks(&reports).await.unwrap();
    for _ in 0..4 {
        let rooms = node.hot_log.unarchived(Duration::ZERO, 1000).await.unwrap();
        assert!(rooms.is_empty(), "{rooms:?}");
    }
}
