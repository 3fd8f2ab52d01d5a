//! The plain WebSocket door: JSON frames over a bare WebSocket, for broadcasts and for chat.

mod end;
mod metrics;
mod outbox;
mod outlet;
mod task;
mod transport;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::WebSocketUpgrade;
use axum::response::Response;
use engineioxide::WriteScheduler;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::connections::{Bounds, Connection, Connections};
use super::wire::{Envelope, EventName, Resumed, going_away};
use crate::auth::Identity;
use crate::delivery::ReplayFrom;
use crate::domain::{Code, Refusal};
use crate::server::ClientAddress;
use crate::server::admission::ConnectionSlot;
use crate::telemetry::meter::Counter;
use outbox::Most;
use outlet::Programme;
use task::{BATCH, Patience, Transport};
use transport::PlainLine;

pub use end::End;
pub use outbox::Outbox;

/// How long what is queued for a client may take to be written when its connection ends.
const FLUSH: Duration = Duration::from_secs(2);
/// What the frames of a full outbox have on average, at least: so the memory for them stays within twice their bytes.
const MEAN_FRAME_BYTES: usize = 64;
/// What is read of a client at once, in bytes.
const READ_BYTES: usize = 2048;

/// How this door behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The largest message of a client that is here for broadcasts, in bytes.
    pub message_bytes: usize,
    /// The largest of one that chats.
    pub chat_bytes: usize,
    /// Of silence before a client is pinged.
    pub ping_interval: Duration,
    /// Of silence, pongs included, before it is closed.
    pub idle: Duration,
    /// Without taking what is written.
    pub write_timeout: Duration,
}

/// What this door counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were let in.
    pub opened: Counter,
    /// Connections closed because they didn't read.
    pub slow_consumers: Counter,
    /// Connections closed because nothing was heard of them.
    pub idle: Counter,
    /// Messages that came, pings and pongs included.
    pub messages_in: Counter,
    /// Messages that were written.
    pub messages_out: Counter,
    /// Bytes of texts that came.
    pub bytes_in: Counter,
    /// Bytes that were written.
    pub bytes_out: Counter,
}

/// What a client asked for with its handshake.
#[derive(Debug, Clone, Default)]
pub struct ConnectParams {
    /// From where it wants broadcasts, and be told of it; `None`: from now on, without a word.
    pub resume: Option<ReplayFrom>,
    /// It is here to chat.
    pub chat: bool,
}

/// The door itself.
pub struct PlainWebSocket {
    connections: Arc<Connections>,
    settings: Settings,
    scheduler: WriteScheduler,
    counters: Arc<Counters>,
    /// Everyone's way out.
    outboxes: Mutex<HashMap<u64, Arc<Outbox>>>,
    next: AtomicU64,
}

