//! Users that join an open room for the first time have read it up to its head.
//!
//! The positions are written behind the joins, in batches. The queue is bounded: beyond it a join is not
//! recorded, and the user's next join is, with the head of the first one.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::ReadingUser;
use crate::domain::{RoomId, RoomKind, UserId};
use crate::store::PositionStore;

/// Joins that wait.
const QUEUE: usize = 4096;
/// The most positions of one call.
const BATCH: usize = 200;
/// The pause after the database could not be reached.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// Joins that are remembered, in each of two halves. A full half replaces the other.
const HALF: usize = 1 << 15;

type Join = (UserId, RoomId, u64);

/// Records first joins.
pub struct FirstJoins {
    queue: mpsc::Sender<Join>,
    known: Mutex<Known>,
    hasher: RandomState,
}

/// A join that is remembered.
#[derive(Debug, Clone, Copy)]
enum Remembered {
    /// A repeat writes nothing.
    Queued,
    /// The queue was full. The user has read the room up to this head.
    Dropped { head: u64 },
}

/// Joins, by the hash of user and room. Those of long ago are forgotten.
#[derive(Default)]
struct Known {
    young: HashMap<u64, Remembered>,
    old: HashMap<u64, Remembered>,
}

impl Known {
    fn get(&self, key: u64) -> Option<Remembered> {
        let found = self.young.get(&key).or_else(|| self.old.get(&key));
        found.copied()
    }

    fn insert(&mut self, key: u64, join: Remembered) {
        if self.young.len() >= HALF && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, join);
    }
}

impl FirstJoins {
    /// Starts the task that writes the positions. It ends with this value.
    #[must_use]
    pub fn start(store: Arc<dyn PositionStore>) -> Self {
        let (queue, joins) = mpsc::channel(QUEUE);
        tokio::spawn(write(store, joins));
        Self::with_queue(queue)
    }

    fn with_queue(queue: mpsc::Sender<Join>) -> Self {
        Self {
            queue,
            known: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// The user has joined the room, whose head was this. Returns at once.
    ///
    /// Users without an account may be made up, and so may their rooms: nothing is recorded for them in rooms
    /// that never had a message.
    pub fn record(&self, by: &ReadingUser, room: &RoomId, head: u64) {
        if room.kind() != RoomKind::Open || (head == 0 && !by.has_account) {
            return;
        }
        let key = self.hasher.hash_one((&by.user, room));
        let mut known = self.known.lock();
        let head = match known.get(key) {
            Some(Remembered::Queued) => return,
            Some(Remembered::Dropped { head: first }) => first.min(head),
            None => head,
        };
        let join = (by.user.clone(), room.clone(), head);
        let remembered = match self.queue.try_send(join) {
            Ok(()) => Remembered::Queued,
            Err(_) => Remembered::Dropped { head },
        };
        known.insert(key, remembered);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, has_account: bool) -> ReadingUser {
        ReadingUser {
            user: UserId::trusted(name),
            has_account,
        }
    }

    #[test]
    fn a_join_that_was_dropped_is_recorded_later_with_its_head() {
        let (queue, mut joins) = mpsc::channel(1);
        let first_joins = FirstJoins::with_queue(queue);
        let (ann, bob) = (user("ann", true), user("bob", true));
        let room = RoomId::trusted("lobby");
        first_joins.record(&ann, &room, 3);
        for head in [5, 8] {
            first_joins.record(&bob, &room, head);
        }
        assert_eq!(joins.try_recv().unwrap(), (ann.user, room.clone(), 3));
        for head in [9, 10] {
            first_joins.record(&bob, &room, head);
        }
        assert_eq!(joins.try_recv().unwrap(), (bob.user, room, 5));
        assert!(joins.try_recv().is_err(), "a repeat writes nothing");
    }

    #[test]
    fn made_up_users_leave_nothing_in_made_up_rooms() {
        let (queue, mut joins) = mpsc::channel(8);
        let first_joins = FirstJoins::with_queue(queue);
        let room = RoomId::trusted("lobby");
        first_joins.record(&user("guest", false), &room, 0);
        assert!(joins.try_recv().is_err());
        first_joins.record(&user("guest", false), &room, 1);
        first_joins.record(&user("ann", true), &room, 0);
        assert_eq!(joins.try_recv().unwrap().2, 1);
        assert_eq!(joins.try_recv().unwrap().2, 0);
    }

    #[test]
    fn the_joins_that_are_remembered_are_bounded() {
        let mut known = Known::default();
        let count = 3 * HALF as u64;
        for key in 0..count {
            known.insert(key, Remembered::Queued);
        }
        assert!(known.young.len() + known.old.len() <= 2 * HALF);
        assert!(known.get(count - 1).is_some() && known.get(0).is_none());
    }
}
