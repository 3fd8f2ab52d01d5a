//! From the bus to the members on this node: in `seq` order, without a hole or a repeat, each event encoded once.
//!
//! [`Delivery`] is the door. Behind it a few workers own the feeds: a room (or a watched user) belongs to one worker by
//! hash, which handles its joins, leaves, bus events and read results one after another. So "replay, then live" needs no
//! lock. A worker never waits, neither for a socket nor for the backplane: whatever takes time runs in a task of its own
//! and comes back as a command.

mod backlog;
mod flow_control;
mod metrics;
mod outlet;
mod room;
mod shared;
#[cfg(test)]
mod tests;
mod user;
mod worker;

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ahash::RandomState;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::backplane::{Backplane, BackplaneError, BusEvent, BusSink, BusTopic};
use crate::domain::{ConnId, Epoch, Head, OnlineStatus, RoomId, UserId, Username};
use crate::telemetry::meter::{Counter, Histogram};

use backlog::Backlog;

pub use crate::backplane::{Entry, Typing};
pub use outlet::{CloseReason, Outlet};
pub use shared::{Event, Shared};

/// Commands that may wait for one worker. A full queue makes joins wait, and bus events be caught up from the log.
const QUEUE: usize = 65_536;
/// What a message takes beside its record, about: its room, place and time, and the frame's head.
const HEAD_BYTES: usize = 160;
/// How long to wait before a failed subscription is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often a worker looks for what is due.
const TICK: Duration = Duration::from_millis(100);

/// What the feeds count.
#[derive(Debug, Default)]
pub struct DeliveryCounters {
    /// Messages handed to outlets, one for each.
    pub delivered: Counter,
    /// Times that a feed read the log because it had missed something, or might have.
    pub catch_ups: Counter,
    /// Joins that were promised messages.
    pub replays: Counter,
    /// Reads of the log for replays; one serves all members of a room who wait for it.
    pub replay_reads: Counter,
    /// Breaks of continuity that members were told of.
    pub resets: Counter,
    /// Members whose replay the log has outrun: they were closed, and are told of the gap when they come back.
    pub outrun: Counter,
    /// Bus events given up because a worker's queue was full; each is caught up from the log.
    pub overruns: Counter,
    /// Rooms that have a feed now.
    pub rooms: AtomicUsize,
    /// Seconds from a message's arrival at this node until its last member here was handed it, or had no room for it.
    pub latency: Histogram,
}

type Turn = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a worker waits for when it has handed out much: that the outlets before it have begun to write.
#[derive(Clone)]
pub struct Pause(Arc<dyn Fn() -> Turn + Send + Sync>);

impl Pause {
    /// Each time another future of `pause`. Until it is ready the worker hands out nothing.
    #[must_use]
    pub fn new<F: Future<Output = ()> + Send + 'static>(
        pause: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move || Box::pin(pause())))
    }

    fn begin(&self) -> Turn {
        (self.0)()
    }
}

impl Default for Pause {
    /// Whoever is ready.
    fn default() -> Self {
        Self::new(tokio::task::yield_now)
    }
}

impl fmt::Debug for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pause")
    }
}

/// How the feeds behave.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// Workers; at least one is started.
    pub workers: usize,
    /// Rooms with more members than this tell of their size only.
    pub room_events: u64,
    /// The most bytes of messages that one read of a log asks for: so small that an outlet with room can take them.
    pub page_bytes: usize,
    /// The most bytes that all rooms together keep of messages for replays, about.
    pub kept_bytes: usize,
    /// The bytes of messages that may wait for a worker before senders do, and half of what it hands out before outlets have had
    /// their turn to write: so few that an outlet with room can take both.
    pub ahead_bytes: usize,
    /// For outlets that write in their turn.
    pub pause: Pause,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            workers: 1,
            room_events: 500,
            page_bytes: 128 * 1024,
            kept_bytes: 64 * 1024 * 1024,
            ahead_bytes: 256 * 1024,
            pause: Pause::default(),
        }
    }
}

