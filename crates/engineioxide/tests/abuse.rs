//! What a hostile client may try against one session, and that it hurts no other.

// A test that can't go on should stop, and say where.
#![allow(clippy::unwrap_used)]

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

/// A WebSocket whose frames a test writes byte for byte, unless it is refused.
async fn raw_websocket(server: &Server, query: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "GET /engine.io/?{query} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    answer.starts_with(b"HTTP/1.1 101").then_some(stream)
}

/// Stands for all other sessions on the thread: how many packets are taken between two of its turns, at most.
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
async fn a_post_of_tiny_packets_leaves_others_their_turn() {
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
async fn a_websocket_of_tiny_messages_leaves_others_their_turn() {
    let mut server = Server::calm().await;
    let mut stream = raw_websocket(&server, "EIO=4&transport=websocket")
        .await
        .unwrap();
    server.connected().await;
    let bystander = Bystander::watch(&server.control);
    // `6`, masked by zeros, and at the end `1`, which closes.
    let mut frames = [0x81, 0x81, 0, 0, 0, 0, b'6'].repeat(PACKETS);
    frames.extend([0x81, 0x81, 0, 0, 0, 0, b'1']);
    stream.write_all(&frames).await.unwrap();
    server.disconnected().await;
    let most = bystander.most().await;
    assert!(most <= 256, "{most} packets of one session at once");
    assert_eq!(server.control.counters().packets_in, PACKETS as u64 + 1);
}

#[tokio::test]
async fn an_outbox_is_bounded_by_the_number_of_its_frames_too() {
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
async fn upgrades_begun_again_and_again_do_not_hide_a_client_that_never_polls() {
    let limits = Limits {
        write_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let config = calm_config()
        .upgrade_timeout(Duration::from_millis(20))
        .build();
    let mut server = Server::start(config, limits).await;
    let (query, handle) = polling(&mut server, 4).await;
    handle.send(&Frame::text("never taken"));
    // Without an end to them the session would live as long as they go on.
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
        .expect("the session lives on");
    assert_eq!(server.control.counters().slow_consumers, 1);
}

#[tokio::test]
async fn an_answer_to_a_poll_that_is_not_read_stays_in_the_outbox() {
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
    assert!(
        handle.unwritten() >= large,
        "what nobody has read counts as written"
    );
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(handle.unwritten(), 0);
    assert!(!handle.is_closed());
}

#[tokio::test]
async fn an_answer_to_a_poll_that_is_given_up_half_way_ends_the_session() {
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
