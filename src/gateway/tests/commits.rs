//! What clients of each transport, and callers of REST, receive while a commit is pending.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hubbub_test_support::client::Client;
use hubbub_test_support::node::http;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::slow_log::SlowLog;
use crate::auth::Authenticator;
use crate::gateway::http::tests::Node;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Starts a node in open mode, whose commits the test completes.
async fn start() -> (SocketAddr, Arc<SlowLog>, Node) {
    let (log, backplane) = SlowLog::backplane();
    let node = Node::on(backplane, Authenticator::open());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = node.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, log, node)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let reached = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let reached = tokio::time::timeout(TIMEOUT, reached).await;
    assert!(reached.is_ok(), "never: {what}");
}

struct PlainSocket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl PlainSocket {
    async fn member(address: SocketAddr, user: &str) -> Self {
        let url = format!("ws://{address}/ws?user_id={user}&chat=1");
        let mut socket = Self(tokio_tungstenite::connect_async(url).await.unwrap().0);
        socket.send("join", &json!({"room_id": "lobby"}), 0).await;
        assert_eq!(socket.reply().await["ok"], true);
        socket
    }

    async fn send(&mut self, event: &str, payload: &Value, reference: u64) {
        let frame = json!({"type": event, "payload": payload, "ref": reference}).to_string();
        self.0.send(Message::text(frame)).await.unwrap();
    }

    /// The next acknowledgement: its payload, with its reference as `ref`.
    async fn reply(&mut self) -> Value {
        loop {
            let next = tokio::time::timeout(TIMEOUT, self.0.next()).await;
            let Some(Ok(Message::Text(text))) = next.unwrap() else {
                panic!("the connection has ended");
            };
            let mut frame: Value = serde_json::from_str(&text).unwrap();
            if frame["type"] == "ack" {
                frame["payload"]["ref"] = frame["ref"].clone();
                return frame["payload"].take();
            }
        }
    }

    async fn closes(mut self) -> bool {
        let rest = async { while let Some(Ok(_)) = self.0.next().await {} };
        tokio::time::timeout(TIMEOUT, rest).await.is_ok()
    }
}

fn message() -> Value {
    json!({"room_id": "lobby", "content": "hi"})
}

#[tokio::test]
async fn socket_io_clients_receive_acknowledgements_after_commits_and_in_order() {
    let (address, log, node) = start().await;
    let client = Client::member(address, "ann", "lobby").await;
    let mut answers = Vec::new();
    for event in ["message", "message", "typing", "message"] {
        answers.push(client.emit(event, &message()));
    }
    client
        .eventually("the messages", |client| client.seqs() == [1, 2, 3])
        .await;
    assert_eq!(log.pending(), 3, "delivered before the commit");
    log.commit(1);
    log.fail();
    for session in node.control.sessions() {
        session.close_after_flush(TIMEOUT);
    }
    log.commit(1);
    let mut seen = Vec::new();
    for answer in answers {
        let answer = tokio::time::timeout(TIMEOUT, answer).await;
        let mut answer = answer.unwrap().unwrap();
        seen.push((answer["ok"].take(), answer["code"].clone()));
    }
    let unavailable = (json!(false), json!("unavailable"));
    let done = (json!(true), Value::Null);
    assert_eq!(
        seen,
        [done.clone(), unavailable, done.clone(), done],
        "the last one before the drain ends"
    );
    let ids: Vec<_> = client
        .events("ack")
        .iter()
        .map(|ack| ack[0].clone())
        .collect();
    assert_eq!(ids[2..], [json!(2), json!(3), json!(4), json!(5)]);
    until("the end", || client.is_closed()).await;
}

#[tokio::test]
async fn plain_clients_receive_acknowledgements_after_commits_and_in_order() {
    let (address, log, node) = start().await;
    let mut client = PlainSocket::member(address, "ann").await;
    for (reference, event) in (1..).zip(["message", "message", "typing", "message"]) {
        client.send(event, &message(), reference).await;
    }
    until("the messages", || log.placed() == 3).await;
    log.commit(1);
    log.fail();
    for outbox in node.plain.outboxes() {
        outbox.close_after_flush(TIMEOUT);
    }
    log.commit(1);
    for (reference, code) in [(1, None), (2, Some("unavailable")), (3, None), (4, None)] {
        let reply = client.reply().await;
        assert_eq!(reply["ref"], reference);
        assert_eq!(reply["code"].as_str(), code);
    }
    assert!(client.closes().await);
}

#[tokio::test]
async fn rest_answers_after_the_commit() {
    let (address, log, _node) = start().await;
    let json = [("content-type", "application/json")];
    let post = |path: &'static str, body: Value| async move {
        let (status, _, answer) = http(address, "POST", path, &json, &body.to_string()).await;
        (status, answer)
    };
    let keyed = json!({"room_id": "lobby", "content": "hi", "client_msg_id": "one"});
    let broadcast = json!({"type": "news", "data": {}});
    for (path, body, status) in [
        ("/messages", keyed.clone(), 201),
        ("/api/broadcast", broadcast, 202),
    ] {
        for (is_committed, status) in [(false, 503), (true, status)] {
            let mut body = body.clone();
            if !is_committed {
                body.as_object_mut().unwrap().remove("client_msg_id");
            }
            let answer = tokio::spawn(post(path, body));
            until("a message", || log.pending() == 1).await;
            assert!(!answer.is_finished());
            if is_committed {
                log.commit(1);
            } else {
                log.fail();
            }
            let (answered, answer) = answer.await.unwrap();
            assert_eq!(answered, status, "{path}: {answer}");
            assert_eq!(answer["code"] == "unavailable", !is_committed, "{answer}");
        }
    }
    assert_eq!(post("/messages", keyed).await.0, 200, "a repeat");
}
