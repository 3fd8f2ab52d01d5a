//! The clients. They wait for nothing and judge nothing: their records are the checker's only
//! source.

mod background;
pub mod changes;
pub mod chat;
mod client;
mod connection;
mod latencies;
mod official;
mod requests;
mod rest_poster;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

pub use background::BackgroundRuntime;
pub use client::{Client, ClientConfig};
pub use latencies::{Latencies, Percentile};
pub use official::OfficialClients;
pub use requests::Requests;
pub use rest_poster::RestPoster;

use crate::history::Position;

/// The present state of a client. The lab waits for states; the verdict doesn't depend on them.
#[derive(Debug, Default)]
pub struct ClientState {
    connected: AtomicBool,
    ended: AtomicBool,
    /// The number of messages without an acknowledgement.
    unacknowledged: AtomicUsize,
    /// The number of joins and subscriptions without an answer.
    pending_requests: AtomicUsize,
    /// By room: the position of the last message received.
    positions: Mutex<HashMap<String, Position>>,
}

impl ClientState {
    /// Whether the client is connected, and all its joins and subscriptions are answered.
    pub fn is_ready(&self) -> bool {
        self.connected.load(Ordering::SeqCst) && self.pending_requests.load(Ordering::SeqCst) == 0
    }

    /// Whether the client stopped for good.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    pub fn has_unacknowledged(&self) -> bool {
        self.unacknowledged.load(Ordering::SeqCst) > 0
    }

    /// By room: the position of the last message received.
    pub fn positions(&self) -> HashMap<String, Position> {
        self.positions.lock().clone()
    }
}
