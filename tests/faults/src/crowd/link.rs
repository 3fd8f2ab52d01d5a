//! One connection: Engine.IO 4 on a WebSocket, and Socket.IO packets on it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// A connection whose namespace is connected.
pub struct Link {
    socket: WebSocketStream<TcpStream>,
    /// After so long without a packet the peer is dead.
    patience: Duration,
    heard: Instant,
}

/// What came.
#[derive(Debug)]
pub enum Packet {
    /// An event with its first argument.
    Event(String, Box<RawValue>),
    /// The answer to an event, by its id.
    Ack(u64, Value),
    /// The server ends the identity.
    Disconnect,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Handshake {
    ping_interval: u64,
    ping_timeout: u64,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Link {
    /// Connects. `window` bounds what the kernel takes in for us.
    pub async fn open(address: SocketAddr, window: Option<u32>) -> anyhow::Result<Self> {
        tokio::time::timeout(CONNECT_TIMEOUT, Self::handshake(address, window)).await?
    }

    async fn handshake(address: SocketAddr, window: Option<u32>) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = window {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await?;
        let opened = text(&mut socket).await?;
        let handshake: Handshake =
            serde_json::from_str(opened.strip_prefix('0').context("not an open packet")?)?;
        socket.send(Message::text("40")).await?;
        let connected = text(&mut socket).await?;
        ensure!(connected.starts_with("40"), "refused: {connected}");
        let patience = Duration::from_millis(handshake.ping_interval + handshake.ping_timeout);
        Ok(Self {
            socket,
            patience,
            heard: Instant::now(),
        })
    }

    /// The next packet; pings are answered on the way.
    ///
    /// # Errors
    /// The connection is gone, or silent for too long.
    pub async fn next(&mut self) -> anyhow::Result<Packet> {
        loop {
            let text = tokio::time::timeout_at(self.heard + self.patience, text(&mut self.socket))
                .await??;
            self.heard = Instant::now();
            match text.as_bytes() {
                [b'2', ..] => self.socket.send(Message::text("3")).await?,
                [b'4', b'1', ..] => return Ok(Packet::Disconnect),
                [b'4', b'2', ..] => {
                    let (name, payload): (String, Box<RawValue>) =
                        serde_json::from_str(&text[2..])?;
                    return Ok(Packet::Event(name, payload));
                }
                [b'4', b'3', rest @ ..] => {
                    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                    let (answer,): (Value,) = serde_json::from_slice(&rest[digits..])?;
                    return Ok(Packet::Ack(text[2..2 + digits].parse()?, answer));
                }
                _ => bail!("unexpected packet {text}"),
            }
        }
    }

    /// Sends an event that asks for an answer.
    pub async fn emit(&mut self, id: u64, event: &str, payload: &Value) -> anyhow::Result<()> {
        let text = format!("42{id}{}", serde_json::to_string(&(event, payload))?);
        // A peer that takes nothing must not hold us for ever.
        Ok(tokio::time::timeout(self.patience, self.socket.send(Message::text(text))).await??)
    }

    /// Breaks the connection, by a reset or by a plain close.
    pub fn break_off(self, reset: bool) {
        if reset {
            let _ = SockRef::from(self.socket.get_ref()).set_linger(Some(Duration::ZERO));
        }
    }
}

async fn text(socket: &mut WebSocketStream<TcpStream>) -> anyhow::Result<String> {
    loop {
        match socket.next().await.context("closed")?? {
            Message::Text(text) => return Ok(text.as_str().to_owned()),
            Message::Close(_) => bail!("closed"),
            _ => {}
        }
    }
}
