//! REST: statuses, codes and rights.

use serde_json::json;

use hubbub_test_support::client::Client;
use hubbub_test_support::node::{Cluster, http, post};

const SECRET: &str = "a secret of at least thirty-two bytes";
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_status_and_code() {
    let cluster = Cluster::alone(&[]).await;
    let address = cluster.address(0);
    let large = format!(r#"{{"room_id":"r","content":"{}"}}"#, "x".repeat(70_000));
    let long = format!(r#"{{"room_id":"r","content":"{}"}}"#, "x".repeat(17_000));
    for (method, path, header, body, status, code) in [
        ("GET", "/nothing", JSON, "", 404, "not_found"),
        ("GET", "/messages", JSON, "", 405, "method_not_allowed"),
        (
            "POST",
            "/messages",
            ("content-type", "text/plain"),
            "{}",
            415,
            "unsupported_media_type",
        ),
        ("POST", "/messages", JSON, "{", 400, "bad_request"),
        ("POST", "/messages", JSON, "[]", 400, "bad_request"),
        (
            "POST",
            "/messages",
            JSON,
            r#"{"room_id":"r"}"#,
            400,
            "bad_request",
        ),
        (
            "POST",
            "/messages",
            JSON,
            r#"{"content":"a"}"#,
            400,
            "bad_request",
        ),
        ("POST", "/messages", JSON, &long, 413, "too_large"),
        ("POST", "/messages", JSON, &large, 413, "too_large"),
        (
            "GET",
            "/rooms/r/messages?limit=0",
            JSON,
            "",
            400,
            "bad_request",
        ),
        (
            "GET",
            "/rooms/r/messages?limit=x",
            JSON,
            "",
            400,
            "bad_request",
        ),
        (
            "GET",
            "/rooms/r/messages?after_seq=1&before_seq=2",
            JSON,
            "",
            400,
            "bad_request",
        ),
        ("GET", "/rooms/%FF/users", JSON, "", 400, "bad_request"),
        ("GET", "/rooms/r%00/users", JSON, "", 400, "bad_request"),
        ("GET", "/users/a/status/more", JSON, "", 404, "not_found"),
    ] {
        let (got, headers, answer) = http(address, method, path, &[header], body).await;
        assert_eq!(
            (got, answer["code"].as_str()),
            (status, Some(code)),
            "{method} {path} {answer}"
        );
        assert_eq!(
            answer["request_id"].as_str().unwrap(),
            headers["x-request-id"]
        );
        assert!(
            answer["error"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_posted_message_is_stored_and_a_repeat_returns_the_first() {
    let cluster = Cluster::alone(&[]).await;
    let address = cluster.address(0);
    let member = Client::member(address, "ann", "a room").await;
    let message = json!({"room_id": "a room", "content": "hi", "payload": {"b": 1.0, "a": [2]}, "client_msg_id": "x"});
    let (status, first) = post(address, &message).await;
    assert_eq!(
        (status, &first["seq"], &first["duplicate"]),
        (201, &json!(1), &json!(false))
    );
    let key = [JSON, ("idempotency-key", "x")];
    let (status, _, again) = http(
        address,
        "POST",
        "/messages",
        &key,
        r#"{"room_id":"a room","content":"hi"}"#,
    )
    .await;
    assert_eq!(
        (status, &again["id"], &again["duplicate"]),
        (200, &first["id"], &json!(true))
    );
    let seen = member.await_event("message").await;
    assert_eq!(
        (&seen["user_id"], &seen["username"], &seen["payload"]),
        (&json!("system"), &json!("System"), &message["payload"])
    );
    let (_, _, page) = http(address, "GET", "/rooms/a%20room/messages", &[], "").await;
    assert_eq!(
        (
            page["messages"].as_array().unwrap().len(),
            &page["has_more"]
        ),
        (1, &json!(false))
    );
    assert_eq!(page["messages"][0], seen);
    let (_, _, users) = http(address, "GET", "/rooms/a%20room/users", &[], "").await;
    assert_eq!(
        users,
        json!({"room_id": "a room", "users": [{"user_id": "ann", "username": "ann"}], "total": 1})
    );
    let (status, _, nobody) = http(address, "GET", "/users/nobody/status", &[], "").await;
    assert_eq!(
        (status, nobody),
        (
            200,
            json!({"user_id": "nobody", "is_online": false, "version": 0})
        )
    );
    let (status, _, health) = http(address, "GET", "/health", &[], "").await;
    assert_eq!(
        (status, &health["status"], &health["connectedClients"]),
        (200, &json!("ok"), &json!(1))
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_jwt_mode_rights_follow_the_bearer() {
    // The last key is the digest of abc.
    let keys =
        "key-one, key-two, sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let cluster = Cluster::alone(&[("JWT_SECRET", SECRET), ("API_KEYS", keys)]).await;
    let address = cluster.address(0);
    let token = |user: &str, role| {
        let ttl = std::time::Duration::from_secs(60);
        format!(
            "Bearer {}",
            hubbub::auth::mint(SECRET, user, None, role, ttl).unwrap()
        )
    };
    let (user, service) = (token("ann", None), token("job", Some("service")));
    let message = r#"{"room_id":"r","content":"hi"}"#;
    for (bearer, path, status) in [
        ("Bearer key-two", "/messages", 201),
        (&service, "/messages", 201),
        (&user, "/messages", 403),
        ("Bearer nonsense", "/messages", 401),
        ("Bearer abc", "/metrics", 200),
        (
            "Bearer sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "/messages",
            401,
        ),
        ("Basic key-one", "/messages", 401),
        (&user, "/rooms/r/users", 403),
        (&service, "/rooms/r/users", 200),
        (&user, "/users/ann/status", 403),
        (&user, "/metrics", 403),
        ("Bearer key-one", "/metrics", 200),
        ("", "/health", 200),
        ("", "/livez", 200),
        ("", "/metrics", 401),
    ] {
        let method = if path == "/messages" { "POST" } else { "GET" };
        let (got, _, answer) = http(
            address,
            method,
            path,
            &[JSON, ("authorization", bearer)],
            message,
        )
        .await;
        assert_eq!(got, status, "{bearer} {path} {answer}");
    }
    let member = Client::connect(address).await;
    let bare = user.trim_start_matches("Bearer ");
    assert_eq!(
        member.ask("join", json!({"room_id": "r"})).await["code"],
        "unauthorized"
    );
    assert_eq!(
        member.ask("authenticate", json!({"user_id": "ann"})).await["code"],
        "unauthorized"
    );
    assert_eq!(
        member
            .ask("authenticate", json!({"user_id": "bob", "token": bare}))
            .await["code"],
        "forbidden"
    );
    member.done("authenticate", json!({"token": bare})).await;
    member.done("join", json!({"room_id": "r"})).await;
    let (status, _, page) = http(
        address,
        "GET",
        "/rooms/r/messages",
        &[("authorization", &user)],
        "",
    )
    .await;
    assert_eq!(
        (status, page["messages"].as_array().unwrap().len()),
        (200, 2)
    );
    let (_, _, text) = http(
        address,
        "GET",
        "/metrics",
        &[("authorization", "Bearer key-one")],
        "",
    )
    .await;
    assert!(text.is_null(), "metrics are text");
    cluster.stop().await;
}

#[tokio::test]
async fn a_401_says_how_to_authenticate() {
    let cluster = Cluster::alone(&[("JWT_SECRET", SECRET)]).await;
    let ttl = std::time::Duration::from_secs(60);
    let forged = hubbub::auth::mint(&"x".repeat(40), "ann", None, Some("service"), ttl).unwrap();
    let forged = format!("Bearer {forged}");
    for (path, authorization, expected) in [
        ("/metrics", None, "Bearer realm=\"hubbub\""),
        ("/rooms/r/users", None, "Bearer realm=\"hubbub\""),
        ("/ws", None, "Bearer realm=\"hubbub\""),
        ("/metrics", Some("Basic YTpi"), "Bearer realm=\"hubbub\""),
        (
            "/metrics",
            Some(forged.as_str()),
            "Bearer realm=\"hubbub\", error=\"invalid_token\"",
        ),
    ] {
        let mut headers = Vec::new();
        headers.extend(authorization.map(|value| ("authorization", value)));
        let (status, headers, _) = http(cluster.address(0), "GET", path, &headers, "").await;
        let challenge = headers.get("www-authenticate").map(String::as_str);
        assert_eq!((status, challenge), (401, Some(expected)), "{path}");
    }
    let (status, headers, _) = http(cluster.address(0), "GET", "/nothing", &[], "").await;
    assert_eq!((status, headers.get("www-authenticate")), (404, None));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_origin_is_refused_and_a_listed_one_is_allowed() {
    let cluster = Cluster::alone(&[("ALLOWED_ORIGINS", "https://app.example")]).await;
    let address = cluster.address(0);
    let handshake = "/socket.io/?EIO=4&transport=polling";
    let (status, _, answer) = http(
        address,
        "GET",
        handshake,
        &[("origin", "https://evil.example")],
        "",
    )
    .await;
    assert_eq!((status, &answer["code"]), (403, &json!("forbidden")));
    let (status, headers, _) = http(
        address,
        "GET",
        handshake,
        &[("origin", "https://app.example")],
        "",
    )
    .await;
    assert_eq!(
        (status, headers["access-control-allow-origin"].as_str()),
        (200, "https://app.example")
    );
    let upgrade = [
        ("origin", "https://evil.example"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let (status, _, _) = http(
        address,
        "GET",
        "/socket.io/?EIO=4&transport=websocket",
        &upgrade,
        "",
    )
    .await;
    assert_eq!(status, 403);
    let preflight = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
    ];
    let (status, headers, _) = http(address, "OPTIONS", "/messages", &preflight, "").await;
    assert_eq!(
        (status, headers["access-control-allow-credentials"].as_str()),
        (204, "true")
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_security_headers_and_is_not_cached() {
    let cluster = Cluster::alone(&[("METRICS_ADDR", "127.0.0.1:0")]).await;
    let (address, metrics) = (
        cluster.address(0),
        cluster.nodes[0].metrics_address().unwrap(),
    );
    for (address, method, path, status) in [
        (address, "GET", "/health", 200),
        (address, "GET", "/nothing", 404),
        (address, "GET", "/messages", 405),
        (address, "POST", "/messages", 415),
        (address, "GET", "/socket.io/?EIO=4&transport=polling", 200),
        (
            address,
            "GET",
            "/socket.io/?EIO=4&transport=polling&sid=x",
            400,
        ),
        (address, "GET", "/metrics", 200),
        (metrics, "GET", "/metrics", 200),
    ] {
        let (got, headers, _) = http(address, method, path, &[], "").await;
        assert_eq!(got, status, "{path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            (
                "content-security-policy",
                "default-src 'none'; frame-ancestors 'none'",
            ),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(
                headers.get(name).map(String::as_str),
                Some(value),
                "{method} {path} {name}"
            );
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_caps_are_answered_before_engine_io() {
    let cluster = Cluster::alone(&[("MAX_CONNECTIONS", "1")]).await;
    let address = cluster.address(0);
    let one = Client::connect(address).await;
    let (status, headers, answer) = http(
        address,
        "GET",
        "/socket.io/?EIO=4&transport=polling",
        &[],
        "",
    )
    .await;
    assert_eq!((status, &answer["code"]), (503, &json!("unavailable")));
    assert!(headers.contains_key("retry-after"));
    drop(one);
    cluster.stop().await;
}
