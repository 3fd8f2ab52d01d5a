//! Published vulnerabilities of Socket.IO, Engine.IO, WebSocket and HTTP servers. Each test attacks
//! a whole node and is named after the vulnerability. docs/security.md lists them, and those that
//! do not apply.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::raw::{DEADLINE, Polling, Raw, Response, Witness, frame, node, request};
use hubbub_test_support::node::Cluster;

const SECRET: &str = "a secret of more than thirty-two bytes";
const MESSAGES: &str = "content-type: application/json\r\n";

/// The connection is still open, and its requests are answered.
async fn assert_still_open(client: &mut Raw) {
    client.send_text("429[\"history\",5]").await;
    let text = client.next_text().await;
    assert!(text.starts_with("439["), "{text}");
}

/// Engine.IO: the memory and time for a body of hundreds of thousands of packets, whose lengths
/// count code units, grew with the square of its size. Here the packets are decoded one by one, in
/// slices.
#[tokio::test]
async fn cve_2020_36048_engine_io_payload_of_tiny_packets() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let began = Instant::now();
    for (version, packet) in [
        (3, "2:6\u{BC}"),
        (3, "1:6"),
        (4, "6\u{BC}\x1e6"),
        (4, "6\x1e6"),
    ] {
        let session = Polling::begin(address, version).await;
        let body = if version == 3 {
            packet.repeat((1 << 20) / packet.len())
        } else {
            vec![packet; (1 << 20) / (packet.len() + 1)].join("\x1e")
        };
        assert_eq!(session.post(body).await.body, "ok");
        witness.is_unaffected().await;
    }
    assert!(began.elapsed() < DEADLINE);
    node.stop().await;
}

/// socket.io-parser: a packet was assembled character by character. Here its parts are slices.
#[tokio::test]
async fn cve_2020_36049_socket_io_parser_large_packets() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let megabyte_of = |text: &str| text.repeat(1_000_000 / text.len());
    for packet in [
        format!("42/{},[\"x\"]", megabyte_of("a")),
        format!("42/{}", megabyte_of("/")),
        format!("42{}[\"x\"]", megabyte_of("1")),
        format!("45{}-[\"x\"]", megabyte_of("9")),
        format!("42[\"{}\"]", megabyte_of("a")),
        format!("42[\"x\",\"{}\"]", megabyte_of("\\u00e9")),
        format!("42[\"x\",{}]", megabyte_of("[],").trim_end_matches(',')),
    ] {
        let mut attacker = Raw::authenticated(address).await;
        attacker.send_text(&packet).await;
        attacker.send_text("41").await;
        drop(attacker);
        witness.is_unaffected().await;
    }
    node.stop().await;
}

/// socket.io-parser: `num` of a placeholder could be the name of a method, which then became part
/// of the payload. Here no event accepts attachments, and placeholders are never replaced.
#[tokio::test]
async fn cve_2022_2421_socket_io_parser_attachment_type() {
    let node = node(&[]).await;
    let mut attacker = Raw::authenticated(node.address(0)).await;
    for num in [
        "\"splice\"",
        "\"__proto__\"",
        "{\"toString\":\"x\"}",
        "1.5",
        "-1",
        "1e300",
        "null",
        "[0]",
        "true",
    ] {
        attacker
            .send_text(&format!(
                "451-1[\"message\",{{\"_placeholder\":true,\"num\":{num}}}]"
            ))
            .await;
        attacker.write(frame(0x82, b"x")).await;
        let text = attacker.next_text().await;
        assert!(
            text.starts_with("431[{\"ok\":false,\"code\":\"bad_request\""),
            "{num}: {text}"
        );
    }
    assert_still_open(&mut attacker).await;
    node.stop().await;
}

