//! Attacks by WebSocket frames, invalid and valid ones.

use crate::raw::{Raw, Witness, frame, head, metric, node};

/// Invalid frames with their close codes. The limit of a message is 1 MiB.
pub fn invalid_frames() -> Vec<(&'static str, Vec<u8>, u16)> {
    vec![
        (
            "RSV1: a compressed frame without negotiation",
            frame(0xC1, b"2"),
            1002,
        ),
        ("RSV2", frame(0xA1, b"2"), 1002),
        ("RSV3", frame(0x91, b"2"), 1002),
        ("no mask", vec![0x81, 1, b'6'], 1002),
        ("an unknown data opcode", frame(0x83, b"6"), 1002),
        ("an unknown control opcode", frame(0x8B, b""), 1002),
        ("a ping in fragments", frame(0x09, b"x"), 1002),
        ("a ping of 126 bytes", frame(0x89, &[0; 126]), 1002),
        ("a close in fragments", frame(0x08, b""), 1002),
        (
            "a last fragment without a first one",
            frame(0x80, b"6"),
            1002,
        ),
        (
            "a new message within a fragmented one",
            [frame(0x01, b"4"), frame(0x81, b"6")].concat(),
            1002,
        ),
        ("a close of one byte", frame(0x88, b"x"), 1002),
        (
            "a close with a code that must not be sent",
            frame(0x88, &1005u16.to_be_bytes()),
            1002,
        ),
        (
            "a close with a reason that is not UTF-8",
            frame(0x88, &[3, 0xE8, 0xFF]),
            1007,
        ),
        ("text that is not UTF-8", frame(0x81, &[b'4', 0xFF]), 1007),
        (
            "a surrogate, which is not UTF-8",
            frame(0x81, &[b'4', 0xED, 0xA0, 0x80]),
            1007,
        ),
        (
            "an incomplete character",
            frame(0x81, &[b'4', 0xE2, 0x82]),
            1007,
        ),
        (
            "an incomplete character in the last fragment",
            [frame(0x01, b"4"), frame(0x80, &[0xE2])].concat(),
            1007,
        ),
        (
            "an announcement beyond the limit",
            head(0x81, (1 << 20) + 1),
            1009,
        ),
        ("an announcement of 2^63 bytes", head(0x82, 1 << 63), 1009),
        (
            "an announcement of 2^64 - 1 bytes",
            head(0x82, u64::MAX),
            1009,
        ),
    ]
}

#[tokio::test]
async fn invalid_frames_close_the_connection_with_their_code() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let announced = [frame(0x01, &[b'4'; 600_000]), head(0x80, 600_000)].concat();
    for (case, bytes, code) in
        invalid_frames()
            .into_iter()
            .chain([("fragments beyond the limit", announced, 1009)])
    {
        let mut attacker = Raw::websocket(address, 4).await;
        attacker.write(bytes).await;
        assert_eq!(attacker.close_code().await, Some(code), "{case}");
        witness.is_unaffected().await;
    }
    node.stop().await;
}

#[tokio::test]
async fn endless_fragments_are_limited_to_the_size_of_a_message() {
    let node = node(&[]).await;
    let address = node.address(0);
    let mut attacker = Raw::authenticated(address).await;
    attacker.write(frame(0x01, b"4")).await;
    let fragments = frame(0x00, &[b'x'; 100]).repeat(1000);
    for _ in 0..11 {
        attacker.write(&fragments).await;
    }
    assert_eq!(attacker.close_code().await, Some(1009));
    node.stop().await;
}

#[tokio::test]
async fn empty_fragments_are_accepted_and_pings_are_answered_between_them() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let mut client = Raw::authenticated(address).await;
    client.write(frame(0x01, br#"427["hist"#)).await;
    for _ in 0..20 {
        client.write(frame(0x00, b"").repeat(5_000)).await;
        client.write(frame(0x89, b"are you there?")).await;
        assert_eq!(
            client.next_frame().await,
            Some((0x8A, b"are you there?".to_vec()))
        );
        witness.is_unaffected().await;
    }
    client
        .write(frame(0x80, br#"ory",{"room_id":"home"}]"#))
        .await;
    assert!(client.next_text().await.starts_with("437"));
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_endless_pings_and_reads_no_pongs_is_closed() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    // Pings of WebSocket and of Engine.IO 3, and requests that are refused.
    for (version, ping) in [
        (4, frame(0x89, &[0; 125])),
        (3, frame(0x81, b"2")),
        (4, frame(0x81, b"40/x,")),
    ] {
        let before = metric(address, "hubbub_slow_consumers_total").await;
        let mut attacker = Raw::websocket(address, version).await;
        let flood = ping.repeat((1 << 20) / ping.len());
        let mut sent = 0;
        while attacker.write(&flood).await {
            sent += 1;
            assert!(
                sent < 256,
                "256 MiB were sent and the connection is still open"
            );
            witness.is_unaffected().await;
        }
        assert_eq!(
            metric(address, "hubbub_slow_consumers_total").await,
            before + 1
        );
    }
    node.stop().await;
}

#[tokio::test]
async fn compression_is_not_negotiated() {
    let node = node(&[]).await;
    let offer = "sec-websocket-extensions: permessage-deflate; client_max_window_bits, permessage-deflate\r\n";
    let (mut attacker, response) =
        Raw::upgrade(node.address(0), "EIO=4&transport=websocket", offer).await;
    assert_eq!(response.status, 101);
    assert!(
        !response.head.contains("sec-websocket-extensions"),
        "{}",
        response.head
    );
    // A compression bomb: ten bytes that would decompress to many. The reserved bit makes it
    // invalid.
    attacker
        .write(frame(
            0xC1,
            &[0xEC, 0xC0, 0x01, 0x01, 0, 0, 0, 0x80, 0x90, 0xFE],
        ))
        .await;
    assert_eq!(attacker.close_code().await, Some(1002));
    node.stop().await;
}

#[tokio::test]
async fn a_flood_of_tiny_messages_does_not_affect_other_clients() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    for packet in ["6", "42/nowhere,[\"x\"]", "43999[]", "40"] {
        let mut attacker = Raw::authenticated(address).await;
        let flood = frame(0x81, packet.as_bytes()).repeat(10_000);
        for _ in 0..10 {
            attacker.write(&flood).await;
            witness.is_unaffected().await;
        }
        attacker
            .send_text(r#"427["history",{"room_id":"home"}]"#)
            .await;
        assert!(attacker.next_text().await.starts_with("437"), "{packet}");
    }
    node.stop().await;
}
