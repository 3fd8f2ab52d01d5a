//! Outboxes and closes: outboxes are bounded and keep the order; a close is reported once and takes
//! effect at once, even if the peer does not read.
#![allow(clippy::unwrap_used)] // an unwrap in a test is an assertion

mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engineioxide::{
    DisconnectReason, Frame, Limits, ProtocolVersion, SendOutcome, SessionHandle, TransportType,
};
use server::{Client, Event, SOON, Server, calm_config, open};
use tokio::sync::oneshot;
use tokio::time::Instant;

const WEBSOCKET: &str = "EIO=4&transport=websocket";
const POLLING: &str = "EIO=4&transport=polling";
/// More bytes than all socket buffers of a connection hold.
const MANY: usize = 64 * 1024 * 1024;

async fn websocket(server: &mut Server) -> (Client, SessionHandle) {
    let mut client = server.websocket(WEBSOCKET).await;
    client.text().await;
    (client, server.connected().await)
}

async fn polling(server: &mut Server) -> (String, SessionHandle) {
    let response = server.get(POLLING).await;
    let sid = open(response.text())["sid"].as_str().unwrap().to_owned();
    (format!("{POLLING}&sid={sid}"), server.connected().await)
}

fn limits(outbox_bytes: usize, write_timeout: Duration) -> Limits {
    Limits {
        outbox_bytes,
        write_timeout,
        ..Limits::default()
    }
}

/// Sends about `bytes` to a peer that does not read.
fn fill_outbox(handle: &SessionHandle, bytes: usize) {
    let frame = Frame::text(&"x".repeat(64 * 1024));
    for _ in 0..bytes / frame.len() {
        assert_eq!(handle.send(&frame), SendOutcome::Queued);
    }
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_closed_after_the_write_timeout() {
    let limits = limits(2 * MANY, Duration::from_millis(300));
    let mut server = Server::start(calm_config().build(), limits).await;
    let (_client, handle) = websocket(&mut server).await;
    let begun = Instant::now();
    fill_outbox(&handle, MANY);
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportError)
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(handle.is_closed());
    assert_eq!(server.control.counters().slow_consumers, 1);
    assert!(handle.is_slow_consumer());
    assert_eq!(server.control.len(), 0);
}

#[tokio::test]
async fn an_overflow_closes_the_session_at_once() {
    let limits = limits(1024 * 1024, Duration::from_secs(3600));
    let mut server = Server::start(calm_config().build(), limits).await;
    let (_client, handle) = websocket(&mut server).await;
    let frame = Frame::text(&"x".repeat(64 * 1024));
    while handle.send(&frame) == SendOutcome::Queued {
        tokio::task::yield_now().await;
    }
    assert_eq!(handle.send(&frame), SendOutcome::Closed);
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportError)
    );
    assert_eq!(server.control.counters().slow_consumers, 1);
    assert!(handle.is_slow_consumer());
}

#[tokio::test]
async fn send_below_never_closes_the_session() {
    let limits = limits(100, Duration::from_secs(3600));
    let mut server = Server::start(calm_config().build(), limits).await;
    // The client does not poll.
    let (_, handle) = polling(&mut server).await;
    let frame = Frame::text(&"x".repeat(40));
    assert_eq!(handle.send_below(1, &frame), SendOutcome::Queued);
    assert_eq!(
        handle.send_below(handle.unwritten(), &frame),
        SendOutcome::Busy
    );
    assert_eq!(handle.send_below(100, &frame), SendOutcome::Queued);
    assert_eq!(
        handle.send_below(100, &frame),
        SendOutcome::Busy,
        "the frame does not fit"
    );
    assert_eq!(
        (handle.unwritten(), handle.is_closed()),
        (2 * frame.len(), false)
    );
    handle.close();
    assert_eq!(handle.send_below(100, &frame), SendOutcome::Closed);
}

#[tokio::test]
async fn overflow_and_stall_close_a_polling_session() {
    let limits = limits(100, Duration::from_millis(200));
    let mut server = Server::start(calm_config().build(), limits).await;
    let (_, handle) = polling(&mut server).await;
    assert_eq!(
        handle.send(&Frame::text(&"x".repeat(200))),
        SendOutcome::Overflow
    );
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportError)
    );
    let (_, handle) = polling(&mut server).await;
    assert_eq!(
        handle.send(&Frame::text("never fetched")),
        SendOutcome::Queued
    );
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportError)
    );
}

#[tokio::test]
async fn a_close_during_a_blocked_write_takes_effect_at_once() {
    let mut server = Server::start(
        calm_config().build(),
        limits(2 * MANY, Duration::from_secs(3600)),
    )
    .await;
    let (_client, handle) = websocket(&mut server).await;
    fill_outbox(&handle, MANY);
    handle.close();
    let begun = Instant::now();
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportClose)
    );
    tokio::time::timeout(SOON, handle.closed()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(handle.send(&Frame::text("late")), SendOutcome::Closed);
}

