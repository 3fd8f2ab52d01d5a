//! Tokens of bots: over REST, Socket.IO and plain WebSockets.

use std::net::SocketAddr;

use hubbub_test_support::client::Client;
use hubbub_test_support::node::{Cluster, http_head};
use serde_json::{Value, json};

use crate::fixture::{MEMORY, Rest, SECRET, assert_refused, expect, sign_up};

const JWT: (&str, &str) = ("AUTH_MODE", "jwt");

/// Makes a token with these scopes, and returns the answer.
async fn make(rest: &Rest, scopes: &[&str]) -> Value {
    let body = json!({"name": "bot", "scopes": scopes, "expires_in_days": 7});
    expect(rest.post("/api/v1/tokens", body).await, 201)
}

fn secret(made: &Value) -> &str {
    made["token"].as_str().unwrap()
}

/// The status with which `/ws` answers a handshake with this token.
async fn open_plain(address: SocketAddr, token: &str) -> u16 {
    let request = format!(
        "GET /ws HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    http_head(address, &request).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_and_has_its_users_identity_on_every_door() {
    for mode in ["open", "jwt"] {
        let node = Cluster::alone(&[SECRET, MEMORY, ("AUTH_MODE", mode)]).await;
        let address = node.address(0);
        sign_up(address, "admin").await;
        let signed_up = sign_up(address, "ann").await;
        let ann = Rest::of(address, &signed_up);
        let mut made = make(&ann, &["send", "read"]).await;
        let token = secret(&made).to_owned();
        assert!(token.starts_with("hubbub_") && token.len() == 50, "{token}");
        assert_eq!(made["scopes"], json!(["read", "send"]));
        assert!(made.get("last_used_at").is_none());

        let bot = Rest::with_token(address, &token);
        assert_eq!(bot.me().await, (200, signed_up["user"].clone()));
        made.as_object_mut().unwrap().remove("token");
        let list = expect(ann.get("/api/v1/tokens").await, 200);
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
        let mut listed = list["items"][0].clone();
        let used = listed.as_object_mut().unwrap().remove("last_used_at");
        assert!(used.is_some_and(|at| at.is_string()));
        assert_eq!(listed, made, "without the secret");

        let client = Client::with_token(address, &token).await;
        client.await_event("connect").await;
        let identity = client.done("authenticate", json!({})).await;
        assert_eq!(identity["user_id"], signed_up["user"]["id"]);
        client.done("join", json!({"room_id": "lobby"})).await;
        let message = json!({"room_id": "lobby", "content": "hi"});
        client.done("message", message).await;
        assert_eq!(client.await_event("message").await["username"], "ann");
        assert_eq!(open_plain(address, &token).await, 101, "{mode}");
        let wrong = format!("{token}x");
        assert_eq!(open_plain(address, &wrong).await, 401, "{mode}");
        let bot = Rest::with_token(address, &wrong);
        assert_refused(&bot.me().await, 401, "unauthorized");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_limited_to_its_scopes() {
    let node = Cluster::alone(&[SECRET, MEMORY, JWT]).await;
    let address = node.address(0);
    let admin = Rest::of(address, &sign_up(address, "admin").await);
    let ann = Rest::of(address, &sign_up(address, "ann").await);
    for (scopes, may_join, may_send) in [
        (&["read"][..], true, false),
        (&["send", "chats", "publish"], false, false),
        (&["read", "send"], true, true),
    ] {
        let made = make(&ann, scopes).await;
        let client = Client::with_token(address, secret(&made)).await;
        client.await_event("connect").await;
        let synced = client.done("sync", json!({})).await;
        assert_eq!(synced["feed"].is_object(), may_join, "{scopes:?}: {synced}");
        let joined = client.ask("join", json!({"room_id": "r"})).await;
        assert_eq!(joined["ok"], may_join, "{scopes:?}: {joined}");
        let message = json!({"room_id": "r", "content": "hi"});
        let sent = client.ask("message", message).await;
        assert_eq!(sent["ok"], may_send, "{scopes:?}: {sent}");
        if !may_send {
            let code = if may_join { "forbidden" } else { "not_in_room" };
            assert_eq!(sent["code"], code);
        }
    }
    let message = json!({"room_id": "r", "content": "hi"});
    for (scopes, status) in [
        (&["admin", "send"][..], 201),
        (&["admin", "read"], 403),
        (&["send", "read"], 403),
    ] {
        let bot = make(&admin, scopes).await;
        let bot = Rest::with_token(address, secret(&bot));
        expect(bot.post("/messages", message.clone()).await, status);
        let is_admin = scopes.contains(&"admin");
        let status = if is_admin { 200 } else { 403 };
        expect(bot.get("/api/v1/audit").await, status);
    }
    // What needs a login needs it with every scope.
    let all = ["read", "send", "publish", "chats", "admin"];
    let bot = make(&admin, &all).await;
    let bot = Rest::with_token(address, secret(&bot));
    let password = json!({"current": "correct horse", "new": "a new battery"});
    for (method, path, body) in [
        ("PATCH", "/api/v1/me", json!({"status": "x"})),
        ("POST", "/api/v1/auth/password", password),
        ("POST", "/api/v1/auth/logout_all", Value::Null),
        ("GET", "/api/v1/tokens", Value::Null),
        (
            "POST",
            "/api/v1/tokens",
            json!({"name": "x", "scopes": ["read"]}),
        ),
    ] {
        assert_refused(&bot.send(method, path, &body).await, 403, "forbidden");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_tokens_are_refused() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    sign_up(address, "admin").await;
    let ann = Rest::of(address, &sign_up(address, "ann").await);
    for (body, status, code) in [
        (json!({"name": "x", "scopes": []}), 400, "bad_request"),
        (json!({"name": "x", "scopes": ["all"]}), 400, "bad_request"),
        (json!({"name": "", "scopes": ["read"]}), 400, "bad_request"),
        (json!({"scopes": ["read"]}), 400, "bad_request"),
        (
            json!({"name": "x", "scopes": ["read"], "expires_in_days": 0}),
            400,
            "bad_request",
        ),
        (
            json!({"name": "x", "scopes": ["read", "admin"]}),
            403,
            "forbidden",
        ),
    ] {
        let answer = ann.post("/api/v1/tokens", body).await;
        assert_refused(&answer, status, code);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_deleted_or_whose_user_is_disabled_ends_at_once() {
    let node = Cluster::alone(&[SECRET, MEMORY, JWT]).await;
    let address = node.address(0);
    let admin = Rest::of(address, &sign_up(address, "admin").await);
    let signed_up = sign_up(address, "ann").await;
    let ann = Rest::of(address, &signed_up);
    let user = format!(
        "/api/v1/users/{}",
        signed_up["user"]["id"].as_str().unwrap()
    );
    for is_deleted in [true, false] {
        let made = make(&ann, &["read"]).await;
        let bot = Rest::with_token(address, secret(&made));
        let client = Client::with_token(address, secret(&made)).await;
        client.await_event("connect").await;
        client.done("authenticate", json!({})).await;
        let token = format!("/api/v1/tokens/{}", made["id"].as_str().unwrap());
        assert_refused(&admin.delete(&token).await, 404, "not_found");
        assert_eq!(bot.me().await.0, 200);
        if is_deleted {
            assert_eq!(expect(ann.delete(&token).await, 200)["ok"], true);
            assert_refused(&ann.delete(&token).await, 404, "not_found");
        } else {
            let disabled = json!({"disabled": true});
            expect(admin.send("PATCH", &user, &disabled).await, 200);
        }
        assert_refused(&bot.me().await, 401, "unauthorized");
        let exception = client.await_event("exception").await;
        assert_eq!(exception["code"], "unauthorized");
        client.await_event("disconnect").await;
    }
    node.stop().await;
}