/// From where a joiner wants the room's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayFrom {
    /// From now on.
    Live,
    /// The last `n`, then live.
    Last(u64),
    /// Everything after `seq` of `epoch` (`None`: the current one), then live.
    Since {
        /// The last one seen.
        seq: u64,
        /// In which life of the numbering.
        epoch: Option<Epoch>,
    },
}

/// What a joiner is told before anything is replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinOutcome {
    /// Members, the joiner included.
    pub total: u64,
    /// The log's end at that moment.
    pub head: Head,
    /// True when everything after the asked position follows.
    pub recovered: bool,
    /// True when that can't be.
    pub gap: bool,
    /// How many messages will follow before `room_users`.
    pub replayed: u64,
}

/// Told once how a join went, by the worker, in the moment that lies before the replay on the wire.
pub type JoinReply = Box<dyn FnOnce(Result<JoinOutcome, BackplaneError>) + Send>;
/// Told once a watched user's status, before it is delivered.
pub type WatchReply = Box<dyn FnOnce(Result<&OnlineStatus, BackplaneError>) + Send>;

/// Called when all connections of a user are to end; returns at once.
pub type Disconnect = Box<dyn Fn(&UserId) + Send + Sync>;

/// A join on its way.
pub(crate) struct JoinRequest {
    pub room: RoomId,
    pub outlet: Arc<dyn Outlet>,
    /// The name under which it becomes a member; `None`: it only listens.
    pub member: Option<Username>,
    pub start: ReplayFrom,
    pub reply: JoinReply,
    /// Dropped or sent when the replay is over.
    pub done: oneshot::Sender<()>,
}

/// A subscription to a user's status on its way.
pub(crate) struct WatchRequest {
    pub user: UserId,
    pub outlet: Arc<dyn Outlet>,
    pub reply: WatchReply,
    pub done: oneshot::Sender<()>,
}

/// The door to the feeds.
pub struct Delivery {
    queues: Arc<Queues>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    budget: Arc<room::Budget>,
    counters: Arc<DeliveryCounters>,
}