#[tokio::test]
async fn messages_of_all_sizes_arrive_in_order() {
    let mut server = Server::start(
        calm_config().build(),
        limits(2 * MANY, Duration::from_secs(60)),
    )
    .await;
    let (mut client, handle) = websocket(&mut server).await;
    let text = |n: usize| format!("{n}:{}", "y".repeat((n * 7919) % 20_000));
    for n in 0..2_000 {
        assert_eq!(handle.send(&Frame::text(&text(n))), SendOutcome::Queued);
    }
    for n in 0..2_000 {
        assert_eq!(client.text().await[1..], text(n));
    }
    // The client may have read the last bytes before the server has counted them as written.
    let (done, wait) = oneshot::channel();
    handle.when_below(1, Box::new(move || _ = done.send(())));
    tokio::time::timeout(SOON, wait).await.unwrap().unwrap();
    assert_eq!(handle.unwritten(), 0);
}

#[tokio::test]
async fn when_below_waits_until_the_peer_reads() {
    let mut server = Server::start(
        calm_config().build(),
        limits(2 * MANY, Duration::from_secs(3600)),
    )
    .await;
    let (mut client, handle) = websocket(&mut server).await;
    fill_outbox(&handle, MANY);
    let low = Arc::new(AtomicBool::new(false));
    let (done, mut wait) = oneshot::channel();
    let (flag, watched) = (low.clone(), handle.clone());
    handle.when_below(
        MANY / 2,
        Box::new(move || {
            assert!(watched.unwritten() < MANY / 2);
            flag.store(true, Ordering::Relaxed);
            done.send(()).ok();
        }),
    );
    assert!(!low.load(Ordering::Relaxed));
    while wait.try_recv().is_err() {
        client.text().await;
    }
    // With free capacity, and on a closed session, the callback runs soon.
    for close in [false, true] {
        if close {
            handle.close();
        }
        let (done, wait) = oneshot::channel();
        handle.when_below(usize::MAX, Box::new(move || _ = done.send(())));
        tokio::time::timeout(SOON, wait).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_close_of_the_session_runs_when_below_callbacks() {
    let mut server = Server::start(
        calm_config().build(),
        limits(2 * MANY, Duration::from_secs(3600)),
    )
    .await;
    let (_client, handle) = websocket(&mut server).await;
    fill_outbox(&handle, MANY);
    let (done, wait) = oneshot::channel();
    handle.when_below(1, Box::new(move || _ = done.send(())));
    handle.close();
    tokio::time::timeout(SOON, wait).await.unwrap().unwrap();
}

#[tokio::test]
async fn close_ends_a_websocket_without_a_close_frame_or_packet() {
    let mut server = Server::calm().await;
    let (mut client, handle) = websocket(&mut server).await;
    handle.close();
    assert_eq!(client.closed().await, None);
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportClose)
    );
}

#[tokio::test]
async fn close_answers_polls_with_status_400() {
    let mut server = Server::calm().await;
    let (query, handle) = polling(&mut server).await;
    let (poll, ()) = tokio::join!(server.get(&query), async { handle.close() });
    assert_eq!((poll.status, poll.code()), (400, 1));
    let poll = server.get(&query).await;
    assert_eq!((poll.status, poll.code()), (400, 1));
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportClose)
    );
}

#[tokio::test]
async fn close_after_flush_writes_a_websockets_queue_first() {
    let mut server = Server::calm().await;
    let (mut client, handle) = websocket(&mut server).await;
    for n in 0..500 {
        handle.send(&Frame::text(&n.to_string()));
    }
    handle.close_after_flush(SOON);
    assert_eq!(handle.send(&Frame::text("late")), SendOutcome::Closed);
    for n in 0..500 {
        assert_eq!(client.text().await, format!("4{n}"));
    }
    assert_eq!(client.closed().await, None);
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportClose)
    );
}

#[tokio::test]
async fn close_after_flush_waits_for_frames_that_are_held() {
    let mut server = Server::calm().await;
    let (mut client, handle) = websocket(&mut server).await;
    handle.hold();
    handle.hold();
    handle.close_after_flush(Duration::from_secs(3600));
    handle.send(&Frame::text("first"));
    handle.release();
    assert_eq!(client.text().await, "4first");
    assert!(!handle.is_closed());
    handle.send(&Frame::text("second"));
    handle.release();
    assert_eq!(handle.send(&Frame::text("late")), SendOutcome::Closed);
    assert_eq!(client.text().await, "4second");
    assert_eq!(client.closed().await, None);
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportClose)
    );
}

#[tokio::test]
async fn a_frame_that_is_held_in_vain_delays_the_close_to_its_time_limit() {
    let mut server = Server::calm().await;
    let (_client, handle) = websocket(&mut server).await;
    handle.hold();
    handle.close_after_flush(Duration::from_millis(100));
    assert!(!handle.is_closed());
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportClose)
    );
    handle.release();
}

#[tokio::test]
async fn close_after_flush_waits_for_the_next_poll() {
    let mut server = Server::calm().await;
    let (query, handle) = polling(&mut server).await;
    handle.send(&Frame::text("last"));
    handle.close_after_flush(SOON);
    assert_eq!(server.get(&query).await.text(), "4last");
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportClose)
    );
    assert_eq!(server.get(&query).await.status, 400);
}

