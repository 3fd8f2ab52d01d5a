//! Published holes of Socket.IO, Engine.IO, WebSocket and HTTP servers, each tried on a whole node in its own words and
//! named after it. docs/security.md lists them, and those that concern nothing here.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::raw::{Answer, PATIENCE, Polling, Raw, Witness, frame, node, request};
use hubbub_test_support::node::Cluster;

const SECRET: &str = "a secret of more than thirty-two bytes";
const MESSAGES: &str = "content-type: application/json\r\n";

/// The connection goes on: it can ask, and what was asked is answered.
async fn goes_on(client: &mut Raw) {
    client.say("429[\"history\",5]").await;
    let text = client.text().await;
    assert!(text.starts_with("439["), "{text}");
}

/// Engine.IO: a body of hundreds of thousands of packets, whose lengths count code units, took memory and time that grew
/// with its square. Here one packet after another is decoded, in turns.
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
        witness.is_well().await;
    }
    assert!(began.elapsed() < PATIENCE);
    node.stop().await;
}

/// socket.io-parser: a packet was put together character by character. Here its parts are slices.
#[tokio::test]
async fn cve_2020_36049_socket_io_parser_large_packets() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let much = |text: &str| text.repeat(1_000_000 / text.len());
    for packet in [
        format!("42/{},[\"x\"]", much("a")),
        format!("42/{}", much("/")),
        format!("42{}[\"x\"]", much("1")),
        format!("45{}-[\"x\"]", much("9")),
        format!("42[\"{}\"]", much("a")),
        format!("42[\"x\",\"{}\"]", much("\\u00e9")),
        format!("42[\"x\",{}]", much("[],").trim_end_matches(',')),
    ] {
        let mut attacker = Raw::member(address).await;
        attacker.say(&packet).await;
        attacker.say("41").await;
        drop(attacker);
        witness.is_well().await;
    }
    node.stop().await;
}

/// socket.io-parser: `num` of a placeholder could be the name of a method, which then stood in the payload. Here no event
/// takes attachments, and nobody puts them in.
#[tokio::test]
async fn cve_2022_2421_socket_io_parser_attachment_type() {
    let node = node(&[]).await;
    let mut attacker = Raw::member(node.address(0)).await;
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
            .say(&format!(
                "451-1[\"message\",{{\"_placeholder\":true,\"num\":{num}}}]"
            ))
            .await;
        attacker.write(frame(0x82, b"x")).await;
        let text = attacker.text().await;
        assert!(
            text.starts_with("431[{\"ok\":false,\"code\":\"bad_request\""),
            "{num}: {text}"
        );
    }
    goes_on(&mut attacker).await;
    node.stop().await;
}

/// Engine.IO: an upgrade that was refused while its peer broke off was an error that nobody caught.
#[tokio::test]
async fn cve_2022_41940_engine_io_refused_upgrades_that_break_off() {
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
            // Closing resets the connection.
            raw.0.set_zero_linger().unwrap();
            raw.write(format!(
                "GET /socket.io/?{query} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ))
            .await;
        }
        witness.is_well().await;
    }
    node.stop().await;
}

/// Engine.IO: a bad frame right behind the handshake came before anyone listened for errors.
#[tokio::test]
async fn cve_2022_21676_engine_io_a_bad_frame_behind_the_handshake() {
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
        assert_eq!(attacker.answer().await.unwrap().status, 101);
        assert_eq!(attacker.closed().await, Some(1002), "{query}");
        witness.is_well().await;
    }
    node.stop().await;
}

/// Engine.IO: parameters of another type than text, and names that every JavaScript object has.
#[tokio::test]
async fn cve_2023_31125_engine_io_odd_parameters() {
    let node = node(&[]).await;
    let address = node.address(0);
    for query in [
        "EIO=4&transport=__proto__",
        "EIO=4&transport=constructor",
        "EIO=4&transport=hasOwnProperty",
        "EIO=4&transport[]=polling",
        "EIO[]=4&transport=polling",
        "EIO=4&transport=polling&sid[]=x",
        "EIO=4&transport=polling&transport=toString",
        "EIO=4&EIO=__proto__&transport=polling",
        "EIO=4&transport=polling&sid=__proto__",
        "EIO=4&transport=polling&sid",
        "EIO=4&transport=polling&j=0",
        "EIO=4&transport=%00",
        "%45IO=4&transport=polling",
        "&&&===&&&",
    ] {
        let answer = request(address, "GET", &format!("/socket.io/?{query}"), "", b"").await;
        // An unknown parameter is none.
        let expected = if query.contains("sid[]") { 200 } else { 400 };
        assert_eq!(answer.status, expected, "{query}: {answer:?}");
    }
    node.stop().await;
}

