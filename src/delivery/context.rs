//! The services of a worker for its feeds: tasks that return their results as commands, timers, and
//! tickets.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::queues::{Command, Queues};
use super::{DeliveryCounters, DeliverySettings, room, user};
use crate::backplane::{Backplane, BusTopic, Result};
use crate::domain::{RoomId, UserId};

/// The wait before a failed read or subscription is retried.
pub(super) const RETRY_DELAY: Duration = Duration::from_millis(500);
/// The most reads of the backplane that one worker's feeds have under way at once; further reads
/// wait.
const CONCURRENT_READS: usize = 64;

/// The id of a feed. The result of a task finds the worker and the feed that started it by this id.
pub(super) trait FeedId: Clone + Hash + Send + Sync + 'static {
    /// The results of such a feed's tasks.
    type Event: Send + 'static;

    fn topic(&self) -> BusTopic;

    fn command(self, event: Self::Event) -> Command;
}

impl FeedId for RoomId {
    type Event = room::FeedEvent;

    fn topic(&self) -> BusTopic {
        BusTopic::Room(self.clone())
    }

    fn command(self, event: Self::Event) -> Command {
        Command::Room(self, event)
    }
}

impl FeedId for UserId {
    type Event = user::FeedEvent;

    fn topic(&self) -> BusTopic {
        BusTopic::User(self.clone())
    }

    fn command(self, event: Self::Event) -> Command {
        Command::User(self, event)
    }
}

/// The services of a worker for its feeds.
pub(super) struct Context {
    pub backplane: Backplane,
    pub room_events: u64,
    /// The most bytes of messages that one read of a log requests.
    pub page_bytes: usize,
    /// The memory that all rooms of the node share for replays.
    pub budget: Arc<room::TailBudget>,
    pub counters: Arc<DeliveryCounters>,
    queues: Arc<Queues>,
    reads: Arc<Semaphore>,
    /// The rooms to call back, the earliest time first.
    timers: BinaryHeap<Reverse<(Instant, RoomId)>>,
    next_ticket: u64,
}

impl Context {
    pub fn new(
        backplane: Backplane,
        queues: Arc<Queues>,
        settings: &DeliverySettings,
        budget: Arc<room::TailBudget>,
        counters: Arc<DeliveryCounters>,
    ) -> Self {
        Self {
            backplane,
            room_events: settings.room_events,
            page_bytes: settings.page_bytes,
            budget,
            counters,
            queues,
            reads: Arc::new(Semaphore::new(CONCURRENT_READS)),
            timers: BinaryHeap::new(),
            next_ticket: 0,
        }
    }

    pub fn queues(&self) -> &Arc<Queues> {
        &self.queues
    }

    /// Runs `work` in a task; its result comes back to the feed. Reads go through [`Self::read`],
    /// which limits them.
    pub fn spawn<I: FeedId>(&self, id: &I, work: impl Future<Output = I::Event> + Send + 'static) {
        let (queues, id) = (self.queues.clone(), id.clone());
        tokio::spawn(async move {
            let event = work.await;
            queues.send(&id, id.clone().command(event)).await;
        });
    }

    /// As [`Self::spawn`], with at most [`CONCURRENT_READS`] at once.
    pub fn read<I: FeedId>(&self, id: &I, work: impl Future<Output = I::Event> + Send + 'static) {
        let reads = self.reads.clone();
        self.spawn(id, async move {
            let _permit = reads.acquire().await;
            work.await
        });
    }

    /// Sends the event back to the feed after [`RETRY_DELAY`].
    pub fn retry<I: FeedId>(&self, id: &I, event: I::Event) {
        self.spawn(id, async move {
            tokio::time::sleep(RETRY_DELAY).await;
            event
        });
    }

    /// Subscribes to the feed's topic.
    pub fn subscribe<I: FeedId>(
        &self,
        id: &I,
        event: impl FnOnce(Result<()>) -> I::Event + Send + 'static,
    ) {
        let (bus, topic) = (self.backplane.bus.clone(), id.topic());
        self.spawn(id, async move { event(bus.subscribe(&topic).await) });
    }

    /// Ends the subscription to the feed's topic.
    pub fn unsubscribe<I: FeedId>(&self, id: &I, event: I::Event) {
        let (bus, topic) = (self.backplane.bus.clone(), id.topic());
        self.spawn(id, async move {
            bus.unsubscribe(&topic).await;
            event
        });
    }

    /// A callback for an outlet, which sends the event to the feed.
    pub fn waker<I: FeedId>(&self, id: &I, event: I::Event) -> Box<dyn FnOnce() + Send> {
        let (queues, id) = (self.queues.clone(), id.clone());
        // The outlet may call it outside of the runtime.
        let runtime = tokio::runtime::Handle::current();
        Box::new(move || {
            runtime.spawn(async move { queues.send(&id, id.clone().command(event)).await });
        })
    }

    /// Calls the room feed's `on_timer` at that time or a little later.
    pub fn call_at(&mut self, at: Instant, room: &RoomId) {
        self.timers.push(Reverse((at, room.clone())));
    }

    /// The next room with a timer that is due.
    pub fn next_due(&mut self, now: Instant) -> Option<RoomId> {
        let Reverse((at, _)) = self.timers.peek()?;
        if *at > now {
            return None;
        }
        let Reverse((_, room)) = self.timers.pop()?;
        Some(room)
    }

    /// A number greater than every earlier one of this worker.
    pub fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }
}
