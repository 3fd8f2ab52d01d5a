//! The bytes of clients in use that differ from those of the JavaScript client.
#![allow(clippy::unwrap_used)] // an unwrap in a test is an assertion

mod server;

use engineioxide::{Frame, Limits};
use server::{Client, Event, Server, calm_config, open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const JAVA_LINES: &str =
    "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5\r\nejAxMjM0NTY3ODk=\n";
const JAVA_BYTES: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Opens a polling session. `query` has no `sid` yet; the returned one has it.
async fn polling(server: &Server, query: &str) -> String {
    let response = server.get(query).await;
    assert_eq!(response.status, 200, "{query}: {response:?}");
    let start = response.text().find('0').unwrap();
    // The length in front of a packet of Engine.IO 3 may contain a 0.
    let packet = match response.text().split_once(':') {
        Some((length, packet)) if length.parse::<usize>().is_ok() => packet,
        _ => &response.text()[start..],
    };
    let sid = open(packet)["sid"].as_str().unwrap().to_owned();
    format!("{query}&sid={sid}")
}

/// A WebSocket that offers subprotocols in the given header lines. Returns the status and the
/// subprotocol of the response.
async fn offered(server: &Server, lines: &[&[u8]]) -> (u16, Option<String>) {
    let mut stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let mut head = b"GET /engine.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: x\r\n\
        connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        .to_vec();
    for line in lines {
        head.extend_from_slice(b"sec-websocket-protocol: ");
        head.extend_from_slice(line);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    stream.write_all(&head).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let chosen: Vec<_> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("sec-websocket-protocol: "))
        .collect();
    assert!(chosen.len() <= 1, "{answer}");
    (status, chosen.first().map(|name| (*name).to_owned()))
}

/// socket.io-client-swift up to 15.2 never sends `EIO`.
#[tokio::test]
async fn a_query_without_eio_is_protocol_3_on_polling() {
    let server = Server::calm().await;
    let query = polling(&server, "transport=polling&b64=1").await;
    assert_eq!(server.post(&query, "6:4hello").await.text(), "ok");
    assert_eq!(server.get(&query).await.text(), "6:4hello");
    // The session is one of protocol 3, and may name it.
    let named = format!("EIO=3&{query}");
    assert_eq!(server.post(&named, "2:4x").await.text(), "ok");
    let mut client = server
        .websocket(&query.replace("polling", "websocket"))
        .await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    client.send("5").await;
    assert_eq!(client.text().await, "4x");
}

#[tokio::test]
async fn a_query_without_eio_is_protocol_3_on_websocket() {
    let server = Server::calm().await;
    let mut client = server.websocket("transport=websocket").await;
    assert!(client.text().await.starts_with('0'));
    // In protocol 3 the client pings.
    client.send("2").await;
    assert_eq!(client.text().await, "3");
}

#[tokio::test]
async fn a_wrong_eio_and_the_wrong_protocol_for_a_session_are_refused() {
    let server = Server::calm().await;
    for eio in ["2", "5", "x", "", "3.0", "33"] {
        for transport in ["polling", "websocket"] {
            let query = format!("EIO={eio}&transport={transport}");
            let response = server.get(&query).await;
            assert_eq!((response.status, response.code()), (400, 5), "{query}");
        }
    }
    let query = polling(&server, "EIO=4&transport=polling").await;
    let without = query.strip_prefix("EIO=4&").unwrap();
    assert_eq!(server.post(without, "1:6").await.status, 400);
    assert_eq!(server.post(&query, "6").await.text(), "ok");
}

#[tokio::test]
async fn an_empty_sid_counts_as_none() {
    let server = Server::calm().await;
    for sid in ["sid=", "sid", "sid=&sid="] {
        let response = server.get(&format!("EIO=4&transport=polling&{sid}")).await;
        assert_eq!(response.status, 200, "{sid}: {response:?}");
        let mut client = server
            .websocket(&format!("EIO=4&transport=websocket&{sid}"))
            .await;
        assert!(client.text().await.starts_with('0'), "{sid}");
    }
    let opened = server.control.counters().opened;
    // An empty value beside a session's id does not open another session.
    let query = polling(&server, "EIO=4&transport=polling").await;
    assert_eq!(
        server.post(&format!("{query}&sid="), "6").await.text(),
        "ok"
    );
    assert_eq!(server.control.counters().opened, opened + 1);
    let response = server.post("EIO=4&transport=polling&sid=", "6").await;
    assert_eq!((response.status, response.code()), (400, 2));
}

/// The .NET client and elephant.io send `5` as the first packet of the WebSocket.
#[tokio::test]
async fn an_upgrade_without_a_probe_moves_the_session_to_the_websocket() {
    for (eio, payload) in [("EIO=4&", "4posted"), ("EIO=3&", "7:4posted")] {
        let mut server = Server::calm().await;
        let query = polling(&server, &format!("{eio}transport=polling")).await;
        let handle = server.connected().await;
        assert_eq!(server.post(&query, payload).await.text(), "ok");
        handle.send(&Frame::text("queued"));
        let mut client = server
            .websocket(&query.replace("polling", "websocket"))
            .await;
        client.send("5").await;
        client.send("4sent").await;
        for expected in ["4posted", "4queued", "4sent"] {
            assert_eq!(client.text().await, expected, "{eio}");
        }
        assert_eq!(server.get(&query).await.status, 400, "the poll must stop");
        assert_eq!(server.control.counters().upgrades, 1);
    }
}

#[tokio::test]
async fn an_upgrade_without_a_probe_releases_a_waiting_poll() {
    let mut server = Server::calm().await;
    let query = polling(&server, "EIO=4&transport=polling").await;
    server.connected().await;
    let upgrade = async {
        let mut client = server
            .websocket(&query.replace("polling", "websocket"))
            .await;
        client.send("5").await;
        client.send("4hello").await;
        assert_eq!(client.text().await, "4hello");
    };
    let (poll, ()) = server.get_then(&query, upgrade).await;
    assert_eq!((poll.status, poll.text()), (200, "6"));
}

#[tokio::test]
async fn the_first_offered_subprotocol_is_chosen() {
    let server = Server::calm().await;
    let chosen = |name: &str| (101, Some(name.to_owned()));
    assert_eq!(offered(&server, &[]).await, (101, None));
    assert_eq!(offered(&server, &[b"chat"]).await, chosen("chat"));
    assert_eq!(
        offered(&server, &[b" v1.json , xml"]).await,
        chosen("v1.json")
    );
    assert_eq!(
        offered(&server, &[b"", b"Chat", b"xml"]).await,
        chosen("Chat")
    );
    // Values that no name may have are not repeated.
    for (malformed, expected) in [
        (&b""[..], None),
        (b" , ,", None),
        (b"\"quoted\"", None),
        (b"two words", None),
        (b"\xff\xfe", None),
        (b"a/b", None),
        (b",,ok", Some("ok")),
        (b"\xc3\xa9, ok", Some("ok")),
        (b"bad name, ok", Some("ok")),
    ] {
        let expected = expected.map(str::to_owned);
        assert_eq!(
            offered(&server, &[malformed]).await,
            (101, expected),
            "{malformed:?}"
        );
    }
    assert_eq!(offered(&server, &[b"\xff", b"ok"]).await, chosen("ok"));
}

#[tokio::test]
async fn a_client_that_verifies_the_subprotocol_connects() {
    let server = Server::calm().await;
    for query in [
        "EIO=4&transport=websocket",
        "EIO=4&transport=websocket&sid=",
    ] {
        let url = format!("ws://{}/engine.io/?{query}", server.address);
        let mut request = url.into_client_request().unwrap();
        let names = "jwt, chat".parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", names);
        // The client fails the connection when none of its subprotocols is chosen.
        let (stream, response) = tokio_tungstenite::connect_async(request).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "jwt");
        assert!(Client(stream).text().await.starts_with('0'));
    }
}