/// socket.io-parser: an event's name could be an object, whose use as text threw.
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
        let mut attacker = Raw::member(address).await;
        attacker.say(&format!("421[{name}]")).await;
        assert!(attacker.text().await.contains("bad_request"), "{name}");
    }
    for name in [
        "\"__proto__\"",
        "\"\"",
        "\"constructor\"",
        "\"hasOwnProperty\"",
    ] {
        let mut attacker = Raw::member(address).await;
        attacker.say(&format!("421[{name}]")).await;
        assert!(attacker.text().await.contains("unknown_event"), "{name}");
    }
    witness.is_well().await;
    node.stop().await;
}

/// Socket.IO: an event with the reserved name `error` ended the process.
#[tokio::test]
async fn cve_2024_38355_socket_io_reserved_names() {
    let node = node(&[]).await;
    let mut attacker = Raw::member(node.address(0)).await;
    for name in [
        "error",
        "connect",
        "connect_error",
        "disconnect",
        "disconnecting",
        "newListener",
        "removeListener",
    ] {
        attacker.say(&format!("421[\"{name}\",\"x\"]")).await;
        assert!(attacker.text().await.contains("unknown_event"), "{name}");
    }
    goes_on(&mut attacker).await;
    node.stop().await;
}

/// socket.io-parser, March 2026: any number of attachments could be announced, and all that came were kept. Here a
/// thousand may be announced, and a packet's bytes may come.
#[tokio::test]
async fn socket_io_parser_2026_attachments_without_end() {
    let node = node(&[]).await;
    let address = node.address(0);
    let mut attacker = Raw::member(address).await;
    attacker
        .say("4518446744073709551615-[\"message\",{}]")
        .await;
    assert_eq!(attacker.closed().await, Some(1002));
    let mut attacker = Raw::member(address).await;
    attacker.say("451000-[\"message\",{}]").await;
    let flood = frame(0x82, &[0; 10_000]).repeat(200);
    attacker.write(flood).await;
    assert_eq!(attacker.closed().await, Some(1002));
    node.stop().await;
}

/// socketioxide (GHSA-55mf-67qm-4wpg, GHSA-7xpx-rcqc-8qjh, GHSA-c6g7-r2mf-pf5g): attachments without end, text between
/// them, and depth. The last two are of its MsgPack parser, which is not built in.
#[tokio::test]
async fn ghsa_55mf_67qm_4wpg_socketioxide_attachments() {
    let node = node(&[]).await;
    let address = node.address(0);
    for packets in [
        &["4510001-[\"message\"]"][..],
        &["452-[\"message\"]", "42[\"history\",{}]"],
        &["452-[\"message\"]", "452-[\"message\"]"],
    ] {
        let mut attacker = Raw::member(address).await;
        for packet in packets {
            attacker.say(packet).await;
        }
        assert_eq!(attacker.closed().await, Some(1002), "{packets:?}");
    }
    // Parts of a packet end where characters do (engineioxide 0.17.9 mended the same in its own packets).
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
        let mut attacker = Raw::member(address).await;
        attacker.say(packet).await;
    }
    Witness::on(address).await.is_well().await;
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

/// Socket.IO 2: every page was let in unless configured otherwise. Here, with identities, none is.
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
        for answer in [polling, upgrade] {
            assert_eq!(answer.status, 403, "{origin}: {}", answer.head);
            assert!(
                !answer.head.contains("access-control-allow-origin"),
                "{}",
                answer.head
            );
        }
    }
    let own = "origin: https://chat.example\r\n";
    let answer = request(
        address,
        "GET",
        "/socket.io/?EIO=4&transport=polling",
        own,
        b"",
    )
    .await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .head
            .contains("access-control-allow-origin: https://chat.example"),
        "{}",
        answer.head
    );
    // Nor is there a cookie that a foreign page could use (CVE-2024-47764 is of the library that wrote it).
    assert!(!answer.head.contains("set-cookie"), "{}", answer.head);
    node.stop().await;
}

/// ws: the answer to a ping could hold memory that was never written.
#[tokio::test]
async fn cve_2016_10518_ws_a_pong_says_what_the_ping_said() {
    let node = node(&[]).await;
    let mut attacker = Raw::websocket(node.address(0), 4).await;
    for data in [&b""[..], b"1000", &[0; 125], &[0xFF; 125]] {
        attacker.write(frame(0x89, data)).await;
        assert_eq!(attacker.frame().await, Some((0x8A, data.to_vec())));
    }
    node.stop().await;
}

