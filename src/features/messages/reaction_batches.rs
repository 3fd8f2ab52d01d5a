//! Combines the reactions of this node: all of one room that arrive while its transaction is under way are
//! made by the next one. So a popular message costs few transactions, and a lone reaction waits for
//! nothing.
//!
//! Each room has its own queue and at most one transaction at a time: a message that something else has
//! locked holds up the reactions of its room only. The number of all transactions is bounded, so that
//! reactions leave connections of the database to other calls.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use crate::domain::{Code, Refusal, RoomId};
use crate::store::{ChangeOutcome, MessageStore, ReactionChange, StoreError};

/// The most reactions of a transaction.
const BATCH: usize = 500;
/// The most transactions at a time.
const CONCURRENT: usize = 3;
/// The most reactions that wait, of one room and of all.
const MAX_WAITING_OF_ROOM: usize = 10_000;
const MAX_WAITING: usize = 20_000;
/// How long a reaction waits for its transaction to begin. Then it is refused.
const MAX_WAIT: Duration = Duration::from_secs(5);

type Outcome = Result<ChangeOutcome, Refusal>;

/// A reaction that waits for its transaction.
struct QueuedReaction {
    change: ReactionChange,
    since: Instant,
    outcome: oneshot::Sender<Outcome>,
}

impl QueuedReaction {
    fn message(&self) -> Uuid {
        self.change.message.id
    }

    fn complete(self, outcome: Outcome) {
        // The caller may have gone.
        let _ = self.outcome.send(outcome);
    }
}

#[derive(Default)]
struct Queues {
    /// The rooms with reactions that wait or are in a transaction.
    rooms: HashMap<RoomId, VecDeque<QueuedReaction>>,
    /// Of these rooms, those that no transaction is under way for.
    ready: VecDeque<RoomId>,
    /// The reactions that wait.
    waiting: usize,
    /// The tasks that make transactions.
    running: usize,
}

/// The reactions of this node on their way into the store.
pub struct ReactionBatches(Arc<Shared>);

struct Shared {
    messages: Arc<dyn MessageStore>,
    queues: Mutex<Queues>,
}

impl ReactionBatches {
    /// Reactions for this store.
    #[must_use]
    pub fn new(messages: Arc<dyn MessageStore>) -> Self {
        let queues = Mutex::default();
        Self(Arc::new(Shared { messages, queues }))
    }

    /// Sets or removes a reaction. Calls for a room take effect in the order in which they are made. A call
    /// that is dropped may still take effect.
    ///
    /// # Errors
    /// `overloaded` if too many reactions wait, `unavailable`, `internal`.
    pub async fn react(&self, change: ReactionChange) -> Result<ChangeOutcome, Refusal> {
        let received = self.0.push(change)?;
        received.await.unwrap_or_else(|_| Err(unavailable()))
    }

    /// The number of reactions that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.queues.lock().waiting
    }
}

impl Queues {
    /// Takes the reactions of a room for a transaction, and those that have waited for too long. `None`
    /// ends the task.
    fn next(&mut self) -> Option<(RoomId, Vec<QueuedReaction>, Vec<QueuedReaction>)> {
        let Some(room) = self.ready.pop_front() else {
            self.running -= 1;
            return None;
        };
        let queue = self.rooms.entry(room.clone()).or_default();
        let is_late = |reaction: &QueuedReaction| reaction.since.elapsed() > MAX_WAIT;
        let late = queue
            .iter()
            .take_while(|reaction| is_late(reaction))
            .count();
        let late: Vec<_> = queue.drain(..late).collect();
        let batch: Vec<_> = queue.drain(..queue.len().min(BATCH)).collect();
        self.waiting -= late.len() + batch.len();
        Some((room, batch, late))
    }

    /// The transaction of a room has ended.
    fn finish(&mut self, room: RoomId) {
        if self.rooms.get(&room).is_some_and(VecDeque::is_empty) {
            self.rooms.remove(&room);
        } else {
            self.ready.push_back(room);
        }
    }
}