/// The variants of base64 for the bytes 1, 2, 3 and 4.
const VARIANTS: [&str; 7] = [
    "AQIDBA==",
    "AQIDBA",
    "AQIDBA==\n",
    "AQIDBA==\r\n",
    "AQID\nBA==",
    " AQ\tID BA ",
    "AQIDBA=",
];

#[tokio::test]
async fn base64_with_white_space_or_without_padding_is_decoded_on_polling() {
    let server = Server::calm().await;
    let v4 = polling(&server, "EIO=4&transport=polling").await;
    let v3 = polling(&server, "EIO=3&transport=polling&b64=1").await;
    for variant in VARIANTS {
        assert_eq!(
            server.post(&v4, format!("b{variant}")).await.text(),
            "ok",
            "{variant:?}"
        );
        assert_eq!(server.get(&v4).await.text(), "bAQIDBA==", "{variant:?}");
        let body = format!("{}:b4{variant}", variant.len() + 2);
        assert_eq!(server.post(&v3, body).await.text(), "ok", "{variant:?}");
        assert_eq!(server.get(&v3).await.text(), "10:b4AQIDBA==", "{variant:?}");
    }
}

#[tokio::test]
async fn base64_in_a_text_frame_is_a_binary_message() {
    let server = Server::calm().await;
    for variant in VARIANTS {
        let mut client = server.websocket("EIO=4&transport=websocket").await;
        client.text().await;
        client.send(&format!("b{variant}")).await;
        assert_eq!(
            client.next().await,
            Some(Message::binary(vec![1, 2, 3, 4])),
            "{variant:?}"
        );
        let mut client = server.websocket("EIO=3&transport=websocket&b64=1").await;
        client.text().await;
        client.send(&format!("b4{variant}")).await;
        assert_eq!(
            client.next().await,
            Some(Message::binary(vec![4, 1, 2, 3, 4])),
            "{variant:?}"
        );
    }
}

