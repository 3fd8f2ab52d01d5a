//! A process that was paused, as by the move of its virtual machine: its own pause says nothing
//! about its clients.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::plain::Plain;
use hubbub_test_support::client::Client;
use hubbub_test_support::node::{http, http_text};
use hubbub_test_support::server::free_port;

const DEADLINE: Duration = Duration::from_secs(30);
/// Longer than the ping interval, the ping timeout and the idle time together.
const PAUSE: Duration = Duration::from_secs(6);

/// A node in a process of its own.
struct Node {
    child: Child,
    address: SocketAddr,
}

impl Node {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let port = free_port();
        let child = Command::new(env!("CARGO_BIN_EXE_hubbub"))
            .arg("serve")
            .current_dir(std::env::temp_dir())
            .env_clear()
            .env("SERVER_PORT", port.to_string())
            .env("DATABASE_URL", "none")
            .env("AUTH_MODE", "open")
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < deadline, "the node does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { child, address }
    }

    async fn pause(&self, time: Duration) {
        self.signal("-STOP");
        tokio::time::sleep(time).await;
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A polling session, by its query.
async fn polling(address: SocketAddr, query: &str) -> String {
    let answer = http_text(address, "GET", &format!("/socket.io/?{query}"), &[], "").await;
    let sid = answer.split("\"sid\":\"").nth(1).unwrap();
    format!("/socket.io/?{query}&sid={}", sid.split('"').next().unwrap())
}

type Socket = WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>;

async fn websocket(address: SocketAddr, target: &str) -> Socket {
    let url = format!("ws://{address}{target}");
    tokio_tungstenite::connect_async(url).await.unwrap().0
}

/// A WebSocket client that never answers a ping. Returns when the server has closed it.
async fn silent(address: SocketAddr, target: &str) -> tokio::task::JoinHandle<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET {target} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    tokio::spawn(async move {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest));
        ended.await.expect("a silent client is never closed").ok();
        rest
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_process_pings_its_clients_before_it_judges_their_silence() {
    let node = Node::start(&[
        ("PING_INTERVAL_MS", "1000"),
        ("PING_TIMEOUT_MS", "2000"),
        ("WS_IDLE_SECS", "3"),
        ("WRITE_TIMEOUT_SECS", "2"),
    ])
    .await;
    let address = node.address;
    let (mut sockets, mut plain, mut old) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..20 {
        sockets.push(Client::member(address, &format!("s{n}"), "room").await);
        plain.push(Plain::connect(address, &format!("p{n}")).await);
        old.push(websocket(address, "/socket.io/?EIO=3&transport=websocket").await);
    }
    let v4 = polling(address, "EIO=4&transport=polling").await;
    let v3 = polling(address, "EIO=3&transport=polling").await;
    let silent_socket = silent(address, "/socket.io/?EIO=4&transport=websocket").await;
    let silent_plain = silent(address, "/ws?user_id=silent").await;
    node.pause(PAUSE).await;

    // The client pings in Engine.IO 3, and the server in Engine.IO 4.
    for socket in &mut old {
        futures_util::SinkExt::send(socket, Message::text("2"))
            .await
            .unwrap();
    }
    assert_eq!(
        http_text(address, "POST", &v3, &[], "1:2")
            .await
            .lines()
            .last(),
        Some("ok")
    );
    let (status, _, _) = http(address, "GET", &v4, &[], "").await;
    assert_eq!(status, 200, "the session on polling was closed");
    assert_eq!(
        http_text(address, "POST", &v4, &[], "3")
            .await
            .lines()
            .last(),
        Some("ok")
    );
    for socket in &mut old {
        let is_pong = async {
            loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) if text == "3" => return true,
                    Some(Ok(_)) => {}
                    _ => return false,
                }
            }
        };
        let is_pong = tokio::time::timeout(DEADLINE, is_pong).await.unwrap();
        assert!(is_pong, "a client of Engine.IO 3 was closed");
    }
    // Clients that don't answer are closed. By then, all others would be.
    silent_socket.await.unwrap();
    let end = silent_plain.await.unwrap();
    assert!(end.windows(2).any(|bytes| bytes == 4408u16.to_be_bytes()));
    let answer = http(
        address,
        "POST",
        "/api/broadcast",
        &[("content-type", "application/json")],
        r#"{"type":"a"}"#,
    );
    assert_eq!(answer.await.0, 202);
    for client in &plain {
        client
            .eventually("the broadcast", |client| client.broadcasts() == [1])
            .await;
        assert!(!client.is_closed());
    }
    for client in &sockets {
        let message = json!({"room_id": "room", "content": "well"});
        client.done("message", message).await;
        assert!(!client.is_closed());
    }
}

/// A client has one more timeout after a pause, and not one after each.
#[tokio::test(flavor = "multi_thread")]
async fn repeated_short_pauses_do_not_keep_silent_clients_open() {
    let node = Node::start(&[
        ("PING_INTERVAL_MS", "500"),
        ("PING_TIMEOUT_MS", "2000"),
        ("WS_IDLE_SECS", "3"),
    ])
    .await;
    let mut silent_clients = Vec::new();
    for target in [
        "/socket.io/?EIO=4&transport=websocket",
        "/socket.io/?EIO=3&transport=websocket",
        "/ws?user_id=silent",
    ] {
        silent_clients.push(silent(node.address, target).await);
    }
    let is_open = |client: &tokio::task::JoinHandle<_>| !client.is_finished();
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        node.pause(Duration::from_millis(1_200)).await;
        if !silent_clients.iter().any(is_open) {
            return;
        }
    }
    let open = silent_clients.iter().map(is_open).collect::<Vec<_>>();
    panic!("open after 12 pauses: {open:?}");
}
