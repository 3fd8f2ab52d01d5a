//! An account, and its requests.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// A user with an account.
#[derive(Debug, Clone)]
pub struct Account {
    pub id: String,
    pub token: String,
    http: reqwest::Client,
}

/// An answer over REST. The status 0 stands for none.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// Whether a repeat may have another answer.
    pub fn is_temporary(&self) -> bool {
        self.status == 0 || self.status == 429 || self.status >= 500
    }
}

impl Account {
    /// Signs a user up at any of these nodes. A sign-up without an answer is repeated with the same
    /// idempotency key at the next node, until the deadline.
    pub async fn sign_up(
        name: &str,
        addresses: &[SocketAddr],
        first: usize,
        deadline: Instant,
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .build()?;
        let body = json!({
            "email": format!("{name}@example.com"),
            "username": name,
            "password": "a password of the lab",
        });
        for attempt in first.. {
            let address = addresses[attempt % addresses.len()];
            let request = http
                .post(format!("http://{address}/api/v1/auth/signup"))
                .header("idempotency-key", name)
                .json(&body);
            let answer = send(request).await;
            if answer.status == 201 {
                let text = |value: &Value| Some(value.as_str()?.to_owned());
                return Ok(Self {
                    id: text(&answer.body["user"]["id"]).context("no id")?,
                    token: text(&answer.body["access_token"]).context("no token")?,
                    http,
                });
            }
            if !answer.is_temporary() || Instant::now() > deadline {
                bail!("{name} can't sign up: {answer:?}");
            }
            sleep(RETRY_DELAY).await;
        }
        bail!("no attempt")
    }

    /// Makes one attempt of a request.
    pub async fn request(
        &self,
        method: Method,
        address: SocketAddr,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Answer {
        let mut request = self
            .http
            .request(method, format!("http://{address}{path}"))
            .bearer_auth(&self.token);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        send(request).await
    }

    pub async fn get(&self, address: SocketAddr, path: &str) -> Answer {
        self.request(Method::GET, address, path, None, None).await
    }
}

async fn send(request: reqwest::RequestBuilder) -> Answer {
    let Ok(response) = request.send().await else {
        return Answer {
            status: 0,
            body: Value::Null,
        };
    };
    let status = response.status().as_u16();
    match response.json().await {
        Ok(body) => Answer { status, body },
        // The node ended within the answer.
        Err(_) => Answer {
            status: 0,
            body: Value::Null,
        },
    }
}