impl Shared {
    fn push(
        self: &Arc<Self>,
        change: ReactionChange,
    ) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        let mut queues = self.queues.lock();
        let room = &change.message.room;
        let of_room = queues.rooms.get(room).map_or(0, VecDeque::len);
        if queues.waiting >= MAX_WAITING || of_room >= MAX_WAITING_OF_ROOM {
            return Err(Refusal::new(Code::Overloaded, "too many reactions wait"));
        }
        if !queues.rooms.contains_key(room) {
            queues.ready.push_back(room.clone());
        }
        let (outcome, received) = oneshot::channel();
        let queue = queues.rooms.entry(room.clone()).or_default();
        queue.push_back(QueuedReaction {
            change,
            since: Instant::now(),
            outcome,
        });
        queues.waiting += 1;
        if queues.running < CONCURRENT && !queues.ready.is_empty() {
            queues.running += 1;
            tokio::spawn(self.clone().run());
        }
        Ok(received)
    }

    /// Makes one transaction after another until no room is ready.
    async fn run(self: Arc<Self>) {
        loop {
            let next = self.queues.lock().next();
            let Some((room, batch, late)) = next else {
                return;
            };
            for reaction in late {
                reaction.complete(Err(unavailable()));
            }
            self.make(batch).await;
            self.queues.lock().finish(room);
        }
    }

    /// Makes reactions in one transaction. If the database refuses it, the reactions to each message are
    /// made by a transaction of their own.
    async fn make(&self, batch: Vec<QueuedReaction>) {
        let Err(failed) = self.attempt(batch).await else {
            return;
        };
        if failed.refusal.code != Code::Internal || failed.is_of_one_message() {
            return failed.refuse();
        }
        for part in failed.by_message() {
            if let Err(failed) = self.attempt(part).await {
                failed.refuse();
            }
        }
    }

    /// Makes reactions in one transaction, and notifies their callers if it succeeds.
    async fn attempt(&self, reactions: Vec<QueuedReaction>) -> Result<(), FailedBatch> {
        if reactions.is_empty() {
            return Ok(());
        }
        let changes = reactions.iter().map(|reaction| reaction.change.clone());
        let changes: Vec<_> = changes.collect();
        // A panic must not stop later reactions.
        let attempt = AssertUnwindSafe(self.messages.react(&changes)).catch_unwind();
        let refusal = match attempt.await {
            Ok(Ok(outcomes)) => {
                let mut outcomes = outcomes.into_iter();
                for reaction in reactions {
                    reaction.complete(outcomes.next().ok_or_else(unavailable));
                }
                return Ok(());
            }
            Ok(Err(StoreError::Unavailable(_))) => unavailable(),
            Ok(Err(error)) => {
                tracing::error!(%error, "messages: the database refused reactions");
                Refusal::new(Code::Internal, "the database refused the reaction")
            }
            Err(_) => {
                tracing::error!("messages: a transaction of reactions panicked");
                Refusal::new(Code::Internal, "the reaction failed")
            }
        };
        Err(FailedBatch { refusal, reactions })
    }
}

/// Reactions whose transaction has failed.
struct FailedBatch {
    refusal: Refusal,
    reactions: Vec<QueuedReaction>,
}

impl FailedBatch {
    fn is_of_one_message(&self) -> bool {
        let mut ids = self.reactions.iter().map(QueuedReaction::message);
        let first = ids.next();
        ids.all(|id| Some(id) == first)
    }

    fn by_message(self) -> Vec<Vec<QueuedReaction>> {
        let mut parts: HashMap<Uuid, Vec<QueuedReaction>> = HashMap::new();
        for reaction in self.reactions {
            parts.entry(reaction.message()).or_default().push(reaction);
        }
        parts.into_values().collect()
    }

    fn refuse(self) {
        for reaction in self.reactions {
            reaction.complete(Err(self.refusal.clone()));
        }
    }
}

fn unavailable() -> Refusal {
    Refusal::new(Code::Unavailable, "the database can't be reached")
}

#[cfg(test)]
mod tests;
