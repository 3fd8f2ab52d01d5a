//! Acknowledgements that wait for commits: their order, their number, and the end of a connection.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::backplane::Backplane;
use crate::delivery::{CloseReason as OutletClose, SharedEvent};
use crate::gateway::tests::slow_log::SlowLog;
use crate::gateway::wire::parse_frame;

/// A client that sends plain frames, and records the replies.
#[derive(Default)]
pub(super) struct PlainClient {
    /// The reference of each reply, and its code, or `ok`.
    replies: Mutex<Vec<(String, String)>>,
    pub holds: AtomicUsize,
}

impl PlainClient {
    pub fn replies(&self) -> Vec<(String, String)> {
        self.replies.lock().clone()
    }
}

struct Transport(Arc<PlainClient>);

impl ClientTransport for Transport {
    fn decode(&self, text: &EventText, limits: &Limits) -> IncomingEvent {
        let frame = parse_frame(text.json());
        let (name, request) = decode_event(frame.event, limits);
        let reply_to = frame.reference.map_or(ReplyTo::None, ReplyTo::Ref);
        IncomingEvent {
            name,
            reply_to,
            request,
        }
    }

    fn acknowledge(&self, reply_to: &ReplyTo, json: &str) {
        let ReplyTo::Ref(reference) = reply_to else {
            return;
        };
        let answer: Value = serde_json::from_str(json).unwrap();
        let code = answer["code"].as_str().unwrap_or("ok").to_owned();
        self.0.replies.lock().push((reference.to_string(), code));
    }

    fn send_event(&self, event: ServerEvent, json: &str) {
        if let ServerEvent::Exception = event {
            let answer: Value = serde_json::from_str(json).unwrap();
            let code = answer["code"].as_str().unwrap().to_owned();
            self.0.replies.lock().push(("exception".to_owned(), code));
        }
    }

    fn outlet(&self, conn: &ConnId, user: &UserId) -> Arc<dyn Outlet> {
        Arc::new(NoOutlet(conn.clone(), user.clone()))
    }

    fn unwritten(&self) -> usize {
        0
    }

    fn when_below(&self, _: usize, _: Box<dyn FnOnce() + Send>) {
        unreachable!("nothing is unwritten")
    }

    fn hold(&self) {
        self.0.holds.fetch_add(1, Ordering::SeqCst);
    }

    fn release(&self) {
        self.0.holds.fetch_sub(1, Ordering::SeqCst);
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn end_reason(&self) -> EndReason {
        EndReason::ClientClosed
    }

    fn close(&self, reason: CloseReason) {
        panic!("{reason:?}");
    }

    fn disconnect(&self, refusal: &Refusal) {
        panic!("{refusal:?}");
    }

    fn mark_authenticated(&self) {}

    fn connection_ended(&self) {}
}

struct NoOutlet(ConnId, UserId);

impl Outlet for NoOutlet {
    fn conn(&self) -> &ConnId {
        &self.0
    }
    fn user(&self) -> &UserId {
        &self.1
    }
    fn deliver(&self, _: &SharedEvent) {}
    fn has_capacity(&self) -> bool {
        true
    }
    fn when_writable(&self, _: Box<dyn FnOnce() + Send>) {}
    fn is_closed(&self) -> bool {
        false
    }
    fn close(&self, _: OutletClose) {}
}

pub(super) struct Node {
    pub log: Arc<SlowLog>,
    pub backplane: Backplane,
    connections: Arc<Connections>,
}

impl Node {
    fn start(outbox_bytes: usize) -> Self {
        Self::with_messages(outbox_bytes, |_, _| None)
    }

    /// A node with messages that change.
    pub fn with_messages(
        outbox_bytes: usize,
        messages: impl FnOnce(&Arc<Messaging>, &Backplane) -> Option<Arc<Messages>>,
    ) -> Self {
        let (log, backplane) = SlowLog::backplane();
        let delivery = Arc::new(Delivery::start(&backplane, &DeliverySettings::default()));
        let limits = Limits {
            socket: Rates::default(),
            user: Rates::default(),
            ..Limits::default()
        };
        let messaging = Arc::new(Messaging::new(backplane.clone(), delivery, limits));
        let messages = messages(&messaging, &backplane);
        let connections = Connections::new(
            messaging,
            messages,
            Arc::new(Authenticator::open()),
            Arc::new(Admission::new(Caps::default())),
            outbox_bytes,
            LineBudget::only_debug(),
        );
        Self {
            log,
            backplane,
            connections,
        }
    }

