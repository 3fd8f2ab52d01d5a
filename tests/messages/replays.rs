//! Replays from before an edit and a deletion: from the log of a lone node, through Redis, and from the
//! archive after the log was trimmed.

use std::net::SocketAddr;

use hubbub_test_support::client::Client;
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::SharedStorage;
use serde_json::{Value, json};

use crate::fixture::{SECRET, UNLIMITED, User, node, room};

const OLD: &str = "the former content";
const DELETED: &str = "the deleted content";

/// Everything numbered that a client received in the room, by name.
fn numbered(client: &Client, room: &str) -> Vec<(String, Value)> {
    let mut story = client.story();
    story.retain(|(_, event)| event["room_id"] == *room && event["seq"].is_u64());
    story
}

/// Sends, edits and deletes at one node, and resumes at another one. `later`: the messages that follow.
async fn replay_shows_the_newest_form(one: SocketAddr, other: SocketAddr, later: usize) {
    let ann = User::sign_up(one, "ann").await;
    let bob = User::sign_up(one, "bob").await;
    let chat = ann.group(&[&bob], "all").await;
    let room = room(&chat);
    let writer = ann.connect().await;
    let joined = writer.done("join", json!({"room_id": room})).await;
    let since = joined["seq"].as_u64().unwrap();
    let send = |content: &'static str| {
        writer.done("message", json!({"room_id": room, "content": content}))
    };
    let (edited, deleted) = (send(OLD).await, send(DELETED).await);
    let edit = json!({"room_id": room, "id": edited["id"], "content": "the new content"});
    let edit = writer.done("edit_message", edit).await;
    let reaction = json!({"room_id": room, "id": deleted["id"], "emoji": "+1"});
    writer.done("react", reaction).await;
    writer
        .eventually("the reaction", |writer| {
            writer.count("reactions_changed") == 1
        })
        .await;
    let deletion = json!({"room_id": room, "id": deleted["id"]});
    let deletion = writer.done("delete_message", deletion).await;
    for _ in 0..later {
        send("later").await;
    }
    let head = deletion["seq"].as_u64().unwrap() + later as u64;

    let reader = bob.at(other).connect().await;
    let join = json!({"room_id": room, "since_seq": since, "epoch": joined["epoch"]});
    let answer = reader.done("join", join).await;
    assert_eq!(answer["recovered"], true, "{answer}");
    reader
        .eventually("the replay", |reader| {
            let last = numbered(reader, &room);
            last.last()
                .is_some_and(|(_, event)| event["seq"].as_u64() >= Some(head))
        })
        .await;
    let events = numbered(&reader, &room);
    let seqs: Vec<u64> = events
        .iter()
        .map(|(_, event)| event["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(
        seqs,
        (since + 1..=head).collect::<Vec<u64>>(),
        "no hole, no repeat"
    );
    let at = |seq: &Value| {
        let at = |(_, event): &&(String, Value)| event["seq"] == *seq;
        events.iter().find(at).unwrap()
    };
    let (name, message) = at(&edited["seq"]);
    assert_eq!(
        (name.as_str(), &message["content"]),
        ("message", &json!("the new content"))
    );
    assert_eq!(message["version"], edit["version"]);
    let (name, event) = at(&edit["seq"]);
    assert_eq!(name, "message_edited");
    assert_eq!(event["message"]["content"], "the new content");
    assert_eq!(event["message"]["seq"], edited["seq"]);
    let reaction = writer.events("reactions_changed")[0]["seq"].clone();
    for seq in [&deleted["seq"], &reaction, &deletion["seq"]] {
        let (name, event) = at(seq);
        assert_eq!(name, "message_deleted", "at {seq}");
        assert_eq!(
            (&event["id"], &event["target_seq"]),
            (&deleted["id"], &deleted["seq"])
        );
        assert_eq!(event["deleted_by"], ann.id.as_str());
    }
    let path = format!("/api/v1/rooms/{room}/messages?limit=200&after_seq={since}");
    let page = bob.at(other).done("GET", &path, Value::Null, 200).await;
    for text in [OLD, DELETED] {
        assert!(!page.to_string().contains(text), "{page}");
        assert!(
            events
                .iter()
                .all(|(_, event)| !event.to_string().contains(text))
        );
    }
    let items = page["items"].as_array().unwrap();
    let tombstone = items
        .iter()
        .find(|item| item["seq"] == deleted["seq"])
        .unwrap();
    assert_eq!(tombstone["deleted"], true);
    let newest = items
        .iter()
        .find(|item| item["seq"] == edited["seq"])
        .unwrap();
    assert_eq!(newest["version"], edit["version"]);
    assert!(newest["edited_at"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_a_lone_node_shows_the_newest_form() {
    let cluster = node(&[UNLIMITED]).await;
    replay_shows_the_newest_form(cluster.address(0), cluster.address(0), 3).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_a_lone_node_from_its_archive_shows_the_newest_form() {
    let cluster = node(&[UNLIMITED, ("HISTORY_SIZE", "10")]).await;
    replay_shows_the_newest_form(cluster.address(0), cluster.address(0), 100).await;
    cluster.stop().await;
}

async fn on_two_nodes(kind: DatabaseKind, history_size: &str, later: usize) {
    let database = TestDatabase::new(kind);
    let storage = SharedStorage::new(&database.url);
    let settings = [SECRET, UNLIMITED, ("HISTORY_SIZE", history_size)];
    let (one, other) = (
        storage.start_node(&settings).await,
        storage.start_node(&settings).await,
    );
    replay_shows_the_newest_form(one.address(), other.address(), later).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_through_redis_shows_the_newest_form() {
    on_two_nodes(DatabaseKind::Postgres, "1000", 3).await;
}

/// The stream of a room is trimmed in whole nodes of 100 entries.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_from_the_archive_of_a_cluster_shows_the_newest_form() {
    on_two_nodes(DatabaseKind::MariaDb, "10", 400).await;
}
