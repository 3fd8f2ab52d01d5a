//! Attacks by Socket.IO packets, invalid and valid ones.

use std::time::{Duration, Instant};

use crate::raw::{DEADLINE, Polling, Raw, Witness, frame, metric, node, request};

#[tokio::test]
async fn packets_that_violate_the_protocol_close_the_connection() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let attacks: &[(&str, &[&str])] = &[
        ("no packet", &["4"]),
        ("an unknown type", &["48"]),
        (
            "a CONNECT_ERROR, which only the server sends",
            &["44{\"message\":\"x\"}"],
        ),
        ("an object for arguments", &["42{\"0\":\"join\"}"]),
        ("text for arguments", &["42\"join\""]),
        ("an acknowledgement without an id", &["43[]"]),
        ("no count of attachments", &["45-[\"join\"]"]),
        ("a negative count", &["45-1-[\"join\"]"]),
        ("a billion attachments", &["451000000000-[\"join\"]"]),
        (
            "more than a number holds",
            &["4599999999999999999999999-[\"join\"]"],
        ),
        ("one attachment more than the limit", &["451001-[\"join\"]"]),
        (
            "text where an attachment is expected",
            &[
                "451-[\"join\",{\"_placeholder\":true,\"num\":0}]",
                "42[\"join\"]",
            ],
        ),
        (
            "an announcement where an attachment is expected",
            &["451-[\"join\"]", "451-[\"join\"]"],
        ),
    ];
    for (case, packets) in attacks {
        let mut attacker = Raw::authenticated(address).await;
        for packet in *packets {
            attacker.send_text(packet).await;
        }
        assert_eq!(attacker.close_code().await, Some(1002), "{case}");
        witness.is_unaffected().await;
    }
    let mut attacker = Raw::authenticated(address).await;
    attacker.write(frame(0x82, &[1, 2, 3])).await;
    assert_eq!(
        attacker.close_code().await,
        Some(1002),
        "binary data that was not announced"
    );
    let mut attacker = Raw::websocket(address, 4).await;
    attacker.send_text("42[\"message\",{}]").await;
    attacker.close_code().await;
    witness.is_unaffected().await;
    node.stop().await;
}

#[tokio::test]
async fn odd_but_valid_packets_are_answered_or_ignored() {
    let node = node(&[]).await;
    let address = node.address(0);
    let mut client = Raw::authenticated(address).await;
    let deep = format!(
        "421[\"message\",{}{}]",
        "[".repeat(30_000),
        "]".repeat(30_000)
    );
    let deep_name = format!("421{}", "[".repeat(100_000));
    let placeholder =
        |num: &str| format!("451-1[\"message\",{{\"_placeholder\":true,\"num\":{num}}}]");
    let answered: &[(&str, Vec<Vec<u8>>, &str)] = &[
        (
            "an ack id that is out of range",
            vec![frame(0x81, b"4299999999999999999999[\"join\",5]")],
            "42[\"exception\"",
        ),
        (
            "the largest ack id",
            vec![frame(0x81, b"429223372036854775807[\"join\",5]")],
            "439223372036854775807[",
        ),
        ("30,000 levels", vec![frame(0x81, deep.as_bytes())], "431["),
        (
            "no event name",
            vec![frame(0x81, b"42[]")],
            "42[\"exception\",{\"ok\":false,\"code\":\"bad_request\"",
        ),
        (
            "a number for a name",
            vec![frame(0x81, b"421[5]")],
            "431[{\"ok\":false,\"code\":\"bad_request\"",
        ),
        (
            "100,000 levels for a name",
            vec![frame(0x81, deep_name.as_bytes())],
            "431[{\"ok\":false,\"code\":\"bad_request\"",
        ),
        (
            "half of an array",
            vec![frame(0x81, b"421[\"join\",{")],
            "431[{\"ok\":false,\"code\":\"bad_request\"",
        ),
        (
            "an unknown name with an escape",
            vec![frame(0x81, b"421[\"a\\u0000\",{}]")],
            "431[{\"ok\":false,\"code\":\"unknown_event\"",
        ),
        (
            "a name with an escape",
            vec![frame(0x81, b"421[\"joi\\u006e\",{}]")],
            "431[{\"ok\":false,\"code\":\"bad_request\",\"error\":\"room_id",
        ),
        (
            "a placeholder out of range",
            vec![frame(0x81, placeholder("7").as_bytes()), frame(0x82, b"x")],
            "431[",
        ),
        (
            "a negative placeholder",
            vec![frame(0x81, placeholder("-1").as_bytes()), frame(0x82, b"x")],
            "431[",
        ),
        (
            "a placeholder that is text",
            vec![
                frame(0x81, placeholder("\"x\"").as_bytes()),
                frame(0x82, b"x"),
            ],
            "431[",
        ),
        (
            "an announcement of no attachments",
            vec![frame(0x81, b"450-1[\"message\",{}]")],
            "431[",
        ),
        (
            "an unknown namespace",
            vec![frame(0x81, b"40/admin,{}")],
            "44/admin,",
        ),
    ];
    for (case, frames, reply) in answered {
        for bytes in frames {
            client.write(bytes).await;
        }
        let text = client.next_text().await;
        assert!(text.starts_with(reply), "{case}: {text}");
    }
    // These have no reply: the next reply belongs to the next request.
    for ignored in [
        "40",
        "40{\"token\":\"x\"}",
        "43999[]",
        "42/admin,[\"join\"]",
        "41/admin,",
        "460-5[]",
    ] {
        client.send_text(ignored).await;
        client.send_text("429[\"history\",5]").await;
        let text = client.next_text().await;
        assert!(text.starts_with("439["), "{ignored}: {text}");
    }
    node.stop().await;
}

