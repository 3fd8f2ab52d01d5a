//! Socket.IO packets that break the protocol, or use it against the server.

use std::time::{Duration, Instant};

use crate::raw::{Polling, Raw, Witness, frame, metric, node};

#[tokio::test]
async fn packets_that_break_the_protocol_end_their_connection() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let attacks: &[(&str, &[&str])] = &[
        ("no packet", &["4"]),
        ("an unknown type", &["48"]),
        ("the server's own refusal", &["44{\"message\":\"x\"}"]),
        ("an object for arguments", &["42{\"0\":\"join\"}"]),
        ("text for arguments", &["42\"join\""]),
        ("an answer without an id", &["43[]"]),
        ("no count of attachments", &["45-[\"join\"]"]),
        ("a negative count", &["45-1-[\"join\"]"]),
        ("a billion attachments", &["451000000000-[\"join\"]"]),
        (
            "more than a number holds",
            &["4599999999999999999999999-[\"join\"]"],
        ),
        ("one attachment more than are taken", &["451001-[\"join\"]"]),
        (
            "text where an attachment is due",
            &[
                "451-[\"join\",{\"_placeholder\":true,\"num\":0}]",
                "42[\"join\"]",
            ],
        ),
        (
            "an announcement where an attachment is due",
            &["451-[\"join\"]", "451-[\"join\"]"],
        ),
    ];
    for (what, packets) in attacks {
        let mut attacker = Raw::member(address).await;
        for packet in *packets {
            attacker.say(packet).await;
        }
        assert_eq!(attacker.closed().await, Some(1002), "{what}");
        witness.is_well().await;
    }
    let mut attacker = Raw::member(address).await;
    attacker.write(frame(0x82, &[1, 2, 3])).await;
    assert_eq!(
        attacker.closed().await,
        Some(1002),
        "binary that nobody announced"
    );
    let mut attacker = Raw::websocket(address, 4).await;
    attacker.say("42[\"message\",{}]").await;
    attacker.closed().await;
    witness.is_well().await;
    node.stop().await;
}

#[tokio::test]
async fn packets_that_only_look_bad_are_answered_or_mean_nothing() {
    let node = node(&[]).await;
    let address = node.address(0);
    let mut client = Raw::member(address).await;
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
            "an ack id that no number holds",
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
            "an escape that is nobody's name",
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
            "no attachments after all",
            vec![frame(0x81, b"450-1[\"message\",{}]")],
            "431[",
        ),
        (
            "a namespace that nobody serves",
            vec![frame(0x81, b"40/admin,{}")],
            "44/admin,",
        ),
    ];
    for (what, frames, answer) in answered {
        for bytes in frames {
            client.write(bytes).await;
        }
        let text = client.text().await;
        assert!(text.starts_with(answer), "{what}: {text}");
    }
    // Nothing comes of these: the next answer is the next question's.
    for nothing in [
        "40",
        "40{\"token\":\"x\"}",
        "43999[]",
        "42/admin,[\"join\"]",
        "41/admin,",
        "460-5[]",
    ] {
        client.say(nothing).await;
        client.say("429[\"history\",5]").await;
        let text = client.text().await;
        assert!(text.starts_with("439["), "{nothing}: {text}");
    }
    node.stop().await;
}

#[tokio::test]
async fn events_with_attachments_and_without_keep_their_order() {
    let node = node(&[]).await;
    let mut client = Raw::member(node.address(0)).await;
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
        let text = client.text().await;
        assert!(text.starts_with(&format!("43{id}[")), "{id}: {text}");
    }
    node.stop().await;
}

#[tokio::test]
async fn events_behind_a_disconnect_end_the_transport() {
    let node = node(&[("AUTH_TIMEOUT_SECS", "600")]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let mut client = Raw::member(address).await;
    client
        .write([frame(0x81, b"41"), frame(0x81, b"421[\"history\",5]")].concat())
        .await;
    witness.is_well().await;
    // The one in the same breath may still find its socket; a later one doesn't, and isn't left without a word.
    client.say("422[\"history\",5]").await;
    client.closed().await;
    let mut client = Raw::member(address).await;
    client.say("41").await;
    client.say("40").await;
    assert!(
        client.text().await.starts_with("40"),
        "and a new CONNECT begins anew"
    );
    client.say("421[\"history\",5]").await;
    assert!(
        client
            .text()
            .await
            .starts_with("431[{\"ok\":false,\"code\":\"unauthorized\"")
    );
    witness.is_well().await;
    node.stop().await;
}

#[tokio::test]
async fn attachments_that_never_come_hold_no_more_than_a_packet() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let mut attacker = Raw::member(address).await;
    attacker.say("451000-[\"message\",{}]").await;
    // Each within the limit of a message, together beyond that of a packet.
    for _ in 0..3 {
        attacker.write(frame(0x82, &[0; 500_000])).await;
    }
    assert_eq!(attacker.closed().await, Some(1002));
    let mut silent = Raw::member(address).await;
    silent
        .say("451-[\"message\",{\"_placeholder\":true,\"num\":0}]")
        .await;
    silent.say("429[\"history\",5]").await;
    assert_eq!(silent.closed().await, Some(1002));
    witness.is_well().await;
    node.stop().await;
}

