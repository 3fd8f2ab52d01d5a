//! An echo server on this layer and the two clients of the tests: hand-written HTTP, and
//! tungstenite for WebSockets.
#![allow(dead_code)] // each test file uses only a part

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use engineioxide::config::{EngineIoConfig, EngineIoConfigBuilder};
use engineioxide::handler::EngineIoHandler;
use engineioxide::service::EngineIoService;
use engineioxide::{Control, DisconnectReason, Limits, Link, SessionHandle, Socket, Str};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

pub const PING_INTERVAL: Duration = Duration::from_millis(300);
pub const PING_TIMEOUT: Duration = Duration::from_millis(200);
/// The time limit for events that the tests wait for.
pub const SOON: Duration = Duration::from_secs(20);

pub enum Event {
    Connected(SessionHandle),
    Disconnected(engineioxide::Sid, DisconnectReason),
    Text(String),
}

pub struct Echo {
    events: mpsc::UnboundedSender<Event>,
}

impl EngineIoHandler for Echo {
    type Data = ();

    fn on_connect(self: Arc<Self>, socket: Arc<Socket<()>>) {
        let handle = socket
            .req_parts
            .extensions
            .get::<SessionHandle>()
            .unwrap()
            .clone();
        self.events.send(Event::Connected(handle)).ok();
    }

    fn on_disconnect(&self, socket: Arc<Socket<()>>, reason: DisconnectReason) {
        self.events
            .send(Event::Disconnected(socket.id, reason))
            .ok();
    }

    fn on_message(self: &Arc<Self>, msg: Str, socket: Arc<Socket<()>>) {
        self.events.send(Event::Text(msg.to_string())).ok();
        socket.emit(msg).ok();
    }

    fn on_binary(self: &Arc<Self>, data: Bytes, socket: Arc<Socket<()>>) {
        socket.emit_binary(data).ok();
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub control: Control,
    /// Requests that the service has received.
    requests: Arc<AtomicUsize>,
    pub events: mpsc::UnboundedReceiver<Event>,
}

/// The settings that the public suites expect, with their short heartbeats.
pub fn suite_config() -> EngineIoConfigBuilder {
    EngineIoConfig::builder()
        .ping_interval(PING_INTERVAL)
        .ping_timeout(PING_TIMEOUT)
        .max_payload(1_000_000)
}

/// Settings without a heartbeat during a test.
pub fn calm_config() -> EngineIoConfigBuilder {
    EngineIoConfig::builder().max_payload(1_000_000)
}

impl Server {
    /// A server for the public suites. Its WebSockets run on hyper's boxed stream.
    pub async fn suite() -> Self {
        Self::over(suite_config().build(), Limits::default(), |stream| stream).await
    }

    pub async fn calm() -> Self {
        Self::start(calm_config().build(), Limits::default()).await
    }

    /// A server whose WebSockets run on its own stream type.
    pub async fn start(config: EngineIoConfig, limits: Limits) -> Self {
        let server = Self::over(config, limits, Direct).await;
        server.control.register_link::<Direct>();
        server
    }

    /// A server that serves the stream that `wrap` returns for each connection.
    pub async fn over<S>(
        config: EngineIoConfig,
        limits: Limits,
        wrap: impl Fn(TcpStream) -> S + Send + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, events) = mpsc::unbounded_channel();
        let service = EngineIoService::with_config(Arc::new(Echo { events: sender }), config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = Control::new(limits);
        let requests = Arc::default();
        tokio::spawn(accept(
            listener,
            service,
            control.clone(),
            Arc::clone(&requests),
            wrap,
        ));
        Self {
            address,
            control,
            requests,
            events,
        }
    }

    pub async fn event(&mut self) -> Event {
        tokio::time::timeout(SOON, self.events.recv())
            .await
            .unwrap()
            .unwrap()
    }

    pub async fn connected(&mut self) -> SessionHandle {
        loop {
            if let Event::Connected(handle) = self.event().await {
                return handle;
            }
        }
    }

