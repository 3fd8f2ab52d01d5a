//! Changes of messages that wait for their announcement, or are repeated.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde_json::{Value, json};
use uuid::Uuid;

use super::acks::{Node, PlainClient, ok, send, send_message, settle};
use super::*;
use crate::features::messages::{MessageStores, Messages};
use crate::outbox::Publications;
use crate::store::testing::{FakeMessages, MessageCalls, NoPositions};
use crate::store::{self, Announced, ChangeOutcome, Changed, Changer, MessageRef};

/// The number of every message.
const TARGET: u64 = 7;

/// Pins that the test makes and publishes.
#[derive(Default)]
struct Pins {
    /// The outcomes of the next attempts. Without any, a pin is made as the next revision.
    outcomes: Mutex<VecDeque<ChangeOutcome>>,
    /// The pins (`true`) and removals that were attempted.
    attempts: Mutex<Vec<bool>>,
    revisions: AtomicU64,
    /// Revisions up to this one are published.
    published: AtomicU64,
}

impl Pins {
    fn attempts(&self) -> Vec<bool> {
        self.attempts.lock().clone()
    }

    fn wait_for(&self, revision: u64) {
        self.revisions.store(revision, Ordering::SeqCst);
        self.outcomes.lock().push_back(ChangeOutcome::Pending {
            target_seq: TARGET,
            revision,
        });
    }

    async fn publish(&self, revision: u64) {
        self.published.store(revision, Ordering::SeqCst);
        // Calls that wait read the store every 100 ms.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[async_trait]
impl MessageCalls for Pins {
    async fn pin(&self, _: &MessageRef, _: &Changer, on: bool) -> store::Result<ChangeOutcome> {
        self.attempts.lock().push(on);
        if let Some(outcome) = self.outcomes.lock().pop_front() {
            return Ok(outcome);
        }
        let revision = self.revisions.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(ChangeOutcome::Changed(Changed {
            target_seq: TARGET,
            announcement: Announced::ByRow { revision },
        }))
    }

    async fn published(&self, _: &RoomId, _: u64, revision: u64) -> store::Result<Option<u64>> {
        let is_published = revision <= self.published.load(Ordering::SeqCst);
        Ok(is_published.then_some(100 + revision))
    }
}

fn node() -> (Node, Arc<FakeMessages<Pins>>) {
    let pins = Arc::new(FakeMessages(Pins::default()));
    let node = Node::with_messages(1 << 20, |messaging, backplane| {
        let stores = MessageStores {
            messages: pins.clone(),
            positions: Arc::new(NoPositions),
            chats: None,
        };
        let parts = stores.parts(None, backplane.presence.clone());
        let publications = Publications::new(pins.clone());
        let messages = Messages::new(messaging.clone(), parts, stores, publications);
        Some(Arc::new(messages))
    });
    (node, pins)
}

fn pin(connection: &Arc<Connection>, on: bool, reference: usize) {
    let event = if on { "pin_message" } else { "unpin_message" };
    let payload = json!({"room_id": "lobby", "id": Uuid::now_v7()});
    send(connection, event, &payload, reference);
}

fn lobby() -> Value {
    json!({"room_id": "lobby"})
}

async fn is_occupant(node: &Node, user: &str) -> bool {
    let (room, user) = (RoomId::trusted("lobby"), UserId::trusted(user));
    let presence = &node.backplane.presence;
    presence.is_occupant(&room, &user).await.unwrap()
}

async fn connections(node: &Node, user: &str) -> usize {
    let user = UserId::trusted(user);
    let presence = &node.backplane.presence;
    presence.connections(&user).await.unwrap().len()
}

fn holds(client: &PlainClient) -> usize {
    client.holds.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_not_announced_delays_no_other_event() {
    let (node, pins) = node();
    let (connection, client) = node.member("ann").await;
    pin(&connection, true, 1);
    send_message(&connection, 2);
    send(&connection, "typing", &lobby(), 3);
    pin(&connection, false, 4);
    send(&connection, "leave", &lobby(), 5);
    settle().await;
    assert_eq!(pins.0.attempts(), [true, false]);
    assert_eq!(node.log.placed(), 1);
    assert!(!is_occupant(&node, "ann").await);
    node.log.commit(1);
    assert_eq!(client.replies(), [], "replies keep their order");
    assert_eq!(holds(&client), 1, "a drain waits");
    pins.0.publish(1).await;
    assert_eq!(client.replies(), ok([1, 2, 3]));
    pins.0.publish(2).await;
    assert_eq!(client.replies(), ok(1..=5));
    assert_eq!(holds(&client), 0);
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_a_connection_does_not_wait_for_announcements() {
    let (node, pins) = node();
    let (connection, client) = node.member("ann").await;
    pin(&connection, true, 1);
    send(&connection, "history", &lobby(), 2);
    settle().await;
    assert!(is_occupant(&node, "ann").await);
    connection.lost();
    settle().await;
    assert_eq!(connections(&node, "ann").await, 0);
    pins.0.publish(1).await;
    assert_eq!(holds(&client), 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_repeated_delays_later_changes_only() {
    let (node, pins) = node();
    let (connection, client) = node.member("ann").await;
    pins.0.wait_for(1);
    pin(&connection, true, 1);
    send_message(&connection, 2);
    send(&connection, "leave", &lobby(), 3);
    settle().await;
    assert_eq!((pins.0.attempts(), node.log.placed()), (vec![true], 1));
    assert!(!is_occupant(&node, "ann").await);
    // The request came before the user left.
    send(&connection, "join", &lobby(), 4);
    pin(&connection, false, 5);
    settle().await;
    node.log.commit(1);
    assert_eq!(pins.0.attempts(), [true]);
    pins.0.publish(1).await;
    assert_eq!(
        pins.0.attempts(),
        [true, true],
        "it is made, and not announced"
    );
    assert_eq!(client.replies(), []);
    pins.0.publish(2).await;
    assert_eq!(client.replies(), ok(1..=4));
    assert_eq!(pins.0.attempts(), [true, true, false]);
    pins.0.publish(3).await;
    assert_eq!(client.replies(), ok(1..=5));
}

#[tokio::test(start_paused = true)]
async fn changes_are_made_in_the_order_of_their_events() {
    let (node, pins) = node();
    let (connection, client) = node.member("ann").await;
    pins.0.wait_for(1);
    pin(&connection, true, 1);
    pin(&connection, false, 2);
    settle().await;
    assert_eq!(pins.0.attempts(), [true]);
    // Also if the client is gone.
    connection.lost();
    settle().await;
    assert_eq!(pins.0.attempts(), [true]);
    pins.0.publish(1).await;
    assert_eq!(pins.0.attempts(), [true, true, false]);
    pins.0.publish(3).await;
    assert_eq!(client.replies(), ok([1, 2]));
    assert_eq!(connections(&node, "ann").await, 0, "the loss comes last");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_not_announced_in_time_is_refused_in_its_place() {
    let (node, _pins) = node();
    let (connection, client) = node.member("ann").await;
    pin(&connection, true, 1);
    send(&connection, "typing", &lobby(), 2);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let replies = client.replies();
    assert_eq!(replies[0], ("1".to_owned(), "unavailable".to_owned()));
    assert_eq!(replies[1..], ok([2]));
}
