//! The log of a node: the life of each connection, and each HTTP request, in both formats.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::plain::Plain;
use crate::program::{Program, lines};
use hubbub_test_support::node::{Cluster, http};
use hubbub_test_support::server::free_port;

const SECRET: &str = "5f0cbb2fb1c6a1f6e1d0b4f4a1c7e9d85f0cbb2f";
const API_KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// Starts a node that trusts this machine as a proxy. `settings` come last.
async fn start(settings: &[(&str, &str)]) -> (Program, SocketAddr) {
    let port = free_port();
    let text = port.to_string();
    let common = [
        ("SERVER_PORT", text.as_str()),
        ("LOG_FORMAT", "json"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let node = Program::start(&["serve"], &[&common[..], settings].concat());
    let address = ([127, 0, 0, 1], port).into();
    node.await_ready(address).await;
    (node, address)
}

fn token(user: &str, secret: &str) -> String {
    hubbub::auth::mint(secret, user, None, None, Duration::from_secs(600)).unwrap()
}

/// Connects by Socket.IO over a WebSocket, with that token and request id. Sends the packets
/// after the answer to its CONNECT. Closes the WebSocket when a packet with that beginning has arrived.
async fn socketio(
    address: SocketAddr,
    token: &str,
    request_id: &str,
    packets: &[&str],
    last_answer: &str,
) {
    let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket&token={token}");
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("x-request-id", request_id.parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    socket.send(Message::text("40")).await.unwrap();
    let mut answer = String::new();
    // The open packet comes first.
    while !answer.starts_with('4') {
        answer = socket.next().await.unwrap().unwrap().to_string();
    }
    for packet in packets {
        socket.send(Message::text(*packet)).await.unwrap();
    }
    while !answer.starts_with(last_answer) {
        answer = socket.next().await.unwrap().unwrap().to_string();
    }
    socket.close(None).await.unwrap();
}

/// A Socket.IO client over a WebSocket that reads nothing after the answer to its CONNECT.
async fn connected(address: SocketAddr, query: &str) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
    let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket{query}");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    socket.next().await.unwrap().unwrap();
    socket.send(Message::text("40")).await.unwrap();
    socket.next().await.unwrap().unwrap();
    socket
}

/// The one line that has that value at that field.
fn with<'a>(lines: &'a [Value], field: &str, value: &str) -> &'a Value {
    let mut found = lines.iter().filter(|line| line[field] == value);
    let line = found.next();
    assert!(
        found.next().is_none(),
        "{field}={value} twice in {lines:#?}"
    );
    line.unwrap_or_else(|| panic!("no {field}={value} in {lines:#?}"))
}