/// Engine.IO: an upgrade that was refused while its peer reset the connection caused an uncaught
/// error.
#[tokio::test]
async fn cve_2022_41940_engine_io_refused_upgrades_that_are_reset() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    for query in [
        "",
        "EIO=4&transport=websocket&sid=unknown",
        "EIO=2&transport=websocket",
        "transport=foo",
        "EIO=4&transport=websocket",
    ] {
        for _ in 0..20 {
            let mut raw = Raw::open(address).await;
            // Dropping the socket resets the connection.
            raw.0.set_zero_linger().unwrap();
            raw.write(format!(
                "GET /socket.io/?{query} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ))
            .await;
        }
        witness.is_unaffected().await;
    }
    node.stop().await;
}

/// Engine.IO: an invalid frame right after the handshake arrived before the error handler was
/// registered.
#[tokio::test]
async fn cve_2022_21676_engine_io_an_invalid_frame_right_after_the_handshake() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let session = Polling::begin(address, 4).await;
    for query in [
        "EIO=4&transport=websocket",
        "EIO=3&transport=websocket",
        &session.query.replace("polling", "websocket"),
    ] {
        let mut attacker = Raw::open(address).await;
        let head = format!(
            "GET /socket.io/?{query} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        attacker
            .write([head.as_bytes(), &frame(0xB1, b"x")].concat())
            .await;
        assert_eq!(attacker.response().await.unwrap().status, 101);
        assert_eq!(attacker.close_code().await, Some(1002), "{query}");
        witness.is_unaffected().await;
    }
    node.stop().await;
}

/// Engine.IO: parameters that are not strings, and names of properties that every JavaScript object
/// has.
#[tokio::test]
async fn cve_2023_31125_engine_io_odd_parameters() {
    let node = node(&[]).await;
    let address = node.address(0);
    for query in [
        "EIO=4&transport=__proto__",
        "EIO=4&transport=constructor",
        "EIO=4&transport=hasOwnProperty",
        "EIO=4&transport[]=polling",
        "EIO=4&transport=polling&transport=toString",
        "EIO=4&EIO=__proto__&transport=polling",
        "EIO=4&transport=polling&sid=__proto__",
        "EIO=4&transport=polling&j=0",
        "EIO=4&transport=%00",
        "&&&===&&&",
    ] {
        let response = request(address, "GET", &format!("/socket.io/?{query}"), "", b"").await;
        assert_eq!(response.status, 400, "{query}: {response:?}");
    }
    // Unknown parameters are ignored: without `EIO` a session has protocol 3, and an empty `sid`
    // counts as none.
    for (query, start) in [
        ("EIO=4&transport=polling&sid[]=x", "0{"),
        ("EIO=4&transport=polling&sid", "0{"),
        ("EIO[]=4&transport=polling", "114:0{"),
        ("%45IO=4&transport=polling", "114:0{"),
    ] {
        let response = request(address, "GET", &format!("/socket.io/?{query}"), "", b"").await;
        assert_eq!(response.status, 200, "{query}: {response:?}");
        assert!(response.body.starts_with(start), "{query}: {response:?}");
    }
    node.stop().await;
}

/// socket.io-parser: an event's name could be an object, which threw when it was used as a string.
#[tokio::test]
async fn cve_2023_32695_socket_io_parser_event_names() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    for name in [
        "{\"toString\":\"foo\"}",
        "{}",
        "[]",
        "[[]]",
        "null",
        "5",
        "true",
        "",
        "{\"_placeholder\":true,\"num\":0}",
    ] {
        let mut attacker = Raw::authenticated(address).await;
        attacker.send_text(&format!("421[{name}]")).await;
        assert!(attacker.next_text().await.contains("bad_request"), "{name}");
    }
    for name in [
        "\"__proto__\"",
        "\"\"",
        "\"constructor\"",
        "\"hasOwnProperty\"",
    ] {
        let mut attacker = Raw::authenticated(address).await;
        attacker.send_text(&format!("421[{name}]")).await;
        assert!(
            attacker.next_text().await.contains("unknown_event"),
            "{name}"
        );
    }
    witness.is_unaffected().await;
    node.stop().await;
}

