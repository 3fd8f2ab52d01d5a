//! Peers that take their time: heads, bodies and answers that trickle or stop.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use hubbub::server::{Listener, Timeouts};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use crate::raw::{Polling, Raw, Witness};
use hubbub_test_support::client::Client;

/// A server with short patience: `/` answers with a large body, or with what became of the request's.
async fn impatient() -> (std::net::SocketAddr, watch::Sender<bool>) {
    let patience = Duration::from_millis(300);
    let timeouts = Timeouts {
        handshake: patience,
        head: patience,
        body: patience,
        write: patience,
    };
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 100, timeouts)
        .await
        .unwrap();
    let address = listener.address().unwrap();
    let read = async |body: Body| {
        if body.collect().await.is_ok() {
            "whole"
        } else {
            "too slow"
        }
    };
    let large = async || Bytes::from(vec![0; 64 << 20]);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(listener.serve(
        Router::new().route("/", get(large)).route("/", post(read)),
        stopped,
    ));
    (address, stop)
}

#[tokio::test]
async fn a_head_that_trickles_ends_its_connection() {
    let (address, _stop) = impatient().await;
    let mut raw = Raw::open(address).await;
    let began = Instant::now();
    raw.write("GET / HTTP/1.1\r\nhost: x\r\n").await;
    while raw.write("x: y\r\n").await {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "a header every now and then keeps the connection"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nor may one say nothing at all.
    Raw::open(address).await.end().await;
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up() {
    let (address, _stop) = impatient().await;
    for head in [
        "content-length: 100000\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        let mut raw = Raw::open(address).await;
        raw.write(format!("POST / HTTP/1.1\r\nhost: x\r\n{head}\r\n"))
            .await;
        let trickle = async {
            loop {
                raw.write("1\r\nx\r\n").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                let mut byte = [0];
                if raw.0.try_read(&mut byte).is_ok() {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), trickle)
            .await
            .expect("the body may take for ever");
        let rest = String::from_utf8(raw.end().await).unwrap();
        assert!(rest.ends_with("too slow"), "{rest}");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_its_connection() {
    let (address, _stop) = impatient().await;
    let mut raw = Raw::open(address).await;
    raw.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // A write fails when the peer has reset the connection; until then nothing is read.
    let ended = async {
        while raw.write("x").await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .expect("the connection is kept for who doesn't read");
}

#[tokio::test]
async fn a_reader_that_is_slow_but_reads_gets_all() {
    let (address, _stop) = impatient().await;
    let mut raw = Raw::open(address).await;
    raw.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let (mut part, mut left) = (vec![0; 1 << 20], 64 << 20);
    while left > 0 {
        left -= raw.0.read(&mut part).await.unwrap().min(left);
        // All of them take longer than a peer may take nothing.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Of each of five kinds.
const SLOW_PEERS: usize = 400;

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// How long a message takes to come back, for half of them and for 99 of 100.
async fn latency(
    witness: &Witness,
    time: Duration,
    mut meanwhile: impl AsyncFnMut(),
) -> (Duration, Duration) {
    let mut took = Vec::new();
    let began = Instant::now();
    while began.elapsed() < time {
        let asked = Instant::now();
        witness.is_well().await;
        took.push(asked.elapsed());
        meanwhile().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    took.sort_unstable();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

/// A machine that builds and tests other things at the same time says nothing of the slowest in a hundred: they are judged
/// by hand, on one that is quiet, with `HUBBUB_SLOW_SECS=60`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_slow_peers_leave_others_fast_and_memory_flat() {
    rlimit::increase_nofile_limit(16_384).unwrap();
    let by_hand = std::env::var("HUBBUB_SLOW_SECS")
        .ok()
        .map(|value| value.parse().unwrap());
    let time = Duration::from_secs(by_hand.unwrap_or(5));
    let node = crate::raw::node(&[("MAX_SOCKETS_PER_USER", "100000")]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let alone = latency(&witness, Duration::from_secs(2), async || {}).await;
    let talker = Client::member(address, "talker", "slow").await;
    let talk = serde_json::json!({"room_id": "slow", "content": "x".repeat(1000)});
    // Each kind holds its connection, and does next to nothing with it.
    let mut slow = Vec::new();
    for _ in 0..SLOW_PEERS {
        let mut head = Raw::open(address).await;
        head.write("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nhost: x\r\n")
            .await;
        let session = Polling::begin(address, 4).await;
        let mut body = Raw::open(address).await;
        let length = "content-length: 900000";
        body.write(format!(
            "POST /socket.io/?{} HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n6",
            session.query
        ))
        .await;
        let mut reader = Raw::member(address).await;
        reader.say(r#"421["join",{"room_id":"slow"}]"#).await;
        let idle = Raw::websocket(address, 4).await;
        let session = Polling::begin(address, 4).await;
        let (mut upgrade, _) =
            Raw::upgrade(address, &session.query.replace("polling", "websocket"), "").await;
        upgrade.say("2probe").await;
        slow.push([head, body, reader, idle, upgrade]);
    }
    let before = resident();
    // Each trickles about once a second.
    let mut turns = slow.chunks(SLOW_PEERS / 50).cycle().enumerate();
    let among = latency(&witness, time, async || {
        let Some((turn, trickling)) = turns.next() else {
            return;
        };
        for [head, body, ..] in trickling {
            head.0.try_write(b"x: y\r\n").ok();
            body.0.try_write(b"x").ok();
        }
        if turn % 25 == 0 {
            talker.done("message", talk.clone()).await;
        }
    })
    .await;
    let grown = resident().saturating_sub(before);
    println!(
        "{time:?} (half, 99 of 100): alone {alone:?}, among slow peers {among:?}; grown by {} KiB",
        grown / 1024
    );
    let judged = if by_hand.is_some() { among.1 } else { among.0 };
    assert!(
        judged < Duration::from_millis(100),
        "alone {alone:?}, among slow peers {among:?}"
    );
    assert!(grown < 64 << 20, "grown by {grown} bytes");
    node.stop().await;
}
