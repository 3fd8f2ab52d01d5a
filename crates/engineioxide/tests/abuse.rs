//! Attacks by a hostile client on one session. They must not affect other sessions.
#![allow(clippy::unwrap_used)] // an unwrap in a test is an assertion

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use engineioxide::{Control, DisconnectReason, Frame, Limits, SendOutcome, SessionHandle};
use server::{SOON, Server, calm_config, open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn polling(server: &mut Server, version: u8) -> (String, SessionHandle) {
    let query = format!("EIO={version}&transport=polling");
    let answer = server.get(&query).await;
    let packet = &answer.text()[answer.text().find('0').unwrap()..];
    let packet = if version == 3 {
        answer.text().split_once(':').unwrap().1
    } else {
        packet
    };
    let sid = open(packet)["sid"].as_str().unwrap().to_owned();
    (format!("{query}&sid={sid}"), server.connected().await)
}

/// A WebSocket on which the test writes the bytes of the frames. `None` if it is refused.
async fn raw_websocket(server: &Server, query: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "GET /engine.io/?{query} HTTP/1.1\r\nhost: x\r\n\
         connection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    answer.starts_with(b"HTTP/1.1 101").then_some(stream)
}

/// Represents all other tasks on the thread: measures the most packets that the server processes
/// between two polls of this task.
struct Bystander {
    most: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Bystander {
    fn watch(control: &Control) -> Self {
        let (most, over) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (seen, end, control) = (most.clone(), over.clone(), control.clone());
        let task = tokio::spawn(async move {
            let mut last = control.counters().packets_in;
            while !end.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
                let now = control.counters().packets_in;
                seen.fetch_max(now - last, Ordering::SeqCst);
                last = now;
            }
        });
        Self { most, over, task }
    }

    async fn most(self) -> u64 {
        self.over.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
        self.most.load(Ordering::SeqCst)
    }
}

const PACKETS: usize = 100_000;

#[tokio::test]
async fn a_post_of_tiny_packets_yields_to_other_tasks() {
    for (version, body) in [
        (4, vec!["6"; PACKETS].join("\x1e")),
        (3, "1:6".repeat(PACKETS)),
    ] {
        let mut server = Server::calm().await;
        let (query, _) = polling(&mut server, version).await;
        let bystander = Bystander::watch(&server.control);
        assert_eq!(server.post(&query, body).await.text(), "ok");
        let most = bystander.most().await;
        assert!(most <= 256, "{most} packets of one session at once");
        assert_eq!(server.control.counters().packets_in, PACKETS as u64);
    }
}

#[tokio::test]
async fn a_websocket_with_tiny_messages_yields_to_other_tasks() {
    let mut server = Server::calm().await;
    let mut stream = raw_websocket(&server, "EIO=4&transport=websocket")
        .await
        .unwrap();
    server.connected().await;
    let bystander = Bystander::watch(&server.control);
    // `6` many times, masked with zeros, and at the end `1`, which closes the session.
    let mut frames = [0x81, 0x81, 0, 0, 0, 0, b'6'].repeat(PACKETS);
    frames.extend([0x81, 0x81, 0, 0, 0, 0, b'1']);
    stream.write_all(&frames).await.unwrap();
    server.disconnected().await;
    let most = bystander.most().await;
    assert!(most <= 256, "{most} packets of one session at once");
    assert_eq!(server.control.counters().packets_in, PACKETS as u64 + 1);
}

#[tokio::test]
async fn the_number_of_frames_in_an_outbox_is_limited() {
    let limits = Limits {
        outbox_frames: 100,
        ..Limits::default()
    };
    let mut server = Server::start(calm_config().build(), limits).await;
    let (_, handle) = polling(&mut server, 4).await;
    for _ in 0..100 {
        assert_eq!(handle.send(&Frame::text("")), SendOutcome::Queued);
    }
    assert_eq!(handle.send(&Frame::text("")), SendOutcome::Overflow);
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportError)
    );
}

#[tokio::test]
async fn repeated_upgrades_do_not_keep_a_client_that_never_polls_open() {
    let limits = Limits {
        write_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let config = calm_config()
        .upgrade_timeout(Duration::from_millis(20))
        .build();
    let mut server = Server::start(config, limits).await;
    let (query, handle) = polling(&mut server, 4).await;
    handle.send(&Frame::text("never fetched"));
    // Without a limit on upgrades the session would stay open as long as this loop runs.
    let upgrades = async {
        while !handle.is_closed() {
            if let Some(mut stream) =
                raw_websocket(&server, &query.replace("polling", "websocket")).await
            {
                stream.read_to_end(&mut Vec::new()).await.ok();
            }
        }
    };
    tokio::time::timeout(SOON, upgrades)
        .await
        .expect("the session is not closed");
    assert_eq!(server.control.counters().slow_consumers, 1);
}

#[tokio::test]
async fn an_unread_poll_response_stays_in_the_outbox() {
    let large = 32 << 20;
    let limits = Limits {
        outbox_bytes: 2 * large,
        ..Limits::default()
    };
    let mut server = Server::start(calm_config().build(), limits).await;
    let (query, handle) = polling(&mut server, 4).await;
    handle.send(&Frame::text(&"x".repeat(large)));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("GET /engine.io/?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1024];
    stream.read_exact(&mut answer).await.unwrap();
    assert!(handle.unwritten() >= large, "unread bytes count as written");
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(handle.unwritten(), 0);
    assert!(!handle.is_closed());
}

#[tokio::test]
async fn a_client_that_drops_a_poll_response_half_way_closes_the_session() {
    let large = 32 << 20;
    let limits = Limits {
        outbox_bytes: 2 * large,
        ..Limits::default()
    };
    let mut server = Server::start(calm_config().build(), limits).await;
    let (query, handle) = polling(&mut server, 4).await;
    handle.send(&Frame::text(&"x".repeat(large)));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("GET /engine.io/?{query} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 1024]).await.unwrap();
    drop(stream);
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportError)
    );
}