#[tokio::test]
async fn a_poll_is_answered_with_at_most_16_packets() {
    let mut server = Server::start(calm_config().build(), Limits::default()).await;
    let (poll, handle) = polling(&mut server).await;
    for n in 0..40 {
        assert_eq!(
            handle.send(&Frame::text(&n.to_string())),
            SendOutcome::Queued
        );
    }
    let mut seen = Vec::new();
    for expected in [16, 16, 8] {
        let response = server.get(&poll).await;
        let packets: Vec<_> = response.text().split('\x1e').map(str::to_owned).collect();
        assert_eq!(packets.len(), expected);
        seen.extend(packets);
    }
    assert_eq!(seen, (0..40).map(|n| format!("4{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn close_after_flush_closes_at_its_time_limit() {
    let mut server = Server::start(
        calm_config().build(),
        limits(2 * MANY, Duration::from_secs(3600)),
    )
    .await;
    let (_client, handle) = websocket(&mut server).await;
    fill_outbox(&handle, MANY);
    handle.close_after_flush(Duration::from_millis(100));
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportClose)
    );
}

#[tokio::test]
async fn a_client_that_drops_its_poll_closes_the_session() {
    use tokio::io::AsyncWriteExt;
    let mut server = Server::calm().await;
    let (query, handle) = polling(&mut server).await;
    let mut stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let head = format!("GET /engine.io/?{query} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    drop(stream);
    assert_eq!(
        server.disconnected().await,
        (handle.id(), DisconnectReason::TransportClose)
    );
}

#[tokio::test]
async fn sessions_are_counted_by_transport() {
    let mut server = Server::calm().await;
    let (_query, first) = polling(&mut server).await;
    let (_client, second) = websocket(&mut server).await;
    let control = server.control.clone();
    assert_eq!(
        control.count(TransportType::Polling, ProtocolVersion::V4),
        1
    );
    assert_eq!(
        control.count(TransportType::Websocket, ProtocolVersion::V4),
        1
    );
    let mut ids: Vec<_> = control.sessions().iter().map(SessionHandle::id).collect();
    ids.sort();
    let mut expected = [first.id(), second.id()];
    expected.sort();
    assert_eq!(ids, expected);
    for handle in control.sessions() {
        handle.close();
    }
    assert!(control.is_empty());
    assert_eq!(
        control.count(TransportType::Polling, ProtocolVersion::V4),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_session_is_disconnected_exactly_once() {
    const COUNT: usize = 100;
    let mut server = Server::calm().await;
    for n in 0..COUNT {
        let closers = |handle: &SessionHandle| {
            for method in 0..3 {
                let handle = handle.clone();
                tokio::spawn(async move {
                    match method {
                        0 => handle.close(),
                        1 => handle.close_after_flush(Duration::ZERO),
                        _ => {
                            while handle.send(&Frame::text(&"x".repeat(300_000)))
                                == SendOutcome::Queued
                            {}
                        }
                    }
                });
            }
        };
        if n % 2 == 0 {
            let (mut client, handle) = session_of(&mut server).await;
            closers(&handle);
            client.send("1").await;
            client.0.close(None).await.ok();
        } else {
            let response = server.get(POLLING).await;
            let sid = open(response.text())["sid"].as_str().unwrap().to_owned();
            let query = format!("{POLLING}&sid={sid}");
            let handle = server
                .control
                .sessions()
                .into_iter()
                .find(|h| h.id().to_string() == sid)
                .unwrap();
            closers(&handle);
            tokio::join!(
                server.get(&query),
                server.get(&query),
                server.post(&query, "1")
            );
        }
    }
    let (mut connected, mut ended) = (0, HashMap::<_, usize>::new());
    while ended.len() < COUNT {
        count(server.event().await, &mut connected, &mut ended);
    }
    // A sentinel: a session that is closed after all others is reported after them.
    let (_client, last) = session_of(&mut server).await;
    last.close();
    while !ended.contains_key(&last.id()) {
        count(server.event().await, &mut connected, &mut ended);
    }
    assert_eq!(ended.len(), COUNT + 1);
    assert!(ended.values().all(|&times| times == 1));
    assert!(server.control.is_empty());
}

/// As `websocket`, but leaves the events for `count`.
async fn session_of(server: &mut Server) -> (Client, SessionHandle) {
    let mut client = server.websocket(WEBSOCKET).await;
    let sid = open(&client.text().await)["sid"]
        .as_str()
        .unwrap()
        .to_owned();
    let handle = server
        .control
        .sessions()
        .into_iter()
        .find(|h| h.id().to_string() == sid)
        .unwrap();
    (client, handle)
}

fn count(event: Event, connected: &mut usize, ended: &mut HashMap<engineioxide::Sid, usize>) {
    match event {
        Event::Connected(_) => *connected += 1,
        Event::Disconnected(sid, _) => *ended.entry(sid).or_default() += 1,
        Event::Text(_) => {}
    }
}
