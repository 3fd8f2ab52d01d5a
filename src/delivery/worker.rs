//! A worker: owns the feeds of its rooms and users, and processes their commands one after another.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ahash::HashMap;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::comparison::COMPARE_INTERVAL;
use super::context::Context;
use super::flow_control::FlowControl;
use super::queues::{Command, Queues};
use super::requests::{JoinRequest, WatchRequest};
use super::room::{self, RoomFeed};
use super::user::{self, UserFeed};
use super::{DeliveryCounters, DeliverySettings};
use crate::backplane::{Backplane, BusEvent, BusTopic};
use crate::domain::{RoomId, UserId};

/// The time between two checks for timers that are due.
const TICK: Duration = Duration::from_millis(100);
/// The most commands to process before outlets get a turn to write. An outbox must have capacity
/// for their events.
const COMMANDS_PER_SLICE: usize = 512;

pub(super) struct Worker {
    pub index: usize,
    pub context: Context,
    flow_control: FlowControl,
    pub rooms: HashMap<RoomId, RoomFeed>,
    pub users: HashMap<UserId, UserFeed>,
    /// The topics that are still to be compared with the backplane in this round.
    pub to_compare: Vec<BusTopic>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // However the worker ends, no sender may wait for it any more.
        self.context.queues().backlog(self.index).close();
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

impl Worker {
    pub fn new(
        index: usize,
        backplane: Backplane,
        queues: Arc<Queues>,
        settings: &DeliverySettings,
        budget: Arc<room::TailBudget>,
        counters: Arc<DeliveryCounters>,
    ) -> Self {
        let limit = settings.backlog_bytes.saturating_mul(2);
        Self {
            index,
            context: Context::new(backplane, queues, settings, budget, counters),
            flow_control: FlowControl::new(settings.pause.clone(), limit),
            rooms: HashMap::default(),
            users: HashMap::default(),
            to_compare: Vec::new(),
        }
    }

    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = every(TICK);
        let mut compare = every(COMPARE_INTERVAL);
        let mut batch = Vec::with_capacity(COMMANDS_PER_SLICE);
        loop {
            tokio::select! {
                count = commands.recv_many(&mut batch, COMMANDS_PER_SLICE) => {
                    if count == 0 {
                        return;
                    }
                    for command in batch.drain(..) {
                        let outbox_bytes = command.outbox_bytes();
                        self.handle_or_report(command);
                        if outbox_bytes > 0 {
                            self.context.queues().backlog(self.index).remove(outbox_bytes);
                            self.flow_control.delivered(outbox_bytes).await;
                        }
                    }
                    if count == COMMANDS_PER_SLICE {
                        self.flow_control.pause().await;
                    }
                }
                _ = tick.tick() => self.on_tick(),
                _ = compare.tick() => self.compare(),
            }
        }
    }

    /// A panic is a fault in one feed, and must not stop the other feeds of this worker.
    fn handle_or_report(&mut self, command: Command) {
        if catch_unwind(AssertUnwindSafe(|| self.handle(command))).is_err() {
            tracing::error!(
                "a feed panicked; its connections may miss events until they join or watch again"
            );
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Bus { event, arrived, .. } => self.on_bus_event(event, arrived),
            Command::Join(request) => self.join(request),
            Command::Leave { room, conn, done } => {
                if let Some(feed) = self.rooms.get_mut(&room) {
                    feed.leave(&mut self.context, &conn);
                }
                let _ = done.send(());
            }
            Command::Watch(request) => self.watch(request),
            Command::Unwatch { user, conn, done } => {
                if let Some(feed) = self.users.get_mut(&user) {
                    feed.unwatch(&mut self.context, &conn);
                }
                let _ = done.send(());
            }
            Command::HasReached { room, head, done } => {
                let feed = self.rooms.get(&room);
                let _ = done.send(feed.is_some_and(|feed| !feed.is_behind(&head)));
            }
            Command::Flush(done) => {
                let _ = done.send(());
            }
            Command::Room(room, event) => self.on_room_event(&room, event),
            Command::User(user, event) => self.on_user_event(&user, event),
            Command::Interrupted(Some(topic)) => self.catch_up(&topic),
            Command::Interrupted(None) => self.catch_up_all(),
            Command::Heads(heads) => self.on_heads(heads),
            Command::Versions(versions) => self.on_versions(versions),
        }
    }