#[tokio::test]
async fn base64_in_the_lines_of_a_mime_encoder_is_decoded() {
    let server = Server::calm().await;
    let mut client = server.websocket("EIO=4&transport=websocket").await;
    client.text().await;
    client.send(&format!("b{JAVA_LINES}")).await;
    assert_eq!(client.next().await, Some(Message::binary(JAVA_BYTES)));
}

#[tokio::test]
async fn malformed_base64_ends_the_session() {
    let server = Server::calm().await;
    for (eio, malformed) in [
        (4, "bA"),
        (4, "bAQI*"),
        (4, "b=AQI"),
        (3, "b4A"),
        (3, "b"),
        (3, "b5AQID"),
    ] {
        let mut client = server
            .websocket(&format!("EIO={eio}&transport=websocket"))
            .await;
        client.text().await;
        client.send(malformed).await;
        assert_eq!(client.closed().await, Some(1002), "{malformed}");
        let query = polling(&server, &format!("EIO={eio}&transport=polling")).await;
        let body = match eio {
            4 => malformed.to_owned(),
            _ => format!("{}:{malformed}", malformed.len()),
        };
        assert_eq!(server.post(&query, body).await.status, 400, "{malformed}");
    }
}

/// Text messages of 15 kB, together `count` of them, as the body of one POST.
fn large_body(version: u8, count: usize) -> String {
    let packets = (0..count).map(|n| format!("4{n:05}{}", "é".repeat(7500)));
    match version {
        4 => packets.collect::<Vec<_>>().join("\x1e"),
        _ => packets
            .map(|packet| format!("{}:{packet}", packet.encode_utf16().count()))
            .collect(),
    }
}

/// Clients before Socket.IO 4.5, and the Java client, write everything that was emitted at once into
/// one body.
#[tokio::test]
async fn a_body_may_be_four_times_as_large_as_a_packet() {
    for version in [3, 4] {
        let mut server = Server::start(
            calm_config().max_payload(400_000).build(),
            Limits {
                outbox_bytes: 8 << 20,
                ..Limits::default()
            },
        )
        .await;
        let query = polling(&server, &format!("EIO={version}&transport=polling")).await;
        let body = large_body(version, 90);
        assert!(
            (1_300_000..1_600_000).contains(&body.len()),
            "{}",
            body.len()
        );
        let response = server.post(&query, &body).await;
        assert_eq!((response.status, response.text()), (200, "ok"), "{version}");
        let mut numbers = Vec::new();
        while numbers.len() < 90 {
            if let Event::Text(text) = server.event().await {
                assert_eq!(text.len(), 15_005);
                numbers.push(text[..5].parse::<usize>().unwrap());
            }
        }
        assert_eq!(numbers, (0..90).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_packet_or_body_beyond_its_limit_is_refused() {
    let config = || calm_config().max_payload(10_000).build();
    let fits = "x".repeat(9_999);
    let large = "x".repeat(10_000);
    let v3 = |text: &str| format!("{}:4{text}", text.len() + 1);
    let binary = |text: &str| {
        let length = (text.len() + 1).to_string();
        let digits = length.bytes().map(|digit| digit - b'0');
        [vec![0], digits.collect(), vec![255, b'4'], text.into()].concat()
    };
    let octets = "content-type: application/octet-stream\r\n";
    let text = "content-type: text/plain\r\n";
    let cases: [(u8, &str, Vec<u8>, u16); 9] = [
        (
            4,
            text,
            format!("4{fits}\x1e4{fits}\x1e4{fits}").into(),
            200,
        ),
        (4, text, format!("6\x1e4{large}").into(), 413),
        (4, text, format!("4{large}\x1e6").into(), 413),
        (4, text, format!("4{fits}\x1e").repeat(5).into(), 413),
        (3, text, v3(&fits).repeat(3).into(), 200),
        (3, text, format!("1:6{}", v3(&large)).into(), 413),
        (3, octets, binary(&fits).repeat(3), 200),
        (
            3,
            octets,
            [&[0, 1, 255, b'6'], &binary(&large)[..]].concat(),
            413,
        ),
        (3, octets, binary(&fits).repeat(5), 413),
    ];
    for (index, (version, content_type, body, status)) in cases.into_iter().enumerate() {
        let server = Server::start(config(), Limits::default()).await;
        let query = polling(&server, &format!("EIO={version}&transport=polling")).await;
        let response = server.request("POST", &query, content_type, &body).await;
        assert_eq!(response.status, status, "case {index}");
        assert_eq!(
            server.control.len(),
            usize::from(status == 200),
            "case {index}"
        );
    }
}
