//! A connection to a node: Engine.IO 4 on a WebSocket, with Socket.IO packets on top.

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

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection whose Socket.IO namespace is connected.
pub struct Connection {
    socket: WebSocketStream<TcpStream>,
    /// The server counts as dead after this time without a packet.
    heartbeat_timeout: Duration,
    last_packet: Instant,
}

/// How the client closes a connection on the transport's level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseMode {
    /// TCP RST.
    Reset,
    /// TCP FIN.
    Close,
}

#[derive(Debug)]
pub enum Packet {
    /// An event with its first argument.
    Event(String, Box<RawValue>),
    /// The acknowledgement of the event with this id.
    Ack(u64, Value),
    /// The server ends the connection so that clients don't reconnect by themselves.
    Disconnect,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Handshake {
    ping_interval: u64,
    ping_timeout: u64,
}

impl Connection {
    /// Connects. `receive_window` limits the bytes that the kernel buffers for the client.
    pub async fn open(address: SocketAddr, receive_window: Option<u32>) -> anyhow::Result<Self> {
        let handshake = Self::handshake(address, receive_window, None);
        tokio::time::timeout(CONNECT_TIMEOUT, handshake).await?
    }

    /// Connects with the token of an account.
    pub async fn open_with_token(address: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let handshake = Self::handshake(address, None, Some(token));
        tokio::time::timeout(CONNECT_TIMEOUT, handshake).await?
    }

    async fn handshake(
        address: SocketAddr,
        receive_window: Option<u32>,
        token: Option<&str>,
    ) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive_window {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        let mut url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        if let Some(token) = token {
            url.push_str(&format!("&token={token}"));
        }
        let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await?;
        let open_packet = next_text(&mut socket).await?;
        let handshake = open_packet.strip_prefix('0');
        let handshake: Handshake =
            serde_json::from_str(handshake.context("not an Engine.IO open packet")?)?;
        socket.send(Message::text("40")).await?;
        let answer = next_text(&mut socket).await?;
        ensure!(answer.starts_with("40"), "CONNECT was refused: {answer}");
        Ok(Self {
            socket,
            heartbeat_timeout: Duration::from_millis(
                handshake.ping_interval + handshake.ping_timeout,
            ),
            last_packet: Instant::now(),
        })
    }

    /// Waits for the next packet. Answers pings meanwhile.
    ///
    /// # Errors
    /// The connection is closed, or the server sent nothing for too long.
    pub async fn next(&mut self) -> anyhow::Result<Packet> {
        loop {
            let deadline = self.last_packet + self.heartbeat_timeout;
            let text = tokio::time::timeout_at(deadline, next_text(&mut self.socket)).await??;
            self.last_packet = Instant::now();
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

    /// Sends an event that requests an acknowledgement.
    pub async fn emit(&mut self, id: u64, event: &str, payload: &Value) -> anyhow::Result<()> {
        let text = format!("42{id}{}", serde_json::to_string(&(event, payload))?);
        let sending = self.socket.send(Message::text(text));
        // With a limit, because a server that reads nothing would block the client for ever.
        Ok(tokio::time::timeout(self.heartbeat_timeout, sending).await??)
    }

    /// Closes the connection without a packet of Socket.IO or WebSocket.
    pub fn break_off(self, mode: CloseMode) {
        if mode == CloseMode::Reset {
            let _ = SockRef::from(self.socket.get_ref()).set_linger(Some(Duration::ZERO));
        }
    }
}

async fn next_text(socket: &mut WebSocketStream<TcpStream>) -> anyhow::Result<String> {
    loop {
        match socket.next().await.context("closed")?? {
            Message::Text(text) => return Ok(text.as_str().to_owned()),
            Message::Close(_) => bail!("closed"),
            _ => {}
        }
    }
}
