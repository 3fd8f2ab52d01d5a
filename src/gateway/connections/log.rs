//! The log lines of connections: one each when a connection is opened, authenticated, refused and
//! closed.
//!
//! All lines of a connection have its id (`conn`), and the first one also the id of the HTTP request
//! of its handshake (`request_id`). While the connection lives, its events are only counted.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::{Connection, Connections};
use crate::auth::Identity;
use crate::domain::{Refusal, TokenFault};
use crate::server::ClientAddress;
use crate::telemetry::line_budget::log_within;

/// The target of the lines, for `RUST_LOG`.
const TARGET: &str = "hubbub::connections";

/// The origin of a connection: the client, and the HTTP request of the handshake.
#[derive(Debug, Clone, Default)]
pub struct HandshakeOrigin {
    /// The client's address.
    pub client: Option<ClientAddress>,
    /// The id of the HTTP request.
    pub request_id: Option<Arc<str>>,
}

/// The transport of a connection, in the words of the metric `connections`.
#[derive(Debug, Clone, Copy)]
pub struct TransportLabels {
    /// `polling` or `websocket`.
    pub transport: &'static str,
    /// The version of Engine.IO, or `plain`.
    pub protocol: &'static str,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The client closed the connection or left the namespace, or its TCP connection ended.
    ClientClosed,
    /// The TCP connection broke.
    TransportLost,
    /// The client did not answer a heartbeat, or was silent for too long.
    HeartbeatTimeout,
    /// The client did not read.
    SlowConsumer,
    /// The log was trimmed past the position of a replay.
    ReplayOutrun,
    /// The log could not be read for a replay.
    ReplayFailed,
    /// The client violated the protocol.
    ProtocolError,
    /// The client did not authenticate in time.
    AuthenticationTimeout,
    /// The token expired.
    TokenExpired,
    /// The session of the account ended.
    SessionEnded,
    /// A service ended the connections of the user.
    EndedByService,
    /// The client kept exceeding its rate.
    RateLimited,
    /// The node stops.
    Draining,
    /// It had no user, and a new connection needed its slot.
    Evicted,
    /// A fault of the server.
    Fault,
}

impl EndReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::TransportLost => "transport_lost",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::SlowConsumer => "slow_consumer",
            Self::ReplayOutrun => "replay_outrun",
            Self::ReplayFailed => "replay_failed",
            Self::ProtocolError => "protocol_error",
            Self::AuthenticationTimeout => "authentication_timeout",
            Self::TokenExpired => "token_expired",
            Self::SessionEnded => "session_ended",
            Self::EndedByService => "ended_by_service",
            Self::RateLimited => "rate_limited",
            Self::Draining => "draining",
            Self::Evicted => "evicted",
            Self::Fault => "fault",
        }
    }
}

/// The numbers for the last line of a connection.
pub(super) struct Tally {
    began: Instant,
    /// The connection was logged as opened, and not as closed yet.
    is_open: AtomicBool,
    events: AtomicU32,
    refused: AtomicU32,
    /// The reason that was known before the transport ended.
    end_reason: OnceLock<EndReason>,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            is_open: AtomicBool::new(false),
            events: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            end_reason: OnceLock::new(),
        }
    }

    /// Counts a received event.
    pub fn count_event(&self) {
        // Not one atomic step: only the task that reads from the client counts events.
        let events = self.events.load(Ordering::Relaxed);
        self.events.store(events.wrapping_add(1), Ordering::Relaxed);
    }

    /// Counts a refused event.
    pub fn count_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// Logs that the connection is accepted. Its end is logged only after this.
    pub fn log_opened(&self, origin: &HandshakeOrigin, labels: TransportLabels) {
        self.tally.is_open.store(true, Ordering::Relaxed);
        log_within!(
            self.connections.log,
            target: TARGET,
            conn = %self.conn,
            request_id = origin.request_id.as_deref(),
            client = origin.client.map(|client| tracing::field::display(client.0)),
            transport = labels.transport,
            protocol = labels.protocol,
            "connection opened"
        );
    }

    /// Logs the user that the connection was bound to, if there is one, by its handshake or by the
    /// event `authenticate`.
    pub fn log_authenticated(&self, via: &'static str) {
        let Some(Identity { user, .. }) = self.identity() else {
            return;
        };
        log_within!(
            self.connections.log,
            target: TARGET,
            conn = %self.conn,
            user = user.as_str(),
            auth = self.connections.auth.mode_name(),
            via,
            "connection authenticated"
        );
    }

    /// Logs that `authenticate` was refused. The connection stays open.
    pub(super) fn log_authentication_refused(&self, refusal: &Refusal) {
        log_within!(
            self.connections.log,
            target: TARGET,
            conn = %self.conn,
            code = refusal.code.as_str(),
            reason = &*refusal.text,
            fault = refusal.reason.map(TokenFault::as_str),
            "authentication refused"
        );
    }

    /// Sets the reason for the end of the connection, unless one is known already.
    pub fn set_end_reason(&self, reason: EndReason) {
        // An error means that a reason is known.
        let _ = self.tally.end_reason.set(reason);
    }

    /// Logs the end of the connection, once.
    pub(super) fn log_closed(&self) {
        if !self.tally.is_open.swap(false, Ordering::Relaxed) {
            return;
        }
        let known = self.tally.end_reason.get().copied();
        let reason = known.unwrap_or_else(|| self.transport.end_reason());
        let identity = self.identity();
        log_within!(
            self.connections.log,
            target: TARGET,
            conn = %self.conn,
            user = identity.as_ref().map(|identity| identity.user.as_str()),
            reason = reason.as_str(),
            seconds = self.tally.began.elapsed().as_millis() as f64 / 1000.0,
            events = self.tally.events.load(Ordering::Relaxed),
            refused = self.tally.refused.load(Ordering::Relaxed),
            "connection closed"
        );
    }
}

impl Connections {
    /// Logs a connection that was refused at its handshake or at its CONNECT.
    pub fn log_refused(
        &self,
        origin: &HandshakeOrigin,
        labels: TransportLabels,
        refusal: &Refusal,
    ) {
        log_within!(
            self.log,
            target: TARGET,
            request_id = origin.request_id.as_deref(),
            client = origin.client.map(|client| tracing::field::display(client.0)),
            transport = labels.transport,
            protocol = labels.protocol,
            code = refusal.code.as_str(),
            reason = &*refusal.text,
            fault = refusal.reason.map(TokenFault::as_str),
            "connection refused"
        );
    }
}
