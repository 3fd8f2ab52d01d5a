//! Users that join an open room for the first time have read it up to its head.
//!
//! The positions are written behind the joins, in batches. The queue is bounded: beyond it a join is not
//! recorded, and the user's next join is.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::domain::{RoomId, RoomKind, UserId};
use crate::store::PositionStore;

/// Joins that wait.
const QUEUE: usize = 4096;
/// The most positions of one call.
const BATCH: usize = 200;
/// The pause after the database could not be reached.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// Joins that are remembered, so that a repeat writes nothing.
const MAX_KNOWN: usize = 1 << 16;

type Join = (UserId, RoomId, u64);

/// Records first joins.
pub struct FirstJoins {
    queue: mpsc::Sender<Join>,
    known: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl FirstJoins {
    /// Starts the task that writes the positions. It ends with this value.
    #[must_use]
    pub fn start(store: Arc<dyn PositionStore>) -> Self {
        let (queue, joins) = mpsc::channel(QUEUE);
        tokio::spawn(write(store, joins));
        Self {
            queue,
            known: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// The user has joined the room, whose head was this. Returns at once.
    pub fn record(&self, user: &UserId, room: &RoomId, head: u64) {
        if room.kind() != RoomKind::Open {
            return;
        }
        let key = self.hasher.hash_one((user, room));
        let mut known = self.known.lock();
        if known.contains(&key) {
            return;
        }
        if self
            .queue
            .try_send((user.clone(), room.clone(), head))
            .is_err()
        {
            return;
        }
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(key);
    }
}

async fn write(store: Arc<dyn PositionStore>, mut joins: mpsc::Receiver<Join>) {
    let mut batch = Vec::new();
    while joins.recv_many(&mut batch, BATCH).await > 0 {
        while let Err(error) = store.joined(&batch).await {
            tracing::debug!(%error, "positions of first joins are not recorded yet");
            if joins.is_closed() {
                return;
            }
            tokio::time::sleep(ERROR_PAUSE).await;
        }
        batch.clear();
    }
}
