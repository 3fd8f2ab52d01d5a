//! Nodes, users without accounts, and messages.

use std::time::{Duration, Instant};

use hubbub_test_support::client::Client;
use hubbub_test_support::node::Cluster;
use serde_json::{Value, json};

pub use hubbub_test_support::user::{SECRET, User, room};

pub const OPEN: (&str, &str) = ("AUTH_MODE", "open");
/// No limit of rates.
pub const UNLIMITED: (&str, &str) = ("RATE_EVENTS_PER_SEC", "0");
const MEMORY: (&str, &str) = ("DATABASE_URL", "sqlite::memory:");

/// A node of its own.
pub async fn node(settings: &[(&str, &str)]) -> Cluster {
    Cluster::alone(&[&[SECRET, MEMORY, OPEN], settings].concat()).await
}

/// A connection of a user without an account, in the room.
pub async fn occupant(node: &Cluster, user: &str, room: &str) -> Client {
    Client::member(node.address(0), user, room).await
}

/// Sends a message; returns its acknowledgement.
pub async fn send(client: &Client, room: &str, content: &str) -> Value {
    let payload = json!({"room_id": room, "content": content});
    client.done("message", payload).await
}

/// The events with this name about a message.
pub fn events_about(client: &Client, name: &str, id: &Value) -> Vec<Value> {
    let mut events = client.events(name);
    events.retain(|event| event["id"] == *id || event["message"]["id"] == *id);
    events
}

/// The first event with this name about a message.
pub async fn await_about(client: &Client, name: &str, id: &Value) -> Value {
    let what = format!("{name} of {id}");
    client
        .eventually(&what, |client| !events_about(client, name, id).is_empty())
        .await;
    events_about(client, name, id).remove(0)
}

/// Repeats a look until it shows what is expected: the archive follows the log.
pub async fn eventually<F: Future<Output = Value>>(
    what: &str,
    look: impl Fn() -> F,
    is_expected: impl Fn(&Value) -> bool,
) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = look().await;
        if is_expected(&found) {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}; saw {found}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The contents of messages.
pub fn contents(messages: &Value) -> Vec<&str> {
    let messages = messages.as_array().unwrap().iter();
    messages
        .map(|message| message["content"].as_str().unwrap_or("-"))
        .collect()
}