/// Socket.IO: an event with the reserved name `error` ended the process.
#[tokio::test]
async fn cve_2024_38355_socket_io_reserved_names() {
    let node = node(&[]).await;
    let mut attacker = Raw::authenticated(node.address(0)).await;
    for name in [
        "error",
        "connect",
        "connect_error",
        "disconnect",
        "disconnecting",
        "newListener",
        "removeListener",
    ] {
        attacker.send_text(&format!("421[\"{name}\",\"x\"]")).await;
        assert!(
            attacker.next_text().await.contains("unknown_event"),
            "{name}"
        );
    }
    assert_still_open(&mut attacker).await;
    node.stop().await;
}

/// socket.io-parser, March 2026: any number of attachments could be announced, and all that arrived
/// were stored. Here at most 1000 may be announced, with at most the bytes of one packet.
#[tokio::test]
async fn socket_io_parser_2026_endless_attachments() {
    let node = node(&[]).await;
    let address = node.address(0);
    let mut attacker = Raw::authenticated(address).await;
    attacker
        .send_text("4518446744073709551615-[\"message\",{}]")
        .await;
    assert_eq!(attacker.close_code().await, Some(1002));
    let mut attacker = Raw::authenticated(address).await;
    attacker.send_text("451000-[\"message\",{}]").await;
    let flood = frame(0x82, &[0; 10_000]).repeat(200);
    attacker.write(flood).await;
    assert_eq!(attacker.close_code().await, Some(1002));
    node.stop().await;
}

/// socketioxide (GHSA-55mf-67qm-4wpg, GHSA-7xpx-rcqc-8qjh, GHSA-c6g7-r2mf-pf5g): endless
/// attachments, text between them, and deep nesting. The last two concern its MsgPack parser, which
/// is not compiled in.
#[tokio::test]
async fn ghsa_55mf_67qm_4wpg_socketioxide_attachments() {
    let node = node(&[]).await;
    let address = node.address(0);
    for packets in [
        &["4510001-[\"message\"]"][..],
        &["452-[\"message\"]", "42[\"history\",{}]"],
        &["452-[\"message\"]", "452-[\"message\"]"],
    ] {
        let mut attacker = Raw::authenticated(address).await;
        for packet in packets {
            attacker.send_text(packet).await;
        }
        assert_eq!(attacker.close_code().await, Some(1002), "{packets:?}");
    }
    // Slices of a packet must end at character boundaries. (engineioxide 0.17.9 fixed the same
    // fault in its own packets.)
    for packet in [
        "42/é,[\"é\"]",
        "42/é",
        "42é",
        "421é",
        "451-/é,1[\"é\"]",
        "40/é,{\"é\":\"é\"}",
        "4é",
        "é",
        "b",
        "",
    ] {
        let mut attacker = Raw::authenticated(address).await;
        attacker.send_text(packet).await;
    }
    Witness::on(address).await.is_unaffected().await;
    node.stop().await;
}

async fn strict() -> Cluster {
    Cluster::alone(&[
        ("AUTH_MODE", "jwt"),
        ("JWT_SECRET", SECRET),
        ("ALLOWED_ORIGINS", "https://chat.example"),
    ])
    .await
}

/// Socket.IO 2: every origin was allowed by default. Here no foreign origin is, in JWT mode.
#[tokio::test]
async fn cve_2020_28481_socket_io_origins() {
    let node = strict().await;
    let address = node.address(0);
    for origin in [
        "https://evil.example",
        "null",
        "https://chat.example.evil.example",
        "http://chat.example",
        "*",
    ] {
        let header = format!("origin: {origin}\r\n");
        let polling = request(
            address,
            "GET",
            "/socket.io/?EIO=4&transport=polling",
            &header,
            b"",
        )
        .await;
        let (_, upgrade) = Raw::upgrade(address, "EIO=4&transport=websocket", &header).await;
        for response in [polling, upgrade] {
            assert_eq!(response.status, 403, "{origin}: {}", response.head);
            assert!(
                !response.head.contains("access-control-allow-origin"),
                "{}",
                response.head
            );
        }
    }
    let own = "origin: https://chat.example\r\n";
    let response = request(
        address,
        "GET",
        "/socket.io/?EIO=4&transport=polling",
        own,
        b"",
    )
    .await;
    assert_eq!(response.status, 200);
    assert!(
        response
            .head
            .contains("access-control-allow-origin: https://chat.example"),
        "{}",
        response.head
    );
    // There is no cookie either that a foreign page could use (CVE-2024-47764 concerns the library
    // that wrote it).
    assert!(!response.head.contains("set-cookie"), "{}", response.head);
    node.stop().await;
}

