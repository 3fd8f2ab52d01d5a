//! One worker: the feeds of its rooms and users, fed one command at a time, and what is due later.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ahash::HashMap;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::flow_control::FlowControl;
use super::room::{self, RoomFeed};
use super::user::{self, UserFeed};
use super::{Command, DeliveryCounters, DeliverySettings, Queues, TICK};
use crate::backplane::{Backplane, BusEvent, BusTopic};
use crate::domain::{Head, RoomId, UserId};

/// Reads of the log that one worker has under way for its feeds; more of them wait.
const READS: usize = 64;
/// How often heads and versions are compared, to find a lost *last* event.
const COMPARE: Duration = Duration::from_secs(2);
/// Commands that are handled before whoever has something to write begins to: an outbox must have room for what they bring.
const BATCH: usize = 512;
/// How many topics are compared at once; the others follow in turn.
const COMPARED_AT_ONCE: usize = 1000;

/// Where feeds of rooms stood when the log was asked, and what it said.
pub(crate) type Heads = Vec<(RoomId, Head, Option<Head>)>;
/// The versions of feeds when presence was asked, and what it said.
pub(crate) type Versions = Vec<(BusTopic, u64, u64)>;

/// What a feed needs of its worker.
pub(super) struct Context {
    pub backplane: Backplane,
    pub room_events: u64,
    /// The most bytes of messages that one read of a log asks for.
    pub page_bytes: usize,
    /// What all rooms of the node may keep for replays.
    pub budget: Arc<room::Budget>,
    pub counters: Arc<DeliveryCounters>,
    queues: Arc<Queues>,
    reads: Arc<Semaphore>,
    due: BinaryHeap<Reverse<(Instant, RoomId)>>,
    next_ticket: u64,
}

impl Context {
    /// Runs `work` beside the worker; its answer comes back to the room's feed. Limited reads go through `read_room`.
    pub fn ask_room(
        &self,
        room: &RoomId,
        work: impl Future<Output = room::FeedEvent> + Send + 'static,
    ) {
        let (queues, room) = (self.queues.clone(), room.clone());
        tokio::spawn(async move {
            let answer = work.await;
            queues
                .send(&room.clone(), Command::Room(room, answer))
                .await;
        });
    }

    /// As `ask_room`, but only a few at a time.
    pub fn read_room(
        &self,
        room: &RoomId,
        work: impl Future<Output = room::FeedEvent> + Send + 'static,
    ) {
        let reads = self.reads.clone();
        self.ask_room(room, async move {
            let _permit = reads.acquire().await;
            work.await
        });
    }

    /// As `read_room`, for a watched user.
    pub fn read_user(
        &self,
        user: &UserId,
        work: impl Future<Output = user::FeedEvent> + Send + 'static,
    ) {
        let reads = self.reads.clone();
        self.ask_user(user, async move {
            let _permit = reads.acquire().await;
            work.await
        });
    }

    /// As `ask_room`, for a watched user.
    pub fn ask_user(
        &self,
        user: &UserId,
        work: impl Future<Output = user::FeedEvent> + Send + 'static,
    ) {
        let (queues, user) = (self.queues.clone(), user.clone());
        tokio::spawn(async move {
            let answer = work.await;
            queues
                .send(&user.clone(), Command::User(user, answer))
                .await;
        });
    }

    /// For callbacks of outlets: hands the answer to the room's feed.
    pub fn waker(&self, room: &RoomId, answer: room::FeedEvent) -> Box<dyn FnOnce() + Send> {
        let (queues, room, runtime) = (
            self.queues.clone(),
            room.clone(),
            tokio::runtime::Handle::current(),
        );
        Box::new(move || {
            runtime.spawn(async move {
                queues
                    .send(&room.clone(), Command::Room(room, answer))
                    .await
            });
        })
    }

    /// Calls the feed's `on_due` at that time or a little later.
    pub fn call_at(&mut self, at: Instant, room: &RoomId) {
        self.due.push(Reverse((at, room.clone())));
    }

    /// A number never used before on this worker.
    pub fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Whatever ends it: nobody shall wait for it.
        self.context.queues.backlog(self.index).close();
    }
}

pub(super) struct Worker {
    index: usize,
    context: Context,
    pace: FlowControl,
    rooms: HashMap<RoomId, RoomFeed>,
    users: HashMap<UserId, UserFeed>,
    /// Topics still to be compared in this round.
    to_compare: Vec<BusTopic>,
}

