//! The cases of the public Engine.IO 4 suite, and further requirements of the specification.
#![allow(clippy::unwrap_used)] // an unwrap in a test is an assertion

mod server;

use server::{Server, open};
use tokio_tungstenite::tungstenite::Message;

const POLLING: &str = "EIO=4&transport=polling";
const WEBSOCKET: &str = "EIO=4&transport=websocket";

async fn session(server: &Server) -> String {
    let response = server.get(POLLING).await;
    open(response.text())["sid"].as_str().unwrap().to_owned()
}

fn polling(sid: &str) -> String {
    format!("{POLLING}&sid={sid}")
}

fn check_open(packet: &str, upgrades: serde_json::Value) {
    let value = open(packet);
    let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "maxPayload",
            "pingInterval",
            "pingTimeout",
            "sid",
            "upgrades"
        ]
    );
    assert_eq!(value["upgrades"], upgrades);
    assert_eq!(value["pingInterval"], 300);
    assert_eq!(value["pingTimeout"], 200);
    assert_eq!(value["maxPayload"], 1_000_000);
}

#[tokio::test]
async fn handshake_polling_opens_a_session() {
    let server = Server::suite().await;
    let response = server.get(POLLING).await;
    assert_eq!(response.status, 200);
    assert!(
        response
            .head
            .contains("content-type: text/plain; charset=utf-8")
    );
    check_open(response.text(), serde_json::json!(["websocket"]));
}

#[tokio::test]
async fn handshake_polling_fails_with_an_invalid_eio() {
    let server = Server::suite().await;
    let response = server.get("EIO=abc&transport=polling").await;
    assert_eq!((response.status, response.code()), (400, 5));
}

#[tokio::test]
async fn handshake_polling_fails_with_an_invalid_transport() {
    let server = Server::suite().await;
    for query in ["EIO=4", "EIO=4&transport=abc"] {
        let response = server.get(query).await;
        assert_eq!((response.status, response.code()), (400, 0));
    }
}

#[tokio::test]
async fn handshake_polling_fails_with_an_invalid_method() {
    let server = Server::suite().await;
    for method in ["POST", "PUT"] {
        let response = server.request(method, POLLING, "", b"").await;
        assert_eq!((response.status, response.code()), (400, 2));
    }
}

#[tokio::test]
async fn an_unknown_session_is_refused() {
    let server = Server::suite().await;
    for sid in ["abc", "AAAAAAAAAAAAAAAA", "%F0%9F%98%80"] {
        let response = server.get(&polling(sid)).await;
        assert_eq!((response.status, response.code()), (400, 1), "{sid}");
    }
}

#[tokio::test]
async fn handshake_websocket_opens_a_session() {
    let server = Server::suite().await;
    let mut client = server.websocket(WEBSOCKET).await;
    check_open(&client.text().await, serde_json::json!([]));
}

#[tokio::test]
async fn handshake_websocket_fails_with_an_invalid_eio() {
    let server = Server::suite().await;
    let query = "EIO=abc&transport=websocket";
    assert_eq!(server.websocket_refused(query).await, 400);
}

#[tokio::test]
async fn handshake_websocket_fails_with_an_invalid_transport() {
    let server = Server::suite().await;
    for query in ["EIO=4", "EIO=4&transport=abc"] {
        assert_eq!(server.websocket_refused(query).await, 400);
    }
}

#[tokio::test]
async fn handshake_websocket_requires_an_upgrade_of_version_13() {
    let server = Server::suite().await;
    let response = server.get(WEBSOCKET).await;
    assert_eq!((response.status, response.code()), (400, 3));
    let headers = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 8\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let response = server.request("GET", WEBSOCKET, headers, b"").await;
    assert_eq!(response.status, 426);
    assert!(response.head.contains("sec-websocket-version: 13"));
}

async fn echo(body: &str) {
    let server = Server::suite().await;
    let sid = session(&server).await;
    let push = server.post(&polling(&sid), body).await;
    assert_eq!((push.status, push.text()), (200, "ok"));
    let poll = server.get(&polling(&sid)).await;
    assert_eq!((poll.status, poll.text()), (200, body));
}

#[tokio::test]
async fn message_polling_one_text_packet() {
    echo("4hello").await;
}