/// ws: a pong could contain uninitialized memory.
#[tokio::test]
async fn cve_2016_10518_ws_a_pong_repeats_the_data_of_the_ping() {
    let node = node(&[]).await;
    let mut attacker = Raw::websocket(node.address(0), 4).await;
    for data in [&b""[..], b"1000", &[0; 125], &[0xFF; 125]] {
        attacker.write(frame(0x89, data)).await;
        assert_eq!(attacker.next_frame().await, Some((0x8A, data.to_vec())));
    }
    node.stop().await;
}

/// ws: a message had no size limit by default. Here it has one, also for the sum of its fragments.
#[tokio::test]
async fn cve_2016_10542_ws_large_messages() {
    let node = node(&[]).await;
    let address = node.address(0);
    for opcode in [0x81, 0x82] {
        let mut attacker = Raw::websocket(address, 4).await;
        attacker.write(crate::raw::head(opcode, 300 << 20)).await;
        assert_eq!(attacker.close_code().await, Some(1009));
    }
    node.stop().await;
}

/// A handshake with these headers, and the time that it took.
async fn handshake(address: SocketAddr, headers: &str) -> (Response, Duration) {
    let began = Instant::now();
    let (_, response) = Raw::upgrade(address, "EIO=4&transport=websocket", headers).await;
    (response, began.elapsed())
}

/// ws: the time to parse spaces in `Sec-WebSocket-Protocol` grew with the square of their number.
/// Here the header is not parsed.
#[tokio::test]
async fn cve_2021_32640_ws_spaces_in_a_header() {
    let node = node(&[]).await;
    for name in [
        "sec-websocket-protocol",
        "sec-websocket-extensions",
        "connection",
        "upgrade",
    ] {
        let header = format!("{name}: b{}x\r\n", " ".repeat(30_000));
        let (response, took) = handshake(node.address(0), &header).await;
        assert_eq!(response.status, 101, "{name}");
        assert!(took < Duration::from_secs(2), "{name}: {took:?}");
    }
    node.stop().await;
}

/// ws: the name of an extension or of its parameter could be the name of a method that every object
/// has.
#[tokio::test]
async fn ws_2017_extensions_named_like_methods() {
    let node = node(&[]).await;
    for offer in [
        "constructor",
        "permessage-deflate; constructor",
        "__proto__; a=b",
        ";;;,,,",
        "permessage-deflate; \"\\",
    ] {
        let (response, _) = handshake(
            node.address(0),
            &format!("sec-websocket-extensions: {offer}\r\n"),
        )
        .await;
        assert_eq!(response.status, 101, "{offer}");
        assert!(
            !response.head.contains("sec-websocket-extensions"),
            "{offer}"
        );
    }
    node.stop().await;
}

/// ws: in a handshake with more headers than the limit, a required header was missing.
#[tokio::test]
async fn cve_2024_37890_ws_many_headers() {
    let node = node(&[]).await;
    let address = node.address(0);
    for count in [96, 101, 2_000] {
        let headers: String = (0..count).map(|n| format!("x{n}: y\r\n")).collect();
        let mut raw = Raw::open(address).await;
        raw.write(format!("GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n{headers}connection: upgrade\r\nupgrade: websocket\r\n\r\n")).await;
        let status = raw.response().await.unwrap().status;
        assert!(
            [400, 426, 431].contains(&status),
            "{count} headers: {status}"
        );
    }
    Witness::on(address).await.is_unaffected().await;
    node.stop().await;
}