#[tokio::test]
async fn events_with_attachments_and_without_keep_their_order() {
    let node = node(&[]).await;
    let mut client = Raw::authenticated(node.address(0)).await;
    let whole = |id: u32| frame(0x81, format!("42{id}[\"history\",5]").as_bytes());
    let attached = |id: u32| {
        let head = format!("451-{id}[\"message\",{{\"_placeholder\":true,\"num\":0}}]");
        [frame(0x81, head.as_bytes()), frame(0x82, b"x")].concat()
    };
    let ids: Vec<u32> = (1..=20).collect();
    let both = |id: &u32| {
        if id.is_multiple_of(3) {
            attached(*id)
        } else {
            whole(*id)
        }
    };
    client
        .write(ids.iter().map(both).collect::<Vec<_>>().concat())
        .await;
    for id in ids {
        let text = client.next_text().await;
        assert!(text.starts_with(&format!("43{id}[")), "{id}: {text}");
    }
    node.stop().await;
}

#[tokio::test]
async fn events_after_a_disconnect_close_the_transport() {
    let node = node(&[("AUTH_TIMEOUT_SECS", "600")]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let mut client = Raw::authenticated(address).await;
    client
        .write([frame(0x81, b"41"), frame(0x81, b"421[\"history\",5]")].concat())
        .await;
    witness.is_unaffected().await;
    // The event in the same write may still reach its socket. A later one does not, and closes the
    // transport so that its sender does not wait for a reply.
    client.send_text("422[\"history\",5]").await;
    client.close_code().await;
    let mut client = Raw::authenticated(address).await;
    client.send_text("41").await;
    client.send_text("40").await;
    assert!(
        client.next_text().await.starts_with("40"),
        "a new CONNECT begins a new connection"
    );
    client.send_text("421[\"history\",5]").await;
    assert!(
        client
            .next_text()
            .await
            .starts_with("431[{\"ok\":false,\"code\":\"unauthorized\"")
    );
    witness.is_unaffected().await;
    node.stop().await;
}

#[tokio::test]
async fn missing_attachments_hold_no_more_memory_than_a_packet() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let mut attacker = Raw::authenticated(address).await;
    attacker.send_text("451000-[\"message\",{}]").await;
    // Each is within the limit of a message; together they exceed the limit of a packet.
    for _ in 0..3 {
        attacker.write(frame(0x82, &[0; 500_000])).await;
    }
    assert_eq!(attacker.close_code().await, Some(1002));
    let mut silent = Raw::authenticated(address).await;
    silent
        .send_text("451-[\"message\",{\"_placeholder\":true,\"num\":0}]")
        .await;
    silent.send_text("429[\"history\",5]").await;
    assert_eq!(silent.close_code().await, Some(1002));
    witness.is_unaffected().await;
    node.stop().await;
}

