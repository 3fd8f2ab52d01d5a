//! Plain WebSocket clients: JSON frames over a WebSocket without Socket.IO, for broadcasts and for
//! chat.
//!
//! `socket_task` reads and writes a client's WebSocket, `outbox` holds the frames to be written,
//! `transport` is the client as its connection sees it, and `outlet` as delivery sees it.

mod close_status;
mod metrics;
mod outbox;
mod outlet;
mod socket_task;
mod transport;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::Response;
use engineioxide::{PauseMonitor, WriteScheduler};
use http::HeaderValue;
use parking_lot::Mutex;

use super::connections::{
    Connection, Connections, HandshakeOrigin, OutboxThresholds, TransportLabels,
};
use super::wire::{Envelope, Resumed, ServerEvent, to_json};
use crate::auth::Identity;
use crate::delivery::{JoinOutcome, ReplayFrom};
use crate::domain::{Code, Refusal};
use crate::server::admission::ConnectionSlot;
use crate::telemetry::meter::Counter;
use outbox::OutboxLimits;
use outlet::OutletKind;
use socket_task::{SocketTask, Timeouts, WRITE_BATCH_BYTES};
use transport::PlainTransport;

pub use close_status::CloseStatus;
pub use outbox::Outbox;

/// How long queued frames may take to be written when their connection ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// A full outbox holds at most one frame for each so many bytes, so that the memory for the frames
/// themselves stays within twice their bytes.
pub(crate) const MIN_MEAN_FRAME_BYTES: usize = 64;
/// The size of the buffer that a client's messages are read into.
const READ_BUFFER_BYTES: usize = 2048;
/// The transport in the log.
const LABELS: TransportLabels = TransportLabels {
    transport: "websocket",
    protocol: "plain",
};

/// Settings of plain WebSockets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The largest message of a client that does not chat, in bytes.
    pub message_bytes: usize,
    /// The largest message of a client that chats, in bytes.
    pub chat_bytes: usize,
    /// The silence after which a client is pinged.
    pub ping_interval: Duration,
    /// The silence, without a pong either, after which the connection is closed.
    pub idle: Duration,
    /// How long a client may take to read a write.
    pub write_timeout: Duration,
}

/// Counters of plain WebSockets.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were admitted.
    pub opened: Counter,
    /// Connections closed because the client did not read.
    pub slow_consumers: Counter,
    /// Connections closed because nothing was received.
    pub idle: Counter,
    /// Messages received, including pings and pongs.
    pub messages_in: Counter,
    /// Messages written.
    pub messages_out: Counter,
    /// Bytes of text received.
    pub bytes_in: Counter,
    /// Bytes written.
    pub bytes_out: Counter,
}

/// The options in a client's handshake.
#[derive(Debug, Clone, Default)]
pub struct ConnectParams {
    /// The position from which on it wants broadcasts; it is sent `resumed` then. `None`:
    /// broadcasts from now on, without `resumed`.
    pub resume: Option<ReplayFrom>,
    /// The client chats.
    pub chat: bool,
}

/// The plain WebSocket clients of this node.
pub struct PlainWebSocket {
    connections: Arc<Connections>,
    settings: Settings,
    /// In which outboxes wait to be written.
    scheduler: WriteScheduler,
    pauses: PauseMonitor,
    counters: Arc<Counters>,
    outboxes: Mutex<HashMap<u64, Arc<Outbox>>>,
    next_number: AtomicU64,
}

impl PlainWebSocket {
    /// Opens its clients' connections in `connections`. Their outboxes wait in `scheduler` to be
    /// written. `pauses` detects pauses of this process, in which no client may be judged.
    #[must_use]
    pub fn new(
        connections: Arc<Connections>,
        settings: Settings,
        scheduler: WriteScheduler,
        pauses: PauseMonitor,
    ) -> Arc<Self> {
        Arc::new(Self {
            connections,
            settings,
            scheduler,
            pauses,
            counters: Arc::default(),
            outboxes: Mutex::default(),
            next_number: AtomicU64::new(0),
        })
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The connections of the clients, and those of all other clients of this node.
    #[must_use]
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// The number of clients.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outboxes.lock().len()
    }

    /// Whether there are no clients.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The outboxes of all clients.
    #[must_use]
    pub fn outboxes(&self) -> Vec<Arc<Outbox>> {
        self.outboxes.lock().values().cloned().collect()
    }