/// Sends a CONNECT on a WebSocket and closes it without reading.
async fn connect_and_leave(address: SocketAddr) {
    let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    socket.send(Message::text("40")).await.unwrap();
    socket.close(None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_while_it_is_accepted_is_logged_as_closed() {
    let (node, address) = start(&[]).await;
    for _ in 0..10 {
        let clients = (0..20).map(|_| connect_and_leave(address));
        futures_util::future::join_all(clients).await;
    }
    node.await_printed(|printed| {
        let (opened, closed) = (
            lines(printed, "connection opened").len(),
            lines(printed, "connection closed").len(),
        );
        // Each CONNECT was processed, or its transport ended before it arrived.
        (opened > 0 && opened == closed).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_namespace_is_logged() {
    let (node, address) = start(&[]).await;
    let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    socket.send(Message::text("40/admin,")).await.unwrap();
    let refused = node.await_lines("connection refused", 1).await;
    assert_eq!(
        (&refused[0]["code"], &refused[0]["reason"]),
        (&json!("bad_request"), &json!("the namespace is invalid"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_each_connection_is_logged_at_info() {
    let settings = [("JWT_SECRET", SECRET), ("API_KEYS", API_KEY)];
    let (node, address) = start(&settings).await;
    let join = r#"421["join",{"room_id":"room"}]"#;
    let unknown = r#"422["nonsense",{}]"#;
    let ann = token("ann", SECRET);
    socketio(address, &ann, "edge-1", &[join, unknown], "432").await;
    let bob = token("bob", SECRET);
    let query = format!("chat=1&token={bob}");
    let plain = Plain::with(address, &query, &[("x-request-id", "edge-2")])
        .await
        .unwrap();
    plain.ask("join", json!({"room_id": "room"})).await;
    plain.say(Message::Close(None));
    let forged = token("eve", "another secret of at least thirty-two bytes");
    socketio(address, &forged, "edge-3", &[], "44").await;
    let refused = Plain::with(
        address,
        &format!("token={forged}"),
        &[("x-request-id", "edge-4")],
    )
    .await;
    assert!(refused.is_err());

    let opened = node.await_lines("connection opened", 2).await;
    let authenticated = node.await_lines("connection authenticated", 2).await;
    let refused = node.await_lines("connection refused", 2).await;
    let closed = node.await_lines("connection closed", 2).await;
    for (request_id, user, protocol) in [("edge-1", "ann", "4"), ("edge-2", "bob", "plain")] {
        let line = with(&opened, "request_id", request_id);
        assert_eq!(
            (
                &line["level"],
                &line["client"],
                &line["transport"],
                &line["protocol"]
            ),
            (
                &json!("INFO"),
                &json!("127.0.0.1"),
                &json!("websocket"),
                &json!(protocol)
            ),
            "{line}"
        );
        let conn = line["conn"].as_str().unwrap();
        let line = with(&authenticated, "conn", conn);
        assert_eq!(
            (&line["user"], &line["auth"], &line["via"]),
            (&json!(user), &json!("jwt"), &json!("handshake")),
            "{line}"
        );
        let line = with(&closed, "conn", conn);
        assert_eq!(
            (&line["level"], &line["user"], &line["reason"]),
            (&json!("INFO"), &json!(user), &json!("client_closed")),
            "{line}"
        );
        assert!(line["seconds"].as_f64().unwrap() < 30.0, "{line}");
    }
    let ann = with(&closed, "user", "ann");
    assert_eq!(
        (&ann["events"], &ann["refused"]),
        (&json!(2), &json!(1)),
        "{ann}"
    );
    for (request_id, protocol) in [("edge-3", "4"), ("edge-4", "plain")] {
        let line = with(&refused, "request_id", request_id);
        assert_eq!(
            (&line["level"], &line["code"], &line["protocol"]),
            (&json!("INFO"), &json!("unauthorized"), &json!(protocol)),
            "{line}"
        );
        assert!(!line["reason"].as_str().unwrap().is_empty(), "{line}");
    }
    assert_eq!((opened.len(), refused.len(), closed.len()), (2, 2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_s_own_reasons_for_an_end_are_named() {
    let settings = [
        ("JWT_SECRET", SECRET),
        ("API_KEYS", API_KEY),
        ("AUTH_TIMEOUT_SECS", "1"),
        ("DRAIN_SECS", "1"),
    ];
    let (node, address) = start(&settings).await;
    let _silent = connected(address, "").await;
    let ann = Plain::with(address, &format!("token={}", token("ann", SECRET)), &[])
        .await
        .unwrap();
    let bearer = format!("Bearer {API_KEY}");
    let headers = [("authorization", bearer.as_str())];
    http(address, "POST", "/users/ann/disconnect", &headers, "").await;
    let closed = node.await_lines("connection closed", 2).await;
    let mut reasons: Vec<_> = closed
        .iter()
        .map(|line| line["reason"].as_str().unwrap())
        .collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["authentication_timeout", "ended_by_service"]);
    drop(ann);

    let _cid = Plain::with(address, &format!("token={}", token("cid", SECRET)), &[])
        .await
        .unwrap();
    let _dan = connected(address, &format!("&token={}", token("dan", SECRET))).await;
    node.terminate();
    let closed = node.await_lines("connection closed", 4).await;
    for user in ["cid", "dan"] {
        assert_eq!(with(&closed, "user", user)["reason"], "draining", "{user}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_client_that_breaks_the_rules_has_a_reason_of_its_own() {
    let settings = [
        ("AUTH_MODE", "open"),
        ("PING_INTERVAL_MS", "500"),
        ("PING_TIMEOUT_MS", "500"),
        ("RATE_EVENTS_PER_SEC", "1"),
        ("RATE_EVENTS_BURST", "2"),
        ("MAX_RATE_REFUSALS", "2"),
    ];
    let (node, address) = start(&settings).await;
    // Answers no ping.
    let silent = connected(address, "").await;
    // A packet of an unknown type.
    let mut wrong = connected(address, "").await;
    wrong.send(Message::text("9")).await.unwrap();
    let mut fast = connected(address, "").await;
    for _ in 0..10 {
        let authenticate = r#"42["authenticate",{"user_id":"eve"}]"#;
        fast.feed(Message::text(authenticate)).await.unwrap();
    }
    fast.flush().await.unwrap();
    let closed = node.await_lines("connection closed", 3).await;
    let mut reasons: Vec<_> = closed
        .iter()
        .map(|line| line["reason"].as_str().unwrap())
        .collect();
    reasons.sort_unstable();
    assert_eq!(
        reasons,
        ["heartbeat_timeout", "protocol_error", "rate_limited"]
    );
    drop((silent, wrong, fast));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_requests_are_logged_by_route_without_their_query() {
    let settings = [
        ("JWT_SECRET", SECRET),
        ("API_KEYS", API_KEY),
        ("RUST_LOG", "info,hubbub=debug"),
    ];
    let (node, address) = start(&settings).await;
    let bearer = format!("Bearer {API_KEY}");
    let headers = |id: &'static str| {
        [
            ("authorization", bearer.clone()),
            ("content-type", "application/json".to_owned()),
            ("x-request-id", id.to_owned()),
        ]
    };
    let body = r#"{"room_id":"room","content":"x"}"#;
    for (id, method, path, status) in [
        ("edge-1", "POST", "/messages?token=query-secret", 201),
        ("edge-2", "GET", "/users/hidden-user/status", 200),
        ("edge-3", "GET", "/nothing/path-secret", 404),
        ("edge-4", "GET", "/readyz", 200),
        ("edge-5", "GET", "/metrics", 200),
        (
            "edge-6",
            "GET",
            "/socket.io/?EIO=4&transport=polling&token=query-secret",
            200,
        ),
        (
            "edge-7",
            "GET",
            "/socket.io/?EIO=4&transport=polling&sid=sid-secret",
            400,
        ),
    ] {
        let headers = headers(id);
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let (answered, answer_headers, _) = http(address, method, path, &headers, body).await;
        assert_eq!(answered, status, "{path}");
        assert_eq!(
            answer_headers["x-request-id"], id,
            "taken over from the proxy"
        );
    }
    let requests = node
        .await_printed(|printed| {
            let requests = lines(printed, "request");
            let is_complete = requests.iter().any(|line| line["request_id"] == "edge-7");
            is_complete.then_some(requests)
        })
        .await;
    for (id, level, method, route, status) in [
        ("edge-1", "INFO", "POST", "/messages", 201),
        ("edge-2", "INFO", "GET", "/users/{user_id}/status", 200),
        ("edge-3", "INFO", "GET", "unknown", 404),
        ("edge-4", "DEBUG", "GET", "/readyz", 200),
        ("edge-5", "DEBUG", "GET", "/metrics", 200),
        ("edge-6", "DEBUG", "GET", "/socket.io/", 200),
        ("edge-7", "INFO", "GET", "/socket.io/", 400),
    ] {
        let line = with(&requests, "request_id", id);
        assert_eq!(
            (
                &line["level"],
                &line["method"],
                &line["route"],
                &line["status"],
                &line["client"]
            ),
            (
                &json!(level),
                &json!(method),
                &json!(route),
                &json!(status),
                &json!("127.0.0.1")
            ),
            "{line}"
        );
        assert!(line["ms"].as_f64().unwrap() < 30_000.0, "{line}");
    }
    let printed = node.kill();
    for hidden in ["query-secret", "path-secret", "hidden-user", "sid-secret"] {
        let line = printed.lines().find(|line| line.contains(hidden));
        assert!(line.is_none(), "{hidden}: {}", line.unwrap_or_default());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_json_lines_have_the_same_fields() {
    let settings = [("LOG_FORMAT", "text"), ("AUTH_MODE", "open")];
    let (node, address) = start(&settings).await;
    let plain = Plain::with(address, "user_id=ann", &[("x-request-id", "edge-1")])
        .await
        .unwrap();
    plain.say(Message::Close(None));
    let printed = node
        .await_printed(|printed| {
            let is_complete = printed.contains("connection closed");
            is_complete.then(|| printed.to_owned())
        })
        .await;
    for (message, fields) in [
        (
            "connection opened",
            &[
                "conn=",
                "request_id=\"edge-1\"",
                "client=127.0.0.1",
                "transport=\"websocket\"",
            ][..],
        ),
        (
            "connection authenticated",
            &["conn=", "user=\"ann\"", "auth=\"open\""],
        ),
        (
            "connection closed",
            &[
                "conn=",
                "user=\"ann\"",
                "reason=\"client_closed\"",
                "seconds=",
            ],
        ),
    ] {
        let line = printed.lines().find(|line| line.contains(message));
        let line = line.unwrap_or_else(|| panic!("no {message} in {printed}"));
        assert!(fields.iter().all(|field| line.contains(field)), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_node_leaves_lines_out_and_says_how_many() {
    let settings = [("AUTH_MODE", "open"), ("LOG_LINES_PER_SEC", "2")];
    let (node, address) = start(&settings).await;
    let mut clients = Vec::new();
    for number in 0..10 {
        let query = format!("user_id=user-{number}");
        clients.push(Plain::with(address, &query, &[]).await.unwrap());
    }
    // Ten clients are opened and authenticated.
    let expected = 20;
    let (written, left_out) = node
        .await_printed(|printed| {
            let opened = lines(printed, "connection opened").len();
            let written = opened + lines(printed, "connection authenticated").len();
            let summaries = lines(printed, "log lines left out");
            let counts = summaries
                .iter()
                .map(|line| line["left_out"].as_u64().unwrap());
            let left_out = usize::try_from(counts.sum::<u64>()).unwrap();
            (written + left_out >= expected).then_some((written, left_out))
        })
        .await;
    assert_eq!(written + left_out, expected);
    assert!(
        written >= 2 && left_out > 0,
        "{written} written, {left_out} left out"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_trusted_proxy_sets_the_request_id() {
    let id = |settings: &'static [(&str, &str)], sent: &'static str| async move {
        let cluster = Cluster::alone(settings).await;
        let headers = [("x-request-id", sent)];
        let (_, headers, body) = http(cluster.address(0), "GET", "/nothing", &headers, "").await;
        assert_eq!(body["request_id"], headers["x-request-id"].as_str());
        cluster.stop().await;
        headers["x-request-id"].clone()
    };
    let trusted: &[(&str, &str)] = &[("TRUSTED_PROXIES", "127.0.0.0/8")];
    let sent = "4bf92f3577b34da6:a_b.c-d/0+1=";
    assert_eq!(id(trusted, sent).await, sent);
    for (settings, sent) in [
        (&[][..], sent),
        (&[("TRUSTED_PROXIES", "10.0.0.0/8")], sent),
        (trusted, "with space"),
        (trusted, "quote\"d"),
        (trusted, ""),
    ] {
        let assigned = id(settings, sent).await;
        assert!(assigned.len() == 32 && assigned != sent, "{assigned}");
    }
    let long: &'static str = "x".repeat(129).leak();
    assert_ne!(id(trusted, long).await, long);
}
