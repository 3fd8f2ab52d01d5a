//! The cases of the public Engine.IO 3 suite.
#![allow(clippy::unwrap_used)] // an unwrap in a test is an assertion

mod server;

use server::{Server, open};
use tokio_tungstenite::tungstenite::Message;

const POLLING: &str = "EIO=3&transport=polling";
const WEBSOCKET: &str = "EIO=3&transport=websocket";

async fn session(server: &Server, b64: &str) -> String {
    let response = server.get(&format!("{POLLING}{b64}")).await;
    let (_, packet) = response.text().split_once(':').unwrap();
    let sid = open(packet)["sid"].as_str().unwrap().to_owned();
    format!("sid={sid}{b64}")
}

fn check_open(packet: &str, upgrades: serde_json::Value) {
    let value = open(packet);
    assert!(value["sid"].is_string());
    assert_eq!(value["upgrades"], upgrades);
    assert_eq!(value["pingInterval"], 300);
    assert_eq!(value["pingTimeout"], 200);
}

#[tokio::test]
async fn handshake_polling_opens_a_session() {
    let server = Server::suite().await;
    let response = server.get(POLLING).await;
    assert_eq!(response.status, 200);
    let (length, packet) = response.text().split_once(':').unwrap();
    assert_eq!(length, packet.len().to_string());
    check_open(packet, serde_json::json!(["websocket"]));
}

#[tokio::test]
async fn handshake_polling_fails_with_an_invalid_transport() {
    let server = Server::suite().await;
    assert_eq!(server.get("EIO=3").await.status, 400);
    assert_eq!(server.get("EIO=3&transport=abc").await.status, 400);
}

#[tokio::test]
async fn handshake_polling_fails_with_an_invalid_method() {
    let server = Server::suite().await;
    assert_eq!(server.post(POLLING, "").await.status, 400);
}

#[tokio::test]
async fn jsonp_is_refused() {
    let server = Server::suite().await;
    assert_eq!(server.get(&format!("{POLLING}&j=0")).await.status, 400);
}

#[tokio::test]
async fn handshake_websocket_opens_a_session() {
    let server = Server::suite().await;
    let mut client = server.websocket(WEBSOCKET).await;
    check_open(&client.text().await, serde_json::json!([]));
}

#[tokio::test]
async fn handshake_websocket_fails_with_an_invalid_transport() {
    let server = Server::suite().await;
    assert_eq!(server.websocket_refused("EIO=3").await, 400);
    assert_eq!(server.websocket_refused("EIO=3&transport=abc").await, 400);
}

async fn echo(body: &str) {
    let server = Server::suite().await;
    let sid = session(&server, "&b64=1").await;
    let query = format!("{POLLING}&{sid}");
    let push = server.post(&query, body).await;
    assert_eq!((push.status, push.text()), (200, "ok"));
    let poll = server.get(&query).await;
    assert_eq!((poll.status, poll.text()), (200, body));
}

#[tokio::test]
async fn message_polling_one_text_packet() {
    echo("6:4hello").await;
}

#[tokio::test]
async fn message_polling_several_text_packets() {
    echo("6:4test16:4test26:4test3").await;
}

#[tokio::test]
async fn message_polling_text_and_binary_packets_in_base64() {
    echo("6:4hello10:b4AQIDBA==").await;
}

#[tokio::test]
async fn message_polling_any_character() {
    echo("2:4€3:4😀2:4é").await;
}

#[tokio::test]
async fn message_polling_text_and_binary_packets_in_the_binary_form() {
    let server = Server::suite().await;
    let sid = session(&server, "").await;
    let query = format!("{POLLING}&{sid}");
    let binary = [
        0, 6, 255, 52, 104, 101, 108, 108, 111, 1, 5, 255, 4, 1, 2, 3, 4,
    ];
    assert_eq!(
        server.post(&query, "6:4hello10:b4AQIDBA==").await.status,
        200
    );
    let poll = server.get(&query).await;
    assert_eq!(poll.body, binary);
    assert!(poll.head.contains("content-type: application/octet-stream"));
    // The same form is accepted from the client.
    let headers = "content-type: application/octet-stream\r\n";
    assert_eq!(
        server
            .request("POST", &query, headers, &binary)
            .await
            .status,
        200
    );
    assert_eq!(server.get(&query).await.body, binary);
}

