//! A client that writes what a test wants, byte for byte, and judges nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use hubbub_test_support::client::Client;
use hubbub_test_support::node::Cluster;

/// Long enough for anything that is going to happen at all.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A TCP connection.
pub struct Raw(pub TcpStream);

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// OnlineStatus line and headers, in lower case.
    pub head: String,
    pub body: String,
}

impl Raw {
    pub async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Writes; whether it could. The peer may have ended the connection before it had all.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        tokio::time::timeout(PATIENCE, self.0.write_all(bytes.as_ref()))
            .await
            .is_ok_and(|written| written.is_ok())
    }

    async fn byte(&mut self) -> Option<u8> {
        tokio::time::timeout(PATIENCE, self.0.read_u8())
            .await
            .expect("nothing comes, not even an end")
            .ok()
    }

    async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        let read = tokio::time::timeout(PATIENCE, self.0.read_exact(&mut bytes))
            .await
            .expect("nothing comes");
        read.is_ok().then_some(bytes)
    }

    /// One answer; none if the connection ends instead.
    pub async fn answer(&mut self) -> Option<Answer> {
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
        Some(Answer {
            status,
            head,
            body: String::from_utf8(body).unwrap(),
        })
    }

    /// Reads on until the connection ends.
    pub async fn end(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end too.
        tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest))
            .await
            .expect("the connection stays")
            .ok();
        rest
    }

    /// A WebSocket of Engine.IO that has its handshake behind it; more headers can be given, each with its line's end.
    pub async fn upgrade(address: SocketAddr, query: &str, headers: &str) -> (Self, Answer) {
        Self::handshake(address, &format!("/socket.io/?{query}"), headers).await
    }

    /// The same at any path.
    pub async fn handshake(address: SocketAddr, target: &str, headers: &str) -> (Self, Answer) {
        let mut raw = Self::open(address).await;
        raw.write(format!(
            "GET {target} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        ))
        .await;
        let answer = raw.answer().await.unwrap();
        (raw, answer)
    }

    pub async fn websocket(address: SocketAddr, version: u8) -> Self {
        let (mut raw, answer) =
            Self::upgrade(address, &format!("EIO={version}&transport=websocket"), "").await;
        assert_eq!(answer.status, 101, "{}", answer.head);
        assert!(raw.text().await.starts_with('0'));
        raw
    }

    /// A plain WebSocket, which chats.
    pub async fn plain(address: SocketAddr) -> Self {
        let (mut raw, answer) = Self::handshake(address, "/ws?user_id=eve&chat=1", "").await;
        assert_eq!(answer.status, 101, "{}", answer.head);
        assert!(raw.text().await.contains("authenticated"));
        raw
    }

    /// A WebSocket in the namespace, with its identity.
    pub async fn member(address: SocketAddr) -> Self {
        let mut raw = Self::websocket(address, 4).await;
        raw.say("40").await;
        assert!(raw.text().await.starts_with("40"));
        raw.say(r#"420["authenticate",{"user_id":"eve"}]"#).await;
        assert!(raw.text().await.starts_with("430"));
        assert!(raw.text().await.contains("authenticated"));
        raw
    }

    /// Sends a text frame.
    pub async fn say(&mut self, text: &str) -> bool {
        self.write(frame(0x81, text.as_bytes())).await
    }

    /// The next frame: its first byte, and its data. None at the end.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.byte().await?;
        let length = match self.byte().await? {
            126 => usize::from(u16::from_be_bytes(self.bytes(2).await?.try_into().unwrap())),
            127 => usize::try_from(u64::from_be_bytes(self.bytes(8).await?.try_into().unwrap()))
                .unwrap(),
            short => usize::from(short),
        };
        Some((first, self.bytes(length).await?))
    }

    /// The next text.
    pub async fn text(&mut self) -> String {
        match self.frame().await {
            Some((0x81, text)) => String::from_utf8(text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Reads on to the end; gives the close code, if there was one.
    pub async fn closed(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some((first, data)) = self.frame().await {
            if first == 0x88 {
                code = data.first_chunk().copied().map(u16::from_be_bytes);
            }
        }
        code
    }
}

/// A client's frame: masked, by a mask of zeros.
pub fn frame(first: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, data.len() as u64);
    bytes.extend(data);
    bytes
}

/// Its head alone.
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

/// A session on polling.
pub struct Polling {
    pub address: SocketAddr,
    pub query: String,
}

impl Polling {
    pub async fn begin(address: SocketAddr, version: u8) -> Self {
        let mut polling = Self {
            address,
            query: format!("EIO={version}&transport=polling"),
        };
        let answer = polling.get().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let sid = answer
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

    pub async fn get(&self) -> Answer {
        request(
            self.address,
            "GET",
            &format!("/socket.io/?{}", self.query),
            "",
            b"",
        )
        .await
    }

    pub async fn post(&self, body: impl AsRef<[u8]>) -> Answer {
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

    pub async fn post_binary(&self, body: &[u8]) -> Answer {
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

    /// Whether it is over: a session that is not would take this.
    pub async fn is_over(&self) -> bool {
        let body = if self.query.contains("EIO=3") {
            "1:6"
        } else {
            "6"
        };
        self.post(body).await.status == 400
    }
}

/// One request on a connection of its own.
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Answer {
    let mut raw = Raw::open(address).await;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    raw.write(head).await;
    raw.write(body).await;
    raw.answer().await.expect("an answer")
}

/// A node in open mode whose limits on events are out of the way.
pub async fn node(settings: &[(&str, &str)]) -> Cluster {
    let wide = [
        ("RATE_EVENTS_PER_SEC", "1000000"),
        ("RATE_EVENTS_BURST", "1000000"),
    ];
    Cluster::alone(&[&wide, settings].concat()).await
}

/// The value of a figure in `/metrics`; of those with labels, their sum.
pub async fn metric(address: SocketAddr, name: &str) -> u64 {
    let answer = request(address, "GET", "/metrics", "", b"").await;
    let lines = answer
        .body
        .lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Someone else on the same node, who must notice nothing.
pub struct Witness(Client);

impl Witness {
    pub async fn on(address: SocketAddr) -> Self {
        Self(Client::member(address, "witness", "home").await)
    }

    /// Sends, and hears what it sent.
    pub async fn is_well(&self) {
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