/// ws: a message had no limit by default. Here it has one, and so have all its fragments.
#[tokio::test]
async fn cve_2016_10542_ws_large_messages() {
    let node = node(&[]).await;
    let address = node.address(0);
    for opcode in [0x81, 0x82] {
        let mut attacker = Raw::websocket(address, 4).await;
        attacker.write(crate::raw::head(opcode, 300 << 20)).await;
        assert_eq!(attacker.closed().await, Some(1009));
    }
    node.stop().await;
}

/// Handshakes whose headers are dear to read.
async fn handshake(address: SocketAddr, headers: &str) -> (Answer, Duration) {
    let began = Instant::now();
    let (_, answer) = Raw::upgrade(address, "EIO=4&transport=websocket", headers).await;
    (answer, began.elapsed())
}

/// ws: blanks in `Sec-WebSocket-Protocol` took time that grew with their square. Here nobody reads it.
#[tokio::test]
async fn cve_2021_32640_ws_blanks_in_a_header() {
    let node = node(&[]).await;
    for name in [
        "sec-websocket-protocol",
        "sec-websocket-extensions",
        "connection",
        "upgrade",
    ] {
        let header = format!("{name}: b{}x\r\n", " ".repeat(30_000));
        let (answer, took) = handshake(node.address(0), &header).await;
        assert_eq!(answer.status, 101, "{name}");
        assert!(took < Duration::from_secs(2), "{name}: {took:?}");
    }
    node.stop().await;
}

/// ws: the name of an extension, or of its parameter, could be that of a method of every object.
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
        let (answer, _) = handshake(
            node.address(0),
            &format!("sec-websocket-extensions: {offer}\r\n"),
        )
        .await;
        assert_eq!(answer.status, 101, "{offer}");
        assert!(!answer.head.contains("sec-websocket-extensions"), "{offer}");
    }
    node.stop().await;
}

/// ws: a handshake with more headers than were kept lacked the one that was asked for.
#[tokio::test]
async fn cve_2024_37890_ws_many_headers() {
    let node = node(&[]).await;
    let address = node.address(0);
    for count in [96, 101, 2_000] {
        let headers: String = (0..count).map(|n| format!("x{n}: y\r\n")).collect();
        let mut raw = Raw::open(address).await;
        raw.write(format!("GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n{headers}connection: upgrade\r\nupgrade: websocket\r\n\r\n")).await;
        let status = raw.answer().await.unwrap().status;
        assert!(
            [400, 426, 431].contains(&status),
            "{count} headers: {status}"
        );
    }
    Witness::on(address).await.is_well().await;
    node.stop().await;
}

/// tungstenite: a long header was parsed anew with every byte that came. Here a head has a limit and a time.
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
    // More and more small pieces, until the connection has had enough.
    let mut sent = 0;
    while sent < 1 << 20 && attacker.write([b'y'; 64]).await {
        sent += 64;
    }
    let rest = attacker.end().await;
    assert!(
        sent < 1 << 20 || rest.starts_with(b"HTTP/1.1 431"),
        "{sent} bytes of one header are taken"
    );
    assert!(began.elapsed() < PATIENCE);
    Witness::on(address).await.is_well().await;
    node.stop().await;
}

/// Socket.IO 0.9: ids came from a generator that can be foretold. Here 96 bits come from the system's.
#[tokio::test]
async fn cve_2017_16031_socket_io_ids_that_can_be_foretold() {
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
        assert!(seen.insert(sid), "an id twice");
    }
    // Of 64 characters, 300 draws miss half with a chance that nobody will see.
    assert!(
        columns.iter().all(|column| column.len() > 32),
        "an id has parts that don't change"
    );
    node.stop().await;
}

/// Two requests, or one? Whoever stands before the node must see the same as the node.
async fn is_not_smuggled(address: SocketAddr, head: &str, body: &str) {
    let mut raw = Raw::open(address).await;
    raw.write(format!("{head}\r\nhost: x\r\n{body}")).await;
    raw.write("GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    let answers = String::from_utf8(raw.end().await).unwrap();
    let count = answers.matches("HTTP/1.1 ").count();
    assert!(
        !answers.contains("HTTP/1.1 200"),
        "{head} {body:?}: {answers}"
    );
    assert_eq!(count, 1, "{head} {body:?}: {answers}");
}

/// hyper: of several `Transfer-Encoding`s the first was taken, or a body was.
#[tokio::test]
async fn cve_2021_21299_hyper_several_transfer_encodings() {
    let node = node(&[]).await;
    let address = node.address(0);
    for encodings in [
        "transfer-encoding: chunked\r\ntransfer-encoding: cow",
        "transfer-encoding: cow",
        "transfer-encoding: chunked, cow",
    ] {
        is_not_smuggled(
            address,
            "POST /nowhere HTTP/1.1",
            &format!("{encodings}\r\n\r\n0\r\n\r\n"),
        )
        .await;
    }
    node.stop().await;
}

/// hyper: a length with a sign was a length.
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
        is_not_smuggled(
            address,
            "POST /nowhere HTTP/1.1",
            &format!("content-length: {length}\r\n\r\nabc"),
        )
        .await;
    }
    node.stop().await;
}