#[tokio::test]
async fn message_polling_several_text_packets() {
    echo("4test1\x1e4test2\x1e4test3").await;
}

#[tokio::test]
async fn message_polling_text_and_binary_packets() {
    echo("4hello\x1ebAQIDBA==").await;
}

#[tokio::test]
async fn message_polling_any_character() {
    echo("4€\x1e4😀\u{10FFFF}").await;
}

#[tokio::test]
async fn message_polling_an_invalid_packet_closes_the_session() {
    let server = Server::suite().await;
    for body in [&b"abc"[..], b"4\xFF\xFE", b""] {
        let sid = session(&server).await;
        assert_eq!(server.post(&polling(&sid), body).await.status, 400);
        assert_eq!(server.get(&polling(&sid)).await.status, 400);
    }
}

#[tokio::test]
async fn message_polling_a_body_beyond_the_limit_is_refused_and_closes_the_session() {
    let mut server = Server::suite().await;
    let sid = session(&server).await;
    let response = server.post(&polling(&sid), vec![b'4'; 1_000_001]).await;
    assert_eq!(response.status, 413);
    let reason = server.disconnected().await.1;
    assert_eq!(reason, engineioxide::DisconnectReason::PacketParsingError);
    // The limit applies to a body without a Content-Length, too.
    let sid = session(&server).await;
    let mut chunked = b"1\r\n4\r\n".to_vec();
    for _ in 0..20 {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.extend_from_slice(&[b'x'; 0x10000]);
        chunked.extend_from_slice(b"\r\n");
    }
    let response = post_chunked(&server, &polling(&sid), &chunked).await;
    assert!(response.starts_with("HTTP/1.1 413"), "{response}");
}

