//! A client that writes the bytes of a test as they are, and validates nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use hubbub_test_support::client::Client;
use hubbub_test_support::node::Cluster;

/// The deadline of every wait. It is much longer than any of them should take.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A TCP connection.
pub struct Raw(pub TcpStream);

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The status line and the headers, in lower case.
    pub head: String,
    pub body: String,
}

impl Raw {
    pub async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Writes all bytes. False if the peer has closed the connection before.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        tokio::time::timeout(DEADLINE, self.0.write_all(bytes.as_ref()))
            .await
            .is_ok_and(|written| written.is_ok())
    }

    async fn byte(&mut self) -> Option<u8> {
        tokio::time::timeout(DEADLINE, self.0.read_u8())
            .await
            .expect("neither data nor the end of the connection arrives")
            .ok()
    }

    async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        let read = tokio::time::timeout(DEADLINE, self.0.read_exact(&mut bytes))
            .await
            .expect("no data arrives");
        read.is_ok().then_some(bytes)
    }

    /// Reads a response. `None` if the connection ends instead.
    pub async fn response(&mut self) -> Option<Response> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.byte().await?);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |n| n.parse().unwrap());
        let body = self.bytes(length).await?;
        Some(Response {
            status,
            head,
            body: String::from_utf8(body).unwrap(),
        })
    }

    /// Reads until the connection ends.
    pub async fn read_to_end(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset ends the connection, too.
        tokio::time::timeout(DEADLINE, self.0.read_to_end(&mut rest))
            .await
            .expect("the connection stays open")
            .ok();
        rest
    }

    /// Performs the WebSocket handshake of Engine.IO. Each line of `headers` ends with CRLF.
    pub async fn upgrade(address: SocketAddr, query: &str, headers: &str) -> (Self, Response) {
        Self::handshake(address, &format!("/socket.io/?{query}"), headers).await
    }

    /// Performs a WebSocket handshake at any path.
    pub async fn handshake(address: SocketAddr, target: &str, headers: &str) -> (Self, Response) {
        let mut raw = Self::open(address).await;
        raw.write(format!(
            "GET {target} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        ))
        .await;
        let response = raw.response().await.unwrap();
        (raw, response)
    }

    pub async fn websocket(address: SocketAddr, version: u8) -> Self {
        let (mut raw, response) =
            Self::upgrade(address, &format!("EIO={version}&transport=websocket"), "").await;
        assert_eq!(response.status, 101, "{}", response.head);
        assert!(raw.next_text().await.starts_with('0'));
        raw
    }

    /// A plain WebSocket client that chats.
    pub async fn plain(address: SocketAddr) -> Self {
        let (mut raw, response) = Self::handshake(address, "/ws?user_id=eve&chat=1", "").await;
        assert_eq!(response.status, 101, "{}", response.head);
        assert!(raw.next_text().await.contains("authenticated"));
        raw
    }

    /// A Socket.IO client over WebSocket that is connected to the namespace and authenticated.
    pub async fn authenticated(address: SocketAddr) -> Self {
        let mut raw = Self::websocket(address, 4).await;
        raw.send_text("40").await;
        assert!(raw.next_text().await.starts_with("40"));
        raw.send_text(r#"420["authenticate",{"user_id":"eve"}]"#)
            .await;
        assert!(raw.next_text().await.starts_with("430"));
        assert!(raw.next_text().await.contains("authenticated"));
        raw
    }

    /// Sends a text frame.
    pub async fn send_text(&mut self, text: &str) -> bool {
        self.write(frame(0x81, text.as_bytes())).await
    }

    /// The next frame: its first byte and its data. `None` at the end of the connection.
    pub async fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.byte().await?;
        let length = match self.byte().await? {
            126 => usize::from(u16::from_be_bytes(self.bytes(2).await?.try_into().unwrap())),
            127 => usize::try_from(u64::from_be_bytes(self.bytes(8).await?.try_into().unwrap()))
                .unwrap(),
            short => usize::from(short),
        };
        Some((first, self.bytes(length).await?))
    }

    /// The next frame, which must be a text frame.
    pub async fn next_text(&mut self) -> String {
        match self.next_frame().await {
            Some((0x81, text)) => String::from_utf8(text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Reads until the end of the connection. Returns the close code, if there was one.
    pub async fn close_code(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some((first, data)) = self.next_frame().await {
            if first == 0x88 {
                code = data.first_chunk().copied().map(u16::from_be_bytes);
            }
        }
        code
    }
}

/// A client's frame, masked with zeros.
pub fn frame(first: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, data.len() as u64);
    bytes.extend(data);
    bytes
}

/// The head of such a frame.
pub fn head(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes
}

/// A polling session.
pub struct Polling {
    pub address: SocketAddr,
    pub query: String,
}

impl Polling {
    pub async fn begin(address: SocketAddr, version: u8) -> Self {
        Self::open(address, &format!("EIO={version}&transport=polling")).await
    }

    /// Opens a session with that query.
    pub async fn open(address: SocketAddr, query: &str) -> Self {
        let mut polling = Self {
            address,
            query: query.to_owned(),
        };
        let response = polling.get().await;
        assert_eq!(response.status, 200, "{response:?}");
        let sid = response
            .body
            .split("\"sid\":\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        polling.query.push_str(&format!("&sid={sid}"));
        polling
    }

    pub async fn get(&self) -> Response {
        request(
            self.address,
            "GET",
            &format!("/socket.io/?{}", self.query),
            "",
            b"",
        )
        .await
    }

    pub async fn post(&self, body: impl AsRef<[u8]>) -> Response {
        let headers = "content-type: text/plain;charset=UTF-8\r\n";
        request(
            self.address,
            "POST",
            &format!("/socket.io/?{}", self.query),
            headers,
            body.as_ref(),
        )
        .await
    }

    pub async fn post_binary(&self, body: &[u8]) -> Response {
        let headers = "content-type: application/octet-stream\r\n";
        request(
            self.address,
            "POST",
            &format!("/socket.io/?{}", self.query),
            headers,
            body,
        )
        .await
    }

    /// Whether the session has ended: an open session accepts this packet.
    pub async fn has_ended(&self) -> bool {
        let body = if self.query.contains("EIO=3") {
            "1:6"
        } else {
            "6"
        };
        self.post(body).await.status == 400
    }
}

/// Sends one request on a new connection.
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Response {
    let mut raw = Raw::open(address).await;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    raw.write(head).await;
    raw.write(body).await;
    raw.response().await.expect("the server must respond")
}

/// A node in open mode, with rates of events that no test reaches.
pub async fn node(settings: &[(&str, &str)]) -> Cluster {
    let no_rates = [
        ("RATE_EVENTS_PER_SEC", "1000000"),
        ("RATE_EVENTS_BURST", "1000000"),
    ];
    Cluster::alone(&[&no_rates, settings].concat()).await
}

/// The value of a metric in `/metrics`. Series with different labels are summed up.
pub async fn metric(address: SocketAddr, name: &str) -> u64 {
    let response = request(address, "GET", "/metrics", "", b"").await;
    let lines = response
        .body
        .lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Another client on the same node, which an attack must not affect.
pub struct Witness(Client);

impl Witness {
    pub async fn on(address: SocketAddr) -> Self {
        Self(Client::member(address, "witness", "home").await)
    }

    /// Sends a message and waits until it is delivered back.
    pub async fn is_unaffected(&self) {
        let seq = self
            .0
            .done(
                "message",
                serde_json::json!({"room_id": "home", "content": "well"}),
            )
            .await["seq"]
            .clone();
        let heard = |client: &Client| {
            client
                .events("message")
                .last()
                .is_some_and(|message| message["seq"] == seq)
        };
        self.0.eventually("its own message", heard).await;
        assert!(!self.0.is_closed());
    }
}
