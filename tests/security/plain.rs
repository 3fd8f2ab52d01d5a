//! Attacks on plain WebSockets, and conformance to the WebSocket protocol, case by case.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::Value;

use crate::frames::invalid_frames;
use crate::raw::{DEADLINE, Raw, Witness, frame, head, metric, node, request};

/// Sends a request of `length` bytes in the frames that `split` makes of it, and checks the reply.
async fn assert_accepted(raw: &mut Raw, length: usize, split: impl Fn(&[u8]) -> Vec<Vec<u8>>) {
    let text = r#"{"type":"dance","ref":"7","pad":""}"#;
    let padded = text.replace(
        r#""pad":"""#,
        &format!(
            "\"pad\":\"{}\"",
            "x".repeat(length.saturating_sub(text.len()))
        ),
    );
    for part in split(padded.as_bytes()) {
        assert!(raw.write(part).await);
    }
    let response: Value = serde_json::from_str(&raw.next_text().await).unwrap();
    assert_eq!(
        (&response["ref"], &response["payload"]["code"]),
        (&"7".into(), &"unknown_event".into()),
        "{length}"
    );
}

fn whole(text: &[u8]) -> Vec<Vec<u8>> {
    vec![frame(0x81, text)]
}

/// Fragments of `size` bytes.
fn fragments(text: &[u8], size: usize) -> Vec<Vec<u8>> {
    let parts: Vec<_> = text.chunks(size).collect();
    let first = |index| if index == 0 { 0x01 } else { 0x00 };
    let last = |index| if index + 1 == parts.len() { 0x80 } else { 0x00 };
    parts
        .iter()
        .enumerate()
        .map(|(index, part)| frame(first(index) | last(index), part))
        .collect()
}

#[tokio::test]
async fn invalid_frames_close_the_connection_with_their_code() {
    let node = node(&[
        ("MAX_SOCKETS_PER_USER", "1000"),
        ("RATE_USER_CONNECTS_PER_SEC", "0"),
    ])
    .await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let invalid_utf8: [(&str, &[u8]); 9] = [
        ("a byte that UTF-8 never uses", &[0xFE]),
        ("a continuation alone", &[0x80]),
        ("a slash in two bytes", &[0xC0, 0xAF]),
        ("a slash in three bytes", &[0xE0, 0x80, 0xAF]),
        ("a slash in four bytes", &[0xF0, 0x80, 0x80, 0xAF]),
        ("five bytes", &[0xF8, 0x88, 0x80, 0x80, 0x80]),
        ("beyond the last character", &[0xF4, 0x90, 0x80, 0x80]),
        ("a low surrogate", &[0xED, 0xBF, 0xBF]),
        ("both surrogates", &[0xED, 0xA0, 0x80, 0xED, 0xB0, 0x80]),
    ];
    let invalid_utf8 =
        invalid_utf8.map(|(case, bytes)| (case, frame(0x81, &[b"{", bytes].concat()), 1007));
    let codes = [
        0u16, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535,
    ];
    let closes = codes.map(|code| {
        (
            "a close with a code that must not be sent",
            frame(0x88, &code.to_be_bytes()),
            1002,
        )
    });
    let others = [
        ("binary", frame(0x82, &[0xFF, b'{', b'}']), 1003),
        ("binary that is UTF-8 but not JSON", frame(0x82, b"{"), 1003),
        (
            "fragments beyond the limit",
            fragments(&vec![b' '; (1 << 20) + 1], 1 << 18).concat(),
            1009,
        ),
    ];
    let cases = invalid_frames()
        .into_iter()
        .chain(invalid_utf8)
        .chain(closes)
        .chain(others);
    join_all(cases.map(async |(case, bytes, code)| {
        let mut attacker = Raw::plain(address).await;
        attacker.write(&bytes).await;
        let closed = tokio::time::timeout(DEADLINE / 2, attacker.close_code()).await;
        assert_eq!(
            closed,
            Ok(Some(code)),
            "{case} {:?}",
            &bytes[..bytes.len().min(20)]
        );
    }))
    .await;
    witness.is_unaffected().await;
    node.stop().await;
}

