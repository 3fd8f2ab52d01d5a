//! Delivers the events of the bus to the connections of this node: in `seq` order, without a hole
//! or a repeat, and with each event encoded once.
//!
//! [`Delivery`] is the API. Behind it a few workers own the feeds: a room, or a watched user,
//! belongs to one worker, chosen by a hash of its id. That worker processes the feed's joins,
//! leaves, bus events and read results one after another, so "replay, then live" needs no lock. A
//! worker never waits for a socket or for the backplane: anything that takes time runs in a task of
//! its own, and its result comes back as a command.

mod backlog;
mod chat_feeds;
mod comparison;
mod context;
mod counters;
mod feed;
mod flow_control;
mod gate;
mod metrics;
mod outlet;
mod queues;
mod requests;
mod room;
mod settings;
mod shared_event;
#[cfg(test)]
mod tests;
mod user;
mod worker;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::backplane::{Backplane, BackplaneError, BusTopic};
use crate::domain::{ConnId, Head, RoomId, UserId, Username};

use context::RETRY_DELAY;
use queues::{Command, Queues};
use requests::{JoinRequest, WatchRequest, stopped};
use worker::Worker;

pub use crate::backplane::change_record::{self, Parts as ChangeParts};
pub use crate::backplane::{Entry, EntryKind, ReadReceipt, ReceiptAudience, Typing};
pub use chat_feeds::ChatFeed;
pub use counters::DeliveryCounters;
pub use gate::Gate;
pub use outlet::{CloseReason, Outlet};
pub use queues::{DisconnectUser, OnChange, OnReset};
pub use requests::{JoinOutcome, OnJoined, OnWatched, ReplayEnd, ReplayFrom};
pub use settings::{DeliverySettings, Pause};
pub use shared_event::{Event, SharedEvent};

/// The feeds of this node: rooms with connections here, and users watched by connections here.
pub struct Delivery {
    queues: Arc<Queues>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    budget: Arc<room::TailBudget>,
    counters: Arc<DeliveryCounters>,
}

impl Delivery {
    /// Starts the workers on the backplane's bus. Must be called within a tokio runtime, once for a
    /// backplane.
    #[must_use]
    pub fn start(backplane: &Backplane, settings: &DeliverySettings) -> Self {
        let counters = Arc::new(DeliveryCounters::default());
        let (queues, receivers) = Queues::new(settings, counters.clone());
        let queues = Arc::new(queues);
        backplane.bus.deliver_to(queues.clone());
        let budget = room::TailBudget::new(settings.kept_bytes);
        let mut tasks = Vec::new();
        for (index, commands) in receivers.into_iter().enumerate() {
            let worker = Worker::new(
                index,
                backplane.clone(),
                queues.clone(),
                settings,
                budget.clone(),
                counters.clone(),
            );
            tasks.push(tokio::spawn(worker.run(commands)));
        }
        Self {
            queues,
            tasks: Mutex::new(tasks),
            budget,
            counters,
        }
    }

    /// The counters of all feeds.
    #[must_use]
    pub fn counters(&self) -> &DeliveryCounters {
        &self.counters
    }

    /// Registers the outlet's connection in the room and attaches it to the room's feed.
    /// `on_joined` is called before any event of the room reaches the outlet. The call returns when
    /// the replay is over and `room_users` is sent, or the outlet closed. A second join of the same
    /// connection acknowledges and replays again.
    ///
    /// # Errors
    /// `Unavailable`, `Full`, `Broken`: this join does not attach the connection, `on_joined` is
    /// not called, and the room may count the connection all the same. `Unavailable` is also the
    /// outcome while an archive can't be read that the replay needs.
    ///
    /// # Cancellation
    /// Dropping the future does not undo the call: the connection may be attached, and `on_joined`
    /// called, afterwards. The caller must still call [`Delivery::leave`].
    pub async fn join(
        &self,
        room: RoomId,
        outlet: Arc<dyn Outlet>,
        username: Username,
        start: ReplayFrom,
        on_joined: OnJoined,
    ) -> Result<(), BackplaneError> {
        let replay_end = self
            .attach(room, outlet, Some(username), start, on_joined, None)
            .await?;
        // An error means that the outlet closed before the end of the replay: the join itself has
        // succeeded.
        let _ = replay_end.await;
        Ok(())
    }

    /// As [`Delivery::join`], but the connection doesn't become an occupant of the room: presence
    /// doesn't learn of it, and it receives neither the list of occupants nor their changes.
    ///
    /// # Errors
    /// As [`Delivery::join`].
    pub async fn listen(
        &self,
        room: RoomId,
        outlet: Arc<dyn Outlet>,
        start: ReplayFrom,
        on_joined: OnJoined,
    ) -> Result<(), BackplaneError> {
        let replay_end = self
            .attach(room, outlet, None, start, on_joined, None)
            .await?;
        let _ = replay_end.await;
        Ok(())
    }

    /// As [`Delivery::join`], or [`Delivery::listen`] without a name, but returns as soon as the
    /// connection is attached. Nothing of the room reaches the outlet before the gate is opened.
    ///
    /// # Errors
    /// As [`Delivery::join`].
    pub async fn join_behind(
        &self,
        gate: &Gate,
        room: RoomId,
        outlet: Arc<dyn Outlet>,
        username: Option<Username>,
        start: ReplayFrom,
    ) -> Result<(JoinOutcome, ReplayEnd), BackplaneError> {
        let (sender, outcome) = oneshot::channel();
        let on_joined = Box::new(move |outcome: &JoinOutcome| {
            let _ = sender.send(outcome.clone());
        });
        let replay_end = self
            .attach(room, outlet, username, start, on_joined, Some(gate.clone()))
            .await?;
        Ok((outcome.await.map_err(|_| stopped())?, replay_end))
    }

