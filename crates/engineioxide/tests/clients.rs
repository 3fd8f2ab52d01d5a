//! The bytes of clients in use that differ from those of the JavaScript client.
#![allow(clippy::unwrap_used)] // an unwrap in a test is an assertion

mod server;

use engineioxide::Frame;
use server::{Client, Server, open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

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
    let (poll, client) = tokio::join!(server.get(&query), async {
        let mut client = server
            .websocket(&query.replace("polling", "websocket"))
            .await;
        client.send("5").await;
        client.send("4hello").await;
        assert_eq!(client.text().await, "4hello");
        client
    });
    // The poll may also have arrived after the upgrade.
    assert!(matches!((poll.status, poll.text()), (200, "6")) || poll.status == 400);
    drop(client);
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
