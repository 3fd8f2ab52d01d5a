//! The cases of the public Socket.IO 5 suite, with the stock socketioxide on this layer.
#![allow(clippy::unwrap_used)] // an unwrap in a test is an assertion

mod server;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engineioxide::{Control, DisconnectReason, SessionHandle};
use futures_util::SinkExt;
use hyper_util::rt::TokioIo;
use serde::ser::{Serialize, SerializeTuple, Serializer};
use server::{Client, PING_INTERVAL, PING_TIMEOUT, SOON, open};
use socketioxide::SocketIo;
use socketioxide::adapter::Adapter;
use socketioxide::extract::{AckSender, SocketRef, TryData};
use socketioxide::handler::FromMessageParts;
use socketioxide::socket::Socket;
use socketioxide_core::Value;
use tokio_tungstenite::tungstenite::Message;

/// An event's arguments in the order of arrival, with binary ones in place of their placeholders.
struct Args(Vec<Arg>);

enum Arg {
    Json(serde_json::Value),
    Binary(Bytes),
}

impl<A: Adapter> FromMessageParts<A> for Args {
    type Error = Infallible;

    fn from_message_parts(
        _: &Arc<Socket<A>>,
        value: &mut Value,
        _: &Option<i64>,
    ) -> Result<Self, Infallible> {
        let Value::Str(text, binary) = value else {
            panic!("not the common parser")
        };
        let mut binary: VecDeque<Bytes> = binary.take().unwrap_or_default();
        let args: Vec<serde_json::Value> = serde_json::from_str(text.as_str()).unwrap();
        // The first element is the event's name.
        let args = args
            .into_iter()
            .skip(1)
            .map(|arg| match arg.get("_placeholder") {
                Some(_) => Arg::Binary(binary.pop_front().unwrap()),
                None => Arg::Json(arg),
            });
        Ok(Self(args.collect()))
    }
}

impl Serialize for Args {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        for arg in &self.0 {
            match arg {
                Arg::Json(value) => tuple.serialize_element(value)?,
                Arg::Binary(bytes) => tuple.serialize_element(bytes)?,
            }
        }
        tuple.end()
    }
}

async fn on_connect(socket: SocketRef, TryData(auth): TryData<serde_json::Value>) {
    socket.on("message", async |socket: SocketRef, args: Args| {
        socket.emit("message-back", &args).unwrap();
    });
    socket.on("message-with-ack", async |args: Args, ack: AckSender| {
        ack.send(&args).unwrap();
    });
    let auth = auth.ok().filter(serde_json::Value::is_object);
    socket
        .emit("auth", &auth.unwrap_or_else(|| serde_json::json!({})))
        .unwrap();
}

/// How long a client may take for its CONNECT packet.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1000);

struct Server {
    address: SocketAddr,
    control: Control,
}

async fn start() -> Server {
    let (service, io) = SocketIo::builder()
        .ping_interval(PING_INTERVAL)
        .ping_timeout(PING_TIMEOUT)
        .max_payload(1_000_000)
        .connect_timeout(CONNECT_TIMEOUT)
        .build_svc();
    io.ns("/", on_connect);
    io.ns("/custom", on_connect);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let control = Control::default();
    let sessions = control.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            let sessions = sessions.clone();
            let service = hyper::service::service_fn(
                move |mut request: http::Request<hyper::body::Incoming>| {
                    request.extensions_mut().insert(sessions.clone());
                    hyper::service::Service::call(&service, request)
                },
            );
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::spawn(async move { connection.await.ok() });
        }
    });
    Server { address, control }
}

/// A WebSocket that has completed the Engine.IO handshake.
async fn engine(server: &Server) -> Client {
    let url = format!(
        "ws://{}/socket.io/?EIO=4&transport=websocket",
        server.address
    );
    let mut client = Client(tokio_tungstenite::connect_async(url).await.unwrap().0);
    let handshake = open(&client.text().await);
    assert_eq!(handshake["pingInterval"], 300);
    assert_eq!(handshake["maxPayload"], 1_000_000);
    client
}

/// The next packet that is not a heartbeat. Heartbeats are answered.
async fn packet(client: &mut Client) -> Message {
    loop {
        match client.next().await.expect("the connection has ended") {
            Message::Text(text) if text == "2" => client.send("3").await,
            other => return other,
        }
    }
}

/// Reads to the end of the connection and answers heartbeats meanwhile. Returns the code of the
/// close frame.
async fn close_code(client: &mut Client) -> Option<u16> {
    let mut code = None;
    let read_to_end = async {
        while let Some(message) = client.next().await {
            match message {
                Message::Text(text) if text == "2" => {
                    client.0.send(Message::text("3")).await.ok();
                }
                Message::Close(frame) => code = frame.map(|frame| frame.code.into()),
                _ => {}
            }
        }
    };
    tokio::time::timeout(SOON, read_to_end)
        .await
        .expect("the connection is not closed");
    code
}

/// The handle of the server's only session.
fn only_session(server: &Server) -> SessionHandle {
    let mut sessions = server.control.sessions();
    assert_eq!(sessions.len(), 1);
    sessions.remove(0)
}

async fn connect(client: &mut Client, request: &str, prefix: &str, auth: &str) {
    client.send(request).await;
    let answer = packet(client).await.into_text().unwrap();
    let handshake: serde_json::Value =
        serde_json::from_str(answer.strip_prefix(prefix).unwrap()).unwrap();
    assert_eq!(handshake.as_object().unwrap().len(), 1);
    assert!(handshake["sid"].is_string());
    assert_eq!(packet(client).await, Message::text(auth));
}

