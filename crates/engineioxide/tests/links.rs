//! The server's own streams: WebSockets run on them as they are, where they were told of.
#![allow(clippy::unwrap_used)] // a test's way to say what it expects

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

/// The kind of link that the server here serves, and one that none of its connections is.
const SERVED: u8 = 0;
const OTHER: u8 = 1;

/// Takes a few bytes at once each second time that it is asked to, and nothing in between.
struct Reluctant<const KIND: u8> {
    io: Direct,
    asked: Arc<AtomicUsize>,
}

impl<const KIND: u8> Link for Reluctant<KIND> {
    fn write_now(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        if !self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            return Some(Err(io::ErrorKind::WouldBlock.into()));
        }
        self.io.write_now(&bytes[..bytes.len().min(5)])
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

/// A server of such streams, and how often they were asked to take something at once.
async fn reluctant() -> (Server, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let wrap = move |stream| Reluctant::<SERVED> {
        io: Direct(stream),
        asked: counted.clone(),
    };
    (
        Server::over(calm_config().build(), Limits::default(), wrap).await,
        asked,
    )
}

/// The frame of a short text as a client sends it, with a mask that changes nothing.
fn masked(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

const LONG: &str = "4a text that is longer than what is taken at once";

/// Sends texts, and reads their echo.
async fn talk(client: &mut Client) {
    for n in 0..20 {
        client.send(&format!("{LONG} {n}")).await;
    }
    for n in 0..20 {
        assert_eq!(client.text().await, format!("{LONG} {n}"));
    }
    // One at a time: nothing that comes later sees to what was left.
    for _ in 0..20 {
        client.send(LONG).await;
        assert_eq!(client.text().await, LONG);
    }
}

#[tokio::test]
async fn what_a_link_takes_only_in_part_arrives_whole_and_in_order() {
    let (mut server, asked) = reluctant().await;
    server.control.runs_on::<Reluctant<OTHER>>();
    server.control.runs_on::<Reluctant<SERVED>>();
    let mut client = server.websocket(WEBSOCKET).await;
    client.text().await;
    let handle = server.connected().await;
    talk(&mut client).await;
    assert!(asked.swap(0, Ordering::Relaxed) > 0);
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
    talk(&mut upgraded).await;
    assert!(asked.load(Ordering::Relaxed) > 0);
    assert_eq!(server.control.counters().boxed, 0);
}

#[tokio::test]
async fn a_stream_that_nobody_told_of_is_run_on_as_hyper_hands_it_over() {
    let (server, asked) = reluctant().await;
    server.control.runs_on::<Reluctant<OTHER>>();
    let mut client = server.websocket(WEBSOCKET).await;
    client.text().await;
    talk(&mut client).await;
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert_eq!(server.control.counters().boxed, 1);
}

#[tokio::test]
async fn what_came_with_the_handshake_is_heard() {
    for told in [true, false] {
        let (server, _) = reluctant().await;
        if told {
            server.control.runs_on::<Reluctant<SERVED>>();
        }
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let handshake = format!(
            "GET /engine.io/?{WEBSOCKET} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let early = [handshake.as_bytes(), &masked("4first"), &masked("4second")].concat();
        stream.write_all(&early).await.unwrap();
        let mut answer = Vec::new();
        let heard = async {
            while !answer.ends_with(b"\x81\x074second") {
                assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
            }
        };
        tokio::time::timeout(SOON, heard).await.unwrap();
        assert!(answer.ends_with(b"\x81\x064first\x81\x074second"));
        assert_eq!(
            server.control.counters().bytes_in,
            [masked("4first"), masked("4second")].concat().len() as u64
        );
    }
}
