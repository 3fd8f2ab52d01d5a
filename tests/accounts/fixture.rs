//! Requests of users to a node with accounts.

use std::net::SocketAddr;

use hubbub_test_support::node::http;
use serde_json::{Value, json};

pub const SECRET: (&str, &str) = ("JWT_SECRET", "a secret of at least thirty-two bytes");
pub const MEMORY: (&str, &str) = ("DATABASE_URL", "sqlite::memory:");

/// A client that sends requests with an access token, or without one.
pub struct Rest {
    address: SocketAddr,
    authorization: Option<String>,
}

impl Rest {
    pub fn anonymous(address: SocketAddr) -> Self {
        Self {
            address,
            authorization: None,
        }
    }

    pub fn with_token(address: SocketAddr, token: &str) -> Self {
        Self {
            address,
            authorization: Some(format!("Bearer {token}")),
        }
    }

    /// The user of the tokens in the answer of a login.
    pub fn of(address: SocketAddr, logged_in: &Value) -> Self {
        Self::with_token(address, logged_in["access_token"].as_str().unwrap())
    }

    /// Sends a request; returns the status and the body.
    pub async fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mut headers = vec![("content-type", "application/json")];
        if let Some(authorization) = &self.authorization {
            headers.push(("authorization", authorization));
        }
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (status, _, answer) = http(self.address, method, path, &headers, &body).await;
        (status, answer)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, &Value::Null).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send("POST", path, &body).await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.send("DELETE", path, &Value::Null).await
    }

    /// The account of the token.
    pub async fn me(&self) -> (u16, Value) {
        self.get("/api/v1/me").await
    }
}

/// Asserts that an answer is a refusal with this status and this code.
#[track_caller]
pub fn assert_refused((status, answer): &(u16, Value), expected: u16, code: &str) {
    assert_eq!(
        (*status, &answer["code"]),
        (expected, &json!(code)),
        "{answer}"
    );
}

/// Asserts that an answer has this status, and returns its body.
#[track_caller]
pub fn expect((status, answer): (u16, Value), expected: u16) -> Value {
    assert_eq!(status, expected, "{answer}");
    answer
}

pub async fn sign_up(address: SocketAddr, username: &str) -> Value {
    let body = json!({
        "email": format!("{username}@example.com"),
        "username": username,
        "password": "correct horse",
    });
    let rest = Rest::anonymous(address);
    expect(rest.post("/api/v1/auth/signup", body).await, 201)
}

pub async fn log_in(address: SocketAddr, username: &str, password: &str) -> (u16, Value) {
    let body = json!({"username": username, "password": password});
    let rest = Rest::anonymous(address);
    rest.post("/api/v1/auth/login", body).await
}
