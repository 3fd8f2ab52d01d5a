//! Requests over connections that are kept open, and users in rooms, for very many operations.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::sync::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Connections to nodes. The one that was used last is used first, so that none is idle for long.
pub struct Connections {
    nodes: Vec<(SocketAddr, Mutex<Vec<BufReader<TcpStream>>>)>,
}

impl Connections {
    pub fn new(nodes: &[SocketAddr]) -> Self {
        let nodes = nodes.iter().map(|node| (*node, Mutex::default()));
        Self {
            nodes: nodes.collect(),
        }
    }

    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Sends a request to a node; returns the status and the body.
    pub async fn request(
        &self,
        node: usize,
        token: &str,
        (method, path): (&str, &str),
        body: &Value,
    ) -> (u16, Value) {
        let (address, idle) = &self.nodes[node];
        let kept = idle.lock().unwrap().pop();
        let mut stream = match kept {
            Some(stream) => stream,
            None => BufReader::new(TcpStream::connect(address).await.unwrap()),
        };
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_response(&mut stream).await;
        idle.lock().unwrap().push(stream);
        answer
    }

    /// Enters an open room by a plain WebSocket, whose events are discarded.
    pub async fn enter(&self, node: usize, token: &str, room: &str) -> Occupant {
        let url = format!("ws://{}/ws?chat=1&token={token}", self.nodes[node].0);
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        ask(&mut socket, "join", room).await;
        let (leave, left) = oneshot::channel();
        let room = room.to_owned();
        let task = tokio::spawn(async move {
            let mut left = left;
            loop {
                tokio::select! {
                    _ = &mut left => break,
                    frame = socket.next() => {
                        frame.unwrap().unwrap();
                    }
                }
            }
            ask(&mut socket, "leave", &room).await;
            let _ = socket.close(None).await;
        });
        Occupant { leave, task }
    }
}

/// A user in a room.
pub struct Occupant {
    leave: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Occupant {
    /// Leaves the room. Returns once the server has acknowledged it.
    pub async fn leave(self) {
        let _ = self.leave.send(());
        self.task.await.unwrap();
    }
}

async fn ask(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>, event: &str, room: &str) {
    let frame = json!({"type": event, "payload": {"room_id": room}, "ref": event});
    let sent = socket.send(Message::text(frame.to_string())).await;
    sent.unwrap();
    loop {
        let Message::Text(text) = socket.next().await.unwrap().unwrap() else {
            continue;
        };
        let frame: Value = serde_json::from_str(&text).unwrap();
        if frame["type"] == "ack" {
            assert_eq!(frame["payload"]["ok"], true, "{event} {room}: {frame}");
            return;
        }
    }
}

async fn read_response(stream: &mut BufReader<TcpStream>) -> (u16, Value) {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {line:?}"));
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}
