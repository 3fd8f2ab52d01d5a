//! Upgrades from polling to a WebSocket: no message is lost or reordered, and a failed upgrade
//! leaves the session on polling.
#![allow(clippy::unwrap_used)] // an unwrap in a test is an assertion

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engineioxide::{Frame, Limits, SendOutcome};
use futures_util::{FutureExt, StreamExt};
use server::{Event, Server, calm_config, open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

struct Session {
    version: u8,
    sid: String,
}

impl Session {
    async fn begin(server: &Server, version: u8) -> Self {
        let response = server
            .get(&format!("EIO={version}&transport=polling"))
            .await;
        let text = response.text();
        let packet = if version == 4 {
            text
        } else {
            text.split_once(':').unwrap().1
        };
        Self {
            version,
            sid: open(packet)["sid"].as_str().unwrap().to_owned(),
        }
    }

    fn query(&self, transport: &str) -> String {
        format!(
            "EIO={}&transport={transport}&sid={}",
            self.version, self.sid
        )
    }

    fn packets(&self, body: &str) -> Vec<String> {
        if self.version == 4 {
            return body.split('\x1e').map(str::to_owned).collect();
        }
        let (mut rest, mut packets) = (body, Vec::new());
        while let Some((length, after)) = rest.split_once(':') {
            let (packet, after) = after.split_at(length.parse().unwrap());
            packets.push(packet.to_owned());
            rest = after;
        }
        packets
    }

    fn payload(&self, packet: &str) -> String {
        if self.version == 4 {
            packet.to_owned()
        } else {
            format!("{}:{packet}", packet.len())
        }
    }
}

/// Runs one client that upgrades as the JavaScript clients do: it polls until the probe is
/// answered, waits for the end of the last poll and POST, and only then sends `5`.
async fn run_client(server: &mut Server, version: u8) {
    const COUNT: usize = 60;
    let session = Session::begin(server, version).await;
    let handle = server.connected().await;
    let sender = tokio::spawn(async move {
        for n in 0..COUNT {
            assert_eq!(
                handle.send(&Frame::text(&format!("s{n}"))),
                SendOutcome::Queued
            );
            tokio::task::yield_now().await;
        }
    });
    let probed = Arc::new(AtomicBool::new(false));
    let mut received = Vec::new();
    let mut client = {
        let probe = async {
            let mut client = server.websocket(&session.query("websocket")).await;
            client.send("2probe").await;
            assert_eq!(client.text().await, "3probe");
            probed.store(true, Ordering::Relaxed);
            client
        };
        let poll = async {
            loop {
                let response = server.get(&session.query("polling")).await;
                assert_eq!(response.status, 200);
                received.extend(session.packets(response.text()));
                if probed.load(Ordering::Relaxed) {
                    break;
                }
            }
        };
        let post = async {
            for n in 0..5 {
                let body = session.payload(&format!("4c{n}"));
                assert_eq!(
                    server.post(&session.query("polling"), body).await.status,
                    200
                );
            }
        };
        tokio::join!(probe, poll, post).0
    };
    client.send("5").await;
    for n in 5..10 {
        client.send(&format!("4c{n}")).await;
    }
    sender.await.unwrap();
    let without_prefix = |packets: &[String], prefix: &str| -> Vec<String> {
        let matching = packets.iter().filter(|packet| packet.starts_with(prefix));
        matching
            .map(|packet| packet[prefix.len()..].to_owned())
            .collect()
    };
    while without_prefix(&received, "4s").len() < COUNT
        || without_prefix(&received, "4c").len() < 10
    {
        received.push(client.text().await);
    }
    let numbers = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(without_prefix(&received, "4s"), numbers(COUNT));
    assert_eq!(without_prefix(&received, "4c"), numbers(10));
}

async fn run_clients(version: u8) {
    let mut server = Server::calm().await;
    for _ in 0..100 {
        run_client(&mut server, version).await;
    }
    assert_eq!(server.control.counters().upgrades, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_lose_no_message_in_version_4() {
    run_clients(4).await;
}

#[cfg(feature = "v3")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_lose_no_message_in_version_3() {
    run_clients(3).await;
}

#[tokio::test]
async fn the_probe_releases_a_waiting_poll() {
    let server = Server::calm().await;
    let session = Session::begin(&server, 4).await;
    let mut client = server.websocket(&session.query("websocket")).await;
    let query = session.query("polling");
    let (poll, ()) = tokio::join!(server.get(&query), async {
        client.send("2probe").await;
        assert_eq!(client.text().await, "3probe");
    });
    assert_eq!(poll.text(), "6");
}

#[tokio::test]
async fn queued_messages_are_sent_on_the_websocket() {
    let mut server = Server::calm().await;
    let session = Session::begin(&server, 4).await;
    let handle = server.connected().await;
    let mut client = server.websocket(&session.query("websocket")).await;
    for n in 0..3 {
        handle.send(&Frame::text(&n.to_string()));
    }
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    client.send("5").await;
    for n in 0..3 {
        assert_eq!(client.text().await, format!("4{n}"));
    }
}

#[tokio::test]
async fn an_abandoned_upgrade_keeps_polling_and_may_be_retried() {
    let server = Server::calm().await;
    let session = Session::begin(&server, 4).await;
    let query = session.query("polling");
    for probe in [None, Some("2probe"), Some("4nonsense")] {
        let mut client = server.websocket(&session.query("websocket")).await;
        if let Some(probe) = probe {
            client.send(probe).await;
            client.next().await;
        }
        client.0.close(None).await.ok();
        client.closed().await;
        // Until the upgrade is given up, polls are answered with noops.
        assert_eq!(server.post(&query, "4still here").await.text(), "ok");
        loop {
            let poll = server.get(&query).await;
            match poll.text() {
                "6" => continue,
                text => break assert_eq!(text, "4still here"),
            }
        }
    }
    let mut client = server.websocket(&session.query("websocket")).await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    client.send("5").await;
    client.send("4hello").await;
    assert_eq!(client.text().await, "4hello");
}

#[tokio::test]
async fn an_upgrade_is_given_up_after_its_timeout() {
    let config = calm_config()
        .upgrade_timeout(Duration::from_millis(100))
        .build();
    let server = Server::start(config, Limits::default()).await;
    let session = Session::begin(&server, 4).await;
    for probe in [false, true] {
        let mut client = server.websocket(&session.query("websocket")).await;
        if probe {
            client.send("2probe").await;
        }
        client.closed().await;
    }
    let query = session.query("polling");
    assert_eq!(server.post(&query, "4still here").await.text(), "ok");
    assert_eq!(server.get(&query).await.text(), "4still here");
}

#[tokio::test]
async fn a_post_that_began_before_the_upgrade_is_processed_first() {
    let mut server = Server::calm().await;
    let session = Session::begin(&server, 4).await;
    let mut post = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let head = format!(
        "POST /engine.io/?{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 6\r\n\r\n4fi",
        session.query("polling")
    );
    post.write_all(head.as_bytes()).await.unwrap();
    // A second POST is refused as soon as the first has begun.
    while server.post(&session.query("polling"), "6").await.status == 200 {}
    let mut client = server.websocket(&session.query("websocket")).await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    client.send("5").await;
    client.send("4second").await;
    // Polls are refused once the WebSocket carries the session.
    while server.get(&session.query("polling")).await.status == 200 {}
    post.write_all(b"rst").await.unwrap();
    let mut answer = String::new();
    post.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("ok"), "{answer}");
    let mut texts = Vec::new();
    while texts.len() < 2 {
        if let Event::Text(text) = server.event().await {
            texts.push(text);
        }
    }
    assert_eq!(texts, ["first", "second"]);
    assert_eq!(client.next().await, Some(Message::text("4first")));
    assert_eq!(client.next().await, Some(Message::text("4second")));
}

/// After the answer to its probe, a JavaScript client stops polling, and reads the WebSocket only
/// after its `5`. If the WebSocket ended earlier, the client would read nothing any more.
#[tokio::test]
async fn the_websocket_of_a_closed_session_stays_until_the_client_has_upgraded() {
    let mut server = Server::calm().await;
    let mut clients = Vec::new();
    for probes in [true, false] {
        let session = Session::begin(&server, 4).await;
        let handle = server.connected().await;
        let mut client = server.websocket(&session.query("websocket")).await;
        if probes {
            client.send("2probe").await;
            assert_eq!(client.text().await, "3probe");
        }
        clients.push((client, handle));
    }
    for (_, handle) in &clients {
        handle.close();
    }
    let [(mut probed, _), (mut other, _)] = clients.try_into().ok().unwrap();
    // This WebSocket was closed later, so the other one would be closed by now.
    assert_eq!(other.closed().await, None);
    assert!(probed.0.next().now_or_never().is_none());
    probed.send("5").await;
    assert_eq!(probed.closed().await, None);
}
