//! Nothing of a chat reaches a member after its removal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hubbub_test_support::client::Client;
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::SharedStorage;
use serde_json::{Value, json};

use crate::fixture::{SECRET, User, room};

const CHATS: usize = 10;
const ROUNDS: usize = 20;
/// Messages after a removal that another member has to receive first.
const MESSAGES_AFTER: usize = 5;

/// The events of the room that the client has received.
fn received(client: &Client, room: &str) -> Vec<(String, Value)> {
    let mut story = client.story();
    story.retain(|(_, event)| event["room_id"] == room && event["seq"].is_u64());
    story
}

/// The `seq` of the last removal that the client has received.
fn last_removal(client: &Client, room: &str) -> Option<u64> {
    let events = received(client, room);
    let removal = events.iter().rfind(|(name, _)| name == "member_removed")?;
    removal.1["seq"].as_u64()
}

/// Writes to the room until it is told to stop.
async fn write(writer: &Client, room: &str, stopped: &AtomicBool) {
    let message = json!({"room_id": room, "content": "x"});
    while !stopped.load(Ordering::SeqCst) {
        writer.done("message", message.clone()).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Removes and adds a member again and again, while messages are sent.
async fn remove_repeatedly(ann: User, bob: User, carol: User, seed: u64) {
    let chat = ann.group(&[&bob, &carol], "all").await;
    let room = room(&chat);
    let (writer, member, other) = (
        ann.connect().await,
        bob.connect().await,
        carol.connect().await,
    );
    for client in [&writer, &other] {
        client.done("join", json!({"room_id": room})).await;
    }
    let stopped = AtomicBool::new(false);
    let removals = async {
        for round in 0..ROUNDS as u64 {
            member.done("join", json!({"room_id": room})).await;
            let pause = (seed * 7 + round * 13) % 40;
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let before = last_removal(&other, &room);
            let path = format!("/api/v1/chats/{chat}/members/{}", bob.id);
            ann.done("DELETE", &path, Value::Null, 200).await;
            other
                .eventually("messages after the removal", |other| {
                    let removal = last_removal(other, &room);
                    let later = |(_, event): &&(String, Value)| event["seq"].as_u64() > removal;
                    removal > before
                        && received(other, &room).iter().filter(later).count() >= MESSAGES_AFTER
                })
                .await;
            let refused = member.ask("history", json!({"room_id": room})).await;
            assert_eq!(refused["code"], "forbidden");
            let removal = last_removal(&other, &room);
            let last = received(&member, &room).pop();
            let last = last.and_then(|(_, event)| event["seq"].as_u64());
            assert!(last <= removal, "{last:?} after {removal:?}");
            let path = format!("/api/v1/chats/{chat}/members");
            ann.done("POST", &path, json!({"user_id": bob.id}), 201)
                .await;
        }
        stopped.store(true, Ordering::SeqCst);
    };
    tokio::join!(write(&writer, &room, &stopped), removals);
    let told = member.events("exception");
    let told = told.iter().filter(|told| told["room_id"] == *room).count();
    assert_eq!(told, ROUNDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_receives_nothing_that_comes_after_its_removal() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let storage = SharedStorage::new(&database.url);
    let unlimited = ("RATE_EVENTS_PER_SEC", "0");
    let one = storage.start_node(&[SECRET, unlimited]).await;
    let other = storage.start_node(&[SECRET, unlimited]).await;
    let ann = User::sign_up(one.address(), "ann").await;
    let carol = User::sign_up(other.address(), "carol").await;
    let mut chats = Vec::new();
    for number in 0..CHATS {
        let bob = User::sign_up(other.address(), &format!("bob{number}")).await;
        let users = (ann.clone(), bob, carol.clone());
        chats.push(tokio::spawn(remove_repeatedly(
            users.0,
            users.1,
            users.2,
            number as u64,
        )));
    }
    for chat in chats {
        chat.await.unwrap();
    }
    one.stop().await;
    other.stop().await;
}
