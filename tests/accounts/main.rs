//! Accounts of whole nodes, by REST and by connections.

// A test that cannot go on should stop and say where.
#![allow(clippy::unwrap_used)]

mod administration;
mod command;
mod deletion;
mod feed;
mod fixture;
mod hashing;
mod idempotency;
mod invites;
mod mail;
mod outside;
mod profile;
mod refresh;
mod security;
mod sessions;
mod tokens;
mod users;
mod worker;

use hubbub_test_support::client::Client;
use hubbub_test_support::node::{self, Cluster};
use serde_json::{Value, json};

use fixture::{MEMORY, Rest, SECRET, assert_refused, log_in, sign_up};

#[tokio::test(flavor = "multi_thread")]
async fn a_user_signs_up_logs_in_and_chats_under_the_accounts_name() {
    for mode in ["open", "jwt"] {
        let settings = [SECRET, MEMORY, ("AUTH_MODE", mode)];
        let node = Cluster::alone(&settings).await;
        let address = node.address(0);
        let signed_up = sign_up(address, "ann").await;
        assert_eq!(signed_up["token_type"], "Bearer");
        assert_eq!(signed_up["expires_in"], 86_400);
        let user = &signed_up["user"];
        assert_eq!(
            (&user["username"], &user["role"]),
            (&json!("ann"), &json!("admin"))
        );

        let (status, logged_in) = log_in(address, "Ann", "correct horse").await;
        assert_eq!((status, &logged_in["user"]), (200, user));
        let (status, account) = Rest::of(address, &logged_in).me().await;
        assert_eq!((status, &account), (200, user));

        let token = logged_in["access_token"].as_str().unwrap();
        let ann = Client::with_token(address, token).await;
        ann.await_event("connect").await;
        let authenticated = ann.done("authenticate", json!({})).await;
        assert_eq!(authenticated["user_id"], user["id"]);
        ann.done("join", json!({"room_id": "lobby"})).await;
        ann.done("message", json!({"room_id": "lobby", "content": "hi"}))
            .await;
        let message = ann.await_event("message").await;
        assert_eq!(message["username"], "ann", "{mode}: {message}");
        assert_eq!(message["user_id"], user["id"]);
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_tells_nothing_about_the_account() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    sign_up(address, "ann").await;
    let mut answers = Vec::new();
    for (username, password) in [
        ("ann", "wrong horse!"),
        ("bob", "correct horse"),
        ("b b", "x"),
    ] {
        let (status, mut answer) = log_in(address, username, password).await;
        assert_eq!(
            (status, &answer["code"]),
            (401, &json!("invalid_credentials"))
        );
        answer["request_id"].take();
        answers.push(answer);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_tokens_are_exchanged_for_new_ones() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let signed_up = sign_up(address, "ann").await;
    let refresh = async |token: &Value| {
        let body = json!({"refresh_token": token});
        let rest = Rest::anonymous(address);
        rest.post("/api/v1/auth/refresh", body).await
    };
    let (status, first) = refresh(&signed_up["refresh_token"]).await;
    assert_eq!(status, 200, "{first}");
    let (_, again) = refresh(&signed_up["refresh_token"]).await;
    assert_eq!(first["refresh_token"], again["refresh_token"]);
    assert_eq!(Rest::of(address, &again).me().await.0, 200);
    let (status, next) = refresh(&first["refresh_token"]).await;
    assert_eq!(status, 200, "{next}");
    assert_ne!(next["refresh_token"], first["refresh_token"]);
    for token in [json!("x"), signed_up["access_token"].clone()] {
        assert_refused(&refresh(&token).await, 401, "unauthorized");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_database_has_no_accounts() {
    let node = node::start(&[SECRET]).await;
    let answer = log_in(node.address(), "ann", "correct horse").await;
    assert_refused(&answer, 501, "not_configured");
    node.stop().await;
}