/// tungstenite: a long header was parsed again with every byte that arrived. Here a request head
/// has a size limit and a time limit.
#[tokio::test]
async fn cve_2023_43669_tungstenite_long_headers() {
    let node = node(&[]).await;
    let address = node.address(0);
    let mut attacker = Raw::open(address).await;
    attacker.0.set_nodelay(true).unwrap();
    attacker
        .write("GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: x\r\nx: ")
        .await;
    let began = Instant::now();
    // More and more small pieces, until the server ends the connection.
    let mut sent = 0;
    while sent < 1 << 20 && attacker.write([b'y'; 64]).await {
        sent += 64;
    }
    let rest = attacker.read_to_end().await;
    assert!(
        sent < 1 << 20 || rest.starts_with(b"HTTP/1.1 431"),
        "{sent} bytes of one header are accepted"
    );
    assert!(began.elapsed() < DEADLINE);
    Witness::on(address).await.is_unaffected().await;
    node.stop().await;
}

/// Socket.IO 0.9: ids came from a predictable generator. Here they are 96 bits from the system's
/// generator.
#[tokio::test]
async fn cve_2017_16031_socket_io_predictable_ids() {
    let node = node(&[]).await;
    let address = node.address(0);
    let mut seen = HashSet::new();
    let mut columns = vec![HashSet::new(); 16];
    for _ in 0..300 {
        let session = Polling::begin(address, 4).await;
        let sid = session.query.rsplit('=').next().unwrap().to_owned();
        assert_eq!(sid.len(), 16);
        for (column, character) in columns.iter_mut().zip(sid.chars()) {
            column.insert(character);
        }
        assert!(seen.insert(sid), "an id was repeated");
    }
    // 300 draws of 64 characters cover more than half of them, except with a negligible
    // probability.
    assert!(
        columns.iter().all(|column| column.len() > 32),
        "some characters of the ids do not vary"
    );
    node.stop().await;
}

