//! Users with accounts, and their requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::client::Client;
use crate::node::http;

/// The key that signs the tokens of accounts.
pub const SECRET: (&str, &str) = ("JWT_SECRET", "a secret of at least thirty-two bytes");

/// A user with an account.
#[derive(Clone)]
pub struct User {
    pub id: String,
    pub token: String,
    /// The node that answers the user's requests.
    pub address: SocketAddr,
}

impl User {
    pub async fn sign_up(address: SocketAddr, username: &str) -> Self {
        let body = json!({
            "email": format!("{username}@example.com"),
            "username": username,
            "password": "correct horse",
        });
        let headers = [("content-type", "application/json")];
        let path = "/api/v1/auth/signup";
        let (status, _, answer) = http(address, "POST", path, &headers, &body.to_string()).await;
        assert_eq!(status, 201, "{answer}");
        Self {
            id: answer["user"]["id"].as_str().unwrap().to_owned(),
            token: answer["access_token"].as_str().unwrap().to_owned(),
            address,
        }
    }

    /// The same user at another node.
    pub fn at(&self, address: SocketAddr) -> Self {
        Self {
            address,
            ..self.clone()
        }
    }

    pub async fn request(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, answer) = self.request_with(method, path, body, &[]).await;
        (status, answer)
    }

    pub async fn request_with(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> (u16, BTreeMap<String, String>, Value) {
        let authorization = format!("Bearer {}", self.token);
        let own = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        http(self.address, method, path, &[&own, headers].concat(), &body).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.request("GET", path, &Value::Null).await
    }

    /// A request that must succeed with this status.
    pub async fn done(&self, method: &str, path: &str, body: Value, status: u16) -> Value {
        let (found, answer) = self.request(method, path, &body).await;
        assert_eq!(found, status, "{method} {path}: {answer}");
        answer
    }

    /// Creates a group; returns its id.
    pub async fn group(&self, others: &[&User], history: &str) -> String {
        let users: Vec<&str> = others.iter().map(|user| user.id.as_str()).collect();
        let body = json!({"user_ids": users, "history": history});
        let chat = self.done("POST", "/api/v1/chats", body, 201).await;
        chat["id"].as_str().unwrap().to_owned()
    }

    /// Sends a message to a chat.
    pub async fn send(&self, chat: &str, content: &str) -> Value {
        let path = format!("/api/v1/rooms/chat:{chat}/messages");
        self.done("POST", &path, json!({"content": content}), 201)
            .await
    }

    /// Waits until the room of a chat has this many entries: announcements of changes follow the changes.
    pub async fn await_entries(&self, chat: &str, entries: u64) {
        let path = format!("/api/v1/rooms/chat:{chat}/messages?limit=1");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let page = self.done("GET", &path, Value::Null, 200).await;
            if page["as_of"]["seq"] == entries {
                return;
            }
            assert!(Instant::now() < deadline, "{entries} entries: {page}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A Socket.IO connection.
    pub async fn connect(&self) -> Client {
        let client = Client::with_token(self.address, &self.token).await;
        client.await_event("connect").await;
        client.done("authenticate", json!({})).await;
        client
    }

    /// Sends one request over a plain WebSocket; returns its acknowledgement.
    pub async fn over_websocket(&self, event: &str, payload: Value) -> Value {
        let url = format!("ws://{}/ws?chat=1&token={}", self.address, self.token);
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let frame = json!({"type": event, "payload": payload, "ref": 1});
        socket.send(Message::text(frame.to_string())).await.unwrap();
        loop {
            let Message::Text(text) = socket.next().await.unwrap().unwrap() else {
                continue;
            };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["type"] == "ack" {
                return frame["payload"].clone();
            }
        }
    }
}

/// The id of a chat's room.
pub fn room(chat: &str) -> String {
    format!("chat:{chat}")
}
