//! The version of the layout: a node works only with data of its own version.

use std::time::Duration;

use hubbub::backplane::redis::{KeyPrefix, RedisSettings, StartError, connect};

use crate::fixture::{
    DEADLINE, append_message, eventually, grant, least_rights, limits, message, restricted_url,
    seqs, settings,
};
use hubbub_test_support::server::RedisServer;

async fn refused_version(server: &RedisServer) -> String {
    match connect(settings(&server.url()), limits(), None).await {
        Err(StartError::Layout(version)) => version,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a node started"),
    }
}

/// Renames every key of a deployment with the default prefix as a release without prefixes named it.
fn remove_prefix(server: &RedisServer) {
    server.cli(&["DEL", "hubbub:{p00}V"]);
    let keys = server.cli(&["KEYS", "hubbub:{*"]);
    assert!(!keys.is_empty(), "there are keys to rename");
    for key in keys.lines() {
        let old = key.strip_prefix("hubbub:").unwrap();
        assert_eq!(server.cli(&["RENAME", key, old]), "OK");
    }
}

/// Runs the conversion of docs/operations.md on this server, and returns its output.
fn convert(server: &RedisServer) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (_, section) = document.split_once("## The layout in Redis").unwrap();
    let (_, recipe) = section.split_once("```sh\n").unwrap();
    let (recipe, _) = recipe.split_once("```").unwrap();
    let own_server = format!("redis-cli -p {}", server.port);
    let output = std::process::Command::new("sh")
        .args(["-c", &recipe.replace("redis-cli", &own_server)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until the server has run EXISTS this many times.
async fn wait_for_exists(server: &RedisServer, count: u64) {
    eventually(DEADLINE, "EXISTS runs", async || {
        let stats = server.cli(&["INFO", "commandstats"]);
        let (_, calls) = stats.split_once("cmdstat_exists:calls=")?;
        let calls: u64 = calls.split_once(',')?.0.parse().unwrap();
        (calls >= count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_not_start_with_data_of_a_later_layout() {
    let server = RedisServer::start();
    server.cli(&["SET", "hubbub:{p00}V", "3"]);
    assert_eq!(refused_version(&server).await, "3");
    assert_eq!(
        server.cli(&["KEYS", "*"]),
        "hubbub:{p00}V",
        "the node has written nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_without_a_prefix_is_used_after_its_keys_are_renamed() {
    let server = RedisServer::start();
    let node = connect(settings(&server.url()), limits(), None)
        .await
        .unwrap();
    append_message(&node, "lobby", "before the update").await;
    node.lifecycle.stop().await;
    remove_prefix(&server);
    assert_eq!(refused_version(&server).await, "1");
    let output = convert(&server);
    assert!(!output.contains('{'), "a key was kept: {output}");
    let node = connect(settings(&server.url()), limits(), None)
        .await
        .unwrap();
    append_message(&node, "lobby", "after the update").await;
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, [1, 2]);
    assert_eq!(server.cli(&["GET", "hubbub:{p00}V"]), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_conversion_overwrites_no_data_and_lists_the_keys_that_it_kept() {
    let server = RedisServer::start();
    server.cli(&["SET", "{c85}m:bG9iYnk", "earlier"]);
    server.cli(&["SET", "{p00}B", "earlier"]);
    server.cli(&["SET", "hubbub:{c85}m:bG9iYnk", "live"]);
    let output = convert(&server);
    assert_eq!(server.cli(&["GET", "hubbub:{c85}m:bG9iYnk"]), "live");
    assert_eq!(server.cli(&["GET", "hubbub:{p00}B"]), "earlier");
    let kept: Vec<_> = output.lines().filter(|line| line.contains('{')).collect();
    assert_eq!(kept, ["{c85}m:bG9iYnk"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_prefix_begins_anew_beside_data_without_a_prefix() {
    let server = RedisServer::start();
    server.cli(&["SET", "{p00}B", "1"]);
    assert_eq!(refused_version(&server).await, "1");
    let other = RedisSettings {
        prefix: KeyPrefix::parse("other:").unwrap(),
        ..settings(&server.url())
    };
    let node = connect(other, limits(), None).await.unwrap();
    append_message(&node, "lobby", "hi").await;
    assert!(node.lifecycle.is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_without_a_prefix_that_appears_later_stops_no_node() {
    let server = RedisServer::start();
    let node = connect(settings(&server.url()), limits(), None)
        .await
        .unwrap();
    // A node of an earlier release is started by mistake.
    server.cli(&["SET", "{p00}B", "1"]);
    server.signal("-STOP");
    eventually(DEADLINE, "the node is down", async || {
        (!node.lifecycle.is_up()).then_some(())
    })
    .await;
    server.signal("-CONT");
    eventually(DEADLINE, "the node is up again", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    let second = connect(settings(&server.url()), limits(), None)
        .await
        .unwrap();
    append_message(&second, "lobby", "hi").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_started_before_redis_writes_nothing_beside_data_without_a_prefix() {
    let server = RedisServer::start();
    server.cli(&["SET", "{p00}B", "1"]);
    server.signal("-STOP");
    let early = RedisSettings {
        connect_timeout: Duration::from_millis(300),
        ..settings(&server.url())
    };
    let node = connect(early, limits(), None).await.unwrap();
    server.signal("-CONT");
    wait_for_exists(&server, 2).await;
    assert_eq!(server.cli(&["KEYS", "*"]), "{p00}B");
    assert!(!node.lifecycle.is_up());
    server.cli(&["DEL", "{p00}B"]);
    eventually(DEADLINE, "the node is up", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_stops_writing_when_the_layout_changes() {
    let server = RedisServer::start();
    let node = connect(settings(&server.url()), limits(), None)
        .await
        .unwrap();
    append_message(&node, "lobby", "before").await;
    server.cli(&["SET", "hubbub:{p00}V", "3"]);
    eventually(DEADLINE, "the node is down", async || {
        (!node.lifecycle.is_up()).then_some(())
    })
    .await;
    let refused = node
        .log
        .append(&message("lobby", "ann", "late"), None)
        .await;
    assert!(refused.is_err(), "{refused:?}");
    server.cli(&["SET", "hubbub:{p00}V", "2"]);
    eventually(DEADLINE, "the node is up again", async || {
        node.lifecycle.is_up().then_some(())
    })
    .await;
    append_message(&node, "lobby", "after").await;
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_is_lost_under_running_nodes_gets_its_version_again() {
    let server = RedisServer::start();
    let _node = connect(settings(&server.url()), limits(), None)
        .await
        .unwrap();
    assert_eq!(server.cli(&["FLUSHALL"]), "OK");
    eventually(DEADLINE, "the version is set again", async || {
        (server.cli(&["GET", "hubbub:{p00}V"]) == "2").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_rights_for_the_conversion_finds_data_without_a_prefix() {
    let server = RedisServer::start();
    server.cli(&["SET", "{p00}B", "1"]);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md");
    let document = std::fs::read_to_string(path).unwrap();
    let mut rights = least_rights();
    let right = "%R~{p00}B";
    assert!(document.contains(&format!("`{right}`")));
    rights.push(right.to_owned());
    grant(&server, &rights);
    let refused = connect(settings(&restricted_url(&server)), limits(), None).await;
    assert!(
        matches!(refused.err(), Some(StartError::Layout(version)) if version == "1"),
        "the node finds the data"
    );
}