impl Delivery {
    /// Starts the workers on the backplane's bus. Must be called within a tokio runtime, once for a backplane.
    #[must_use]
    pub fn start(backplane: &Backplane, settings: &DeliverySettings) -> Self {
        let counters = Arc::new(DeliveryCounters::default());
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..settings.workers.max(1))
            .map(|_| mpsc::channel(QUEUE))
            .unzip();
        let lane = |sender| WorkerQueue {
            sender,
            backlog: Backlog::new(settings.ahead_bytes),
            missed: Mutex::default(),
        };
        let lanes = senders.into_iter().map(lane).collect();
        let queues = Arc::new(Queues {
            hasher: RandomState::new(),
            lanes,
            counters: counters.clone(),
            disconnect: OnceLock::new(),
        });
        backplane.bus.deliver_to(queues.clone());
        let budget = room::Budget::new(settings.kept_bytes);
        let spawn = |(index, receiver)| {
            let (queues, budget, counters) = (queues.clone(), budget.clone(), counters.clone());
            let worker =
                worker::Worker::new(index, backplane.clone(), queues, settings, budget, counters);
            tokio::spawn(worker.run(receiver))
        };
        let workers = receivers.into_iter().enumerate().map(spawn).collect();
        Self {
            queues,
            workers: Mutex::new(workers),
            budget,
            counters,
        }
    }

    /// What the feeds have counted.
    #[must_use]
    pub fn counters(&self) -> &DeliveryCounters {
        &self.counters
    }

    /// Registers the outlet's connection in the room and attaches it to the room's feed. `reply` is called before
    /// anything of the room reaches the outlet; the call returns when the replay is over and `room_users` is sent (or the
    /// outlet closed). Joining again answers and replays anew.
    pub async fn join(
        &self,
        room: RoomId,
        outlet: Arc<dyn Outlet>,
        username: Username,
        start: ReplayFrom,
        reply: JoinReply,
    ) {
        self.enter(room, outlet, Some(username), start, reply).await;
    }

    /// As [`Delivery::join`], but the connection doesn't become a member: nobody is told of it, and it is told of nobody.
    pub async fn listen(
        &self,
        room: RoomId,
        outlet: Arc<dyn Outlet>,
        start: ReplayFrom,
        reply: JoinReply,
    ) {
        self.enter(room, outlet, None, start, reply).await;
    }

    async fn enter(
        &self,
        room: RoomId,
        outlet: Arc<dyn Outlet>,
        member: Option<Username>,
        start: ReplayFrom,
        reply: JoinReply,
    ) {
        let (done, finished) = oneshot::channel();
        let request = JoinRequest {
            room: room.clone(),
            outlet,
            member,
            start,
            reply,
            done,
        };
        self.queues.send(&room, Command::Join(request)).await;
        let _ = finished.await;
    }

    /// Detaches the connection from the room's feed: when it returns, nothing more of the room reaches the outlet.
    pub async fn leave(&self, room: &RoomId, conn: &ConnId) {
        let (done, finished) = oneshot::channel();
        self.queues
            .send(
                room,
                Command::Leave {
                    room: room.clone(),
                    conn: conn.clone(),
                    done,
                },
            )
            .await;
        let _ = finished.await;
    }

    /// Returns when everything of the room that had arrived at this node before the call has been handed to its outlets.
    pub async fn settle(&self, room: &RoomId) {
        let (done, settled) = oneshot::channel();
        self.queues.send(room, Command::Settle(done)).await;
        let _ = settled.await;
    }

    /// Waits while the room's worker has much to hand on: nobody may say more than members can be told. Safe to cancel. For who
    /// sends to a bus that brings nothing but what is sent here: or it could wait for what others say.
    pub async fn keep_pace(&self, room: &RoomId) {
        self.queues.lane(room).backlog.keep_pace().await;
    }

    /// Attaches the outlet to the user's changes of status; `reply` and then the current state come first.
    pub async fn watch(&self, user: UserId, outlet: Arc<dyn Outlet>, reply: WatchReply) {
        let (done, finished) = oneshot::channel();
        let request = WatchRequest {
            user: user.clone(),
            outlet,
            reply,
            done,
        };
        self.queues.send(&user, Command::Watch(request)).await;
        let _ = finished.await;
    }

    /// Detaches the outlet from the user's changes: when it returns, no more of them reach it.
    pub async fn unwatch(&self, user: &UserId, conn: &ConnId) {
        let (done, finished) = oneshot::channel();
        self.queues
            .send(
                user,
                Command::Unwatch {
                    user: user.clone(),
                    conn: conn.clone(),
                    done,
                },
            )
            .await;
        let _ = finished.await;
    }

    /// Names who ends a user's connections on this node, and begins to listen for it. Called once, within a tokio runtime.
    pub fn on_disconnect(&self, backplane: &Backplane, end: Disconnect) {
        if self.queues.disconnect.set(end).is_err() {
            tracing::error!("somebody ends connections already");
            return;
        }
        let bus = backplane.bus.clone();
        let listening = tokio::spawn(async move {
            // Once subscribed, the bus keeps it so.
            while bus.subscribe(&BusTopic::Nodes).await.is_err() {
                tokio::time::sleep(RETRY).await;
            }
        });
        self.workers.lock().push(listening);
    }

    /// How many rooms have a feed here.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.counters.rooms.load(Ordering::Relaxed)
    }

    /// How many bytes the rooms keep of messages for replays, about.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.budget.taken()
    }

    /// Ends the workers.
    pub fn stop(&self) {
        for worker in self.workers.lock().drain(..) {
            worker.abort();
        }
    }
}

