//! Combines the reactions of this node: all that arrive while a transaction is under way are made by the
//! next one. So a popular message costs few transactions, and a lone reaction waits for nothing.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::domain::{Code, Refusal};
use crate::store::{ChangeOutcome, MessageStore, ReactionChange, StoreError};

/// The most reactions of a transaction.
const BATCH: usize = 500;
/// The most reactions that wait.
const MAX_WAITING: usize = 10_000;

type Outcome = Result<ChangeOutcome, Refusal>;

/// A reaction that waits for its transaction.
struct Waiting {
    change: ReactionChange,
    outcome: oneshot::Sender<Outcome>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whether a task works on the queue.
    is_running: bool,
}

/// The reactions of this node on their way into the store.
pub struct ReactionBatches(Arc<Shared>);

struct Shared {
    messages: Arc<dyn MessageStore>,
    queue: Mutex<Queue>,
}

impl ReactionBatches {
    /// Reactions for this store.
    #[must_use]
    pub fn new(messages: Arc<dyn MessageStore>) -> Self {
        let queue = Mutex::default();
        Self(Arc::new(Shared { messages, queue }))
    }

    /// Sets or removes a reaction. Calls take effect in the order in which they are made. A call that is
    /// dropped may still take effect.
    ///
    /// # Errors
    /// `overloaded` if too many reactions wait, `unavailable`, `internal`.
    pub async fn react(&self, change: ReactionChange) -> Result<ChangeOutcome, Refusal> {
        let received = self.0.push(change)?;
        received.await.unwrap_or_else(|_| Err(unavailable()))
    }
}

impl Shared {
    fn push(
        self: &Arc<Self>,
        change: ReactionChange,
    ) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        let mut queue = self.queue.lock();
        if queue.waiting.len() >= MAX_WAITING {
            return Err(Refusal::new(Code::Overloaded, "too many reactions wait"));
        }
        let (outcome, received) = oneshot::channel();
        queue.waiting.push_back(Waiting { change, outcome });
        if !queue.is_running {
            queue.is_running = true;
            tokio::spawn(self.clone().run());
        }
        Ok(received)
    }

    /// Works on the queue until it is empty.
    async fn run(self: Arc<Self>) {
        while let Some(batch) = self.next_batch() {
            let (changes, callers): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .map(|waiting| (waiting.change, waiting.outcome))
                .unzip();
            let mut outcomes = self.outcomes(&changes).await.into_iter();
            for caller in callers {
                let outcome = outcomes.next().unwrap_or_else(|| Err(unavailable()));
                // The caller may have gone.
                let _ = caller.send(outcome);
            }
        }
    }

    fn next_batch(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue.lock();
        if queue.waiting.is_empty() {
            queue.is_running = false;
            return None;
        }
        let count = queue.waiting.len().min(BATCH);
        Some(queue.waiting.drain(..count).collect())
    }

    /// The outcomes of a transaction, in the order of the changes.
    async fn outcomes(&self, changes: &[ReactionChange]) -> Vec<Outcome> {
        // A panic must not stop later reactions.
        let attempt = AssertUnwindSafe(self.messages.react(changes)).catch_unwind();
        let refusal = match attempt.await {
            Ok(Ok(outcomes)) => return outcomes.into_iter().map(Ok).collect(),
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
        vec![Err(refusal); changes.len()]
    }
}

fn unavailable() -> Refusal {
    Refusal::new(Code::Unavailable, "the database can't be reached")
}

#[cfg(test)]
mod tests;
