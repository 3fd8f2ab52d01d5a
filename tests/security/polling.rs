//! Polling by clients that mean ill.

use std::time::{Duration, Instant};

use crate::raw::{PATIENCE, Polling, Raw, Witness, metric, node, request};

#[tokio::test]
async fn a_body_that_makes_no_sense_is_refused_and_ends_its_session() {
    let node = node(&[]).await;
    let address = node.address(0);
    let v4: &[(&str, &[u8])] = &[
        ("nothing", b""),
        ("no text", b"4\xFF"),
        ("an overlong character", b"4\xC0\x80"),
        ("a surrogate", b"4\xED\xA0\x80"),
        ("separators alone", b"\x1e\x1e\x1e"),
        ("a separator at the end", b"6\x1e"),
        ("an unknown type", b"9"),
        ("an open packet", b"0{}"),
        ("base64 that is none", b"b!!!!"),
        ("base64 cut off", b"bAQI"),
        ("binary that nobody announced", b"bAQIDBA=="),
        ("a ping, which is the server's", b"2"),
        ("a probe", b"2probe"),
        ("Engine.IO 3's form", b"1:6"),
    ];
    for (what, body) in v4 {
        let session = Polling::begin(address, 4).await;
        session.post(body).await;
        assert!(session.is_over().await, "{what}");
    }
    let digits = format!("{}:6", "9".repeat(100_000));
    let v3: &[(&str, &[u8])] = &[
        ("a length beyond the end", b"2:6"),
        ("a length short of it", b"1:66"),
        ("bytes for code units", "5:4\u{1F600}6".as_bytes()),
        ("half a surrogate pair", "2:4\u{1F600}".as_bytes()),
        ("a negative length", b"-1:6"),
        ("a length with a sign", b"+1:6"),
        ("a length in hexadecimal", b"0x1:6"),
        ("no length", b":6"),
        ("a packet of no length", b"0:"),
        ("2^64", b"18446744073709551616:6"),
        ("a length of 100,000 digits", digits.as_bytes()),
        ("no separator", b"666666"),
    ];
    for (what, body) in v3 {
        let session = Polling::begin(address, 3).await;
        let answer = session.post(body).await;
        assert_eq!(answer.status, 400, "{what}");
        assert!(session.is_over().await, "{what}");
    }
    let binary: &[(&str, &[u8])] = &[
        ("a length beyond the end", &[0, 9, 255, b'6']),
        ("digits beyond 9", &[0, 10, 255, b'6']),
        ("lengths without an end", &[1; 5000]),
        (
            "more digits than a length has",
            &[
                0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 255, b'6',
            ],
        ),
        ("an unknown kind", &[2, 1, 255, b'6']),
        ("no text", &[0, 2, 255, b'4', 0xFF]),
    ];
    for (what, body) in binary {
        let session = Polling::begin(address, 3).await;
        let answer = session.post_binary(body).await;
        assert_eq!(answer.status, 400, "{what}");
        assert!(session.is_over().await, "{what}");
    }
    node.stop().await;
}

#[tokio::test]
async fn an_encoded_body_is_refused_unread_and_costs_the_session_nothing() {
    let node = node(&[]).await;
    let address = node.address(0);
    let session = Polling::begin(address, 4).await;
    // A kilobyte that unpacks to a megabyte would pass every limit on what arrives.
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
            let answer = request(address, "POST", &path, &headers, &[0x1F, 0x8B, 8, 0]).await;
            assert_eq!(answer.status, 415, "{path} {encoding}: {answer:?}");
            assert!(answer.body.contains("unsupported_media_type"), "{answer:?}");
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
    // Ten gigabytes are announced; the answer comes before any of them.
    raw.write(head("content-length: 10000000000\r\n")).await;
    assert_eq!(raw.answer().await.unwrap().status, 413);
    assert!(announced.is_over().await);
    let unannounced = Polling::begin(address, 4).await;
    let mut raw = Raw::open(address).await;
    raw.write(format!(
        "POST /socket.io/?{} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
        unannounced.query
    ))
    .await;
    raw.write([&b"11171\r\n"[..], &[b'4'; 0x11171], b"\r\n"].concat())
        .await;
    assert_eq!(raw.answer().await.unwrap().status, 413);
    assert!(unannounced.is_over().await);
    node.stop().await;
}