/// hyper: the length of a chunk could overflow, and become a small one.
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
        let answers = String::from_utf8(raw.end().await).unwrap();
        assert!(!answers.contains("HTTP/1.1 200"), "{length}: {answers}");
    }
    node.stop().await;
}

/// hyper: the body of a GET was taken for the next request.
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
    assert_eq!(raw.answer().await.unwrap().status, 200);
    raw.write("GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    let rest = String::from_utf8(raw.end().await).unwrap();
    assert!(
        rest.is_empty()
            || rest.matches("HTTP/1.1 ").count() == 1 && rest.starts_with("HTTP/1.1 200"),
        "{rest}"
    );
    node.stop().await;
}

/// axum: a body had no limit by default.
#[tokio::test]
async fn cve_2022_3212_axum_bodies_without_a_limit() {
    let node = node(&[]).await;
    let body = format!(
        "{{\"room_id\":\"home\",\"content\":\"{}\"}}",
        "x".repeat(1 << 20)
    );
    let answer = request(
        node.address(0),
        "POST",
        "/messages",
        MESSAGES,
        body.as_bytes(),
    )
    .await;
    assert_eq!(answer.status, 413, "{answer:?}");
    node.stop().await;
}

/// HTTP/2 (rapid reset, and CVE-2024-27316, continuations without end; RUSTSEC-2024-0003 and 2024-0332): not spoken.
#[tokio::test]
async fn cve_2023_44487_http_2_is_not_spoken() {
    let node = node(&[]).await;
    let address = node.address(0);
    let mut raw = Raw::open(address).await;
    raw.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    raw.write([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    let answer = raw.end().await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
        "{}",
        String::from_utf8_lossy(&answer)
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

/// What a CONNECT with this token is answered.
async fn connect_with(address: SocketAddr, token: &str) -> String {
    let mut raw = Raw::websocket(address, 4).await;
    raw.say(&format!("40{}", json!({"token": token}))).await;
    raw.text().await
}

/// jsonwebtoken: a time of the wrong type counted as one that isn't there.
#[tokio::test]
async fn cve_2026_25537_jsonwebtoken_times_of_the_wrong_type() {
    let node = strict().await;
    let address = node.address(0);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let good = token(
        &Header::default(),
        &json!({"sub": "ada", "exp": 9_999_999_999u64}),
        &key,
    );
    assert!(connect_with(address, &good).await.starts_with("40"));
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
        let answer = connect_with(address, &token(&Header::default(), &claims, &key)).await;
        assert!(answer.starts_with("44"), "{claims}: {answer}");
    }
    node.stop().await;
}

/// JWT libraries (also CVE-2016-10555): the token said how it was signed, `none` or with a public key for a secret.
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
            let answer = connect_with(address, &token).await;
            assert!(answer.starts_with("44"), "{algorithm}: {answer}");
        }
    }
    // The right secret, but not the algorithm that is configured.
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let other = token(&Header::new(Algorithm::HS512), &claims, &key);
    assert!(connect_with(address, &other).await.starts_with("44"));
    let good = token(&Header::default(), &claims, &key);
    assert!(connect_with(address, &good).await.starts_with("40"));
    node.stop().await;
}

/// Of every crate that reads what strangers send: the first release without the hole that was published last.
const MENDED: &[(&str, &str, &str)] = &[
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
        "RUSTSEC-2023-0065; of the tests only",
    ),
];

#[test]
fn no_crate_that_reads_what_strangers_send_is_older_than_its_mending() {
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
        let (name, has) = (quoted(lines.next().unwrap()), quoted(lines.next().unwrap()));
        assert_ne!(name, "h2", "HTTP/2 has holes of its own");
        if let Some((crate_name, first, advisory)) =
            MENDED.iter().find(|(crate_name, ..)| *crate_name == name)
        {
            assert!(
                version(&has) >= version(first),
                "{name} {has} has {advisory}"
            );
            found.insert(*crate_name);
        }
    }
    let gone: Vec<_> = MENDED
        .iter()
        .filter(|(name, ..)| !found.contains(name))
        .collect();
    assert!(gone.is_empty(), "no longer used: {gone:?}");
}