#[tokio::test]
async fn unknown_namespaces_leave_no_state_behind() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let mut attacker = Raw::authenticated(address).await;
    for index in 0..5_000 {
        attacker.send_text(&format!("40/n{index},")).await;
        assert_eq!(
            attacker.next_text().await,
            format!("44/n{index},{{\"message\":\"Invalid namespace\"}}")
        );
    }
    // The reply repeats the name. A reply that does not fit into the outbox closes the connection.
    attacker
        .send_text(&format!("40/{},", "x".repeat((1 << 20) - 8)))
        .await;
    attacker.close_code().await;
    witness.is_unaffected().await;
    node.stop().await;
}

async fn is_closed_soon(mut attacker: Raw, case: &str) {
    let began = Instant::now();
    attacker.close_code().await;
    // `AUTH_TIMEOUT_SECS` is 1. A transport without a CONNECT has 3 s more.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{case} stays open for {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_transport_that_never_authenticates_is_closed() {
    let node = node(&[("AUTH_TIMEOUT_SECS", "1")]).await;
    let address = node.address(0);
    let silent = Raw::websocket(address, 4).await;
    let silent_v3 = Raw::websocket(address, 3).await;
    let mut connected = Raw::websocket(address, 4).await;
    connected.send_text("40").await;
    let mut elsewhere = Raw::websocket(address, 4).await;
    elsewhere.send_text("40/admin,").await;
    // A DISCONNECT ends the deadline for authentication, so it must begin another one.
    let mut left = Raw::websocket(address, 4).await;
    left.send_text("40").await;
    left.next_text().await;
    left.send_text("41").await;
    let mut left_v3 = Raw::websocket(address, 3).await;
    left_v3.next_text().await;
    left_v3.send_text("41").await;
    let mut repeated = Raw::websocket(address, 4).await;
    for _ in 0..3 {
        repeated.send_text("40").await;
        repeated.next_text().await;
        repeated.send_text("41").await;
    }
    let all = [
        (silent, "no CONNECT"),
        (silent_v3, "no identity, version 3"),
        (connected, "no identity"),
        (elsewhere, "no accepted CONNECT"),
        (left, "CONNECT, then DISCONNECT"),
        (left_v3, "DISCONNECT, version 3"),
        (repeated, "repeated CONNECT and DISCONNECT"),
    ];
    futures_util::future::join_all(all.map(|(attacker, case)| is_closed_soon(attacker, case)))
        .await;
    assert_eq!(metric(address, "hubbub_connections").await, 0);
    node.stop().await;
}

#[tokio::test]
async fn transports_without_an_identity_make_way_for_new_ones_after_ten_seconds() {
    let node = node(&[("MAX_UNAUTHENTICATED", "4"), ("AUTH_TIMEOUT_SECS", "600")]).await;
    let address = node.address(0);
    let mut user = Raw::authenticated(address).await;
    let began = Instant::now();
    let silent = Raw::websocket(address, 4).await;
    let silent_v3 = Raw::websocket(address, 3).await;
    let mut connected = Raw::websocket(address, 4).await;
    connected.send_text("40").await;
    let mut left = Raw::authenticated(address).await;
    left.send_text("41").await;
    // A plain WebSocket has its identity from the handshake on.
    let _plain = Raw::plain(address).await;
    let mut admitted = Vec::new();
    while admitted.len() < 4 {
        let (raw, response) = Raw::upgrade(address, "EIO=4&transport=websocket", "").await;
        match response.status {
            101 => {
                assert!(began.elapsed() >= Duration::from_secs(10));
                admitted.push(raw);
            }
            status => assert_eq!(status, 503, "{}", response.head),
        }
        assert!(began.elapsed() < DEADLINE, "{} are in", admitted.len());
    }
    for (attacker, case) in [
        (silent, "no CONNECT"),
        (silent_v3, "no identity, version 3"),
        (connected, "no identity"),
        (left, "CONNECT, then DISCONNECT"),
    ] {
        is_closed_soon(attacker, case).await;
    }
    user.send_text("429[\"history\",5]").await;
    loop {
        let text = user.next_text().await;
        if text.starts_with("439[") {
            break;
        }
        assert_eq!(text, "2", "a heartbeat at most");
    }
    node.stop().await;
}

