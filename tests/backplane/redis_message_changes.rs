//! Changes of messages in Redis: the removal of deleted texts, the lifetime of forms, and clusters.

use std::time::Duration;

use hubbub::backplane::redis::connect;
use hubbub::backplane::{Backplane, BackplaneLimits, EntryKind, Window};
use serde_json::json;

use crate::fixture::{DEADLINE, eventually, limits, room, settings};
use crate::hot_log::{append_many, archived, diverge};
use crate::message_changes::{ROOM, Sent, announce, kinds_and_json, read, read_all};
use crate::redis_archive::{LOG, start, ttl};
use crate::redis_cluster::Cluster;
use crate::restore_source::{Source, going_on};
use hubbub_test_support::server::RedisServer;

const FORMS: &str = "hubbub:{c85}f:bG9iYnk";
const TARGETS: &str = "hubbub:{c85}t:bG9iYnk";
const SCRUBS: &str = "hubbub:{c85}x";
const COPY: &str = "hubbub:{c85}z:bG9iYnk";
const SECRET: &str = "secret-7c1f0a";

async fn start_node(server: &RedisServer, limits: BackplaneLimits) -> Backplane {
    connect(settings(&server.url()), limits, None)
        .await
        .unwrap()
}

/// The keys whose values contain the text, as Redis would save them.
fn keys_with(server: &RedisServer, text: &str) -> Vec<String> {
    assert_eq!(server.cli(&["CONFIG", "SET", "rdbcompression", "no"]), "OK");
    let keys = server.cli(&["KEYS", "*"]);
    let contains = |key: &&str| server.cli(&["DUMP", key]).contains(text);
    let mut found: Vec<_> = keys.lines().filter(contains).map(str::to_owned).collect();
    found.sort_unstable();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_of_a_deleted_message_leaves_every_key() {
    let server = RedisServer::start();
    let node = start_node(&server, limits()).await;
    let sent = Sent::append(&*node.log, SECRET).await;
    let edited = Sent::append(&*node.log, "before the edit").await;
    announce(&node, &sent.edit(&format!("{SECRET} edited"))).await;
    announce(&node, &edited.edit("after the edit")).await;
    append_many(&node, ROOM, 3).await;
    assert_eq!(keys_with(&server, SECRET), [FORMS, LOG].map(String::from));
    let length = server.cli(&["XLEN", LOG]);
    announce(&node, &sent.delete()).await;
    eventually(DEADLINE, "the text is removed", async || {
        keys_with(&server, SECRET).is_empty().then_some(())
    })
    .await;
    assert_eq!(
        server.cli(&["XLEN", LOG]),
        (length.parse::<u64>().unwrap() + 1).to_string()
    );
    assert!(ttl(&server, LOG) > 0, "the log still expires");
    assert_eq!(server.cli(&["EXISTS", SCRUBS]), "0");
    let entries = read_all(&node).await;
    for deleted in [0, 2, 7] {
        assert_eq!(entries[deleted].1["event"], "message_deleted");
    }
    assert_eq!(
        (entries[1].0, &entries[1].1["content"]),
        (EntryKind::Amended, &json!("after the edit"))
    );
    assert_eq!(node.lifecycle.counters().log_scrubs, 1);
    let next = Sent::append(&*node.log, "next").await;
    assert_eq!(next.at.seq, 9);
    let lobby = room(ROOM);
    let raw = node.hot_log.read_unarchived(&lobby, 0, 100, usize::MAX);
    let raw = raw.await.unwrap().unwrap();
    assert_eq!(
        (raw.len(), raw[0].kind, raw[0].record.len()),
        (9, EntryKind::Message, 0)
    );
    announce(&node, &sent.delete()).await;
    let nothing_to_remove = server.cli(&["EXISTS", SCRUBS]);
    assert_eq!(nothing_to_remove, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_log_is_copied_in_steps_beside_appends() {
    let server = RedisServer::start();
    let node = start_node(&server, limits()).await;
    let first = Sent::append(&*node.log, SECRET).await;
    append_many(&node, ROOM, 450).await;
    let last = Sent::append(&*node.log, SECRET).await;
    for sent in [&first, &last] {
        announce(&node, &sent.delete()).await;
    }
    let mut length = 454;
    eventually(DEADLINE, "the texts are removed", async || {
        Sent::append(&*node.log, "next").await;
        length += 1;
        keys_with(&server, SECRET).is_empty().then_some(())
    })
    .await;
    assert_eq!(server.cli(&["XLEN", LOG]), length.to_string());
    assert_eq!(server.cli(&["EXISTS", SCRUBS, COPY]), "0");
    let next = Sent::append(&*node.log, "next").await;
    assert_eq!(next.at.seq, length + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_is_deleted_while_the_log_is_copied_is_removed_by_another_copy() {
    let server = RedisServer::start();
    let node = start_node(&server, limits()).await;
    let sent = Sent::append(&*node.log, SECRET).await;
    append_many(&node, ROOM, 3).await;
    let epoch = sent.at.epoch.as_str();
    server.cli(&["XADD", COPY, "1-0", "e", epoch, "t", "0", "m", SECRET]);
    server.cli(&["ZADD", SCRUBS, "0", "bG9iYnk:"]);
    announce(&node, &sent.delete()).await;
    eventually(DEADLINE, "the text is removed", async || {
        keys_with(&server, SECRET).is_empty().then_some(())
    })
    .await;
    assert_eq!(server.cli(&["XLEN", LOG]), "5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_readers_do_not_see_lose_their_texts_too() {
    let server = RedisServer::start();
    let limits = BackplaneLimits {
        history_size: 5,
        ..limits()
    };
    let node = start_node(&server, limits).await;
    let sent = Sent::append(&*node.log, SECRET).await;
    announce(&node, &sent.delete()).await;
    append_many(&node, ROOM, 20).await;
    let other = Sent::append(&*node.log, "other").await;
    announce(&node, &other.edit("edited")).await;
    eventually(DEADLINE, "the text is removed", async || {
        keys_with(&server, SECRET).is_empty().then_some(())
    })
    .await;
    assert_eq!(
        server.cli(&["HLEN", FORMS]),
        "1",
        "the form of the first one is not needed"
    );
    let seqs: Vec<u64> = read(&node, Window::After(0))
        .await
        .iter()
        .map(|entry| entry.seq)
        .collect();
    assert_eq!(seqs, [20, 21, 22, 23, 24]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_live_as_long_as_their_log() {
    let server = RedisServer::start();
    let limits = BackplaneLimits {
        history_ttl: Duration::from_secs(1000),
        ..limits()
    };
    let node = start_node(&server, limits.clone()).await;
    let sent = Sent::append(&*node.log, "text").await;
    announce(&node, &sent.edit("new")).await;
    for key in [FORMS, TARGETS] {
        assert!(ttl(&server, key) >= ttl(&server, LOG) - 1000, "{key}");
    }
    node.lifecycle.stop().await;
    let server = RedisServer::start();
    let node = start(&server, limits, &Source::new()).await;
    let sent = Sent::append(&*node.log, "text").await;
    announce(&node, &sent.edit("new")).await;
    assert_eq!((ttl(&server, FORMS), ttl(&server, TARGETS)), (-1, -1));
    archived(&node, ROOM, &sent.at.epoch, vec![1..=2]).await;
    assert!(ttl(&server, FORMS) >= ttl(&server, LOG) - 1000 && ttl(&server, TARGETS) > 0);
    let next = Sent::append(&*node.log, "next").await;
    assert_eq!(
        (
            ttl(&server, LOG),
            ttl(&server, FORMS),
            ttl(&server, TARGETS)
        ),
        (-1, -1, -1)
    );
    // Retention removes the message, its edit, and so its form.
    archived(&node, ROOM, &next.at.epoch, vec![3..=3]).await;
    node.hot_log.trim(&room(ROOM), 2).await.unwrap();
    assert_eq!(server.cli(&["EXISTS", FORMS, TARGETS]), "0");
    assert_eq!(read_all(&node).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_without_entries_removes_the_forms() {
    let server = RedisServer::start();
    let source = Source::new();
    let node = start(&server, limits(), &source).await;
    let sent = Sent::append(&*node.log, "text").await;
    announce(&node, &sent.edit("new")).await;
    source.set(ROOM, going_on("e2", 2));
    diverge(&node, ROOM, &sent.at.epoch, 1).await;
    let next = Sent::append(&*node.log, "next").await;
    assert_eq!(next.at.seq, 3);
    assert_eq!(server.cli(&["EXISTS", FORMS, TARGETS]), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_forms_beside_their_logs() {
    let cluster = Cluster::start(0).await;
    let node = connect(settings(&cluster.url()), limits(), None)
        .await
        .unwrap();
    let sent = Sent::append(&*node.log, SECRET).await;
    announce(&node, &sent.edit("new")).await;
    let entries = kinds_and_json(&read(&node, Window::Newest).await);
    assert_eq!(entries[0].1["content"], "new");
    announce(&node, &sent.delete()).await;
    eventually(DEADLINE, "the text is removed", async || {
        let found = cluster
            .servers()
            .iter()
            .any(|server| !keys_with(server, SECRET).is_empty());
        (!found).then_some(())
    })
    .await;
    let entries = read_all(&node).await;
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0].1["event"], "message_deleted");
}