/// What a worker is told.
pub(crate) enum Command {
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
    /// Answered when its turn comes.
    Settle(oneshot::Sender<()>),
    /// Something arrived from the bus: about how many bytes it will take in each outbox, and when.
    Bus(BusEvent, usize, std::time::Instant),
    /// Events of the topic (`None`: of every one) may have been missed.
    Interrupted(Option<BusTopic>),
    /// Something that a room's feed had asked for.
    Room(RoomId, room::FeedEvent),
    /// Something that a user's feed had asked for.
    User(UserId, user::FeedEvent),
    /// Room heads and topic versions as the backplane has them now.
    Heads(worker::Heads),
    /// And how presence's versions are.
    Versions(worker::Versions),
}

/// About what an event will take in each outbox that it is handed to, in bytes. What isn't said by users counts nothing.
fn weight(event: &BusEvent) -> usize {
    match event {
        BusEvent::Message(_, entry) => entry.record.len() + HEAD_BYTES,
        _ => 0,
    }
}

struct WorkerQueue {
    sender: mpsc::Sender<Command>,
    backlog: Backlog,
    /// Topics of which an event didn't fit into the queue.
    missed: Mutex<HashSet<BusTopic>>,
}

/// The workers' queues; also what the bus delivers to.
pub(crate) struct Queues {
    hasher: RandomState,
    lanes: Vec<WorkerQueue>,
    counters: Arc<DeliveryCounters>,
    disconnect: OnceLock<Disconnect>,
}

impl Queues {
    fn lane(&self, key: &impl Hash) -> &WorkerQueue {
        // The remainder is below the number of lanes, so the narrowing loses nothing.
        let index = (self.hasher.hash_one(key) % self.lanes.len() as u64) as usize;
        &self.lanes[index]
    }

    /// Waits for a place. A worker that has been stopped takes nothing: the command, and with it its reply, is dropped.
    pub(crate) async fn send(&self, key: &impl Hash, command: Command) {
        let _ = self.lane(key).sender.send(command).await;
    }

    pub(crate) async fn send_to(&self, index: usize, command: Command) {
        let _ = self.lanes[index].sender.send(command).await;
    }

    /// What that worker has been given and not handed on.
    fn backlog(&self, index: usize) -> &Backlog {
        &self.lanes[index].backlog
    }

    /// The topics whose events were given up since the last call.
    pub(crate) fn take_missed(&self, index: usize) -> HashSet<BusTopic> {
        std::mem::take(&mut *self.lanes[index].missed.lock())
    }
}

impl BusSink for Queues {
    fn event(&self, event: BusEvent) {
        let (topic, lane) = match &event {
            BusEvent::Message(room, _) | BusEvent::RoomChanged(room, _) => {
                (BusTopic::Room(room.clone()), self.lane(room))
            }
            BusEvent::Typing(typing) => {
                (BusTopic::Room(typing.room.clone()), self.lane(&typing.room))
            }
            BusEvent::StatusChanged(status) => {
                (BusTopic::User(status.user.clone()), self.lane(&status.user))
            }
            BusEvent::Disconnect(user) => {
                if let Some(end) = self.disconnect.get() {
                    end(user);
                }
                return;
            }
        };
        let bytes = weight(&event);
        // Before: the worker may take it away at once.
        lane.backlog.add(bytes);
        if lane
            .sender
            .try_send(Command::Bus(event, bytes, std::time::Instant::now()))
            .is_err()
        {
            lane.backlog.take(bytes);
            self.counters.overruns.add(1);
            lane.missed.lock().insert(topic);
        }
    }

    fn interrupted(&self, topic: Option<BusTopic>) {
        for (index, lane) in self.lanes.iter().enumerate() {
            let command = Command::Interrupted(topic.clone());
            if let Err(mpsc::error::TrySendError::Full(command)) = lane.sender.try_send(command) {
                // Rare, and it must not be lost: let it wait in a task of its own.
                let sender = self.lanes[index].sender.clone();
                tokio::spawn(async move {
                    let _ = sender.send(command).await;
                });
            }
        }
    }
}