#[tokio::test]
async fn messages_of_every_length_are_accepted_in_any_fragmentation() {
    let node = node(&[]).await;
    let mut raw = Raw::plain(node.address(0)).await;
    for length in [35, 125, 126, 127, 128, 4096, 65_535, 65_536, 1 << 20] {
        assert_accepted(&mut raw, length, whole).await;
        assert_accepted(&mut raw, length, |text| fragments(text, 1024)).await;
    }
    assert_accepted(&mut raw, 200, |text| fragments(text, 1)).await;
    // Each byte in a separate write; then a fragment between empty ones.
    assert_accepted(&mut raw, 60, |text| {
        frame(0x81, text).iter().map(|byte| vec![*byte]).collect()
    })
    .await;
    assert_accepted(&mut raw, 60, |text| {
        vec![frame(0x01, b""), frame(0x00, text), frame(0x80, b"")]
    })
    .await;
    // Characters of two, three and four bytes, split within.
    let text = r#"{"type":"dance","ref":"κόσμε \u20ac €🦀"}"#;
    for size in 1..6 {
        for part in fragments(text.as_bytes(), size) {
            raw.write(part).await;
        }
        assert!(
            raw.next_text().await.contains("κόσμε \\u20ac €🦀"),
            "the reference must be repeated as it was sent"
        );
    }
    node.stop().await;
}

