//! The application's data of a session: it handles binary messages, and replaces texts that the
//! layer above sends.
#![allow(clippy::unwrap_used)] // an unwrap in a test is an assertion

use std::sync::Arc;

use bytes::Bytes;
use engineioxide::handler::EngineIoHandler;
use engineioxide::service::EngineIoService;
use engineioxide::{DisconnectReason, Frame, Retained, SessionData, SessionHandle, Socket, Str};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

/// Echoes every message.
struct Echo;

impl EngineIoHandler for Echo {
    type Data = ();

    fn on_connect(self: Arc<Self>, _: Arc<Socket<()>>) {}

    fn on_disconnect(&self, _: Arc<Socket<()>>, _: DisconnectReason) {}

    fn on_message(self: &Arc<Self>, text: Str, socket: Arc<Socket<()>>) {
        socket.emit(text).ok();
    }

    fn on_binary(self: &Arc<Self>, data: Bytes, socket: Arc<Socket<()>>) {
        socket.emit_binary(data).ok();
    }
}

/// Handles binary messages that are not empty.
struct Filter;

impl SessionData for Filter {
    fn opened(&self, session: &SessionHandle) {
        session.send(&Frame::text("opened"));
    }

    fn incoming_binary(&self, session: &SessionHandle, data: Bytes) -> Option<Bytes> {
        if data.is_empty() {
            return Some(data);
        }
        session.send_binary(b"handled");
        // An application's own text is sent as it is.
        session.send(&Frame::text("suppressed"));
        None
    }

    fn outgoing_text(&self, _: &SessionHandle, text: &str) -> Option<Frame> {
        match text {
            "suppressed" => None,
            "old" => Some(Frame::text("new")),
            _ => Some(Frame::text(text)),
        }
    }
}

/// Serves one connection, with a [`Filter`] for its session.
async fn serve(listener: TcpListener) {
    let service = EngineIoService::new(Arc::new(Echo));
    let (stream, _) = listener.accept().await.unwrap();
    let service =
        hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(Retained(Arc::new(Filter)));
            hyper::service::Service::call(&service, request)
        });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await
        .ok();
}

#[tokio::test]
async fn binary_messages_are_handled_and_texts_of_the_layer_above_are_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener));
    let url = format!("ws://{address}/engine.io/?EIO=4&transport=websocket");
    let (mut client, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    for text in ["4suppressed", "4old", "4other"] {
        client.send(Message::text(text)).await.unwrap();
    }
    for data in [&b"\x07"[..], b""] {
        client.send(Message::binary(data)).await.unwrap();
    }
    let open = client.next().await.unwrap().unwrap();
    assert!(open.to_text().unwrap().starts_with("0{"));
    for expected in [
        Message::text("4opened"),
        Message::text("4new"),
        Message::text("4other"),
        Message::binary(&b"handled"[..]),
        Message::text("4suppressed"),
        Message::binary(&b""[..]),
    ] {
        assert_eq!(client.next().await.unwrap().unwrap(), expected);
    }
}
