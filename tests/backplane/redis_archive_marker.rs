//! All nodes of a deployment use the same archive: its id lies in Redis.

use std::sync::Arc;

use hubbub::backplane::redis::{StartError, connect};
use hubbub::backplane::{
    Backplane, HotState, RestorePoint, RestoreSource, Result, UnarchivedEntries,
};
use hubbub::domain::RoomId;

use crate::fixture::{
    DEADLINE, append_message, archive_rights, eventually, grant, least_rights, limits, message,
    restricted_url, room, settings,
};
use crate::hot_log::{append_many, archived};
use crate::restore_source::new_room;
use hubbub_test_support::server::RedisServer;

const MARKER: &str = "hubbub:{p00}A";

/// An archive with this id, without messages.
struct Archive(&'static str);

#[async_trait::async_trait]
impl RestoreSource for Archive {
    fn archive_id(&self) -> String {
        self.0.to_owned()
    }

    async fn restore_point(
        &self,
        _: &RoomId,
        _: Option<&HotState>,
        _: &mut dyn UnarchivedEntries,
    ) -> Result<RestorePoint> {
        Ok(new_room())
    }
}

async fn start(
    url: &str,
    archive: Option<&'static str>,
) -> std::result::Result<Backplane, StartError> {
    let archive = archive.map(|id| Arc::new(Archive(id)) as Arc<dyn RestoreSource>);
    connect(settings(url), limits(), archive).await
}

async fn refusal(url: &str, archive: Option<&'static str>) -> String {
    match start(url, archive).await {
        Ok(_) => panic!("a node started"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_archive_or_without_one_does_not_start() {
    let server = RedisServer::start();
    let node = start(&server.url(), Some("one")).await.unwrap();
    assert_eq!(server.cli(&["GET", MARKER]), "one");
    let without = refusal(&server.url(), None).await;
    let other = refusal(&server.url(), Some("two")).await;
    for (text, own) in [(without, "has no archive"), (other, "in database two")] {
        for word in ["in database one", own, "DATABASE_URL", "DEL hubbub:{p00}A"] {
            assert!(text.contains(word), "{text}");
        }
    }
    let second = start(&server.url(), Some("one")).await.unwrap();
    assert_eq!(append_message(&node, "lobby", "hi").await.seq, 1);
    assert_eq!(append_message(&second, "lobby", "hi").await.seq, 2);
    node.lifecycle.stop().await;
    second.lifecycle.stop().await;
    // What the message says is the way out.
    assert_eq!(server.cli(&["DEL", MARKER]), "1");
    let without = start(&server.url(), None).await.unwrap();
    assert_eq!(append_message(&without, "lobby", "hi").await.seq, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_without_the_archive_goes_down() {
    let server = RedisServer::start();
    let without = start(&server.url(), None).await.unwrap();
    append_message(&without, "lobby", "hi").await;
    let node = start(&server.url(), Some("one")).await.unwrap();
    eventually(DEADLINE, "the other node is down", async || {
        (!without.lifecycle.is_up()).then_some(())
    })
    .await;
    let refused = without
        .log
        .append(&message("lobby", "ann", "hi"), None)
        .await;
    assert!(refused.unwrap_err().to_string().contains("archive"));
    assert!(node.lifecycle.is_up());
    assert_eq!(append_message(&node, "lobby", "hi").await.seq, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_node_with_an_archive_needs_its_rights() {
    let server = RedisServer::start();
    grant(&server, &least_rights());
    let url = restricted_url(&server);
    start(&url, None).await.unwrap().lifecycle.stop().await;
    let refused = refusal(&url, Some("one")).await;
    assert!(
        refused.contains("ACL SETUSER <user> +rename +xtrim"),
        "{refused}"
    );
    grant(&server, &archive_rights());
    let node = start(&url, Some("one")).await.unwrap();
    let epoch = append_many(&node, "lobby", 2).await;
    archived(&node, "lobby", &epoch, vec![1..=2]).await;
    node.hot_log.trim(&room("lobby"), 1).await.unwrap();
    append_message(&node, "lobby", "hi").await;
    assert!(node.lifecycle.is_up());
}
