//! A flood from one address, by every door: the others don't notice, and the node's memory stays flat.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::client::Client;
use crate::node::Cluster;

/// Connections of the flood, of each kind.
const FLOODERS: usize = 4;
const SECONDS: u64 = 5;

/// A connection from another of this machine's addresses.
async fn from_elsewhere(address: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 9], 0).into())?;
    socket.connect(address).await
}

/// Asks again and again without a pause, until told to stop; how often it was refused with 429.
async fn request_without_end(address: SocketAddr, request: &str, stop: &AtomicBool, refused: &AtomicUsize) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let request = format!("{head}\r\nhost: {address}\r\nconnection: close\r\n\r\n{body}");
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = from_elsewhere(address).await else { continue };
        let mut answer = String::new();
        if stream.write_all(request.as_bytes()).await.is_ok() && stream.read_to_string(&mut answer).await.is_ok() {
            refused.fetch_add(usize::from(answer.starts_with("HTTP/1.1 429")), Ordering::Relaxed);
        }
    }
}

/// Sends events over one WebSocket after the other, and reads what comes.
async fn emit_without_end(address: SocketAddr, stop: &AtomicBool, closed: &AtomicUsize) {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    while !stop.load(Ordering::Relaxed) {
        let Ok(stream) = from_elsewhere(address).await else { continue };
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let Ok((socket, _)) = tokio_tungstenite::client_async(url, stream).await else { continue };
        let (mut sink, mut source) = socket.split();
        let reading = tokio::spawn(async move { while let Some(Ok(_)) = source.next().await {} });
        let _ = sink.send(Message::text("40")).await;
        let _ = sink.send(Message::text("420[\"authenticate\",{\"user_id\":\"flood\"}]")).await;
        while !stop.load(Ordering::Relaxed)
            && sink.send(Message::text("42[\"typing\",{\"room_id\":\"r\"}]")).await.is_ok()
        {}
        closed.fetch_add(usize::from(!stop.load(Ordering::Relaxed)), Ordering::Relaxed);
        reading.abort();
    }
}

/// What this process holds, in KB.
fn memory_kb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_one_address_leaves_the_others_in_peace() {
    let limits = [
        ("TRUSTED_PROXIES", "none"),
        ("RATE_IP_EVENTS_PER_SEC", "50"),
        ("RATE_IP_HANDSHAKES_PER_SEC", "5"),
        ("MAX_RATE_REFUSALS", "200"),
        ("RATE_USER_CONNECTS_PER_SEC", "0"),
    ];
    let cluster = Cluster::alone(&limits).await;
    let address = cluster.address(0);
    // From 127.0.0.1, and below what that may spend.
    let (ann, bob) = (Client::member(address, "ann", "room").await, Client::member(address, "bob", "room").await);
    let before = memory_kb();
    let stop = Arc::new(AtomicBool::new(false));
    let (refused, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let post = "POST /messages HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 31\r\n\r\n{\"room_id\":\"r\",\"content\":\"x\"}  ";
    let handshake = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n\r\n";
    let mut flood = Vec::new();
    for _ in 0..FLOODERS {
        for request in [post, handshake] {
            let (stop, refused) = (stop.clone(), refused.clone());
            flood.push(tokio::spawn(async move { request_without_end(address, request, &stop, &refused).await }));
        }
        let (stop, closed) = (stop.clone(), closed.clone());
        flood.push(tokio::spawn(async move { emit_without_end(address, &stop, &closed).await }));
    }
    let (began, mut times, mut most) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < Duration::from_secs(SECONDS) {
        let sent = Instant::now();
        ann.done("message", json!({"room_id": "room", "content": "in the flood"})).await;
        times.push(sent.elapsed());
        most = most.max(memory_kb());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in flood {
        task.await.unwrap();
    }
    let sent = times.len();
    bob.eventually("all came", |bob| bob.seqs().len() == sent).await;
    times.sort_unstable();
    let p99 = times[sent * 99 / 100];
    let (refused, closed) = (refused.load(Ordering::Relaxed), closed.load(Ordering::Relaxed));
    println!("p99 {p99:?} of {sent}, {refused} requests refused, {closed} sockets closed, {before} to {most} KB");
    assert!(refused > 100 && closed > 0, "{refused} requests refused, {closed} sockets closed");
    assert!(p99 < Duration::from_millis(100), "p99 of the others {p99:?}");
    assert!(most < before + 32 * 1024, "memory rose from {before} to {most} KB");
    cluster.stop().await;
}
