//! Registered links: WebSockets run directly on the server's own stream type.
#![allow(clippy::unwrap_used)] // an unwrap in a test is an assertion

mod server;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use engineioxide::{Limits, Link};
use server::{Client, Direct, SOON, Server, calm_config, open};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

const WEBSOCKET: &str = "EIO=4&transport=websocket";
const POLLING: &str = "EIO=4&transport=polling";

/// The kind of link that the server serves.
const SERVED: u8 = 0;
/// A kind of link that no connection has.
const OTHER: u8 = 1;

/// A link on which every second `try_write` accepts a few bytes, and the others accept nothing.
struct Reluctant<const KIND: u8> {
    io: Direct,
    writes: Arc<AtomicUsize>,
}

impl<const KIND: u8> Link for Reluctant<KIND> {
    fn try_write(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        if !self
            .writes
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(2)
        {
            return Some(Err(io::ErrorKind::WouldBlock.into()));
        }
        self.io.try_write(&bytes[..bytes.len().min(5)])
    }
}

impl<const KIND: u8> AsyncRead for Reluctant<KIND> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<const KIND: u8> AsyncWrite for Reluctant<KIND> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A server of such links, and the count of their `try_write` calls.
async fn reluctant_server() -> (Server, Arc<AtomicUsize>) {
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = writes.clone();
    let wrap = move |stream| Reluctant::<SERVED> {
        io: Direct(stream),
        writes: counted.clone(),
    };
    (
        Server::over(calm_config().build(), Limits::default(), wrap).await,
        writes,
    )
}

/// A client's frame of a short text, with a mask of zeros.
fn masked(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

const LONG: &str = "4a text that is longer than one write accepts";

/// Sends texts, and reads their echoes.
async fn send_and_read_echoes(client: &mut Client) {
    for n in 0..20 {
        client.send(&format!("{LONG} {n}")).await;
    }
    for n in 0..20 {
        assert_eq!(client.text().await, format!("{LONG} {n}"));
    }
    // One at a time, so that no later text triggers the write of remaining bytes.
    for _ in 0..20 {
        client.send(LONG).await;
        assert_eq!(client.text().await, LONG);
    }
}

#[tokio::test]
async fn partial_writes_of_a_link_arrive_complete_and_in_order() {
    let (mut server, writes) = reluctant_server().await;
    server.control.register_link::<Reluctant<OTHER>>();
    server.control.register_link::<Reluctant<SERVED>>();
    let mut client = server.websocket(WEBSOCKET).await;
    client.text().await;
    let handle = server.connected().await;
    send_and_read_echoes(&mut client).await;
    assert!(writes.swap(0, Ordering::Relaxed) > 0);
    let all_counted = async {
        while handle.unwritten() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, all_counted).await.unwrap();
    let sid = open(server.get(POLLING).await.text())["sid"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut upgraded = server.websocket(&format!("{WEBSOCKET}&sid={sid}")).await;
    upgraded.send("2probe").await;
    assert_eq!(upgraded.text().await, "3probe");
    upgraded.send("5").await;
    send_and_read_echoes(&mut upgraded).await;
    assert!(writes.load(Ordering::Relaxed) > 0);
    assert_eq!(server.control.counters().boxed, 0);
}

#[tokio::test]
async fn an_unregistered_stream_type_runs_in_hypers_box() {
    let (server, writes) = reluctant_server().await;
    server.control.register_link::<Reluctant<OTHER>>();
    let mut client = server.websocket(WEBSOCKET).await;
    client.text().await;
    send_and_read_echoes(&mut client).await;
    assert_eq!(writes.load(Ordering::Relaxed), 0);
    assert_eq!(server.control.counters().boxed, 1);
}

#[tokio::test]
async fn frames_sent_together_with_the_handshake_are_processed() {
    for registered in [true, false] {
        let (server, _) = reluctant_server().await;
        if registered {
            server.control.register_link::<Reluctant<SERVED>>();
        }
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let handshake = format!(
            "GET /engine.io/?{WEBSOCKET} HTTP/1.1\r\nhost: x\r\n\
             connection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let early = [handshake.as_bytes(), &masked("4first"), &masked("4second")].concat();
        stream.write_all(&early).await.unwrap();
        let mut answer = Vec::new();
        let echoed = async {
            while !answer.ends_with(b"\x81\x074second") {
                assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
            }
        };
        tokio::time::timeout(SOON, echoed).await.unwrap();
        assert!(answer.ends_with(b"\x81\x064first\x81\x074second"));
        assert_eq!(
            server.control.counters().bytes_in,
            [masked("4first"), masked("4second")].concat().len() as u64
        );
    }
}
