//! Connections of clients, whichever transport carries them: each has one inbox, from which events
//! are processed one after another, rate limits, deadlines, and an end that is handled once.
//!
//! In reading order: [`connection`] (state, and receiving), `inbox`, [`processing`], [`events`]
//! (one file per group of client events), [`reply`], [`pending_acks`], [`authentication`],
//! [`closing`], [`log`]. The parts that differ between Socket.IO and plain WebSockets implement
//! [`ClientTransport`].

mod authentication;
mod client_transport;
mod closing;
mod connection;
mod deadlines;
mod events;
mod inbox;
mod log;
pub(crate) mod metrics;
mod pending_acks;
mod processing;
mod reply;
#[cfg(test)]
mod tests;
mod user_connections;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engineioxide::WriteScheduler;
use tokio::sync::Semaphore;

use crate::auth::Authenticator;
use crate::delivery::{Entry, change_record};
use crate::domain::{ConnId, RoomId, RoomKind, UserId};
use crate::features::messages::Messages;
use crate::features::messaging::Messaging;
use crate::server::ClientAddress;
use crate::server::admission::Admission;
use crate::telemetry::line_budget::LineBudget;
use crate::telemetry::meter::Counter;
use deadlines::Deadlines;
use user_connections::UserConnections;

pub use client_transport::{ClientTransport, CloseReason, IncomingEvent};
pub use connection::Connection;
pub use events::{ClientEvent, Request, RequestName, decode_event};
pub use inbox::{EventText, ReservedBytes, WaitingBytes};
pub use log::{EndReason, HandshakeOrigin, TransportLabels};
pub use reply::ReplyTo;

/// Checks of rights that run at the same time, after resets and for late announcements.
const CONCURRENT_RECHECKS: usize = 4;

/// How full an outbox may become before different senders wait, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct OutboxThresholds {
    /// Replies and replays continue while less than this is unwritten.
    pub writable: usize,
    /// Live messages are queued up to this. The rest is reserved for events that nothing slows down
    /// and that cannot wait.
    pub live_messages: usize,
}

impl OutboxThresholds {
    /// The thresholds of an outbox with that capacity: 50 % and 75 %.
    #[must_use]
    pub fn of(outbox_bytes: usize) -> Self {
        Self {
            writable: outbox_bytes / 2,
            live_messages: outbox_bytes / 4 * 3,
        }
    }
}

/// Counters of client events.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events received.
    pub events: Counter,
    /// Events refused, for any reason.
    pub refused: Counter,
    /// Events refused because a rate was exceeded.
    pub rate_limited: Counter,
    /// Connections closed because they kept exceeding their rate.
    pub closed_rate_limited: Counter,
    /// Events refused because the inbox was full.
    pub overloaded: Counter,
}

/// The state that all connections of a node share.
pub struct Connections {
    messaging: Arc<Messaging>,
    /// `None` without a database.
    messages: Option<Arc<Messages>>,
    auth: Arc<Authenticator>,
    admission: Arc<Admission>,
    /// The capacity of one connection's outbox.
    outbox_bytes: usize,
    deadlines: Deadlines,
    /// Connections with events to process; used where everything runs on one thread.
    scheduler: WriteScheduler,
    users: UserConnections,
    counters: Counters,
    /// Bounds the checks of rights after resets and late announcements: many of them must leave
    /// connections of the database to requests.
    rechecks: Semaphore,
    /// The log lines about connections.
    log: Arc<LineBudget>,
    /// The bytes of the events that wait, in inboxes and in front of them.
    waiting_bytes: WaitingBytes,
    next_number: AtomicU64,
    /// Distinguishes the ids of this process's connections from those of every other process,
    /// including earlier and later ones on the same host.
    incarnation: String,
}