#[tokio::test]
async fn message_polling_an_invalid_packet_closes_the_session() {
    let server = Server::suite().await;
    let sid = session(&server, "").await;
    let query = format!("{POLLING}&{sid}");
    assert_eq!(server.post(&query, "abc").await.status, 400);
    assert_eq!(server.get(&query).await.status, 400);
}

#[tokio::test]
async fn message_polling_duplicate_polls_close_the_session() {
    let server = Server::suite().await;
    let sid = session(&server, "").await;
    let query = format!("{POLLING}&{sid}");
    let (first, second) = tokio::join!(server.get(&query), server.get(&query));
    let ended = if first.status == 200 { &first } else { &second };
    assert_eq!((ended.status, ended.text()), (200, "1:1"));
    assert_eq!(server.get(&query).await.status, 400);
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
async fn message_websocket_binary_begins_with_its_type() {
    use futures_util::SinkExt;
    let server = Server::suite().await;
    let mut client = server.websocket(WEBSOCKET).await;
    client.text().await;
    client
        .0
        .send(Message::binary(vec![4, 1, 2, 3, 4]))
        .await
        .unwrap();
    assert_eq!(
        client.next().await,
        Some(Message::binary(vec![4, 1, 2, 3, 4]))
    );
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
async fn heartbeat_polling_pings_and_pongs() {
    let server = Server::suite().await;
    let sid = session(&server, "").await;
    let query = format!("{POLLING}&{sid}");
    for _ in 0..3 {
        assert_eq!(server.post(&query, "1:2").await.status, 200);
        let poll = server.get(&query).await;
        assert_eq!((poll.status, poll.text()), (200, "1:3"));
    }
}

#[tokio::test]
async fn heartbeat_polling_silence_closes_the_session() {
    let mut server = Server::suite().await;
    let sid = session(&server, "").await;
    let reason = server.disconnected().await.1;
    assert_eq!(reason, engineioxide::DisconnectReason::HeartbeatTimeout);
    assert_eq!(
        server.post(&format!("{POLLING}&{sid}"), "1:2").await.status,
        400
    );
}

#[tokio::test]
async fn heartbeat_websocket_pings_and_pongs() {
    let server = Server::suite().await;
    let mut client = server.websocket(WEBSOCKET).await;
    client.text().await;
    for _ in 0..3 {
        client.send("2").await;
        assert_eq!(client.text().await, "3");
    }
}

#[tokio::test]
async fn heartbeat_websocket_silence_closes_the_session() {
    let mut server = Server::suite().await;
    let mut client = server.websocket(WEBSOCKET).await;
    client.closed().await;
    let reason = server.disconnected().await.1;
    assert_eq!(reason, engineioxide::DisconnectReason::HeartbeatTimeout);
}

#[tokio::test]
async fn close_polling() {
    let server = Server::suite().await;
    let sid = session(&server, "").await;
    let query = format!("{POLLING}&{sid}");
    assert_eq!(server.post(&query, "1:1").await.status, 200);
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
    let sid = session(&server, "").await;
    let mut client = server.websocket(&format!("{WEBSOCKET}&{sid}")).await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    let poll = server.get(&format!("{POLLING}&{sid}")).await;
    assert_eq!((poll.status, poll.text()), (200, "1:6"));
    client.send("5").await;
    client.send("4hello").await;
    assert_eq!(client.text().await, "4hello");
}

#[tokio::test]
async fn upgrade_refuses_further_polls_and_websockets() {
    let server = Server::suite().await;
    let sid = session(&server, "").await;
    let query = format!("{WEBSOCKET}&{sid}");
    let mut client = server.websocket(&query).await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    client.send("5").await;
    client.send("4hello").await;
    assert_eq!(client.text().await, "4hello");
    assert_eq!(server.get(&format!("{POLLING}&{sid}")).await.status, 400);
    server.websocket(&query).await.closed().await;
    client.send("4again").await;
    assert_eq!(client.text().await, "4again");
}
