//! Connections, whichever door they came in by: one inbox each, its requests taken up one after another, deadlines, and how
//! one ends. What is particular to a door is behind its [`ClientTransport`].

mod client_transport;
mod connection;
mod deadlines;
mod inbox;
pub(crate) mod metrics;
#[cfg(test)]
mod tests;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use engineioxide::WriteScheduler;

use crate::auth::Authenticator;
use crate::domain::{ConnId, UserId};
use crate::features::messaging::Messaging;
use crate::server::ClientAddress;
use crate::server::admission::Admission;
use crate::telemetry::meter::Counter;
use deadlines::Deadlines;
use users::Users;

pub use client_transport::{ClientTransport, CloseReason, IncomingEvent, ReplyTo};
pub use connection::Connection;
pub use inbox::Arrived;

/// The longest line of connections with events to take up.
const LINE: usize = 256;

/// How much of an outbox is for what, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// With less unwritten, whatever is paced goes on: answers and replays.
    pub half: usize,
    /// What live messages may take: the rest is left for what isn't paced, and can't wait.
    pub messages: usize,
}

impl Bounds {
    /// Of an outbox of so many bytes.
    #[must_use]
    pub fn of(outbox_bytes: usize) -> Self {
        Self {
            half: outbox_bytes / 2,
            messages: outbox_bytes / 4 * 3,
        }
    }
}

/// What is counted of requests.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events that arrived.
    pub events: Counter,
    /// Events that were refused.
    pub refused: Counter,
    /// Events refused because the sender was too fast.
    pub rate_limited: Counter,
    /// Connections closed because they went on when they were refused for a rate.
    pub closed_rate_limited: Counter,
    /// Events refused because the connection's inbox was full.
    pub overloaded: Counter,
}

/// All that the connections of a node share.
pub struct Connections {
    chat: Arc<Messaging>,
    auth: Arc<Authenticator>,
    admission: Arc<Admission>,
    /// What may be unwritten of one connection.
    outbox_bytes: usize,
    deadlines: Deadlines,
    /// Connections with events to take up, where all of it is done on one thread.
    work: WriteScheduler,
    users: Users,
    counters: Counters,
    /// What all inboxes hold.
    inbox_bytes: Arc<AtomicUsize>,
    next_connection: AtomicU64,
    /// Sets this process's connections apart from every other's, before and after it.
    incarnation: String,
}

impl Connections {
    /// Of that chat. Must be called within a tokio runtime, once for a chat.
    #[must_use]
    pub fn new(
        chat: Arc<Messaging>,
        auth: Arc<Authenticator>,
        admission: Arc<Admission>,
        outbox_bytes: usize,
    ) -> Arc<Self> {
        let connections = Arc::new(Self {
            chat,
            auth,
            admission,
            outbox_bytes,
            deadlines: Deadlines::start(),
            work: WriteScheduler::default(),
            users: Users::default(),
            counters: Counters::default(),
            inbox_bytes: Arc::default(),
            next_connection: AtomicU64::new(0),
            incarnation: uuid::Uuid::new_v4().simple().to_string()[..12].to_owned(),
        });
        connections.work.start();
        let weak = Arc::downgrade(&connections);
        let end = move |user: &UserId| {
            for connection in weak
                .upgrade()
                .iter()
                .flat_map(|connections| connections.users.of(user))
            {
                connection.end_by_service();
            }
        };
        connections.chat.on_disconnect(Box::new(end));
        connections
    }

    /// Whether events are taken up in a line: where most is done without waiting, on one thread. What has come in is read of
    /// all connections first then, and a processor need not change between the one and the other for each.
    ///
    /// Not where many stand there already: then events are taken up while they are read, which keeps those back that follow.
    fn work_in_line(&self) -> bool {
        self.work.is_single_threaded() && self.chat.is_alone() && self.work.queue_len() < LINE
    }

    /// A connection over that line, which nobody is bound to yet.
    #[must_use]
    pub fn open(
        self: &Arc<Self>,
        line: Arc<dyn ClientTransport>,
        client: Option<ClientAddress>,
    ) -> Arc<Connection> {
        let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let conn = ConnId::trusted(&format!("{}.{number:x}", self.incarnation));
        Connection::new(self.clone(), conn, number, line, client)
    }

    /// Calls `then` after that time.
    pub fn call_after(&self, after: Duration, then: Box<dyn FnOnce() + Send>) {
        self.deadlines.add(after, then);
    }

    /// The use cases.
    #[must_use]
    pub fn chat(&self) -> &Arc<Messaging> {
        &self.chat
    }

    /// How identities are known.
    #[must_use]
    pub fn auth(&self) -> &Authenticator {
        &self.auth
    }

    /// What may be unwritten of one connection, in bytes.
    #[must_use]
    pub fn outbox_bytes(&self) -> usize {
        self.outbox_bytes
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.work.stop();
    }
}
