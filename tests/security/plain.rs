//! The plain WebSocket door under attack, and held to the WebSocket protocol, case by case.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::Value;

use crate::frames::broken;
use crate::raw::{PATIENCE, Raw, Witness, frame, head, metric, node, request};

/// Asks something of which the answer is known, in a text of that many bytes; in frames as `cut` makes them.
async fn is_understood(raw: &mut Raw, length: usize, cut: impl Fn(&[u8]) -> Vec<Vec<u8>>) {
    let text = r#"{"type":"dance","ref":"7","pad":""}"#;
    let padded = text.replace(
        r#""pad":"""#,
        &format!(
            "\"pad\":\"{}\"",
            "x".repeat(length.saturating_sub(text.len()))
        ),
    );
    for part in cut(padded.as_bytes()) {
        assert!(raw.write(part).await);
    }
    let answer: Value = serde_json::from_str(&raw.text().await).unwrap();
    assert_eq!(
        (&answer["ref"], &answer["payload"]["code"]),
        (&"7".into(), &"unknown_event".into()),
        "{length}"
    );
}

fn whole(text: &[u8]) -> Vec<Vec<u8>> {
    vec![frame(0x81, text)]
}

/// In fragments of that many bytes.
fn fragments(text: &[u8], size: usize) -> Vec<Vec<u8>> {
    let parts: Vec<_> = text.chunks(size).collect();
    let first = |place| if place == 0 { 0x01 } else { 0x00 };
    let last = |place| if place + 1 == parts.len() { 0x80 } else { 0x00 };
    parts
        .iter()
        .enumerate()
        .map(|(place, part)| frame(first(place) | last(place), part))
        .collect()
}

#[tokio::test]
async fn frames_that_break_the_rules_end_their_connection_with_the_code_for_it() {
    let node = node(&[
        ("MAX_SOCKETS_PER_USER", "1000"),
        ("RATE_USER_CONNECTS_PER_SEC", "0"),
    ])
    .await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let not_text: [(&str, &[u8]); 9] = [
        ("a byte that never is", &[0xFE]),
        ("a continuation alone", &[0x80]),
        ("a slash in two bytes", &[0xC0, 0xAF]),
        ("a slash in three bytes", &[0xE0, 0x80, 0xAF]),
        ("a slash in four bytes", &[0xF0, 0x80, 0x80, 0xAF]),
        ("five bytes", &[0xF8, 0x88, 0x80, 0x80, 0x80]),
        ("beyond the last character", &[0xF4, 0x90, 0x80, 0x80]),
        ("a low surrogate", &[0xED, 0xBF, 0xBF]),
        ("both surrogates", &[0xED, 0xA0, 0x80, 0xED, 0xB0, 0x80]),
    ];
    let not_text = not_text.map(|(what, bytes)| (what, frame(0x81, &[b"{", bytes].concat()), 1007));
    let codes = [
        0u16, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535,
    ];
    let closes = codes.map(|code| {
        (
            "a close with a code that nobody may send",
            frame(0x88, &code.to_be_bytes()),
            1002,
        )
    });
    let others = [
        ("binary", frame(0x82, b"{}"), 1003),
        (
            "fragments beyond the limit",
            fragments(&vec![b' '; (1 << 20) + 1], 1 << 18).concat(),
            1009,
        ),
    ];
    let cases = broken()
        .into_iter()
        .chain(not_text)
        .chain(closes)
        .chain(others);
    join_all(cases.map(async |(what, bytes, code)| {
        let mut attacker = Raw::plain(address).await;
        attacker.write(&bytes).await;
        let closed = tokio::time::timeout(PATIENCE / 2, attacker.closed()).await;
        assert_eq!(
            closed,
            Ok(Some(code)),
            "{what} {:?}",
            &bytes[..bytes.len().min(20)]
        );
    }))
    .await;
    witness.is_well().await;
    node.stop().await;
}