impl PlainWebSocket {
    /// A door for those connections, which wait to write in that line.
    #[must_use]
    pub fn new(
        connections: Arc<Connections>,
        settings: Settings,
        scheduler: WriteScheduler,
    ) -> Arc<Self> {
        Arc::new(Self {
            connections,
            settings,
            scheduler,
            counters: Arc::default(),
            outboxes: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many clients are here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outboxes.lock().len()
    }

    /// Whether nobody is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everyone's way out.
    #[must_use]
    pub fn outboxes(&self) -> Vec<Arc<Outbox>> {
        self.outboxes.lock().values().cloned().collect()
    }

    /// Lets someone in who has said who it is. What is broadcast after the call will reach it.
    ///
    /// # Errors
    /// What `authenticate` and [`Connection::listen`] say.
    pub async fn open(
        self: &Arc<Self>,
        identity: Identity,
        params: ConnectParams,
        client: Option<ClientAddress>,
        place: ConnectionSlot,
    ) -> Result<Visit, Refusal> {
        let bytes = self.connections.outbox_bytes();
        let outbox = Arc::new(Outbox::new(
            Most {
                bytes,
                frames: bytes / MEAN_FRAME_BYTES,
            },
            self.scheduler.clone(),
        ));
        let line = Arc::new(PlainLine {
            outbox: outbox.clone(),
            bounds: Bounds::of(bytes),
            place,
        });
        let connection = self.connections.open(line.clone(), client);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.outboxes.lock().insert(number, outbox.clone());
        let chat = params.chat;
        // From here on whatever happens gives back all that was taken.
        let visit = Visit {
            door: self.clone(),
            number,
            connection: connection.clone(),
            outbox: outbox.clone(),
            chat,
        };
        let user = identity.user.clone();
        connection.authenticate(identity).await?;
        if params.chat {
            connection.introduce();
        }
        let told = params.resume.is_some();
        let tell = move |outcome: &_| {
            if told {
                let json = serde_json::to_string(&Resumed::of(outcome))
                    .expect("the wire's shapes always serialise");
                outbox.send(Envelope::Plain.wrap(EventName::Resumed, &json).into());
            }
        };
        let outlet = line.outlet_for(connection.id(), &user, Programme::Broadcasts);
        match connection
            .listen(outlet, params.resume.unwrap_or(ReplayFrom::Live), tell)
            .await
        {
            // A token that is limited to rooms may be good for these alone.
            Err(refusal) if refusal.code != Code::Forbidden => return Err(refusal),
            _ => {}
        }
        self.counters.opened.add(1);
        Ok(visit)
    }
}

/// A client that was let in: it is gone when this is dropped.
pub struct Visit {
    door: Arc<PlainWebSocket>,
    number: u64,
    connection: Arc<Connection>,
    outbox: Arc<Outbox>,
    chat: bool,
}

impl Visit {
    /// Answers the handshake, and carries messages from then on.
    pub fn begin(self, upgrade: WebSocketUpgrade) -> Response {
        let Settings {
            message_bytes,
            chat_bytes,
            ping_interval,
            idle,
            write_timeout,
        } = self.door.settings;
        let most = if self.chat { chat_bytes } else { message_bytes };
        let patience = Patience {
            ping: ping_interval.min(idle / 2),
            idle,
            write: write_timeout,
        };
        let upgrade = upgrade
            .max_message_size(most)
            .max_frame_size(most)
            .read_buffer_size(READ_BYTES);
        // Frames of a batch leave in one write. Whatever fits into the outbox fits, and so many answers to pings: without a
        // bound these would pile up for who doesn't read them.
        let upgrade = upgrade
            .write_buffer_size(BATCH)
            .max_write_buffer_size(self.door.connections.outbox_bytes() + BATCH);
        upgrade
            .protocols(["bearer"])
            .on_upgrade(async move |socket| {
                let (connection, outbox) = (self.connection.clone(), self.outbox.clone());
                connection.start();
                let counters = self.door.counters.clone();
                let mut transport = Transport::new(socket, connection, outbox, counters, patience);
                let end = transport.carry().await;
                tracing::debug!(conn = %self.connection.id(), ?end, "a plain connection ends");
                match end {
                    Some(End::Slow) => self.door.counters.slow_consumers.add(1),
                    Some(End::Idle) => self.door.counters.idle.add(1),
                    _ => {}
                }
                // Nothing more reaches the client; its place stays taken until the transport is gone.
                self.outbox.shut();
                self.connection.lost();
                transport.finish(end).await;
            })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.outbox.depart();
        self.door.outboxes.lock().remove(&self.number);
        if tokio::runtime::Handle::try_current().is_ok() {
            self.connection.lost();
        }
    }
}

impl Outbox {
    /// Tells the client that this node drains, and when its time will have come.
    pub fn announce_end(self: &Arc<Self>, reconnect_in: Duration) {
        self.send(going_away(Envelope::Plain, reconnect_in).into());
    }

    /// Closes the connection, so that the client comes back, when what is queued has been written, at the latest after `limit`.
    pub fn close_after_flush(&self, limit: Duration) {
        self.end_by(End::Restart, Instant::now() + limit);
    }

    /// Closes the connection at once, so that the client comes back.
    pub fn close(&self) {
        self.end(End::Restart);
    }
}