/// Checks that the node does not read a second request where a proxy in front would see one.
async fn assert_not_smuggled(address: SocketAddr, head: &str, body: &str) {
    let mut raw = Raw::open(address).await;
    raw.write(format!("{head}\r\nhost: x\r\n{body}")).await;
    raw.write("GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    let responses = String::from_utf8(raw.read_to_end().await).unwrap();
    let count = responses.matches("HTTP/1.1 ").count();
    assert!(
        !responses.contains("HTTP/1.1 200"),
        "{head} {body:?}: {responses}"
    );
    assert_eq!(count, 1, "{head} {body:?}: {responses}");
}

/// hyper: with several values of `Transfer-Encoding` the first one counted, or the body was
/// misread.
#[tokio::test]
async fn cve_2021_21299_hyper_several_transfer_encodings() {
    let node = node(&[]).await;
    let address = node.address(0);
    for encodings in [
        "transfer-encoding: chunked\r\ntransfer-encoding: cow",
        "transfer-encoding: cow",
        "transfer-encoding: chunked, cow",
    ] {
        assert_not_smuggled(
            address,
            "POST /nowhere HTTP/1.1",
            &format!("{encodings}\r\n\r\n0\r\n\r\n"),
        )
        .await;
    }
    node.stop().await;
}

/// hyper: a `Content-Length` with a sign was accepted.
#[tokio::test]
async fn cve_2021_32715_hyper_lenient_lengths() {
    let node = node(&[]).await;
    let address = node.address(0);
    for length in [
        "+3",
        "-3",
        "0x3",
        "3, 4",
        "3\r\ncontent-length: 4",
        "99999999999999999999",
    ] {
        assert_not_smuggled(
            address,
            "POST /nowhere HTTP/1.1",
            &format!("content-length: {length}\r\n\r\nabc"),
        )
        .await;
    }
    node.stop().await;
}

/// hyper: the length of a chunk could overflow to a small one.
#[tokio::test]
async fn cve_2021_32714_hyper_lengths_of_chunks() {
    let node = node(&[]).await;
    let address = node.address(0);
    for length in [
        "f0000000000000003",
        "10000000000000003",
        "-3",
        "+3",
        "3;x=\n",
    ] {
        let session = Polling::begin(address, 4).await;
        let mut raw = Raw::open(address).await;
        raw.write(format!(
            "POST /socket.io/?{} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{length}\r\n6\x1e6\r\n0\r\n\r\n",
            session.query
        ))
        .await;
        raw.write("GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await;
        let responses = String::from_utf8(raw.read_to_end().await).unwrap();
        assert!(!responses.contains("HTTP/1.1 200"), "{length}: {responses}");
    }
    node.stop().await;
}

/// hyper: the body of a GET was read as the next request.
#[tokio::test]
async fn cve_2020_35863_hyper_a_get_with_a_body() {
    let node = node(&[]).await;
    let mut raw = Raw::open(node.address(0)).await;
    let hidden = "GET /messages HTTP/1.1\r\nhost: x\r\n\r\n";
    raw.write(format!(
        "GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{hidden}",
        hidden.len()
    ))
    .await;
    assert_eq!(raw.response().await.unwrap().status, 200);
    raw.write("GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    let rest = String::from_utf8(raw.read_to_end().await).unwrap();
    assert!(
        rest.is_empty()
            || rest.matches("HTTP/1.1 ").count() == 1 && rest.starts_with("HTTP/1.1 200"),
        "{rest}"
    );
    node.stop().await;
}

/// axum: a body had no size limit by default.
#[tokio::test]
async fn cve_2022_3212_axum_bodies_without_a_limit() {
    let node = node(&[]).await;
    let body = format!(
        "{{\"room_id\":\"home\",\"content\":\"{}\"}}",
        "x".repeat(1 << 20)
    );
    let response = request(
        node.address(0),
        "POST",
        "/messages",
        MESSAGES,
        body.as_bytes(),
    )
    .await;
    assert_eq!(response.status, 413, "{response:?}");
    node.stop().await;
}

/// HTTP/2 (rapid reset, and CVE-2024-27316, endless continuations; RUSTSEC-2024-0003 and 2024-0332)
/// is not supported.
#[tokio::test]
async fn cve_2023_44487_http_2_is_not_supported() {
    let node = node(&[]).await;
    let address = node.address(0);
    let mut raw = Raw::open(address).await;
    raw.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    raw.write([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    let response = raw.read_to_end().await;
    assert!(
        response.is_empty() || response.starts_with(b"HTTP/1.1 4"),
        "{}",
        String::from_utf8_lossy(&response)
    );
    let headers = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
    assert_eq!(
        request(address, "GET", "/livez", headers, b"").await.status,
        200
    );
    node.stop().await;
}

fn token(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).unwrap()
}

/// The reply to a CONNECT with this token.
async fn connect_with(address: SocketAddr, token: &str) -> String {
    let mut raw = Raw::websocket(address, 4).await;
    raw.send_text(&format!("40{}", json!({"token": token})))
        .await;
    raw.next_text().await
}

/// jsonwebtoken: a time of the wrong type counted as missing.
#[tokio::test]
async fn cve_2026_25537_jsonwebtoken_times_of_the_wrong_type() {
    let node = strict().await;
    let address = node.address(0);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let valid = token(
        &Header::default(),
        &json!({"sub": "ada", "exp": 9_999_999_999u64}),
        &key,
    );
    assert!(connect_with(address, &valid).await.starts_with("40"));
    for claims in [
        json!({"sub": "eve", "exp": "9999999999"}),
        json!({"sub": "eve", "exp": null}),
        json!({"sub": "eve", "exp": []}),
        json!({"sub": "eve", "exp": {}}),
        json!({"sub": "eve", "exp": -1}),
        json!({"sub": "eve"}),
        json!({"sub": "eve", "exp": 9_999_999_999u64, "nbf": "9999999998"}),
        json!({"sub": "eve", "exp": 9_999_999_999u64, "nbf": [0]}),
        json!({"sub": "eve", "exp": 9_999_999_999u64, "nbf": {"x": 1}}),
    ] {
        let response = connect_with(address, &token(&Header::default(), &claims, &key)).await;
        assert!(response.starts_with("44"), "{claims}: {response}");
    }
    node.stop().await;
}

/// JWT libraries (also CVE-2016-10555): the token chose its algorithm, `none` or HMAC with the
/// public key as the secret.
#[tokio::test]
async fn cve_2015_9235_jwt_the_token_chooses_the_algorithm() {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
    let node = strict().await;
    let address = node.address(0);
    let claims = json!({"sub": "eve", "exp": 9_999_999_999u64});
    for algorithm in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "HS256",
        "RS256",
        "",
        "__proto__",
    ] {
        let header = json!({"alg": algorithm, "typ": "JWT"});
        let unsigned = format!(
            "{}.{}.",
            BASE64.encode(header.to_string()),
            BASE64.encode(claims.to_string())
        );
        for token in [
            unsigned.trim_end_matches('.').to_owned(),
            unsigned.clone(),
            format!("{unsigned}AAAA"),
        ] {
            let response = connect_with(address, &token).await;
            assert!(response.starts_with("44"), "{algorithm}: {response}");
        }
    }
    // The right secret, but not the configured algorithm.
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let other = token(&Header::new(Algorithm::HS512), &claims, &key);
    assert!(connect_with(address, &other).await.starts_with("44"));
    let valid = token(&Header::default(), &claims, &key);
    assert!(connect_with(address, &valid).await.starts_with("40"));
    node.stop().await;
}

/// For every crate that parses untrusted input: the first release that fixes its latest published
/// vulnerability.
const FIXED_RELEASES: &[(&str, &str, &str)] = &[
    ("axum-core", "0.3.0", "RUSTSEC-2022-0055"),
    ("bytes", "1.11.1", "RUSTSEC-2026-0007"),
    (
        "hyper",
        "0.14.12",
        "RUSTSEC-2021-0078, 2021-0079, 2022-0022",
    ),
    ("idna", "1.0.0", "RUSTSEC-2024-0421"),
    ("jsonwebtoken", "10.3.0", "CVE-2026-25537"),
    ("mio", "0.8.11", "RUSTSEC-2024-0019"),
    ("ring", "0.17.12", "RUSTSEC-2025-0009"),
    ("rustls", "0.23.18", "RUSTSEC-2024-0336, 2024-0399"),
    (
        "rustls-webpki",
        "0.103.13",
        "RUSTSEC-2026-0049, 0098, 0099, 0104",
    ),
    ("slab", "0.4.11", "RUSTSEC-2025-0047"),
    ("smallvec", "1.6.1", "RUSTSEC-2021-0003"),
    (
        "socketioxide",
        "0.18.9",
        "GHSA-55mf-67qm-4wpg, GHSA-7xpx-rcqc-8qjh, GHSA-c6g7-r2mf-pf5g",
    ),
    ("time", "0.3.47", "RUSTSEC-2026-0009"),
    ("tokio", "1.44.2", "RUSTSEC-2025-0023"),
    ("tracing-subscriber", "0.3.20", "RUSTSEC-2025-0055"),
    (
        "tungstenite",
        "0.20.1",
        "RUSTSEC-2023-0065; used by tests only",
    ),
];

#[test]
fn crates_that_parse_untrusted_input_are_not_older_than_their_fixes() {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    let quoted = |line: &str| line.split('"').nth(1).unwrap().to_owned();
    let version = |text: &str| -> Vec<u64> {
        text.split('.')
            .map(|part| part.parse().unwrap_or(0))
            .collect()
    };
    let mut found = HashSet::new();
    for package in lock.split("[[package]]").skip(1) {
        let mut lines = package.trim_start().lines();
        let (name, installed) = (quoted(lines.next().unwrap()), quoted(lines.next().unwrap()));
        assert_ne!(name, "h2", "HTTP/2 has vulnerabilities of its own");
        if let Some((crate_name, first, advisory)) = FIXED_RELEASES
            .iter()
            .find(|(crate_name, ..)| *crate_name == name)
        {
            assert!(
                version(&installed) >= version(first),
                "{name} {installed} is affected by {advisory}"
            );
            found.insert(*crate_name);
        }
    }
    let unused: Vec<_> = FIXED_RELEASES
        .iter()
        .filter(|(name, ..)| !found.contains(name))
        .collect();
    assert!(unused.is_empty(), "no longer used: {unused:?}");
}
