//! The queues of the workers, and the sink through which the bus fills them.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ahash::RandomState;
use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::backlog::Backlog;
use super::chat_feeds::ChatFeeds;
use super::comparison::{Heads, Versions};
use super::requests::{JoinRequest, WatchRequest};
use super::{DeliveryCounters, DeliverySettings, room, user};
use crate::backplane::{BusEvent, BusSink, BusTopic, Entry};
use crate::domain::{ConnId, Head, RoomId, UserId};

/// The most commands that may wait for one worker. While its queue is full, requests wait, and the
/// feeds of bus events that didn't fit catch up from the log.
const QUEUE: usize = 65_536;
/// About how many bytes a message takes in an outbox besides its record: room, position and time,
/// and the frame's head.
const HEAD_BYTES: usize = 160;

/// Ends all connections of a user on this node; returns at once.
pub type DisconnectUser = Box<dyn Fn(&UserId) + Send + Sync>;
/// Acts on a reset of a room's feed, which may have skipped changes; returns at once. The connections are
/// those that are attached to the room, with their users.
pub type OnReset = Box<dyn Fn(&RoomId, Vec<(ConnId, UserId)>) + Send + Sync>;
/// Acts on a change that a room's feed on this node has reached; returns at once. The connections are
/// those that the change has detached from the room.
pub type OnChange = Box<dyn Fn(&RoomId, &Entry, &[ConnId]) + Send + Sync>;

/// A worker processes its commands one after another.
pub(super) enum Command {
    Join(JoinRequest),
    Leave {
        room: RoomId,
        conn: ConnId,
        done: oneshot::Sender<()>,
    },
    Watch(WatchRequest),
    Unwatch {
        user: UserId,
        conn: ConnId,
        done: oneshot::Sender<()>,
    },
    /// Completed with whether the room's feed has delivered everything up to `head`.
    HasReached {
        room: RoomId,
        head: Head,
        done: oneshot::Sender<bool>,
    },
    /// Completed when every command before it has been processed.
    Flush(oneshot::Sender<()>),
    Bus {
        event: BusEvent,
        /// About how many bytes it takes in each outbox.
        outbox_bytes: usize,
        arrived: Instant,
    },
    /// Events of the topic, or of every topic (`None`), may have been missed.
    Interrupted(Option<BusTopic>),
    /// The result of a task that a room's feed had started.
    Room(RoomId, room::FeedEvent),
    /// The result of a task that a user's feed had started.
    User(UserId, user::FeedEvent),
    /// The result of a comparison of rooms' heads.
    Heads(Heads),
    /// The result of a comparison of presence versions.
    Versions(Versions),
}

impl Command {
    /// About how many bytes it brings to each outbox that it reaches.
    pub fn outbox_bytes(&self) -> usize {
        match self {
            Self::Bus { outbox_bytes, .. } => *outbox_bytes,
            _ => 0,
        }
    }
}

/// About how many bytes an event takes in each outbox that it is delivered to. Only messages count:
/// users can't send anything else in large amounts.
fn outbox_bytes(event: &BusEvent) -> usize {
    match event {
        BusEvent::Message(_, entry) => entry.record.len() + HEAD_BYTES,
        _ => 0,
    }
}

/// The topic of the event, for the feed to catch up. A request to disconnect a user is for no feed.
fn topic(event: &BusEvent) -> Option<BusTopic> {
    match event {
        BusEvent::Message(room, _) | BusEvent::RoomChanged(room, _) => {
            Some(BusTopic::Room(room.clone()))
        }
        BusEvent::Typing(typing) => Some(BusTopic::Room(typing.room.clone())),
        BusEvent::Receipt(receipt) => Some(BusTopic::Room(receipt.room.clone())),
        BusEvent::StatusChanged(status) => Some(BusTopic::User(status.user.clone())),
        BusEvent::Disconnect(_) => None,
    }
}

struct WorkerQueue {
    sender: mpsc::Sender<Command>,
    backlog: Backlog,
    /// The topics of events that didn't fit into the queue.
    missed: Mutex<HashSet<BusTopic>>,
}

impl WorkerQueue {
    fn interrupted(&self, topic: Option<BusTopic>) {
        let command = Command::Interrupted(topic);
        if let Err(TrySendError::Full(command)) = self.sender.try_send(command) {
            // An interruption is rare and must not be lost: it waits for capacity in a task of its
            // own.
            let sender = self.sender.clone();
            tokio::spawn(async move {
                let _ = sender.send(command).await;
            });
        }
    }
}

/// The queues of all workers, and the sink of the bus.
pub(super) struct Queues {
    hasher: RandomState,
    workers: Vec<WorkerQueue>,
    counters: Arc<DeliveryCounters>,
    disconnect: OnceLock<DisconnectUser>,
    on_change: OnceLock<OnChange>,
    on_reset: OnceLock<OnReset>,
    pub chat_feeds: ChatFeeds,
}

