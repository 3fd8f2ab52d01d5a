//! Fuzzes whole requests through every route: each gets a response, and never status 500.

use axum::body::Body;
use axum::extract::Request;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use hubbub_fuzz::Target;
use tower::ServiceExt;

use super::tests::node;

/// Parses `METHOD target`, headers, an empty line and the body. `None` for a request that no HTTP
/// parser accepts.
fn request(text: &[u8]) -> Option<Request> {
    let end = text
        .windows(2)
        .position(|pair| pair == b"\n\n")
        .unwrap_or(text.len());
    let head = std::str::from_utf8(&text[..end]).ok()?;
    let mut lines = head.lines();
    let (method, target) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        request = request.header(name, value);
    }
    request
        .body(Body::from(text.get(end + 2..).unwrap_or_default().to_vec()))
        .ok()
}

#[test]
fn fuzz_requests() {
    let seeds: &[&[u8]] = &[
        b"POST /messages\ncontent-type: application/json\nauthorization: Bearer key\n\n{\"room_id\":\"r\",\"content\":\"hi\"}",
        b"POST /messages\ncontent-type: application/json\nauthorization: Bearer key\nidempotency-key: k\n\n{\"room_id\":\"r\",\"payload\":[1]}",
        b"GET /rooms/a%20room/messages?before_seq=7&limit=5\nauthorization: Bearer key",
        b"GET /rooms/r/messages?after_seq=0\nauthorization: Bearer key",
        b"GET /rooms/r/users?limit=5&cursor=ann\nauthorization: Bearer key",
        b"GET /users/%F0%9F%98%80/status\nauthorization: Bearer key",
        b"GET /metrics\nauthorization: Bearer key",
        b"POST /api/broadcast\ncontent-type: application/json\nauthorization: Bearer key\nidempotency-key: k\n\n{\"type\":\"task_created\",\"data\":{\"a\":[1]}}",
        b"GET /ws?since_seq=7&epoch=e1&chat=1&token=a.b.c\nconnection: Upgrade\nupgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        b"GET /ws\nsec-websocket-protocol: bearer, a.b.c\norigin: https://app.example",
        b"GET /health\norigin: https://app.example\nhost: chat.example\nx-request-id: abc",
        b"OPTIONS /messages\norigin: https://app.example\naccess-control-request-method: POST",
        b"GET /socket.io/?EIO=4&transport=polling\norigin: https://chat.example\nhost: chat.example",
        b"GET /socket.io/?EIO=3&transport=polling&b64=1&t=x",
        b"POST /socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAAAA\n\n40",
        b"GET /socket.io/?EIO=4&transport=websocket\nconnection: Upgrade\nupgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let words = &[
        "%00",
        "%FF",
        "%2F",
        "..",
        "//",
        "?",
        "&",
        "=",
        "+",
        "limit=",
        "cursor=",
        "after_seq=",
        "before_seq=",
        "sid=",
        "EIO=4",
        "transport=",
        "\nauthorization: Bearer key",
        "\ncontent-type: application/json",
        "\norigin: null",
        "\n\n",
        "\nidempotency-key: ",
        "{",
        "\\ud800",
        "HEAD",
        "PUT",
        "/rooms/",
        "/users/",
        "18446744073709551616",
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let node = runtime.block_on(async { node() });
    Target {
        name: "requests",
        seeds,
        words,
        longest: 8192,
    }
    .run(|text| {
        let request = request(text)?;
        let is_socket = request.uri().path().starts_with("/socket.io");
        runtime.block_on(async {
            let Ok(response) = node.clone().oneshot(request).await;
            let status = response.status();
            assert!(
                !status.is_server_error() || status == StatusCode::SERVICE_UNAVAILABLE,
                "{status}"
            );
            // The body of a poll may not end: it waits for a packet.
            if is_socket {
                return Some((status.as_u16(), String::new()));
            }
            let body = Limited::new(response.into_body(), 1 << 20)
                .collect()
                .await
                .unwrap()
                .to_bytes();
            let refusal: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            if status.is_client_error() && !body.is_empty() {
                assert!(
                    refusal["code"]
                        .as_str()
                        .is_some_and(|code| !code.is_empty()),
                    "{status} {refusal}"
                );
            }
            Some((
                status.as_u16(),
                refusal["error"]
                    .as_str()
                    .unwrap_or_default()
                    .chars()
                    .take(40)
                    .collect(),
            ))
        })
    });
}
