//! Peers that take their time: heads, bodies and answers that trickle or stop.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use hubbub::server::{Listener, Timeouts};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use crate::raw::Raw;

/// A server with short patience: `/` answers with a large body, or with what became of the request's.
async fn impatient() -> (std::net::SocketAddr, watch::Sender<bool>) {
    let patience = Duration::from_millis(300);
    let timeouts = Timeouts { head: patience, body: patience, write: patience };
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 100, timeouts).await.unwrap();
    let address = listener.address().unwrap();
    let read = async |body: Body| if body.collect().await.is_ok() { "whole" } else { "too slow" };
    let large = async || Bytes::from(vec![0; 64 << 20]);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(listener.serve(Router::new().route("/", get(large)).route("/", post(read)), stopped));
    (address, stop)
}

#[tokio::test]
async fn a_head_that_trickles_ends_its_connection() {
    let (address, _stop) = impatient().await;
    let mut raw = Raw::open(address).await;
    let began = Instant::now();
    raw.write("GET / HTTP/1.1\r\nhost: x\r\n").await;
    while raw.write("x: y\r\n").await {
        assert!(began.elapsed() < Duration::from_secs(10), "a header every now and then keeps the connection");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nor may one say nothing at all.
    Raw::open(address).await.end().await;
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up() {
    let (address, _stop) = impatient().await;
    for head in ["content-length: 100000\r\n", "transfer-encoding: chunked\r\n"] {
        let mut raw = Raw::open(address).await;
        raw.write(format!("POST / HTTP/1.1\r\nhost: x\r\n{head}\r\n")).await;
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
        tokio::time::timeout(Duration::from_secs(10), trickle).await.expect("the body may take for ever");
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
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the connection is kept for who doesn't read");
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