impl Queues {
    /// A queue for each worker, and the ends from which the workers receive.
    pub fn new(
        settings: &DeliverySettings,
        counters: Arc<DeliveryCounters>,
    ) -> (Self, Vec<mpsc::Receiver<Command>>) {
        let mut workers = Vec::new();
        let mut receivers = Vec::new();
        for _ in 0..settings.workers.max(1) {
            let (sender, receiver) = mpsc::channel(QUEUE);
            workers.push(WorkerQueue {
                sender,
                backlog: Backlog::new(settings.backlog_bytes),
                missed: Mutex::default(),
            });
            receivers.push(receiver);
        }
        let queues = Self {
            hasher: RandomState::new(),
            workers,
            counters,
            disconnect: OnceLock::new(),
            on_change: OnceLock::new(),
            on_reset: OnceLock::new(),
            chat_feeds: ChatFeeds::default(),
        };
        (queues, receivers)
    }

    /// The queue of the worker that owns the room or user.
    fn queue_of(&self, id: &impl Hash) -> &WorkerQueue {
        // The remainder is below the number of workers, so the narrowing loses nothing.
        let index = (self.hasher.hash_one(id) % self.workers.len() as u64) as usize;
        &self.workers[index]
    }

    /// Queues the command for the worker that owns the room or user; waits while its queue is full.
    /// A worker that has been stopped receives nothing: the command is dropped, and its request
    /// fails.
    pub async fn send(&self, id: &impl Hash, command: Command) {
        let _ = self.queue_of(id).sender.send(command).await;
    }

    /// As [`Self::send`], to the worker with that index.
    pub async fn send_to(&self, index: usize, command: Command) {
        let _ = self.workers[index].sender.send(command).await;
    }

    /// The messages that are queued for that worker and not delivered yet.
    pub fn backlog(&self, index: usize) -> &Backlog {
        &self.workers[index].backlog
    }

    /// The backlog of the worker that owns the room.
    pub fn backlog_of(&self, room: &RoomId) -> &Backlog {
        &self.queue_of(room).backlog
    }

    /// The topics of which that worker has missed events since the last call, because its queue was
    /// full.
    pub fn take_missed(&self, index: usize) -> HashSet<BusTopic> {
        std::mem::take(&mut *self.workers[index].missed.lock())
    }

    /// Returns false when a handler was set before, which then stays.
    pub fn set_disconnect(&self, disconnect: DisconnectUser) -> bool {
        self.disconnect.set(disconnect).is_ok()
    }

    /// Returns false when a handler was set before, which then stays.
    pub fn set_on_change(&self, on_change: OnChange) -> bool {
        self.on_change.set(on_change).is_ok()
    }

    /// Returns false when a handler was set before, which then stays.
    pub fn set_on_reset(&self, on_reset: OnReset) -> bool {
        self.on_reset.set(on_reset).is_ok()
    }

    /// The feed of the room may have skipped changes.
    pub fn was_reset(&self, room: &RoomId, attached: Vec<(ConnId, UserId)>) {
        if let Some(on_reset) = self.on_reset.get() {
            on_reset(room, attached);
        }
    }

    /// The feed of the room has delivered a change.
    pub fn changed(&self, room: &RoomId, entry: &Entry, detached: &[ConnId]) {
        if let Some(on_change) = self.on_change.get() {
            on_change(room, entry, detached);
        }
    }
}

impl BusSink for Queues {
    fn event(&self, event: BusEvent) {
        let queue = match &event {
            BusEvent::Message(room, _) | BusEvent::RoomChanged(room, _) => self.queue_of(room),
            BusEvent::Typing(typing) => self.queue_of(&typing.room),
            BusEvent::Receipt(receipt) => self.queue_of(&receipt.room),
            BusEvent::StatusChanged(status) => self.queue_of(&status.user),
            BusEvent::Disconnect(user) => {
                if let Some(disconnect) = self.disconnect.get() {
                    disconnect(user);
                }
                return;
            }
        };
        let outbox_bytes = outbox_bytes(&event);
        // Before the event is queued, because the worker may process and subtract it at once.
        queue.backlog.add(outbox_bytes);
        let command = Command::Bus {
            event,
            outbox_bytes,
            arrived: Instant::now(),
        };
        if let Err(error) = queue.sender.try_send(command) {
            queue.backlog.remove(outbox_bytes);
            self.counters.overruns.add(1);
            if let Command::Bus { event, .. } = error.into_inner() {
                queue.missed.lock().extend(topic(&event));
            }
        }
    }

    fn interrupted(&self, topic: Option<BusTopic>) {
        match &topic {
            Some(BusTopic::Room(room)) => self.queue_of(room).interrupted(topic.clone()),
            Some(BusTopic::User(user)) => self.queue_of(user).interrupted(topic.clone()),
            // It has no feed, and its events can't be caught up: their senders repeat them until
            // they take effect.
            Some(BusTopic::Nodes) => {}
            None => {
                for queue in &self.workers {
                    queue.interrupted(None);
                }
            }
        }
    }
}
