//! A connection of an account that makes one request after another.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::chat::Account;
use super::connection::{Connection, Packet};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Requests {
    connection: Connection,
    last: u64,
}

impl Requests {
    /// Connects and authenticates.
    pub async fn open(address: SocketAddr, user: &Account) -> anyhow::Result<Self> {
        let connection = Connection::open_with_token(address, &user.token).await?;
        let mut requests = Self {
            connection,
            last: 0,
        };
        requests.ask("authenticate", &json!({})).await?;
        Ok(requests)
    }

    /// Makes a request, and waits for its answer. Events that arrive meanwhile are dropped.
    pub async fn ask(&mut self, event: &str, payload: &Value) -> anyhow::Result<Value> {
        self.last += 1;
        self.connection.emit(self.last, event, payload).await?;
        let answer = async {
            loop {
                if let Packet::Ack(id, answer) = self.connection.next().await?
                    && id == self.last
                {
                    return Ok(answer);
                }
            }
        };
        timeout(ANSWER_TIMEOUT, answer).await?
    }
}