    /// A client that has joined the room `lobby`.
    pub async fn member(&self, user: &str) -> (Arc<Connection>, Arc<PlainClient>) {
        let client = Arc::new(PlainClient::default());
        let transport = Arc::new(Transport(client.clone()));
        let connection = self.connections.open(transport, None);
        connection.start();
        send(&connection, "authenticate", &json!({"user_id": user}), 0);
        send(&connection, "join", &json!({"room_id": "lobby"}), 0);
        while client.replies().len() < 2 {
            tokio::task::yield_now().await;
        }
        let replies = std::mem::take(&mut *client.replies.lock());
        assert!(replies.iter().all(|(_, code)| code == "ok"), "{replies:?}");
        (connection, client)
    }
}

pub(super) fn send(connection: &Arc<Connection>, event: &str, payload: &Value, reference: usize) {
    let frame = json!({"type": event, "payload": payload, "ref": reference}).to_string();
    connection.receive(EventText::new(frame.into(), 0));
}

pub(super) fn send_message(connection: &Arc<Connection>, reference: usize) {
    let payload = json!({"room_id": "lobby", "content": "hi"});
    send(connection, "message", &payload, reference);
}

/// Returns when nothing happens any more without the test: time is paused, and goes on only then.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

pub(super) fn ok(references: impl IntoIterator<Item = usize>) -> Vec<(String, String)> {
    let reply = |reference: usize| (reference.to_string(), "ok".to_owned());
    references.into_iter().map(reply).collect()
}

#[tokio::test(start_paused = true)]
async fn a_message_is_acknowledged_after_its_commit_and_does_not_delay_the_next_one() {
    let node = Node::start(1 << 20);
    let (connection, client) = node.member("ann").await;
    for reference in 1..=3 {
        send_message(&connection, reference);
    }
    settle().await;
    assert_eq!((node.log.placed(), client.replies()), (3, vec![]));
    assert_eq!(client.holds.load(Ordering::SeqCst), 1, "a drain waits");
    node.log.commit(1);
    assert_eq!(client.replies(), ok([1]), "by the task that commits");
    node.log.commit(2);
    assert_eq!(client.replies(), ok([1, 2, 3]));
    assert_eq!(client.holds.load(Ordering::SeqCst), 0, "a drain goes on");
}

#[tokio::test(start_paused = true)]
async fn every_other_reply_waits_for_the_acknowledgements_before_it() {
    let node = Node::start(1 << 20);
    let (connection, client) = node.member("ann").await;
    let elsewhere = json!({"room_id": "elsewhere", "content": "hi"});
    send_message(&connection, 1);
    send(&connection, "typing", &json!({"room_id": "lobby"}), 2);
    send_message(&connection, 3);
    send(&connection, "message", &json!({"room_id": 7}), 4);
    send_message(&connection, 5);
    send(&connection, "message", &elsewhere, 6);
    send_message(&connection, 7);
    send(&connection, "nonsense", &json!({}), 8);
    send(&connection, "history", &json!({"room_id": "lobby"}), 9);
    send_message(&connection, 10);
    settle().await;
    // A history is read once all replies before it are sent: other replies are kept until then.
    assert_eq!(node.log.pending(), 4);
    assert_eq!(client.replies(), []);
    let mut expected = ok(1..=10);
    expected[3].1 = "bad_request".to_owned();
    expected[5].1 = "not_in_room".to_owned();
    expected[7].1 = "unknown_event".to_owned();
    for sent in [2, 4, 6] {
        node.log.commit(1);
        assert_eq!(client.replies(), expected[..sent]);
    }
    settle().await;
    assert_eq!(node.log.pending(), 1);
    node.log.commit(1);
    settle().await;
    assert_eq!(client.replies(), expected[..9]);
    node.log.commit(1);
    assert_eq!(client.replies(), expected);
    assert_eq!(client.holds.load(Ordering::SeqCst), 0, "a drain goes on");
}

#[tokio::test(start_paused = true)]
async fn commits_in_any_order_are_acknowledged_in_the_order_of_the_events() {
    let node = Node::start(1 << 20);
    let (connection, client) = node.member("ann").await;
    for reference in 1..=3 {
        send_message(&connection, reference);
    }
    settle().await;
    node.log.commit_last();
    assert_eq!(client.replies(), []);
    node.log.commit(1);
    assert_eq!(client.replies(), ok([1]));
    node.log.commit(1);
    assert_eq!(client.replies(), ok([1, 2, 3]));
}

#[tokio::test(start_paused = true)]
async fn a_repeat_of_a_committed_message_is_acknowledged_after_the_messages_before_it() {
    let node = Node::start(1 << 20);
    let (connection, client) = node.member("ann").await;
    let keyed = json!({"room_id": "lobby", "content": "hi", "client_msg_id": "one"});
    send(&connection, "message", &keyed, 1);
    settle().await;
    node.log.commit(1);
    send_message(&connection, 2);
    send(&connection, "message", &keyed, 3);
    settle().await;
    assert_eq!(client.replies(), ok([1]));
    node.log.commit(1);
    settle().await;
    assert_eq!(client.replies(), ok([1, 2, 3]));
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_commit_fails_is_refused_in_its_place() {
    let node = Node::start(1 << 20);
    let (connection, client) = node.member("ann").await;
    for reference in 1..=4 {
        send_message(&connection, reference);
    }
    let frame = json!({"type": "message", "payload": {"room_id": "lobby", "content": "hi"}});
    connection.receive(EventText::new(frame.to_string().into(), 0));
    settle().await;
    node.log.commit(1);
    node.log.fail();
    node.log.commit(1);
    node.log.drop_commit();
    node.log.fail();
    let expected = [
        ("1", "ok"),
        ("2", "unavailable"),
        ("3", "ok"),
        ("4", "unavailable"),
        ("exception", "unavailable"),
    ];
    let expected = expected.map(|(reference, code)| (reference.to_owned(), code.to_owned()));
    assert_eq!(client.replies(), expected);
    assert_eq!(node.connections.counters().refused.get(), 3);
}

#[tokio::test(start_paused = true)]
async fn at_most_256_acknowledgements_of_a_connection_are_pending() {
    // A small outbox has space for fewer.
    for (outbox_bytes, limit) in [(1 << 20, 256), (4 << 20, 256), (1 << 18, 64)] {
        let node = Node::start(outbox_bytes);
        let (connection, client) = node.member("ann").await;
        let (_, other_client) = {
            let (other, client) = node.member("bob").await;
            (0..300).for_each(|reference| send_message(&connection, reference));
            settle().await;
            assert_eq!(node.log.placed(), limit);
            send_message(&other, 0);
            (other, client)
        };
        settle().await;
        assert_eq!(node.log.placed(), limit + 1, "other connections go on");
        node.log.commit(1);
        settle().await;
        assert_eq!(node.log.placed(), limit + 2);
        while node.log.placed() < 301 {
            let pending = node.log.pending();
            node.log.commit(pending);
            settle().await;
        }
        let pending = node.log.pending();
        node.log.commit(pending);
        assert_eq!(client.replies(), ok(0..300));
        assert_eq!(other_client.replies(), ok([0]));
    }
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_a_connection_does_not_wait_for_commits() {
    let node = Node::start(1 << 20);
    let (connection, client) = node.member("ann").await;
    send_message(&connection, 1);
    send(&connection, "history", &json!({"room_id": "lobby"}), 2);
    send_message(&connection, 3);
    settle().await;
    let ann = UserId::trusted("ann");
    let presence = node.backplane.presence.clone();
    assert_eq!(presence.connections(&ann).await.unwrap().len(), 1);
    assert_eq!(node.log.placed(), 1, "the others wait");
    connection.lost();
    settle().await;
    assert_eq!(presence.connections(&ann).await.unwrap(), []);
    assert_eq!(node.log.placed(), 2, "events received before it count");
    node.log.commit(2);
    assert_eq!(client.holds.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn messages_are_placed_without_a_task_while_commits_are_pending() {
    // A task on the only thread: while it does not wait, no other task runs.
    let reader = tokio::spawn(async {
        let node = Node::start(1 << 20);
        let (connection, client) = node.member("ann").await;
        // The task that handles the join holds this lock up to its end.
        drop(connection.state.lock().await);
        for reference in 1..=100 {
            send_message(&connection, reference);
            assert_eq!(node.log.placed(), reference, "in the reader's stack");
        }
        node.log.commit(100);
        assert_eq!(client.replies(), ok(1..=100));
    });
    reader.await.unwrap();
}