impl Connections {
    /// Must be called within a tokio runtime, once for each [`Messaging`].
    #[must_use]
    pub fn new(
        messaging: Arc<Messaging>,
        messages: Option<Arc<Messages>>,
        auth: Arc<Authenticator>,
        admission: Arc<Admission>,
        outbox_bytes: usize,
        log: Arc<LineBudget>,
    ) -> Arc<Self> {
        let connections = Arc::new(Self {
            messaging,
            messages,
            auth,
            admission,
            outbox_bytes,
            deadlines: Deadlines::start(),
            scheduler: WriteScheduler::default(),
            users: UserConnections::default(),
            counters: Counters::default(),
            rechecks: Semaphore::new(CONCURRENT_RECHECKS),
            log,
            waiting_bytes: WaitingBytes::default(),
            next_number: AtomicU64::new(0),
            incarnation: uuid::Uuid::new_v4().simple().to_string()[..12].to_owned(),
        });
        connections.scheduler.start();
        let weak = Arc::downgrade(&connections);
        let disconnect = move |user: &UserId| {
            let Some(connections) = weak.upgrade() else {
                return;
            };
            for connection in connections.users.of(user) {
                connection.disconnect_by_service();
            }
        };
        connections.messaging.on_disconnect(Box::new(disconnect));
        let weak = Arc::downgrade(&connections);
        let on_change = move |room: &RoomId, entry: &Entry, detached: &[ConnId]| {
            if let Some(connections) = weak.upgrade() {
                connections.changed(room, entry, detached);
            }
        };
        connections.messaging.on_change(Box::new(on_change));
        let weak = Arc::downgrade(&connections);
        let on_reset = move |room: &RoomId, attached: Vec<(ConnId, UserId)>| {
            if let Some(connections) = weak.upgrade() {
                connections.recheck(room, &attached);
            }
        };
        connections.messaging.on_reset(Box::new(on_reset));
        connections
    }

    /// Acts on a change that a room on this node has reached.
    fn changed(&self, room: &RoomId, entry: &Entry, detached: &[ConnId]) {
        if room.kind() == RoomKind::Chat
            && let Some(member) = change_record::member_change(&entry.record)
        {
            self.messaging.membership_changed(room, &member.user);
            for connection in self.users.of(&member.user) {
                if detached.contains(connection.id()) {
                    connection.remove_from(room.clone());
                }
            }
        }
        if let Some(user) = room.personal_of()
            && let Some(session) = change_record::ended_session(&entry.record)
        {
            for connection in self.users.of(&user) {
                connection.end_with_session(session);
            }
        }
    }

    /// Checks the rights of connections again, after their room may have skipped changes.
    fn recheck(&self, room: &RoomId, attached: &[(ConnId, UserId)]) {
        for (conn, user) in attached {
            let connections = self.users.of(user).into_iter();
            for connection in connections.filter(|connection| connection.id() == conn) {
                connection.recheck(room.clone());
            }
        }
    }

    /// Checks the rights of a user's connections again, in a chat's room or behind a personal feed: the
    /// announcement that takes them away is late. Returns at once.
    pub fn recheck_user(&self, room: &RoomId, user: &UserId) {
        for connection in self.users.of(user) {
            connection.recheck(room.clone());
        }
    }

    /// Opens a connection, which has no user yet, over that transport. `client` is the address that
    /// its rates count for.
    #[must_use]
    pub fn open(
        self: &Arc<Self>,
        transport: Arc<dyn ClientTransport>,
        client: Option<ClientAddress>,
    ) -> Arc<Connection> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let conn = ConnId::trusted(&format!("{}.{number:x}", self.incarnation));
        Connection::new(self.clone(), conn, number, transport, client)
    }

    /// Calls `then` after that time.
    pub fn call_after(&self, after: Duration, then: Box<dyn FnOnce() + Send>) {
        self.deadlines.add(after, then);
    }

    /// The use cases.
    #[must_use]
    pub fn messaging(&self) -> &Arc<Messaging> {
        &self.messaging
    }

    /// How clients are identified.
    #[must_use]
    pub fn auth(&self) -> &Authenticator {
        &self.auth
    }

    /// The bytes of the events that wait on this node.
    #[must_use]
    pub fn waiting_bytes(&self) -> WaitingBytes {
        self.waiting_bytes.clone()
    }

    /// Whether the node stops.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.admission.is_draining()
    }

    /// The capacity of one connection's outbox, in bytes.
    #[must_use]
    pub fn outbox_bytes(&self) -> usize {
        self.outbox_bytes
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.scheduler.stop();
    }
}