#[tokio::test]
async fn requests_that_open_no_session_close_no_transport() {
    let node = node(&[("MAX_UNAUTHENTICATED", "1"), ("AUTH_TIMEOUT_SECS", "600")]).await;
    let address = node.address(0);
    let mut waiting = Raw::websocket(address, 4).await;
    let began = Instant::now();
    // 503 until the waiting transport is old enough to make way, then the refusal of the request.
    loop {
        let target = "/socket.io/?EIO=9&transport=polling";
        let response = request(address, "GET", target, "", b"").await;
        if response.status == 400 {
            break;
        }
        assert_eq!(response.status, 503, "{}", response.head);
        assert!(began.elapsed() < DEADLINE);
    }
    for (method, query) in [
        ("GET", "EIO=4&transport=nonsense"),
        ("GET", "EIO=4"),
        ("GET", "EIO=4&transport=polling&j=1"),
        ("GET", "EIO=4&transport=websocket"),
        ("POST", "EIO=4&transport=polling"),
    ] {
        let target = format!("/socket.io/?{query}");
        let response = request(address, method, &target, "", b"").await;
        assert_eq!(response.status, 400, "{method} {query}: {}", response.head);
    }
    assert_eq!(metric(address, "hubbub_sessions_evicted_total").await, 0);
    waiting.send_text("40").await;
    assert!(waiting.next_text().await.starts_with("40"));

    let _new = Raw::websocket(address, 4).await;
    is_closed_soon(waiting, "made way for a session that opened").await;
    assert_eq!(metric(address, "hubbub_sessions_evicted_total").await, 1);
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_rejoins_the_namespace_keeps_its_transport() {
    let node = node(&[("AUTH_TIMEOUT_SECS", "1"), ("PING_INTERVAL_MS", "500")]).await;
    let address = node.address(0);
    let mut client = Raw::authenticated(address).await;
    client.send_text("41").await;
    client.send_text("40").await;
    assert!(client.next_text().await.starts_with("40"));
    client
        .send_text("420[\"authenticate\",{\"user_id\":\"eve\"}]")
        .await;
    assert!(client.next_text().await.starts_with("430"));
    assert!(client.next_text().await.contains("authenticated"));
    // Heartbeats until well after the time at which it would have been closed.
    for _ in 0..5 {
        assert_eq!(client.next_text().await, "2");
        client.send_text("3").await;
    }
    client.send_text("429[\"history\",5]").await;
    assert!(client.next_text().await.starts_with("439["));
    node.stop().await;
}

#[tokio::test]
async fn connects_on_one_transport_are_limited() {
    let node = node(&[]).await;
    let mut attacker = Raw::websocket(node.address(0), 4).await;
    let mut connects = 0;
    loop {
        attacker.send_text("40").await;
        match attacker.next_frame().await {
            Some((0x81, _)) => connects += 1,
            _ => break,
        }
        attacker.send_text("41").await;
    }
    assert_eq!(connects, 100);
    node.stop().await;
}

#[tokio::test]
async fn events_beyond_the_rate_are_refused_and_too_many_refusals_close_the_connection() {
    let node = hubbub_test_support::node::Cluster::alone(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let mut attacker = Raw::authenticated(address).await;
    let flood = frame(0x81, b"42[\"history\",{\"room_id\":\"home\"}]").repeat(5_000);
    let (mut sent, began) = (0, Instant::now());
    // Refusals are replies: a client that reads none of them is a slow consumer. Until its
    // connection is completely closed, the server still reads its events and discards them.
    while attacker.write(&flood).await {
        sent += 1;
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{sent} times 5,000 events were sent and the connection is still open"
        );
        // Not after every write: the witness has a rate, too.
        if sent % 32 == 1 {
            witness.is_unaffected().await;
        }
    }
    assert!(metric(address, "hubbub_events_rate_limited_total").await > 1_000);
    let polling = Polling::begin(address, 4).await;
    polling.post("40").await;
    assert!(polling.get().await.body.starts_with("40"));
    let response = polling
        .post(vec!["42[\"history\",{}]"; 40_000].join("\x1e"))
        .await;
    assert!([200, 400].contains(&response.status), "{response:?}");
    assert!(
        polling.has_ended().await,
        "the refusals do not fit into the outbox"
    );
    node.stop().await;
}
