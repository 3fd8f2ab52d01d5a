//! A flood from one address, over every transport: other clients are not slowed, and the node's
//! memory stays flat.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use hubbub_test_support::client::Client;
use hubbub_test_support::node::Cluster;

/// Connections of the flood, of each kind.
const FLOODERS: usize = 4;
const SECONDS: u64 = 5;
/// Pause between two requests, or fifty events, of one flooding connection: the flood must load the
/// node, not the machine.
const PAUSE: Duration = Duration::from_millis(5);

/// Connects from another address of this machine.
async fn from_elsewhere(address: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 9], 0).into())?;
    socket.connect(address).await
}

/// Sends requests until `stop` is set; counts the answers with status 429.
async fn request_without_end(
    address: SocketAddr,
    request: &str,
    stop: &AtomicBool,
    refused: &AtomicUsize,
) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let request = format!("{head}\r\nhost: {address}\r\nconnection: close\r\n\r\n{body}");
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = from_elsewhere(address).await else {
            continue;
        };
        let mut answer = String::new();
        if stream.write_all(request.as_bytes()).await.is_ok()
            && stream.read_to_string(&mut answer).await.is_ok()
        {
            refused.fetch_add(
                usize::from(answer.starts_with("HTTP/1.1 429")),
                Ordering::Relaxed,
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Sends events over one WebSocket after the other, and reads the answers.
async fn emit_without_end(address: SocketAddr, stop: &AtomicBool, closed: &AtomicUsize) {
    use futures_util::{SinkExt, StreamExt, stream};
    use tokio_tungstenite::tungstenite::Message;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(PAUSE).await;
        let Ok(stream) = from_elsewhere(address).await else {
            continue;
        };
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let Ok((socket, _)) = tokio_tungstenite::client_async(url, stream).await else {
            continue;
        };
        let (mut sink, mut source) = socket.split();
        let reading = tokio::spawn(async move { while let Some(Ok(_)) = source.next().await {} });
        let _ = sink.send(Message::text("40")).await;
        let _ = sink
            .send(Message::text(
                "420[\"authenticate\",{\"user_id\":\"flood\"}]",
            ))
            .await;
        let events = || {
            stream::repeat_with(|| Ok(Message::text("42[\"typing\",{\"room_id\":\"r\"}]"))).take(50)
        };
        while !stop.load(Ordering::Relaxed) && sink.send_all(&mut events()).await.is_ok() {
            tokio::time::sleep(PAUSE).await;
        }
        closed.fetch_add(
            usize::from(!stop.load(Ordering::Relaxed)),
            Ordering::Relaxed,
        );
        reading.abort();
    }
}

/// Resident memory of this process, in KB.
fn memory_kb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Sends messages one after the other; returns the p99 of the time to the acknowledgement, their
/// number, and the peak memory meanwhile in KB.
async fn send_messages(client: &Client, over: Duration) -> (Duration, usize, usize) {
    let (began, mut times, mut most) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < over {
        let sent = Instant::now();
        client
            .done(
                "message",
                json!({"room_id": "room", "content": "in the flood"}),
            )
            .await;
        times.push(sent.elapsed());
        most = most.max(memory_kb());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    times.sort_unstable();
    (times[times.len() * 99 / 100], times.len(), most)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_one_address_does_not_slow_down_other_clients() {
    let limits = [
        ("TRUSTED_PROXIES", "none"),
        ("RATE_IP_EVENTS_PER_SEC", "50"),
        ("RATE_IP_HANDSHAKES_PER_SEC", "5"),
        ("MAX_RATE_REFUSALS", "200"),
        ("RATE_USER_CONNECTS_PER_SEC", "0"),
    ];
    let cluster = Cluster::alone(&limits).await;
    let address = cluster.address(0);
    // From 127.0.0.1, and below the rate of that address.
    let (ann, bob) = (
        Client::member(address, "ann", "room").await,
        Client::member(address, "bob", "room").await,
    );
    // The machine's latency without the flood, as the reference.
    let (calm, sent_before, before) = send_messages(&ann, Duration::from_secs(2)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (refused, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let post = "POST /messages HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 31\r\n\r\n{\"room_id\":\"r\",\"content\":\"x\"}  ";
    let handshake = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n\r\n";
    // On a thread of its own, so that it slows down the others only through the node.
    let attacker = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut flood = Vec::new();
    for _ in 0..FLOODERS {
        for request in [post, handshake] {
            let (stop, refused) = (stop.clone(), refused.clone());
            flood.push(attacker.spawn(async move {
                request_without_end(address, request, &stop, &refused).await
            }));
        }
        let (stop, closed) = (stop.clone(), closed.clone());
        flood.push(attacker.spawn(async move { emit_without_end(address, &stop, &closed).await }));
    }
    let (p99, sent, most) = send_messages(&ann, Duration::from_secs(SECONDS)).await;
    stop.store(true, Ordering::Relaxed);
    for task in flood {
        task.await.unwrap();
    }
    attacker.shutdown_background();
    bob.eventually("all came", |bob| bob.seqs().len() == sent + sent_before)
        .await;
    let (refused, closed) = (
        refused.load(Ordering::Relaxed),
        closed.load(Ordering::Relaxed),
    );
    println!(
        "p99 {p99:?} of {sent}, undisturbed {calm:?}, {refused} requests refused, {closed} sockets closed, {before} to {most} KB"
    );
    assert!(
        refused > 20 && closed > 0,
        "{refused} requests refused, {closed} sockets closed"
    );
    assert!(
        p99 < Duration::from_millis(100).max(10 * calm),
        "p99 of the others {p99:?}, undisturbed {calm:?}"
    );
    assert!(
        most < before + 32 * 1024,
        "memory rose from {before} to {most} KB"
    );
    cluster.stop().await;
}