    /// Admits a client that its handshake has identified. Everything that is broadcast after the
    /// call reaches the client.
    ///
    /// # Errors
    /// Those of [`Connection::authenticate`] and [`Connection::listen`].
    pub async fn open(
        self: &Arc<Self>,
        identity: Identity,
        params: ConnectParams,
        origin: &HandshakeOrigin,
        slot: ConnectionSlot,
    ) -> Result<AdmittedClient, Refusal> {
        let outbox_bytes = self.connections.outbox_bytes();
        let limits = OutboxLimits {
            bytes: outbox_bytes,
            frames: outbox_bytes / MIN_MEAN_FRAME_BYTES,
        };
        let outbox = Arc::new(Outbox::new(limits, self.scheduler.clone()));
        let transport = Arc::new(PlainTransport {
            outbox: outbox.clone(),
            thresholds: OutboxThresholds::of(outbox_bytes),
            _slot: slot,
        });
        let connection = self.connections.open(transport.clone(), origin.client);
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        self.outboxes.lock().insert(number, outbox.clone());
        // From here on, dropping it releases everything that the client takes up.
        let admitted = AdmittedClient {
            plain: self.clone(),
            number,
            connection,
            outbox,
            chat: params.chat,
        };
        let connection = &admitted.connection;
        let user = identity.user.clone();
        connection.authenticate(identity).await?;
        if params.chat {
            connection.announce_identity();
        }
        let outlet = transport.outlet_of_kind(connection.id(), &user, OutletKind::Broadcasts);
        let from = params.resume.clone().unwrap_or(ReplayFrom::Live);
        let send_resumed = resumed_sender(&admitted.outbox, &params);
        match connection.listen(outlet, from, send_resumed).await {
            Ok(()) => {}
            // A token that is limited to rooms may still be valid for these.
            Err(refusal) if refusal.code == Code::Forbidden => {}
            Err(refusal) => return Err(refusal),
        }
        self.counters.opened.add(1);
        connection.log_opened(origin, LABELS);
        connection.log_authenticated("handshake");
        Ok(admitted)
    }
}

/// Sends `resumed` if the client asked to resume.
fn resumed_sender(
    outbox: &Arc<Outbox>,
    params: &ConnectParams,
) -> impl FnOnce(&JoinOutcome) + Send + use<> {
    let outbox = outbox.clone();
    let wants_resumed = params.resume.is_some();
    move |outcome| {
        if wants_resumed {
            let json = to_json(&Resumed::of(outcome));
            outbox.send(Envelope::Plain.wrap(ServerEvent::Resumed, &json).into());
        }
    }
}

/// A client that was admitted. Dropping it ends its connection.
pub struct AdmittedClient {
    plain: Arc<PlainWebSocket>,
    number: u64,
    connection: Arc<Connection>,
    outbox: Arc<Outbox>,
    chat: bool,
}

impl AdmittedClient {
    /// Answers the handshake with that subprotocol, and carries messages from then on.
    pub fn begin(
        self,
        mut upgrade: WebSocketUpgrade,
        subprotocol: Option<HeaderValue>,
    ) -> Response {
        if let Some(subprotocol) = subprotocol {
            upgrade.set_selected_protocol(subprotocol);
        }
        let settings = &self.plain.settings;
        let max_message = if self.chat {
            settings.chat_bytes
        } else {
            settings.message_bytes
        };
        let upgrade = upgrade
            .max_message_size(max_message)
            .max_frame_size(max_message)
            .read_buffer_size(READ_BUFFER_BYTES);
        // The frames of a batch are written in one system call. The buffer has space for everything
        // that fits into the outbox. Without a limit, pongs would accumulate in it for a client
        // that does not read them.
        let max_write_buffer = self.plain.connections.outbox_bytes() + WRITE_BATCH_BYTES;
        upgrade
            .write_buffer_size(WRITE_BATCH_BYTES)
            .max_write_buffer_size(max_write_buffer)
            .on_upgrade(|socket| self.run(socket))
    }

    async fn run(self, socket: WebSocket) {
        let settings = &self.plain.settings;
        let timeouts = Timeouts {
            ping: settings.ping_interval.min(settings.idle / 2),
            idle: settings.idle,
            write: settings.write_timeout,
        };
        self.connection.start();
        let counters = &self.plain.counters;
        let mut task = SocketTask::new(
            socket,
            self.connection.clone(),
            self.outbox.clone(),
            counters.clone(),
            timeouts,
            self.plain.pauses.clone(),
        );
        let status = task.run().await;
        if let Some(status) = status {
            self.connection.set_end_reason(status.into());
        }
        match status {
            Some(CloseStatus::Slow) => counters.slow_consumers.add(1),
            Some(CloseStatus::Idle) => counters.idle.add(1),
            _ => {}
        }
        // Nothing more reaches the client. Its slot stays taken until the transport is gone.
        self.outbox.mark_closed();
        self.connection.lost();
        task.finish(status).await;
    }
}

impl Drop for AdmittedClient {
    fn drop(&mut self) {
        self.outbox.mark_gone();
        self.plain.outboxes.lock().remove(&self.number);
        // The loss is processed in a task, which needs a runtime.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.connection.lost();
        }
    }
}