    pub async fn disconnected(&mut self) -> (engineioxide::Sid, DisconnectReason) {
        loop {
            if let Event::Disconnected(sid, reason) = self.event().await {
                return (sid, reason);
            }
        }
    }

    pub async fn get(&self, query: &str) -> Response {
        self.request("GET", query, "", b"").await
    }

    /// Sends a poll, and runs `then` when the poll waits in its session. For runtimes of one thread:
    /// there the connection's task polls the service before another task sees the request counted.
    pub async fn get_then<T>(&self, query: &str, then: impl Future<Output = T>) -> (Response, T) {
        let before = self.requests.load(Ordering::SeqCst);
        tokio::join!(self.get(query), async {
            while self.requests.load(Ordering::SeqCst) == before {
                tokio::task::yield_now().await;
            }
            then.await
        })
    }

    pub async fn post(&self, query: &str, body: impl AsRef<[u8]>) -> Response {
        self.request(
            "POST",
            query,
            "content-type: text/plain;charset=UTF-8\r\n",
            body.as_ref(),
        )
        .await
    }

    /// Sends one request on a connection of its own.
    pub async fn request(&self, method: &str, query: &str, headers: &str, body: &[u8]) -> Response {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{method} /engine.io/?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server may refuse the request before it has read the whole body.
        stream.write_all(body).await.ok();
        let mut answer = Vec::new();
        tokio::time::timeout(SOON, stream.read_to_end(&mut answer))
            .await
            .unwrap()
            .ok();
        Response::parse(&answer)
    }

    pub async fn websocket(&self, query: &str) -> Client {
        let url = format!("ws://{}/engine.io/?{query}", self.address);
        Client(tokio_tungstenite::connect_async(url).await.unwrap().0)
    }

    pub async fn websocket_refused(&self, query: &str) -> u16 {
        let url = format!("ws://{}/engine.io/?{query}", self.address);
        match tokio_tungstenite::connect_async(url).await {
            Err(Error::Http(response)) => response.status().as_u16(),
            other => panic!("{other:?}"),
        }
    }
}

/// A TCP stream that implements `try_write`.
pub struct Direct(pub TcpStream);

impl Link for Direct {
    fn try_write(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        Some(SockRef::from(&self.0).send(bytes))
    }
}

impl AsyncRead for Direct {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Direct {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

async fn accept<S>(
    listener: TcpListener,
    service: EngineIoService<Echo>,
    control: Control,
    requests: Arc<AtomicUsize>,
    wrap: impl Fn(TcpStream) -> S,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let (service, control, requests) = (service.clone(), control.clone(), requests.clone());
        let service =
            hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                requests.fetch_add(1, Ordering::SeqCst);
                request.extensions_mut().insert(control.clone());
                hyper::service::Service::call(&service, request)
            });
        let stream = TokioIo::new(wrap(stream));
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(stream, service)
            .with_upgrades();
        tokio::spawn(async move { connection.await.ok() });
    }
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("the response has no end of its head");
        let head = String::from_utf8(bytes[..end].to_vec())
            .unwrap()
            .to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            head,
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn code(&self) -> u64 {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        json["code"].as_u64().unwrap()
    }
}

pub struct Client(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    pub async fn next(&mut self) -> Option<Message> {
        tokio::time::timeout(SOON, self.0.next())
            .await
            .unwrap()
            .and_then(Result::ok)
    }

    pub async fn text(&mut self) -> String {
        match self.next().await {
            Some(Message::Text(text)) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// Reads to the end of the connection. Returns the close code, if one was sent.
    pub async fn closed(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some(message) = self.next().await {
            if let Message::Close(frame) = message {
                code = frame.map(|frame| frame.code.into());
            }
        }
        code
    }
}

/// The JSON of an open packet.
pub fn open(packet: &str) -> serde_json::Value {
    serde_json::from_str(packet.strip_prefix('0').unwrap()).unwrap()
}