#[tokio::test]
async fn half_a_million_packets_in_one_body_are_taken_in_turns() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let session = Polling::begin(address, 4).await;
    let body = vec!["6"; 500_000].join("\x1e");
    let flood = tokio::spawn(async move { session.post(body).await });
    let mut longest = Duration::ZERO;
    while !flood.is_finished() {
        let asked = Instant::now();
        witness.is_well().await;
        longest = longest.max(asked.elapsed());
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
    // The first may still be on its way.
    let deadline = Instant::now() + PATIENCE;
    while session.post("6").await.status != 400 {
        assert!(Instant::now() < deadline, "two bodies at once");
    }
    slow.write("6").await;
    assert_eq!(slow.answer().await.unwrap().body, "ok");
    assert_eq!(session.post("6").await.body, "ok");

    let poll = || async {
        let mut raw = Raw::open(address).await;
        raw.write(format!(
            "GET /socket.io/?{} HTTP/1.1\r\nhost: x\r\n\r\n",
            session.query
        ))
        .await;
        raw.answer().await.unwrap()
    };
    let (one, two) = tokio::join!(poll(), poll());
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);
    assert!(session.is_over().await);
    node.stop().await;
}

#[tokio::test]
async fn abandoned_sessions_are_forgotten() {
    let node = node(&[("PING_INTERVAL_MS", "200"), ("PING_TIMEOUT_MS", "100")]).await;
    let address = node.address(0);
    for version in [3, 4] {
        for _ in 0..50 {
            Polling::begin(address, version).await;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while metric(address, "hubbub_connections").await > 0 {
        assert!(Instant::now() < deadline, "they are still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn upgrades_of_one_session_are_counted_and_abandoned_ones_closed() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let session = Polling::begin(address, 4).await;
    let query = session.query.replace("polling", "websocket");
    // One at a time: while the first says nothing, all others are closed as soon as they open.
    let (silent, _) = Raw::upgrade(address, &query, "").await;
    for _ in 0..50 {
        let (mut other, answer) = Raw::upgrade(address, &query, "").await;
        assert_eq!(answer.status, 101);
        assert_eq!(other.closed().await, Some(1000));
    }
    drop(silent);
    // Probing again and again is no heartbeat, and not what the step wants.
    let mut probed = 0;
    for _ in 0..50 {
        let (mut probing, _) = Raw::upgrade(address, &query, "").await;
        probing.say("2probe").await;
        if probing.frame().await == Some((0x81, b"3probe".to_vec())) {
            probed += 1;
            probing.say("2probe").await;
            assert_eq!(probing.closed().await, Some(1002));
        }
    }
    assert!((1..=10).contains(&probed), "{probed} upgrades were begun");
    assert_eq!(session.post("6").await.body, "ok", "polling goes on");
    witness.is_well().await;
    node.stop().await;
}

#[tokio::test]
async fn ids_that_nobody_was_given_find_nothing() {
    let node = node(&[]).await;
    let address = node.address(0);
    let session = Polling::begin(address, 4).await;
    let sid = session.query.rsplit('=').next().unwrap().to_owned();
    let near = format!(
        "{}{}",
        &sid[..15],
        if sid.ends_with('A') { 'B' } else { 'A' }
    );
    for guess in [
        near.as_str(),
        &sid.to_lowercase().to_uppercase(),
        "",
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
        let (_, answer) = Raw::upgrade(
            address,
            &format!("EIO=4&transport=websocket&sid={guess}"),
            "",
        )
        .await;
        assert_eq!(answer.status, 400);
    }
    // Nor does the other version's request.
    let path = format!("/socket.io/?EIO=3&transport=polling&sid={sid}");
    assert_eq!(
        request(address, "POST", &path, "", b"1:6").await.status,
        400
    );
    assert_eq!(metric(address, "hubbub_connections").await, 1);
    assert_eq!(session.post("6").await.body, "ok");
    node.stop().await;
}