#[tokio::test]
async fn namespaces_that_nobody_serves_leave_nothing_behind() {
    let node = node(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let mut attacker = Raw::member(address).await;
    for index in 0..5_000 {
        attacker.say(&format!("40/n{index},")).await;
        assert_eq!(
            attacker.text().await,
            format!("44/n{index},{{\"message\":\"Invalid namespace\"}}")
        );
    }
    // Its name comes back in the answer: one that the outbox doesn't take ends the connection.
    attacker
        .say(&format!("40/{},", "x".repeat((1 << 20) - 8)))
        .await;
    attacker.closed().await;
    witness.is_well().await;
    node.stop().await;
}

async fn is_closed_soon(mut attacker: Raw, what: &str) {
    let began = Instant::now();
    attacker.closed().await;
    // `AUTH_TIMEOUT_SECS` is 1; what never says CONNECT has three seconds more.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{what} stays for {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn who_never_says_who_it_is_is_closed() {
    let node = node(&[("AUTH_TIMEOUT_SECS", "1")]).await;
    let address = node.address(0);
    let silent = Raw::websocket(address, 4).await;
    let silent_v3 = Raw::websocket(address, 3).await;
    let mut connected = Raw::websocket(address, 4).await;
    connected.say("40").await;
    let mut elsewhere = Raw::websocket(address, 4).await;
    elsewhere.say("40/admin,").await;
    // Leaving the namespace ends the wait for an identity, so it must begin another.
    let mut left = Raw::websocket(address, 4).await;
    left.say("40").await;
    left.text().await;
    left.say("41").await;
    let mut left_v3 = Raw::websocket(address, 3).await;
    left_v3.text().await;
    left_v3.say("41").await;
    let mut forth_and_back = Raw::websocket(address, 4).await;
    for _ in 0..3 {
        forth_and_back.say("40").await;
        forth_and_back.text().await;
        forth_and_back.say("41").await;
    }
    let all = [
        (silent, "no CONNECT"),
        (silent_v3, "no identity, version 3"),
        (connected, "no identity"),
        (elsewhere, "no CONNECT that is let in"),
        (left, "CONNECT, then DISCONNECT"),
        (left_v3, "DISCONNECT, version 3"),
        (forth_and_back, "in and out again and again"),
    ];
    futures_util::future::join_all(all.map(|(attacker, what)| is_closed_soon(attacker, what)))
        .await;
    assert_eq!(metric(address, "hubbub_connections").await, 0);
    node.stop().await;
}

#[tokio::test]
async fn who_leaves_the_namespace_and_comes_back_keeps_the_transport() {
    let node = node(&[("AUTH_TIMEOUT_SECS", "1"), ("PING_INTERVAL_MS", "500")]).await;
    let address = node.address(0);
    let mut client = Raw::member(address).await;
    client.say("41").await;
    client.say("40").await;
    assert!(client.text().await.starts_with("40"));
    client
        .say("420[\"authenticate\",{\"user_id\":\"eve\"}]")
        .await;
    assert!(client.text().await.starts_with("430"));
    assert!(client.text().await.contains("authenticated"));
    // Heartbeats well beyond the time in which it would have been closed.
    for _ in 0..5 {
        assert_eq!(client.text().await, "2");
        client.say("3").await;
    }
    client.say("429[\"history\",5]").await;
    assert!(client.text().await.starts_with("439["));
    node.stop().await;
}

#[tokio::test]
async fn connects_on_one_transport_are_counted() {
    let node = node(&[]).await;
    let mut attacker = Raw::websocket(node.address(0), 4).await;
    let mut connects = 0;
    loop {
        attacker.say("40").await;
        match attacker.frame().await {
            Some((0x81, _)) => connects += 1,
            _ => break,
        }
        attacker.say("41").await;
    }
    assert_eq!(connects, 100);
    node.stop().await;
}

#[tokio::test]
async fn events_beyond_the_rate_are_refused_until_the_refusals_are_too_many() {
    let node = hubbub_test_support::node::Cluster::alone(&[]).await;
    let address = node.address(0);
    let witness = Witness::on(address).await;
    let mut attacker = Raw::member(address).await;
    let flood = frame(0x81, b"42[\"history\",{\"room_id\":\"home\"}]").repeat(5_000);
    let (mut sent, began) = (0, Instant::now());
    // Refusals are answers: who reads none of them is a slow consumer. Until its connection is closed to the last it is
    // still read, and nothing is done.
    while attacker.write(&flood).await {
        sent += 1;
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{sent} times 5,000 events, and nobody minds"
        );
        // The witness has a rate, too.
        if sent % 32 == 1 {
            witness.is_well().await;
        }
    }
    assert!(metric(address, "hubbub_events_rate_limited_total").await > 1_000);
    let polling = Polling::begin(address, 4).await;
    polling.post("40").await;
    assert!(polling.get().await.body.starts_with("40"));
    let answer = polling
        .post(vec!["42[\"history\",{}]"; 40_000].join("\x1e"))
        .await;
    assert!([200, 400].contains(&answer.status), "{answer:?}");
    assert!(
        polling.is_over().await,
        "its refusals don't fit into its outbox"
    );
    node.stop().await;
}
