//! Attacks by polling clients.

use std::time::{Duration, Instant};

use crate::raw::{DEADLINE, Polling, Raw, Witness, metric, node, request};
use hubbub_test_support::node::Cluster;

#[tokio::test]
async fn a_malformed_body_is_refused_and_ends_its_session() {
    let node = node(&[]).await;
    let address = node.address(0);
    let v4: &[(&str, &[u8])] = &[
        ("an empty body", b""),
        ("invalid UTF-8", b"4\xFF"),
        ("an overlong character", b"4\xC0\x80"),
        ("a surrogate", b"4\xED\xA0\x80"),
        ("separators alone", b"\x1e\x1e\x1e"),
        ("a separator at the end", b"6\x1e"),
        ("an unknown type", b"9"),
        ("an open packet", b"0{}"),
        ("invalid base64", b"b!!!!"),
        ("truncated base64", b"bA"),
        ("binary data that was not announced", b"bAQIDBA=="),
        ("a ping, which only the server sends", b"2"),
        ("a probe", b"2probe"),
        ("the format of Engine.IO 3", b"1:6"),
    ];
    for (case, body) in v4 {
        let session = Polling::begin(address, 4).await;
        session.post(body).await;
        assert!(session.has_ended().await, "{case}");
    }
    let digits = format!("{}:6", "9".repeat(100_000));
    let v3: &[(&str, &[u8])] = &[
        ("a length beyond the end", b"2:6"),
        ("a length before the end", b"1:66"),
        (
            "a length in bytes instead of code units",
            "5:4\u{1F600}6".as_bytes(),
        ),
        ("half a surrogate pair", "2:4\u{1F600}".as_bytes()),
        ("a negative length", b"-1:6"),
        ("a length with a sign", b"+1:6"),
        ("a length in hexadecimal", b"0x1:6"),
        ("no length", b":6"),
        ("a length of 0", b"0:"),
        ("2^64", b"18446744073709551616:6"),
        ("a length of 100,000 digits", digits.as_bytes()),
        ("no separator", b"666666"),
    ];
    for (case, body) in v3 {
        let session = Polling::begin(address, 3).await;
        let response = session.post(body).await;
        assert_eq!(response.status, 400, "{case}");
        assert!(session.has_ended().await, "{case}");
    }
    let binary: &[(&str, &[u8])] = &[
        ("a length beyond the end", &[0, 9, 255, b'6']),
        ("digits beyond 9", &[0, 10, 255, b'6']),
        ("a length that never ends", &[1; 5000]),
        (
            "a length of too many digits",
            &[
                0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 255, b'6',
            ],
        ),
        ("an unknown kind", &[2, 1, 255, b'6']),
        ("invalid UTF-8", &[0, 2, 255, b'4', 0xFF]),
    ];
    for (case, body) in binary {
        let session = Polling::begin(address, 3).await;
        let response = session.post_binary(body).await;
        assert_eq!(response.status, 400, "{case}");
        assert!(session.has_ended().await, "{case}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_compressed_body_is_refused_unread_and_the_session_continues() {
    let node = node(&[]).await;
    let address = node.address(0);
    let session = Polling::begin(address, 4).await;
    // Decompressed, a kilobyte may become a megabyte, which the limits on received data would not
    // stop.
    for encoding in [
        "gzip",
        "deflate",
        "br",
        "zstd",
        "gzip, gzip",
        "identity, gzip",
    ] {
        let headers = format!("content-type: application/json\r\ncontent-encoding: {encoding}\r\n");
        for path in [
            format!("/socket.io/?{}", session.query),
            "/messages".to_owned(),
        ] {
            let response = request(address, "POST", &path, &headers, &[0x1F, 0x8B, 8, 0]).await;
            assert_eq!(response.status, 415, "{path} {encoding}: {response:?}");
            assert!(
                response.body.contains("unsupported_media_type"),
                "{response:?}"
            );
        }
    }
    assert_eq!(session.post("6").await.body, "ok");
    node.stop().await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_not_read() {
    let node = node(&[("MAX_PACKET_BYTES", "70000")]).await;
    let address = node.address(0);
    let announced = Polling::begin(address, 4).await;
    let mut raw = Raw::open(address).await;
    let head = |more: &str| {
        format!(
            "POST /socket.io/?{} HTTP/1.1\r\nhost: x\r\n{more}\r\n",
            announced.query
        )
    };
    // 10 GB are announced; the response arrives before any of them is sent.
    raw.write(head("content-length: 10000000000\r\n")).await;
    assert_eq!(raw.response().await.unwrap().status, 413);
    assert!(announced.has_ended().await);
    let unannounced = Polling::begin(address, 4).await;
    let mut raw = Raw::open(address).await;
    raw.write(format!(
        "POST /socket.io/?{} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
        unannounced.query
    ))
    .await;
    raw.write([&b"11171\r\n"[..], &[b'4'; 0x11171], b"\r\n"].concat())
        .await;
    assert_eq!(raw.response().await.unwrap().status, 413);
    assert!(unannounced.has_ended().await);
    node.stop().await;
}

/// The body may be four times as large as a packet, and no larger.
#[tokio::test]
async fn a_body_of_many_packets_beyond_the_limit_is_refused() {
    let node = node(&[("MAX_PACKET_BYTES", "70000")]).await;
    let address = node.address(0);
    for (packets, status) in [(28, 200), (29, 413)] {
        let session = Polling::begin(address, 4).await;
        let body = "6\x1e".repeat(5_000 * packets);
        assert_eq!(session.post(&body[..body.len() - 1]).await.status, status);
        assert_eq!(session.has_ended().await, status != 200);
    }
    node.stop().await;
}

/// Clients before Socket.IO 4.5, and the Java client, write everything that was emitted at once
/// into one body. The Swift client before version 16 leaves out `EIO`.
#[tokio::test]
async fn ninety_messages_of_15_kb_in_one_body_are_all_acknowledged() {
    let node = Cluster::alone(&[]).await;
    for query in ["EIO=4&transport=polling", "transport=polling&b64=1"] {
        let v4 = query.starts_with("EIO=4");
        let body = |packets: &[String]| match v4 {
            true => packets.join("\x1e"),
            false => packets
                .iter()
                .map(|packet| format!("{}:{packet}", packet.encode_utf16().count()))
                .collect(),
        };
        let session = Polling::open(node.address(0), query).await;
        if v4 {
            assert_eq!(session.post("40").await.body, "ok");
        }
        assert!(session.get().await.body.contains("40"));
        let packets = [
            r#"42900["authenticate",{"user_id":"ann"}]"#.to_owned(),
            r#"42901["join",{"room_id":"room"}]"#.to_owned(),
        ];
        assert_eq!(session.post(body(&packets)).await.body, "ok");
        let content = "é".repeat(7_500);
        let messages: Vec<_> = (0..90)
            .map(|n| format!(r#"42{n}["message",{{"room_id":"room","content":"{content}"}}]"#))
            .collect();
        let large = body(&messages);
        assert!(large.len() > 1 << 20);
        let posted = session.post(large).await;
        assert_eq!((posted.status, posted.body.as_str()), (200, "ok"));
        let mut acknowledged = 0;
        while acknowledged < 90 {
            let poll = session.get().await;
            assert_eq!(poll.status, 200);
            assert!(!poll.body.contains("\"ok\":false"), "{}", poll.body);
            acknowledged += poll.body.matches("\"duplicate\":false").count();
            if poll.body.split(['\x1e', ':']).any(|packet| packet == "2") {
                session.post("3").await;
            }
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn an_empty_sid_is_admitted_as_a_new_session() {
    let node = node(&[("MAX_CONNECTIONS", "1")]).await;
    let address = node.address(0);
    let session = Polling::open(address, "EIO=4&transport=polling&sid=").await;
    for query in ["sid=", "sid", "sid=&sid="] {
        let path = format!("/socket.io/?EIO=4&transport=polling&{query}");
        let refused = request(address, "GET", &path, "", b"").await;
        assert_eq!(refused.status, 503, "{query}: {refused:?}");
        let query = format!("EIO=4&transport=websocket&{query}");
        let (_, refused) = Raw::upgrade(address, &query, "").await;
        assert_eq!(refused.status, 503, "{query}: {refused:?}");
    }
    // Together with an id it opens no session that admission has not seen.
    let path = format!("/socket.io/?{}&sid=", session.query);
    assert_eq!(request(address, "POST", &path, "", b"6").await.body, "ok");
    let path = "/socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAA&sid=";
    assert_eq!(request(address, "GET", path, "", b"").await.status, 400);
    assert_eq!(metric(address, "hubbub_connections").await, 1);
    node.stop().await;
}

/// These are almost all that a body may hold.
#[tokio::test]
async fn two_million_packets_in_one_body_do_not_delay_other_clients() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let session = Polling::begin(address, 4).await;
    let body = vec!["6"; 2_000_000].join("\x1e");
    let flood = tokio::spawn(async move { session.post(body).await });
    let mut longest = Duration::ZERO;
    while !flood.is_finished() {
        let asked = Instant::now();
        witness.is_unaffected().await;
        longest = longest.max(asked.elapsed());
        // The witness keeps all messages that it receives: without a pause it would become slow.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(flood.await.unwrap().body, "ok");
    assert!(
        longest < Duration::from_secs(1),
        "others waited {longest:?}"
    );
    node.stop().await;
}

#[tokio::test]
async fn a_second_poll_ends_the_session_and_a_second_post_is_refused() {
    let node = node(&[]).await;
    let address = node.address(0);
    let session = Polling::begin(address, 4).await;
    let mut slow = Raw::open(address).await;
    let head = format!(
        "POST /socket.io/?{} HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n",
        session.query
    );
    slow.write(&head).await;
    // The first request may not have arrived yet.
    let deadline = Instant::now() + DEADLINE;
    while session.post("6").await.status != 400 {
        assert!(
            Instant::now() < deadline,
            "two bodies are read at the same time"
        );
    }
    slow.write("6").await;
    assert_eq!(slow.response().await.unwrap().body, "ok");
    assert_eq!(session.post("6").await.body, "ok");

    let poll = || async {
        let mut raw = Raw::open(address).await;
        raw.write(format!(
            "GET /socket.io/?{} HTTP/1.1\r\nhost: x\r\n\r\n",
            session.query
        ))
        .await;
        raw.response().await.unwrap()
    };
    let (one, two) = tokio::join!(poll(), poll());
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);
    assert!(session.has_ended().await);
    node.stop().await;
}

#[tokio::test]
async fn abandoned_sessions_are_closed() {
    let node = node(&[("PING_INTERVAL_MS", "200"), ("PING_TIMEOUT_MS", "100")]).await;
    let address = node.address(0);
    for version in [3, 4] {
        for _ in 0..50 {
            Polling::begin(address, version).await;
        }
    }
    let deadline = Instant::now() + DEADLINE;
    while metric(address, "hubbub_connections").await > 0 {
        assert!(Instant::now() < deadline, "the sessions are still open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn upgrades_of_one_session_are_limited_and_abandoned_ones_are_closed() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let session = Polling::begin(address, 4).await;
    let query = session.query.replace("polling", "websocket");
    // One upgrade at a time: while the first one is silent, all others are closed as soon as they
    // open.
    let (silent, _) = Raw::upgrade(address, &query, "").await;
    for _ in 0..50 {
        let (mut other, response) = Raw::upgrade(address, &query, "").await;
        assert_eq!(response.status, 101);
        assert_eq!(other.close_code().await, Some(1000));
    }
    drop(silent);
    // A repeated probe is neither a heartbeat nor the expected next packet.
    let mut probed = 0;
    for _ in 0..50 {
        let (mut probing, _) = Raw::upgrade(address, &query, "").await;
        probing.send_text("2probe").await;
        if probing.next_frame().await == Some((0x81, b"3probe".to_vec())) {
            probed += 1;
            probing.send_text("2probe").await;
            assert_eq!(probing.close_code().await, Some(1002));
        }
    }
    assert!((1..=10).contains(&probed), "{probed} upgrades were started");
    assert_eq!(session.post("6").await.body, "ok", "polling continues");
    witness.is_unaffected().await;
    node.stop().await;
}

#[tokio::test]
async fn guessed_session_ids_are_refused() {
    let node = node(&[]).await;
    let address = node.address(0);
    let session = Polling::begin(address, 4).await;
    let sid = session.query.rsplit('=').next().unwrap().to_owned();
    let similar = format!(
        "{}{}",
        &sid[..15],
        if sid.ends_with('A') { 'B' } else { 'A' }
    );
    for guess in [
        similar.as_str(),
        &sid.to_lowercase().to_uppercase(),
        "AAAAAAAAAAAAAAAA",
        "../../etc/passwd",
        &"A".repeat(20_000),
    ] {
        for method in ["GET", "POST"] {
            let path = format!("/socket.io/?EIO=4&transport=polling&sid={guess}");
            assert_eq!(
                request(address, method, &path, "", b"").await.status,
                400,
                "{method} {guess:.40}"
            );
        }
        let (_, response) = Raw::upgrade(
            address,
            &format!("EIO=4&transport=websocket&sid={guess}"),
            "",
        )
        .await;
        assert_eq!(response.status, 400);
    }
    // A request of the other protocol version is refused, too.
    let path = format!("/socket.io/?EIO=3&transport=polling&sid={sid}");
    assert_eq!(
        request(address, "POST", &path, "", b"1:6").await.status,
        400
    );
    assert_eq!(metric(address, "hubbub_connections").await, 1);
    assert_eq!(session.post("6").await.body, "ok");
    node.stop().await;
}