    fn on_bus_event(&mut self, event: BusEvent, arrived: std::time::Instant) {
        let context = &mut self.context;
        match event {
            BusEvent::Message(room, entry) => {
                if let Some(feed) = self.rooms.get_mut(&room) {
                    feed.on_message(context, entry, arrived);
                }
            }
            BusEvent::RoomChanged(room, change) => {
                if let Some(feed) = self.rooms.get_mut(&room) {
                    feed.on_change(context, change);
                }
            }
            BusEvent::Typing(typing) => {
                if let Some(feed) = self.rooms.get_mut(&typing.room) {
                    feed.on_typing(typing);
                }
            }
            BusEvent::Receipt(receipt) => {
                if let Some(feed) = self.rooms.get(&receipt.room) {
                    feed.on_receipt(receipt);
                }
            }
            BusEvent::StatusChanged(status) => {
                if let Some(feed) = self.users.get_mut(&status.user) {
                    feed.on_change(context, status);
                }
            }
            // The queues handle it without a worker, as no feed needs it.
            BusEvent::Disconnect(_) => {}
        }
    }

    fn join(&mut self, request: JoinRequest) {
        let context = &mut self.context;
        let feed = self
            .rooms
            .entry(request.room.clone())
            .or_insert_with_key(|room| {
                context.counters.rooms.fetch_add(1, Ordering::Relaxed);
                RoomFeed::new(context, room.clone())
            });
        feed.join(context, request);
    }

    fn watch(&mut self, request: WatchRequest) {
        let context = &mut self.context;
        self.users
            .entry(request.user.clone())
            .or_insert_with_key(|user| UserFeed::new(context, user.clone()))
            .watch(context, request);
    }

    fn on_room_event(&mut self, room: &RoomId, event: room::FeedEvent) {
        if let Some(feed) = self.rooms.get_mut(room)
            && feed.on_event(&mut self.context, event).is_break()
        {
            self.rooms.remove(room);
            self.context.counters.rooms.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn on_user_event(&mut self, user: &UserId, event: user::FeedEvent) {
        if let Some(feed) = self.users.get_mut(user)
            && feed.on_event(&mut self.context, event).is_break()
        {
            self.users.remove(user);
        }
    }

    /// The topic's feed reads the events that it may have missed.
    fn catch_up(&mut self, topic: &BusTopic) {
        match topic {
            BusTopic::Room(room) => {
                if let Some(feed) = self.rooms.get_mut(room) {
                    feed.on_interrupted(&mut self.context);
                }
            }
            BusTopic::User(user) => {
                if let Some(feed) = self.users.get_mut(user) {
                    feed.catch_up(&mut self.context);
                }
            }
            // Its events are kept nowhere; their senders repeat them until they take effect.
            BusTopic::Nodes => {}
        }
    }

    /// Every feed reads the events that it may have missed.
    fn catch_up_all(&mut self) {
        for feed in self.rooms.values_mut() {
            feed.on_interrupted(&mut self.context);
        }
        for feed in self.users.values_mut() {
            feed.catch_up(&mut self.context);
        }
    }

    fn on_tick(&mut self) {
        for topic in self.context.queues().take_missed(self.index) {
            self.catch_up(&topic);
        }
        let now = Instant::now();
        while let Some(room) = self.context.next_due(now) {
            if let Some(feed) = self.rooms.get_mut(&room) {
                feed.on_timer(&mut self.context, now);
            }
        }
    }
}