#[tokio::test]
async fn texts_of_every_length_are_understood_however_they_are_cut() {
    let node = node(&[]).await;
    let mut raw = Raw::plain(node.address(0)).await;
    for length in [35, 125, 126, 127, 128, 4096, 65_535, 65_536, 1 << 20] {
        is_understood(&mut raw, length, whole).await;
        is_understood(&mut raw, length, |text| fragments(text, 1024)).await;
    }
    is_understood(&mut raw, 200, |text| fragments(text, 1)).await;
    // Each byte in a write of its own; and empty fragments around.
    is_understood(&mut raw, 60, |text| {
        frame(0x81, text).iter().map(|byte| vec![*byte]).collect()
    })
    .await;
    is_understood(&mut raw, 60, |text| {
        vec![frame(0x01, b""), frame(0x00, text), frame(0x80, b"")]
    })
    .await;
    // Characters of two, three and four bytes, cut within.
    let text = r#"{"type":"dance","ref":"κόσμε \u20ac €🦀"}"#;
    for size in 1..6 {
        for part in fragments(text.as_bytes(), size) {
            raw.write(part).await;
        }
        assert!(
            raw.text().await.contains("κόσμε \\u20ac €🦀"),
            "as it was written"
        );
    }
    node.stop().await;
}

#[tokio::test]
async fn pings_are_answered_with_what_they_say_also_between_fragments() {
    let node = node(&[]).await;
    let mut raw = Raw::plain(node.address(0)).await;
    for data in [&b""[..], b"x", &[0, 0xFF], &[0xFE; 125]] {
        raw.write(frame(0x89, data)).await;
        assert_eq!(raw.frame().await, Some((0x8A, data.to_vec())));
    }
    // A pong that nobody asked for says nothing.
    raw.write(frame(0x8A, b"unasked")).await;
    raw.write(frame(0x01, br#"{"type":"dance","#)).await;
    raw.write(frame(0x89, b"still there?")).await;
    assert_eq!(raw.frame().await, Some((0x8A, b"still there?".to_vec())));
    raw.write(frame(0x80, br#""ref":1}"#)).await;
    assert!(raw.text().await.contains("unknown_event"));
    for n in 0..10u8 {
        raw.write(frame(0x89, &[n])).await;
    }
    while raw.frame().await != Some((0x8A, vec![9])) {}
    node.stop().await;
}

#[tokio::test]
async fn a_close_is_answered_by_its_code_and_ends_the_connection() {
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
        // Whatever follows is not looked at.
        raw.write(frame(0x81, b"nonsense")).await;
        assert_eq!(raw.closed().await, Some(code));
    }
    let mut raw = Raw::plain(address).await;
    raw.write(frame(0x88, b"")).await;
    assert_eq!(raw.frame().await, Some((0x88, vec![])));
    assert_eq!(raw.frame().await, None);
    node.stop().await;
}

#[tokio::test]
async fn what_announces_more_than_a_listener_may_send_is_refused_unread() {
    let node = node(&[]).await;
    let address = node.address(0);
    for bytes in [
        head(0x81, 513),
        head(0x81, 1 << 40),
        [frame(0x01, &[b' '; 500]), frame(0x00, &[b' '; 13])].concat(),
    ] {
        let (mut raw, answer) = Raw::handshake(address, "/ws?user_id=eve", "").await;
        assert_eq!(answer.status, 101);
        raw.write(&bytes).await;
        assert_eq!(raw.closed().await, Some(1009));
    }
    // A large one, of which most is still on its way when it is refused: the code arrives all the same.
    let (mut raw, _) = Raw::handshake(address, "/ws?user_id=eve", "").await;
    raw.write(frame(0x81, &vec![b'x'; 256 * 1024])).await;
    assert_eq!(raw.closed().await, Some(1009));
    node.stop().await;
}

#[tokio::test]
async fn handshakes_that_break_the_rules_are_refused() {
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
        assert_eq!(raw.answer().await.unwrap().status, status, "{headers}");
    }
    let offer = "sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n";
    let (_raw, answer) = Raw::handshake(address, "/ws?user_id=eve", offer).await;
    assert!(
        answer.status == 101 && !answer.head.contains("sec-websocket-extensions"),
        "{}",
        answer.head
    );
    node.stop().await;
}

#[tokio::test]
async fn caps_count_both_doors_and_places_are_given_back() {
    let node = node(&[("MAX_CONNECTIONS", "3"), ("MAX_SOCKETS_PER_USER", "2")]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let enter =
        async |user: &str| Raw::handshake(address, &format!("/ws?user_id={user}"), "").await;
    // Once a place is free.
    let enter_at_last = async |user: &str| {
        let began = Instant::now();
        loop {
            let entered = enter(user).await;
            if entered.1.status == 101 {
                return entered.0;
            }
            assert!(began.elapsed() < PATIENCE, "the place is never given back");
        }
    };
    let first = enter("eve").await;
    let second = enter("eve").await;
    assert_eq!((first.1.status, second.1.status), (101, 101));
    let full = enter("bob").await.1;
    assert!(
        full.status == 503 && full.head.contains("retry-after"),
        "{}",
        full.head
    );
    drop(first);
    drop(enter_at_last("bob").await);
    // The user's own share is used up before the node's.
    let _third = enter_at_last("eve").await;
    let refused = enter("eve").await.1;
    assert!(
        [429, 503].contains(&refused.status) && refused.head.contains("retry-after"),
        "{}",
        refused.head
    );
    witness.is_well().await;
    node.stop().await;
}

#[tokio::test]
async fn who_is_refused_at_the_door_leaves_nothing_behind() {
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
        // Gone before it was answered.
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
        // The last of those who are gone may not have been missed yet.
        let (_raw, answer) = Raw::handshake(address, &format!("/ws?token={token}"), "").await;
        if answer.status == 101 {
            break;
        }
        assert!(
            answer.status == 503 && began.elapsed() < PATIENCE,
            "{}",
            answer.head
        );
    }
    node.stop().await;
}

#[tokio::test]
async fn who_pings_without_end_and_reads_no_answer_is_closed() {
    let node = node(&[("WRITE_TIMEOUT_SECS", "1")]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    // WebSocket's own pings, those of the door, and questions that are refused.
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
            assert!(began.elapsed() < PATIENCE, "it floods on, and nobody minds");
            witness.is_well().await;
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
async fn a_flood_within_the_protocol_leaves_others_alone_and_ends_at_the_rate() {
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
            witness.is_well().await;
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
        assert_eq!(attacker.closed().await, Some(4429), "{flood:?}");
    }
    let body = request(address, "GET", "/health", "", b"").await.body;
    assert!(body.contains(r#""connectedClients":0"#), "{body}");
    strict.stop().await;
}

/// On one thread, where events are taken up in a line: what is read must not run ahead of it.
#[tokio::test]
async fn thousands_of_events_in_one_breath_are_all_taken_up_at_both_doors() {
    let off = ["", "USER_", "IP_"]
        .map(|whose| ["EVENTS", "BYTES"].map(|what| format!("RATE_{whose}{what}_PER_SEC")));
    let settings: Vec<_> = off
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
            Raw::member(address).await
        };
        let say = |n| {
            frame(
                0x81,
                if is_plain { plain(n) } else { socket_io(n) }.as_bytes(),
            )
        };
        raw.write((0..5000).map(say).collect::<Vec<_>>().concat())
            .await;
        for n in 0..5000 {
            let text = raw.text().await;
            let whose = if is_plain {
                format!(r#""ref":{n},"#)
            } else {
                format!("43{n}[")
            };
            assert!(
                text.contains(&whose) && text.contains("bad_request"),
                "{n}: {text}"
            );
        }
    }
    node.stop().await;
}
