//! The clients: what they write down is all that the checker gets.

mod aside;
mod fleet;
mod latency;
mod link;
mod member;
mod poster;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

pub use aside::Aside;
pub use fleet::Fleet;
pub use latency::Latencies;
pub use member::{Member, Part};
pub use poster::Poster;

use crate::history::Position;

/// How a client stands just now, for the lab to wait upon. The verdict doesn't rest on it.
#[derive(Debug, Default)]
pub struct Standing {
    connected: AtomicBool,
    ended: AtomicBool,
    /// Messages that are not acknowledged yet.
    unanswered: AtomicUsize,
    /// Asks (joins, subscriptions) that are not answered yet.
    asking: AtomicUsize,
    at: Mutex<HashMap<String, Position>>,
}

impl Standing {
    /// Connected, with all rooms joined again.
    pub fn is_back(&self) -> bool {
        self.connected.load(Ordering::SeqCst) && self.asking.load(Ordering::SeqCst) == 0
    }

    /// Nothing is owed to it any more.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Messages that are not acknowledged yet.
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::SeqCst)
    }

    /// The last message seen, by room.
    pub fn positions(&self) -> HashMap<String, Position> {
        self.at.lock().clone()
    }
}
