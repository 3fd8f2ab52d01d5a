//! A client that does not read for a while receives everything when it reads again, over TCP and
//! TLS, whether tasks or the write scheduler write to it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::tls::member;
use hubbub_test_support::certificates::Pair;
use hubbub_test_support::client::Client;
use hubbub_test_support::node::{metric, start};

const TIMEOUT: Duration = Duration::from_secs(20);
const SHORT: usize = 600;
const MESSAGES: usize = 1600;

/// Length of the n-th message. Short ones first, which the system accepts whole or not at all, and
/// soon not at all, because it holds at most 64 KiB of unsent data; then more bytes than all
/// buffers hold, of many lengths, so that writes end anywhere in a message.
fn length(n: usize) -> usize {
    if n < SHORT {
        1 + n * 37 % 300
    } else {
        15_000 + n * 37 % 1_000
    }
}

/// Joins, reads nothing while `ann` sends many messages, and then reads all of them.
async fn read_late<S: AsyncRead + AsyncWrite + Unpin>(mut slow: WebSocketStream<S>, ann: &Client) {
    for text in [
        "40",
        r#"42["authenticate",{"user_id":"bob"}]"#,
        r#"421["join",{"room_id":"r"}]"#,
    ] {
        slow.send(Message::text(text)).await.unwrap();
    }
    while !slow
        .next()
        .await
        .unwrap()
        .unwrap()
        .to_text()
        .unwrap()
        .starts_with("431[{\"ok\":true")
    {}
    for n in 0..MESSAGES {
        let content = "x".repeat(length(n));
        ann.done("message", json!({"room_id": "r", "content": content}))
            .await;
    }
    let mut seqs = Vec::new();
    while seqs.len() < MESSAGES {
        let message = tokio::time::timeout(TIMEOUT, slow.next())
            .await
            .expect("the slow reader keeps receiving")
            .unwrap()
            .unwrap();
        let text = message.to_text().unwrap();
        if let Some(json) = text.strip_prefix(r#"42["message","#) {
            let message: serde_json::Value = serde_json::from_str(&json[..json.len() - 1]).unwrap();
            assert_eq!(
                message["content"].as_str().unwrap().len(),
                length(seqs.len())
            );
            seqs.push(message["seq"].as_u64().unwrap());
        }
    }
    assert_eq!(seqs, (1..=MESSAGES as u64).collect::<Vec<_>>());
}

/// On a node in the test's own runtime, with or without TLS.
async fn slow_reader_receives_everything(in_tls: bool) {
    let pair = Pair::generate();
    let (certificate, key) = (pair.path("cert.pem"), pair.path("key.pem"));
    let limits = [
        ("MAX_OUTBOX_BYTES", "67108864"),
        ("RATE_EVENTS_PER_SEC", "0"),
        ("RATE_BYTES_PER_SEC", "0"),
    ];
    let users = [
        ("RATE_USER_EVENTS_PER_SEC", "0"),
        ("RATE_USER_BYTES_PER_SEC", "0"),
        ("METRICS_ADDR", "127.0.0.1:0"),
    ];
    // No timeout closes the slow reader, however slow this machine is.
    let patience = [
        ("WRITE_TIMEOUT_SECS", "120"),
        ("PING_INTERVAL_MS", "120000"),
    ];
    let files = [("TLS_CERT", &*certificate), ("TLS_KEY", &*key)];
    let files = if in_tls { &files[..] } else { &[] };
    let node = start(&[&limits[..], &users, &patience, files].concat()).await;
    // With a small receive buffer, which fills up soon.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16_384).unwrap();
    let slow = socket.connect(node.address()).await.unwrap();
    let path = "localhost/socket.io/?EIO=4&transport=websocket";
    if in_tls {
        let client = pair.client(&[]);
        let slow = client
            .connect("localhost".try_into().unwrap(), slow)
            .await
            .unwrap();
        let (slow, _) = tokio_tungstenite::client_async(format!("wss://{path}"), slow)
            .await
            .unwrap();
        read_late(slow, &member(node.address(), &client, "ann").await).await;
    } else {
        let (slow, _) = tokio_tungstenite::client_async(format!("ws://{path}"), slow)
            .await
            .unwrap();
        read_late(slow, &Client::member(node.address(), "ann", "r").await).await;
    }
    let boxed = metric(
        node.metrics_address().unwrap(),
        "hubbub_websockets_boxed_total",
    )
    .await;
    assert_eq!(boxed, 0, "sessions ran on the stream that hyper returns");
    node.drain(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_receives_everything_written_by_tasks() {
    slow_reader_receives_everything(false).await;
}

#[tokio::test]
async fn a_slow_reader_receives_everything_written_by_the_scheduler() {
    slow_reader_receives_everything(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_over_tls_receives_everything_written_by_tasks() {
    slow_reader_receives_everything(true).await;
}

#[tokio::test]
async fn a_slow_reader_over_tls_receives_everything_written_by_the_scheduler() {
    slow_reader_receives_everything(true).await;
}
