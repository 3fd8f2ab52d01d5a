//! Lets the calls that change messages wait for the numbers of their announcements.
//!
//! A call is notified when this node's worker has published its row. One that would repeat a change, because
//! an earlier one has no number yet, waits until the number is recorded as well.
//! The worker of another node may have
//! claimed the row: so the call also reads the store, with growing pauses.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::domain::{Code, Refusal, RoomId};
use crate::store::{ChangeRow, MessageStore};

/// How long a call waits.
const WAIT_LIMIT: Duration = Duration::from_secs(5);
/// The pause before a read of the store: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// Reads of the store at once: more of them would slow the changes that are waited for.
const CONCURRENT_READS: usize = 4;
/// The most calls that wait at once.
const MAX_WAITING: usize = 10_000;
/// The most announcements that are remembered, and how long.
const MAX_KNOWN: usize = 4096;
const KNOWN_FOR: Duration = Duration::from_secs(30);

/// How far a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    /// In the log.
    Announced,
    /// Its number is in the store.
    Recorded,
}

/// A revision of a message, which one row announces, at a stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Revision {
    room: RoomId,
    target_seq: u64,
    revision: u64,
    stage: Stage,
}

/// The changes of messages that were published lately, and the calls that wait for others.
pub struct Publications {
    messages: Arc<dyn MessageStore>,
    reads: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashMap<Revision, u64>,
    /// The keys of `known`, oldest first, and when they were added.
    order: VecDeque<(Instant, Revision)>,
    waiting: HashMap<Revision, Vec<oneshot::Sender<u64>>>,
    /// Calls that have registered.
    waiters: usize,
}

impl State {
    fn add(&mut self, revision: Revision, seq: u64) -> Vec<oneshot::Sender<u64>> {
        let now = Instant::now();
        while let Some((added, oldest)) = self.order.front()
            && (self.order.len() >= MAX_KNOWN || *added + KNOWN_FOR < now)
        {
            self.known.remove(oldest);
            self.order.pop_front();
        }
        let waiting = self.waiting.remove(&revision);
        if self.known.insert(revision.clone(), seq).is_none() {
            self.order.push_back((now, revision));
        }
        waiting.unwrap_or_default()
    }
}

/// The result of a registration.
enum Registration<'a> {
    Known(u64),
    Waiting(Waiter<'a>),
    Full,
}

/// A call that waits, until it is dropped.
struct Waiter<'a> {
    state: &'a Mutex<State>,
    revision: Revision,
    notified: oneshot::Receiver<u64>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.notified.close();
        let mut state = self.state.lock();
        state.waiters -= 1;
        if let Some(waiting) = state.waiting.get_mut(&self.revision) {
            waiting.retain(|other| !other.is_closed());
            if waiting.is_empty() {
                state.waiting.remove(&self.revision);
            }
        }
    }
}

impl Publications {
    pub(crate) fn new(messages: Arc<dyn MessageStore>) -> Arc<Self> {
        Arc::new(Self {
            messages,
            reads: Semaphore::new(CONCURRENT_READS),
            state: Mutex::default(),
        })
    }

    /// Waits until a change of this message is published, which the caller has made. Returns the number of
    /// the announcement. The call may be dropped at any time.
    ///
    /// # Errors
    /// `unavailable` if it is not published within five seconds, or too many calls wait. The change is made
    /// all the same.
    pub async fn wait(
        &self,
        room: &RoomId,
        target_seq: u64,
        revision: u64,
    ) -> Result<u64, Refusal> {
        let published = self.published(room, target_seq, revision, Stage::Announced);
        published.await.ok_or_else(|| {
            let text = "the change is made and will be announced";
            Refusal::new(Code::Unavailable, text)
        })
    }

    /// Waits until an earlier change of this message is published and recorded, which a change depends on that
    /// could not be made. Returns the number of the announcement.
    ///
    /// # Errors
    /// `unavailable` if it is not published within five seconds, or too many calls wait.
    pub async fn wait_for_earlier(
        &self,
        room: &RoomId,
        target_seq: u64,
        revision: u64,
    ) -> Result<u64, Refusal> {
        let published = self.published(room, target_seq, revision, Stage::Recorded);
        published.await.ok_or_else(|| {
            let text = "an earlier change of the message is not announced yet: try again";
            Refusal::new(Code::Unavailable, text)
        })
    }

    /// `None` if that takes too long, or too many calls wait.
    async fn published(
        &self,
        room: &RoomId,
        target_seq: u64,
        revision: u64,
        stage: Stage,
    ) -> Option<u64> {
        let deadline = Instant::now() + WAIT_LIMIT;
        let revision = Revision {
            room: room.clone(),
            target_seq,
            revision,
            stage,
        };
        let mut waiter = match self.register(&revision) {
            Registration::Known(seq) => return Some(seq),
            Registration::Waiting(waiter) => waiter,
            Registration::Full => return None,
        };
        let published = async {
            tokio::select! {
                biased;
                Ok(seq) = &mut waiter.notified => seq,
                seq = self.read_until_published(&revision) => seq,
            }
        };
        tokio::time::timeout_at(deadline, published).await.ok()
    }

    fn register(&self, revision: &Revision) -> Registration<'_> {
        let mut state = self.state.lock();
        if let Some(seq) = state.known.get(revision) {
            return Registration::Known(*seq);
        }
        if state.waiters >= MAX_WAITING {
            return Registration::Full;
        }
        state.waiters += 1;
        let (sender, notified) = oneshot::channel();
        let waiting = state.waiting.entry(revision.clone()).or_default();
        waiting.push(sender);
        Registration::Waiting(Waiter {
            state: &self.state,
            revision: revision.clone(),
            notified,
        })
    }

    async fn read_until_published(&self, revision: &Revision) -> u64 {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LAST_PAUSE);
            let _permit = self.reads.acquire().await;
            let (room, target) = (&revision.room, revision.target_seq);
            let read = self.messages.published(room, target, revision.revision);
            // While the database is away, the worker may still publish the row.
            if let Ok(Some(seq)) = read.await {
                return seq;
            }
        }
    }

    /// Notifies the calls that wait for this change, which is in the log.
    pub(super) fn announced(&self, room: &RoomId, row: &ChangeRow, seq: u64) {
        self.reached(Stage::Announced, room, row, seq);
    }

    /// Notifies the calls that wait until the number of this change is in the store, too.
    pub(super) fn recorded(&self, room: &RoomId, row: &ChangeRow, seq: u64) {
        self.reached(Stage::Recorded, room, row, seq);
    }

    fn reached(&self, stage: Stage, room: &RoomId, row: &ChangeRow, seq: u64) {
        // Reactions have no revision, and no call waits for them.
        if row.revision == 0 {
            return;
        }
        let revision = Revision {
            room: room.clone(),
            target_seq: row.target_seq,
            revision: row.revision,
            stage,
        };
        let waiting = self.state.lock().add(revision, seq);
        for waiter in waiting {
            let _ = waiter.send(seq);
        }
    }

    /// The number of calls that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().waiters
    }

    /// The number of announcements that are remembered.
    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.state.lock().known.len()
    }
}

#[cfg(test)]
mod tests;