async fn post_chunked(server: &Server, query: &str, chunked: &[u8]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let (mut read, mut write) = stream.into_split();
    let head = format!(
        "POST /engine.io/?{query} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let chunked = [head.as_bytes(), chunked].concat();
    tokio::spawn(async move { write.write_all(&chunked).await.ok() });
    let mut answer = [0; 64];
    let n = tokio::time::timeout(server::SOON, read.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&answer[..n]).into_owned()
}

#[tokio::test]
async fn message_polling_duplicate_polls_close_the_session() {
    let mut server = Server::suite().await;
    let sid = session(&server).await;
    let query = polling(&sid);
    // The order of the two requests is undefined, but exactly one gets the close packet.
    let (first, second) = tokio::join!(server.get(&query), server.get(&query));
    let mut statuses = [first.status, second.status];
    statuses.sort();
    assert_eq!(statuses, [200, 400]);
    assert_eq!(
        if first.status == 200 {
            first.text()
        } else {
            second.text()
        },
        "1"
    );
    assert_eq!(server.get(&query).await.status, 400);
    let reason = server.disconnected().await.1;
    assert_eq!(
        reason,
        engineioxide::DisconnectReason::MultipleHttpPollingError
    );
}

#[tokio::test]
async fn message_websocket_text() {
    let server = Server::suite().await;
    let mut client = server.websocket(WEBSOCKET).await;
    client.text().await;
    client.send("4hello").await;
    assert_eq!(client.text().await, "4hello");
}

#[tokio::test]
async fn message_websocket_binary() {
    use futures_util::SinkExt;
    let server = Server::suite().await;
    let mut client = server.websocket(WEBSOCKET).await;
    client.text().await;
    client
        .0
        .send(Message::binary(vec![1, 2, 3, 4]))
        .await
        .unwrap();
    assert_eq!(client.next().await, Some(Message::binary(vec![1, 2, 3, 4])));
}

#[tokio::test]
async fn message_websocket_an_invalid_packet_closes_the_session() {
    let mut server = Server::suite().await;
    let mut client = server.websocket(WEBSOCKET).await;
    client.text().await;
    client.send("abc").await;
    assert_eq!(client.closed().await, Some(1002));
    let reason = server.disconnected().await.1;
    assert_eq!(reason, engineioxide::DisconnectReason::PacketParsingError);
}

#[tokio::test]
async fn message_websocket_beyond_the_limit_closes_with_1009() {
    let server = Server::suite().await;
    let mut client = server.websocket(WEBSOCKET).await;
    client.text().await;
    use futures_util::SinkExt;
    client
        .0
        .send(Message::text("4".repeat(1_000_001)))
        .await
        .ok();
    assert_eq!(client.closed().await, Some(1009));
}

#[tokio::test]
async fn heartbeat_polling_pings_and_pongs() {
    let server = Server::suite().await;
    let sid = session(&server).await;
    for _ in 0..3 {
        let poll = server.get(&polling(&sid)).await;
        assert_eq!((poll.status, poll.text()), (200, "2"));
        assert_eq!(server.post(&polling(&sid), "3").await.status, 200);
    }
}

#[tokio::test]
async fn heartbeat_polling_without_a_pong_closes_the_session() {
    let mut server = Server::suite().await;
    let sid = session(&server).await;
    let begun = tokio::time::Instant::now();
    let reason = server.disconnected().await.1;
    assert_eq!(reason, engineioxide::DisconnectReason::HeartbeatTimeout);
    assert!(begun.elapsed() > server::PING_INTERVAL);
    assert_eq!(server.get(&polling(&sid)).await.status, 400);
    assert_eq!(server.control.counters().heartbeat_timeouts, 1);
}

#[tokio::test]
async fn heartbeat_websocket_pings_and_pongs() {
    let server = Server::suite().await;
    let mut client = server.websocket(WEBSOCKET).await;
    client.text().await;
    for _ in 0..3 {
        assert_eq!(client.text().await, "2");
        client.send("3").await;
    }
}

#[tokio::test]
async fn heartbeat_websocket_without_a_pong_closes_the_session() {
    let mut server = Server::suite().await;
    let mut client = server.websocket(WEBSOCKET).await;
    client.closed().await;
    let reason = server.disconnected().await.1;
    assert_eq!(reason, engineioxide::DisconnectReason::HeartbeatTimeout);
}

#[tokio::test]
async fn close_polling() {
    let server = Server::suite().await;
    let sid = session(&server).await;
    let query = polling(&sid);
    let (poll, _) = server.get_then(&query, server.post(&query, "1")).await;
    assert_eq!((poll.status, poll.text()), (200, "6"));
    assert_eq!(server.get(&query).await.status, 400);
}

#[tokio::test]
async fn close_websocket() {
    let mut server = Server::suite().await;
    let mut client = server.websocket(WEBSOCKET).await;
    client.text().await;
    client.send("1").await;
    client.closed().await;
    let reason = server.disconnected().await.1;
    assert_eq!(reason, engineioxide::DisconnectReason::TransportClose);
}

#[tokio::test]
async fn upgrade_succeeds() {
    let server = Server::suite().await;
    let sid = session(&server).await;
    let mut client = server.websocket(&format!("{WEBSOCKET}&sid={sid}")).await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    let poll = server.get(&polling(&sid)).await;
    assert_eq!((poll.status, poll.text()), (200, "6"));
    client.send("5").await;
    client.send("4hello").await;
    assert_eq!(client.text().await, "4hello");
}

#[tokio::test]
async fn upgrade_refuses_further_polls_and_posts() {
    let server = Server::suite().await;
    let sid = session(&server).await;
    let mut client = server.websocket(&format!("{WEBSOCKET}&sid={sid}")).await;
    client.send("2probe").await;
    client.send("5").await;
    client.send("4before").await;
    assert_eq!(client.text().await, "3probe");
    assert_eq!(client.text().await, "4before");
    assert_eq!(server.get(&polling(&sid)).await.status, 400);
    assert_eq!(server.post(&polling(&sid), "4x").await.status, 400);
    client.send("4hello").await;
    assert_eq!(client.text().await, "4hello");
}

#[tokio::test]
async fn upgrade_closes_a_second_websocket() {
    let server = Server::suite().await;
    let sid = session(&server).await;
    let query = format!("{WEBSOCKET}&sid={sid}");
    let mut client = server.websocket(&query).await;
    client.send("2probe").await;
    client.send("5").await;
    assert_eq!(client.text().await, "3probe");
    let mut second = server.websocket(&query).await;
    second.closed().await;
    client.send("4hello").await;
    assert_eq!(client.text().await, "4hello");
}

#[tokio::test]
async fn other_paths_go_to_the_inner_service() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::suite().await;
    let mut stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    stream
        .write_all(b"GET /other HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"));
}
