//! The version of the layout: a node works only with data of its own version.

use hubbub::backplane::redis::{StartError, connect};

use crate::fixture::{DEADLINE, append_message, eventually, limits, message, seqs, settings};
use hubbub_test_support::server::RedisServer;

async fn refused_version(server: &RedisServer) -> String {
    match connect(settings(&server.url()), limits()).await {
        Err(StartError::Layout(version)) => version,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a node started"),
    }
}

/// Renames every key that begins with one text so that it begins with another.
fn rename_all(server: &RedisServer, from: &str, to: &str) {
    let keys = server.cli(&["KEYS", &format!("{from}{{*")]);
    assert!(!keys.is_empty(), "there are keys to rename");
    for key in keys.lines() {
        let new = format!("{to}{}", key.strip_prefix(from).unwrap());
        assert_eq!(server.cli(&["RENAME", key, &new]), "OK");
    }
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
    let node = connect(settings(&server.url()), limits()).await.unwrap();
    append_message(&node, "lobby", "before the update").await;
    node.lifecycle.stop().await;
    // As an earlier release has left it.
    server.cli(&["DEL", "hubbub:{p00}V"]);
    rename_all(&server, "hubbub:", "");
    assert_eq!(refused_version(&server).await, "1");
    rename_all(&server, "", "hubbub:");
    let node = connect(settings(&server.url()), limits()).await.unwrap();
    append_message(&node, "lobby", "after the update").await;
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, [1, 2]);
    assert_eq!(server.cli(&["GET", "hubbub:{p00}V"]), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_stops_writing_when_the_layout_changes() {
    let server = RedisServer::start();
    let node = connect(settings(&server.url()), limits()).await.unwrap();
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
    let _node = connect(settings(&server.url()), limits()).await.unwrap();
    assert_eq!(server.cli(&["FLUSHALL"]), "OK");
    eventually(DEADLINE, "the version is set again", async || {
        (server.cli(&["GET", "hubbub:{p00}V"]) == "2").then_some(())
    })
    .await;
}