#[tokio::test]
async fn pongs_repeat_the_data_of_the_ping_also_between_fragments() {
    let node = node(&[]).await;
    let mut raw = Raw::plain(node.address(0)).await;
    for data in [&b""[..], b"x", &[0, 0xFF], &[0xFE; 125]] {
        raw.write(frame(0x89, data)).await;
        assert_eq!(raw.next_frame().await, Some((0x8A, data.to_vec())));
    }
    // An unsolicited pong is ignored.
    raw.write(frame(0x8A, b"unasked")).await;
    raw.write(frame(0x01, br#"{"type":"dance","#)).await;
    raw.write(frame(0x89, b"still there?")).await;
    assert_eq!(
        raw.next_frame().await,
        Some((0x8A, b"still there?".to_vec()))
    );
    raw.write(frame(0x80, br#""ref":1}"#)).await;
    assert!(raw.next_text().await.contains("unknown_event"));
    for n in 0..10u8 {
        raw.write(frame(0x89, &[n])).await;
    }
    while raw.next_frame().await != Some((0x8A, vec![9])) {}
    node.stop().await;
}

#[tokio::test]
async fn a_close_frame_is_answered_with_its_code_and_ends_the_connection() {
    let node = node(&[
        ("MAX_SOCKETS_PER_USER", "1000"),
        ("RATE_USER_CONNECTS_PER_SEC", "0"),
    ])
    .await;
    let address = node.address(0);
    for code in [
        1000u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        let mut raw = Raw::plain(address).await;
        raw.write(frame(0x88, &[&code.to_be_bytes()[..], b"bye"].concat()))
            .await;
        // Frames after the close are ignored.
        raw.write(frame(0x81, b"nonsense")).await;
        assert_eq!(raw.close_code().await, Some(code));
    }
    let mut raw = Raw::plain(address).await;
    raw.write(frame(0x88, b"")).await;
    assert_eq!(raw.next_frame().await, Some((0x88, vec![])));
    assert_eq!(raw.next_frame().await, None);
    node.stop().await;
}

#[tokio::test]
async fn a_message_beyond_the_limit_of_a_listener_is_refused_unread() {
    let node = node(&[]).await;
    let address = node.address(0);
    for bytes in [
        head(0x81, 513),
        head(0x81, 1 << 40),
        [frame(0x01, &[b' '; 500]), frame(0x00, &[b' '; 13])].concat(),
    ] {
        let (mut raw, response) = Raw::handshake(address, "/ws?user_id=eve", "").await;
        assert_eq!(response.status, 101);
        raw.write(&bytes).await;
        assert_eq!(raw.close_code().await, Some(1009));
    }
    // Most of a large message is still being sent when it is refused. The close code must arrive
    // anyway.
    let (mut raw, _) = Raw::handshake(address, "/ws?user_id=eve", "").await;
    raw.write(frame(0x81, &vec![b'x'; 256 * 1024])).await;
    assert_eq!(raw.close_code().await, Some(1009));
    node.stop().await;
}

#[tokio::test]
async fn invalid_handshakes_are_refused() {
    let node = node(&[("ALLOWED_ORIGINS", "https://app.example")]).await;
    let address = node.address(0);
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\n";
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (headers, status) in [
        (
            format!("{upgrade}{key}sec-websocket-version: 13\r\norigin: https://app.example\r\n"),
            101,
        ),
        (
            format!("{upgrade}{key}sec-websocket-version: 13\r\norigin: https://evil.example\r\n"),
            403,
        ),
        (
            format!("{upgrade}{key}sec-websocket-version: 13\r\norigin: null\r\n"),
            403,
        ),
        (format!("{upgrade}{key}sec-websocket-version: 8\r\n"), 400),
        (format!("{upgrade}{key}"), 400),
        (format!("{upgrade}sec-websocket-version: 13\r\n"), 400),
        (
            format!("{upgrade}sec-websocket-version: 13\r\nsec-websocket-key: c2hvcnQ=\r\n"),
            400,
        ),
        (
            format!("upgrade: websocket\r\n{key}sec-websocket-version: 13\r\n"),
            400,
        ),
        (
            format!("connection: upgrade\r\nupgrade: h2c\r\n{key}sec-websocket-version: 13\r\n"),
            400,
        ),
    ] {
        let mut raw = Raw::open(address).await;
        raw.write(format!(
            "GET /ws?user_id=eve HTTP/1.1\r\nhost: x\r\n{headers}\r\n"
        ))
        .await;
        assert_eq!(raw.response().await.unwrap().status, status, "{headers}");
    }
    let offer = "sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n";
    let (_raw, response) = Raw::handshake(address, "/ws?user_id=eve", offer).await;
    assert!(
        response.status == 101 && !response.head.contains("sec-websocket-extensions"),
        "{}",
        response.head
    );
    node.stop().await;
}

#[tokio::test]
async fn caps_count_both_kinds_of_sockets_and_slots_are_released() {
    let node = node(&[("MAX_CONNECTIONS", "3"), ("MAX_SOCKETS_PER_USER", "2")]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let connect =
        async |user: &str| Raw::handshake(address, &format!("/ws?user_id={user}"), "").await;
    // Retries until a slot is free.
    let connect_when_free = async |user: &str| {
        let began = Instant::now();
        loop {
            let connected = connect(user).await;
            if connected.1.status == 101 {
                return connected.0;
            }
            assert!(began.elapsed() < DEADLINE, "the slot is never released");
        }
    };
    let first = connect("eve").await;
    let second = connect("eve").await;
    assert_eq!((first.1.status, second.1.status), (101, 101));
    let full = connect("bob").await.1;
    assert!(
        full.status == 503 && full.head.contains("retry-after"),
        "{}",
        full.head
    );
    drop(first);
    drop(connect_when_free("bob").await);
    // The user's own limit is reached before the node's.
    let _third = connect_when_free("eve").await;
    let refused = connect("eve").await.1;
    assert!(
        [429, 503].contains(&refused.status) && refused.head.contains("retry-after"),
        "{}",
        refused.head
    );
    witness.is_unaffected().await;
    node.stop().await;
}

#[tokio::test]
async fn a_refused_handshake_leaves_no_connection_behind() {
    let secret = "a secret of at least thirty-two bytes";
    let node = node(&[
        ("JWT_SECRET", secret),
        ("MAX_CONNECTIONS", "2"),
        ("MAX_UNAUTHENTICATED", "2"),
    ])
    .await;
    let address = node.address(0);
    for n in 0..100 {
        let target = ["/ws", "/ws?token=nonsense", "/ws?token="][n % 3];
        assert_eq!(Raw::handshake(address, target, "").await.1.status, 401);
        // The client disconnects before the response.
        let mut raw = Raw::open(address).await;
        raw.write("GET /ws?token=x HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    }
    let token = hubbub::auth::mint(
        secret,
        "ann",
        None,
        None,
        std::time::Duration::from_secs(60),
    )
    .unwrap();
    let began = Instant::now();
    loop {
        // The node may not have noticed the last disconnects yet.
        let (_raw, response) = Raw::handshake(address, &format!("/ws?token={token}"), "").await;
        if response.status == 101 {
            break;
        }
        assert!(
            response.status == 503 && began.elapsed() < DEADLINE,
            "{}",
            response.head
        );
    }
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_endless_pings_and_reads_no_pongs_is_closed() {
    let node = node(&[("WRITE_TIMEOUT_SECS", "1")]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    // Pings of WebSocket, pings of the JSON protocol, and requests that are refused.
    for ping in [
        frame(0x89, &[0; 125]),
        frame(0x81, br#"{"type":"ping"}"#),
        frame(0x81, br#"{"type":"dance"}"#),
    ] {
        let before = metric(address, "hubbub_slow_consumers_total").await;
        let mut attacker = Raw::plain(address).await;
        let flood = ping.repeat((1 << 20) / ping.len());
        let began = Instant::now();
        while attacker.write(&flood).await {
            assert!(
                began.elapsed() < DEADLINE,
                "the flood continues and the connection is still open"
            );
            witness.is_unaffected().await;
        }
        assert_eq!(
            metric(address, "hubbub_slow_consumers_total").await,
            before + 1,
            "{ping:?}"
        );
    }
    node.stop().await;
}

#[tokio::test]
async fn a_flood_of_valid_frames_does_not_affect_others_and_is_closed_at_the_rate() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let floods = [
        frame(0x8A, b""),
        frame(0x89, b""),
        frame(0x81, b"{}"),
        [frame(0x01, b""), frame(0x80, b"")].concat(),
    ];
    for flood in floods {
        let mut attacker = Raw::plain(address).await;
        let bytes = flood.repeat(5_000);
        for _ in 0..10 {
            attacker.write(&bytes).await;
            witness.is_unaffected().await;
        }
    }
    node.stop().await;
    let strict = hubbub_test_support::node::Cluster::alone(&[("MAX_RATE_REFUSALS", "100")]).await;
    let address = strict.address(0);
    for flood in [
        frame(0x89, b""),
        frame(0x8A, b""),
        frame(0x81, br#"{"type":"ping"}"#),
    ] {
        let mut attacker = Raw::plain(address).await;
        attacker.write(flood.repeat(5_000)).await;
        assert_eq!(attacker.close_code().await, Some(4429), "{flood:?}");
    }
    let body = request(address, "GET", "/health", "", b"").await.body;
    assert!(body.contains(r#""connectedClients":0"#), "{body}");
    strict.stop().await;
}

/// On one thread connections wait in a scheduler to process their events. Reading must not run
/// ahead of processing there.
#[tokio::test]
async fn thousands_of_events_in_one_write_are_all_processed_on_both_kinds_of_sockets() {
    let no_rates = ["", "USER_", "IP_"]
        .map(|scope| ["EVENTS", "BYTES"].map(|kind| format!("RATE_{scope}{kind}_PER_SEC")));
    let settings: Vec<_> = no_rates
        .iter()
        .flatten()
        .map(|name| (name.as_str(), "0"))
        .collect();
    let node = node(&settings).await;
    let plain = |n: usize| format!(r#"{{"type":"history","payload":5,"ref":{n}}}"#);
    let socket_io = |n: usize| format!(r#"42{n}["history",5]"#);
    for is_plain in [true, false] {
        let address = node.address(0);
        let mut raw = if is_plain {
            Raw::plain(address).await
        } else {
            Raw::authenticated(address).await
        };
        let event = |n| {
            frame(
                0x81,
                if is_plain { plain(n) } else { socket_io(n) }.as_bytes(),
            )
        };
        raw.write((0..5000).map(event).collect::<Vec<_>>().concat())
            .await;
        for n in 0..5000 {
            let text = raw.next_text().await;
            let reference = if is_plain {
                format!(r#""ref":{n},"#)
            } else {
                format!("43{n}[")
            };
            assert!(
                text.contains(&reference) && text.contains("bad_request"),
                "{n}: {text}"
            );
        }
    }
    node.stop().await;
}
