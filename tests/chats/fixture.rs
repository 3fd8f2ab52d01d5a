//! Nodes, and users with accounts.

use hubbub_test_support::node::Cluster;
use serde_json::Value;

pub use hubbub_test_support::user::{SECRET, User, room};

const MEMORY: (&str, &str) = ("DATABASE_URL", "sqlite::memory:");

/// A node of its own.
pub async fn node(settings: &[(&str, &str)]) -> Cluster {
    Cluster::alone(&[&[SECRET, MEMORY], settings].concat()).await
}

/// The contents of messages.
pub fn contents(messages: &Value) -> Vec<&str> {
    let messages = messages.as_array().unwrap().iter();
    messages
        .map(|message| message["content"].as_str().unwrap())
        .collect()
}
