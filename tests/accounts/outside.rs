//! Tokens of an outside issuer beside those of accounts.

use std::net::SocketAddr;

use hubbub_test_support::client::Client;
use hubbub_test_support::node::{Cluster, http};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::fixture::{MEMORY, Rest, SECRET, assert_refused, log_in, sign_up};

const FAR: u64 = 4_000_000_000;

fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, key).unwrap()
}

/// A token of the outside issuer.
fn outside(claims: &Value) -> String {
    let key = include_bytes!("../../src/auth/testdata/ed.pem");
    let key = EncodingKey::from_ed_pem(key).unwrap();
    signed(Algorithm::EdDSA, &key, claims)
}

/// A token that is signed with the secret of accounts.
fn by_secret(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.1.as_bytes());
    signed(Algorithm::HS256, &key, claims)
}

/// Joins a room, and returns the user as the server has authenticated it.
async fn enter(address: SocketAddr, token: &str) -> (Client, Value) {
    let client = Client::with_token(address, token).await;
    client.await_event("connect").await;
    let user = client.done("authenticate", json!({})).await;
    client.done("join", json!({"room_id": "lobby"})).await;
    (client, user)
}

/// The status of a request that needs any valid token of a user in the room.
async fn read_lobby(address: SocketAddr, token: &str) -> u16 {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str())];
    let (status, ..) = http(address, "GET", "/rooms/lobby/messages", &headers, "").await;
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_an_outside_issuer_and_of_accounts_are_in_use_together() {
    let key_file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/auth/testdata/ed.pub.pem");
    let settings = [
        SECRET,
        MEMORY,
        ("AUTH_MODE", "jwt"),
        ("JWT_PUBLIC_KEY_FILE", key_file),
        ("JWT_ALGORITHM", "EdDSA"),
        ("JWT_ISSUER", "https://app.example.com"),
    ];
    let node = Cluster::alone(&settings).await;
    let address = node.address(0);
    let ann = sign_up(address, "ann").await;
    let ann_token = ann["access_token"].as_str().unwrap();
    // The session of another server means nothing here.
    let sid = "0190c000-0000-7000-8000-000000000000";
    let claims = json!({"sub": "guest", "iss": "https://app.example.com", "exp": FAR, "sid": sid});
    let guest_token = outside(&claims);

    let (ann_client, user) = enter(address, ann_token).await;
    assert_eq!(user["user_id"], ann["user"]["id"]);
    let (guest_client, user) = enter(address, &guest_token).await;
    assert_eq!(user["user_id"], "guest");
    guest_client
        .done("message", json!({"room_id": "lobby", "content": "hi"}))
        .await;
    let message = ann_client.await_event("message").await;
    assert_eq!(message["user_id"], "guest");
    for token in [ann_token, guest_token.as_str()] {
        assert_eq!(read_lobby(address, token).await, 200);
    }

    assert_eq!(log_in(address, "ann", "correct horse").await.0, 200);
    assert_eq!(Rest::of(address, &ann).me().await.0, 200);
    // The guest has no account here.
    let refused = Rest::with_token(address, &guest_token).me().await;
    assert_refused(&refused, 401, "unauthorized");

    // Neither key stands in for the other.
    let as_account = json!({
        "sub": ann["user"]["id"], "user_id": ann["user"]["id"], "role": "admin",
        "iss": "hubbub", "exp": FAR, "sid": "00000000-0000-0000-0000-000000000000",
    });
    for forged in [
        outside(&as_account),
        by_secret(&as_account),
        by_secret(&claims),
        outside(&json!({"sub": "guest", "iss": "https://evil.example", "exp": FAR})),
    ] {
        assert_eq!(read_lobby(address, &forged).await, 401, "{forged}");
        let refused = Rest::with_token(address, &forged).me().await;
        assert_refused(&refused, 401, "unauthorized");
    }
    node.stop().await;
}