async fn connected() -> Client {
    connected_to(&start().await).await
}

async fn connected_to(server: &Server) -> Client {
    let mut client = engine(server).await;
    connect(&mut client, "40", "40", r#"42["auth",{}]"#).await;
    client
}

#[tokio::test]
async fn connect_to_the_main_namespace() {
    connected().await;
}

#[tokio::test]
async fn connect_to_the_main_namespace_with_a_payload() {
    let mut client = engine(&start().await).await;
    let auth = r#"42["auth",{"token":"123"}]"#;
    connect(&mut client, r#"40{"token":"123"}"#, "40", auth).await;
}

#[tokio::test]
async fn connect_to_a_custom_namespace() {
    let mut client = engine(&start().await).await;
    connect(
        &mut client,
        "40/custom,",
        "40/custom,",
        r#"42/custom,["auth",{}]"#,
    )
    .await;
}

#[tokio::test]
async fn connect_to_a_custom_namespace_with_a_payload() {
    let mut client = engine(&start().await).await;
    let auth = r#"42/custom,["auth",{"token":"abc"}]"#;
    connect(
        &mut client,
        r#"40/custom,{"token":"abc"}"#,
        "40/custom,",
        auth,
    )
    .await;
}

#[tokio::test]
async fn connect_to_an_unknown_namespace_is_refused() {
    let mut client = engine(&start().await).await;
    client.send("40/random").await;
    let refusal = r#"44/random,{"message":"Invalid namespace"}"#;
    assert_eq!(packet(&mut client).await, Message::text(refusal));
}

#[tokio::test]
async fn an_invalid_connect_packet_closes_with_a_parsing_error() {
    let server = start().await;
    let mut client = engine(&server).await;
    let session = only_session(&server);
    client.send("4abc").await;
    assert_eq!(close_code(&mut client).await, Some(1002));
    let reason = session.close_reason();
    assert_eq!(reason, Some(DisconnectReason::PacketParsingError));
}

#[tokio::test]
async fn a_connection_without_a_connect_packet_is_closed_after_the_connect_timeout() {
    let server = start().await;
    let begun = tokio::time::Instant::now();
    let mut client = engine(&server).await;
    let session = only_session(&server);
    // Its heartbeats are answered, so only the missing CONNECT packet can end it.
    assert_eq!(close_code(&mut client).await, None);
    let reason = session.close_reason();
    assert_eq!(reason, Some(DisconnectReason::TransportClose));
    assert!(begun.elapsed() >= CONNECT_TIMEOUT);
}

#[tokio::test]
async fn a_disconnect_from_the_main_namespace_keeps_the_transport_open() {
    let mut client = connected().await;
    client.send("41").await;
    assert_eq!(client.text().await, "2");
}

#[tokio::test]
async fn connect_to_and_disconnect_from_a_custom_namespace() {
    let mut client = connected().await;
    connect(
        &mut client,
        "40/custom",
        "40/custom,",
        r#"42/custom,["auth",{}]"#,
    )
    .await;
    client.send("41/custom").await;
    client
        .send(r#"42["message","message to main namespace"]"#)
        .await;
    let back = r#"42["message-back","message to main namespace"]"#;
    assert_eq!(packet(&mut client).await, Message::text(back));
}

#[tokio::test]
async fn message_of_plain_text() {
    let mut client = connected().await;
    client.send(r#"42["message",1,"2",{"3":[true]}]"#).await;
    let back = r#"42["message-back",1,"2",{"3":[true]}]"#;
    assert_eq!(packet(&mut client).await, Message::text(back));
}

async fn attachments(request: &str, answer: &str) {
    let mut client = connected().await;
    client.send(request).await;
    for bytes in [vec![1, 2, 3], vec![4, 5, 6]] {
        client.0.send(Message::binary(bytes)).await.unwrap();
    }
    assert_eq!(packet(&mut client).await, Message::text(answer));
    assert_eq!(packet(&mut client).await, Message::binary(vec![1, 2, 3]));
    assert_eq!(packet(&mut client).await, Message::binary(vec![4, 5, 6]));
}

#[tokio::test]
async fn message_with_binary_attachments() {
    let placeholders = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
    let request = format!(r#"452-["message",{placeholders}]"#);
    attachments(&request, &format!(r#"452-["message-back",{placeholders}]"#)).await;
}

#[tokio::test]
async fn message_of_plain_text_with_an_ack() {
    let mut client = connected().await;
    client
        .send(r#"42456["message-with-ack",1,"2",{"3":[false]}]"#)
        .await;
    assert_eq!(
        packet(&mut client).await,
        Message::text(r#"43456[1,"2",{"3":[false]}]"#)
    );
}

#[tokio::test]
async fn message_with_binary_attachments_and_an_ack() {
    let placeholders = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
    let request = format!(r#"452-789["message-with-ack",{placeholders}]"#);
    attachments(&request, &format!("462-789[{placeholders}]")).await;
}

#[tokio::test]
async fn invalid_packets_close_with_a_parsing_error() {
    for packet in [
        "4abc",
        "42{}",
        r#"42abc["message-with-ack",1,"2",{"3":[false]}]"#,
    ] {
        let server = start().await;
        let mut client = connected_to(&server).await;
        let session = only_session(&server);
        client.send(packet).await;
        assert_eq!(close_code(&mut client).await, Some(1002), "{packet}");
        let reason = session.close_reason();
        assert_eq!(
            reason,
            Some(DisconnectReason::PacketParsingError),
            "{packet}"
        );
    }
}