    async fn attach(
        &self,
        room: RoomId,
        outlet: Arc<dyn Outlet>,
        username: Option<Username>,
        start: ReplayFrom,
        on_joined: OnJoined,
        gate: Option<Gate>,
    ) -> Result<ReplayEnd, BackplaneError> {
        let (accepted, outcome) = oneshot::channel();
        let request = JoinRequest {
            room: room.clone(),
            outlet,
            username,
            start,
            on_joined,
            gate,
            accepted,
        };
        self.queues.send(&room, Command::Join(request)).await;
        outcome.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Detaches the connection from the room's feed. When the call returns, no further event of the
    /// room reaches the outlet.
    pub async fn leave(&self, room: &RoomId, conn: &ConnId) {
        let (done, left) = oneshot::channel();
        let command = Command::Leave {
            room: room.clone(),
            conn: conn.clone(),
            done,
        };
        self.queues.send(room, command).await;
        let _ = left.await;
    }

    /// Returns when every event of the room that had arrived at this node before the call has been
    /// offered to the room's outlets.
    pub async fn flush(&self, room: &RoomId) {
        let (done, flushed) = oneshot::channel();
        self.queues.send(room, Command::Flush(done)).await;
        let _ = flushed.await;
    }

    /// Waits while more than [`DeliverySettings::backlog_bytes`] wait for the room's worker, so
    /// that messages are not appended faster than they can be delivered. Safe to cancel.
    ///
    /// Meant for senders on a lossless bus, which carries only this node's messages. On a shared
    /// bus a sender here would wait for messages of other nodes.
    pub async fn wait_for_capacity(&self, room: &RoomId) {
        self.queues.backlog_of(room).wait_for_capacity().await;
    }

    /// Attaches the outlet to the user's changes of status. First `on_watched` is called, then the
    /// current status is delivered, then every change.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`: the outlet is not attached, and `on_watched` is not called.
    ///
    /// # Cancellation
    /// Dropping the future does not undo the call: the caller must still call
    /// [`Delivery::unwatch`].
    pub async fn watch(
        &self,
        user: UserId,
        outlet: Arc<dyn Outlet>,
        on_watched: OnWatched,
    ) -> Result<(), BackplaneError> {
        let (done, outcome) = oneshot::channel();
        let request = WatchRequest {
            user: user.clone(),
            outlet,
            on_watched,
            done,
        };
        self.queues.send(&user, Command::Watch(request)).await;
        outcome.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Detaches the outlet from the user's changes. When the call returns, no further change
    /// reaches the outlet.
    pub async fn unwatch(&self, user: &UserId, conn: &ConnId) {
        let (done, detached) = oneshot::channel();
        let command = Command::Unwatch {
            user: user.clone(),
            conn: conn.clone(),
            done,
        };
        self.queues.send(user, command).await;
        let _ = detached.await;
    }

    /// Sets the handler that ends a user's connections on this node, and subscribes to the requests
    /// for it. Called once, within a tokio runtime.
    pub fn on_disconnect(&self, backplane: &Backplane, disconnect: DisconnectUser) {
        if !self.queues.set_disconnect(disconnect) {
            tracing::error!("the handler that ends a user's connections was already set");
            return;
        }
        let bus = backplane.bus.clone();
        let subscribing = tokio::spawn(async move {
            // Once it has succeeded, the bus itself keeps the subscription alive.
            while bus.subscribe(&BusTopic::Nodes).await.is_err() {
                tokio::time::sleep(RETRY_DELAY).await;
            }
        });
        self.tasks.lock().push(subscribing);
    }

    /// Sets the handler of changes: it is called for each change that a room with connections on this
    /// node reaches, in the room's order, after the change was offered to its outlets. Called once.
    pub fn on_change(&self, on_change: OnChange) {
        if !self.queues.set_on_change(on_change) {
            tracing::error!("the handler of changes was already set");
        }
    }

    /// Sets the handler of resets, after which a room's changes may have been skipped: it is called for
    /// chats and personal feeds. Called once.
    pub fn on_reset(&self, on_reset: OnReset) {
        if !self.queues.set_on_reset(on_reset) {
            tracing::error!("the handler of resets was already set");
        }
    }

    /// The feed of the chat on this node. `None` if no connection is attached to the chat here.
    #[must_use]
    pub fn chat_feed(&self, chat: &RoomId) -> Option<ChatFeed> {
        self.queues.chat_feeds.of(chat)
    }

    /// Whether the room has a feed on this node that has delivered everything up to `head`.
    pub async fn has_reached(&self, room: &RoomId, head: &Head) -> bool {
        let (done, reached) = oneshot::channel();
        let command = Command::HasReached {
            room: room.clone(),
            head: head.clone(),
            done,
        };
        self.queues.send(room, command).await;
        reached.await.unwrap_or(false)
    }

    /// The number of rooms that have a feed on this node.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.counters.rooms.load(Ordering::Relaxed)
    }

    /// About how many bytes all rooms keep of messages for replays.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.budget.used()
    }

    /// Ends the workers. Requests that wait, and later ones, fail with `Unavailable`.
    pub fn stop(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}