impl Worker {
    pub fn new(
        index: usize,
        backplane: Backplane,
        queues: Arc<Queues>,
        settings: &DeliverySettings,
        budget: Arc<room::Budget>,
        counters: Arc<DeliveryCounters>,
    ) -> Self {
        let context = Context {
            backplane,
            room_events: settings.room_events,
            page_bytes: settings.page_bytes,
            budget,
            counters,
            queues,
            reads: Arc::new(Semaphore::new(READS)),
            due: BinaryHeap::new(),
            next_ticket: 0,
        };
        let pace = FlowControl::new(
            settings.pause.clone(),
            settings.backlog_bytes.saturating_mul(2),
        );
        let (rooms, users) = (HashMap::default(), HashMap::default());
        Self {
            index,
            context,
            pace,
            rooms,
            users,
            to_compare: Vec::new(),
        }
    }

    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut compare = tokio::time::interval(COMPARE);
        compare.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                count = commands.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    for command in batch.drain(..) {
                        let bytes = if let Command::Bus(_, bytes, _) = &command { *bytes } else { 0 };
                        self.handle_or_report(command);
                        if bytes > 0 {
                            self.context.queues.backlog(self.index).take(bytes);
                            self.pace.hand_out(bytes).await;
                        }
                    }
                    if count == BATCH {
                        self.pace.pause().await;
                    }
                }
                _ = tick.tick() => self.on_tick(),
                _ = compare.tick() => self.compare(),
            }
        }
    }

    /// A panic is a fault of ours in one feed; the other rooms of this worker must not stand still for it.
    fn handle_or_report(&mut self, command: Command) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.handle(command))).is_err()
        {
            tracing::error!(
                "a feed panicked; its room may miss something until its members join again"
            );
        }
    }

    fn handle(&mut self, command: Command) {
        let context = &mut self.context;
        match command {
            Command::Bus(BusEvent::Message(room, entry), _, arrived) => {
                if let Some(feed) = self.rooms.get_mut(&room) {
                    feed.on_message(context, entry, arrived);
                }
            }
            Command::Bus(BusEvent::RoomChanged(room, change), ..) => {
                if let Some(feed) = self.rooms.get_mut(&room) {
                    feed.on_change(context, change);
                }
            }
            Command::Bus(BusEvent::Typing(typing), ..) => {
                if let Some(feed) = self.rooms.get_mut(&typing.room) {
                    feed.on_typing(typing);
                }
            }
            Command::Bus(BusEvent::StatusChanged(status), ..) => {
                if let Some(feed) = self.users.get_mut(&status.user) {
                    feed.on_change(context, status);
                }
            }
            // It is no feed's, and doesn't come this way.
            Command::Bus(BusEvent::Disconnect(_), ..) => {}
            Command::Join(request) => {
                let feed = self
                    .rooms
                    .entry(request.room.clone())
                    .or_insert_with_key(|room| {
                        context.counters.rooms.fetch_add(1, Ordering::Relaxed);
                        RoomFeed::new(context, room.clone())
                    });
                feed.join(context, request);
            }
            Command::Leave { room, conn, done } => {
                if let Some(feed) = self.rooms.get_mut(&room) {
                    feed.leave(context, &conn);
                }
                let _ = done.send(());
            }
            Command::Room(room, answer) => {
                if let Some(feed) = self.rooms.get_mut(&room)
                    && feed.on_answer(context, answer).is_break()
                {
                    self.rooms.remove(&room);
                    context.counters.rooms.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Command::Watch(request) => {
                let feed = self.users.entry(request.user.clone());
                feed.or_insert_with_key(|user| UserFeed::new(context, user.clone()))
                    .watch(context, request);
            }
            Command::Unwatch { user, conn, done } => {
                if let Some(feed) = self.users.get_mut(&user) {
                    feed.unwatch(context, &conn);
                }
                let _ = done.send(());
            }
            Command::User(user, answer) => {
                if let Some(feed) = self.users.get_mut(&user)
                    && feed.on_answer(context, answer).is_break()
                {
                    self.users.remove(&user);
                }
            }
            Command::Flush(done) => {
                let _ = done.send(());
            }
            Command::Interrupted(topic) => self.catch_up(topic.as_ref()),
            Command::Heads(heads) => self.on_heads(heads),
            Command::Versions(versions) => self.on_versions(versions),
        }
    }

    /// Every feed of the topic (`None`: every feed) reads what it may have missed.
    fn catch_up(&mut self, topic: Option<&BusTopic>) {
        match topic {
            Some(BusTopic::Room(room)) => {
                if let Some(feed) = self.rooms.get_mut(room) {
                    feed.on_interrupted(&mut self.context);
                }
            }
            Some(BusTopic::User(user)) => {
                if let Some(feed) = self.users.get_mut(user) {
                    feed.catch_up(&mut self.context);
                }
            }
            // What it says isn't kept: who said it looks whether it was heard.
            Some(BusTopic::Nodes) => {}
            None => {
                self.rooms
                    .values_mut()
                    .for_each(|feed| feed.on_interrupted(&mut self.context));
                self.users
                    .values_mut()
                    .for_each(|feed| feed.catch_up(&mut self.context));
            }
        }
    }

    fn on_tick(&mut self) {
        for topic in self.context.queues.take_missed(self.index) {
            self.catch_up(Some(&topic));
        }
        let now = Instant::now();
        while self
            .context
            .due
            .peek()
            .is_some_and(|Reverse((at, _))| *at <= now)
        {
            let Some(Reverse((_, room))) = self.context.due.pop() else {
                break;
            };
            if let Some(feed) = self.rooms.get_mut(&room) {
                feed.on_due(&mut self.context, now);
            }
        }
    }

    /// Asks the backplane where some of the topics stand.
    fn compare(&mut self) {
        if self.context.backplane.bus.is_lossless() || !self.context.backplane.lifecycle.is_up() {
            return;
        }
        if self.to_compare.is_empty() {
            let rooms = self.rooms.keys().cloned().map(BusTopic::Room);
            self.to_compare
                .extend(rooms.chain(self.users.keys().cloned().map(BusTopic::User)));
        }
        let from = self.to_compare.len().saturating_sub(COMPARED_AT_ONCE);
        let topics = self.to_compare.split_off(from);
        let mut rooms = Vec::new();
        let mut versions = Vec::new();
        for topic in topics {
            let version = match &topic {
                BusTopic::Room(room) => {
                    let Some(feed) = self.rooms.get(room) else {
                        continue;
                    };
                    rooms.extend(feed.head().map(|head| (room.clone(), head)));
                    feed.version()
                }
                BusTopic::User(user) => self.users.get(user).and_then(UserFeed::version),
                BusTopic::Nodes => None,
            };
            versions.extend(version.map(|version| (topic, version)));
        }
        // Each by itself: a storm of presence must not keep back that a message is missing. A failure needs no word: the next
        // round asks again.
        if !rooms.is_empty() {
            let (log, queues, index) = (
                self.context.backplane.log.clone(),
                self.context.queues.clone(),
                self.index,
            );
            tokio::spawn(async move {
                let ids: Vec<_> = rooms.iter().map(|(room, _)| room.clone()).collect();
                let Ok(heads) = log.heads(&ids).await else {
                    return;
                };
                let rooms = rooms
                    .into_iter()
                    .zip(heads)
                    .map(|((room, then), now)| (room, then, now))
                    .collect();
                queues.send_to(index, Command::Heads(rooms)).await;
            });
        }
        if !versions.is_empty() {
            let presence = self.context.backplane.presence.clone();
            let (queues, index) = (self.context.queues.clone(), self.index);
            tokio::spawn(async move {
                let topics: Vec<_> = versions.iter().map(|(topic, _)| topic.clone()).collect();
                let Ok(now) = presence.versions(&topics).await else {
                    return;
                };
                let versions = versions
                    .into_iter()
                    .zip(now)
                    .map(|((topic, then), now)| (topic, then, now))
                    .collect();
                queues.send_to(index, Command::Versions(versions)).await;
            });
        }
    }

    fn on_heads(&mut self, heads: Heads) {
        for (room, then, now) in heads {
            if let Some(feed) = self.rooms.get_mut(&room) {
                feed.on_head(&mut self.context, &then, now.as_ref());
            }
        }
    }

    fn on_versions(&mut self, versions: Versions) {
        for (topic, then, now) in versions {
            // Who has moved on meanwhile is being told by the bus.
            match &topic {
                BusTopic::Room(room) => {
                    if let Some(feed) = self.rooms.get_mut(room)
                        && now != then
                        && feed.version() == Some(then)
                    {
                        feed.catch_up_changes(&mut self.context);
                    }
                }
                BusTopic::User(user) => {
                    if let Some(feed) = self.users.get_mut(user)
                        && now != then
                        && feed.version() == Some(then)
                    {
                        feed.catch_up(&mut self.context);
                    }
                }
                BusTopic::Nodes => {}
            }
        }
    }
}
