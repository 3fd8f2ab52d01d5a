//! The data kept from a session's handshake, and the packets that the session handles without
//! socketioxide.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use engineioxide::{Frame, Intercept, ProtocolVersion, SessionData, SessionHandle};

use super::early::EarlyEvents;
use super::{labels, msgpack, packet};
use crate::domain::Refusal;
use crate::gateway::connections::{Connections, EndReason, HandshakeOrigin};
use crate::server::admission::ConnectionSlot;

/// How long the refusal of an unsupported parser may take to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The data kept from a transport's handshake, and the state of the transport.
pub struct Handshake {
    connections: Arc<Connections>,
    /// The token in the query or in the `Authorization` header.
    token: Option<String>,
    /// The client's address, and the id of the HTTP request.
    origin: HandshakeOrigin,
    /// The transport's slot in the limits on connections, released when the transport is gone.
    slot: ConnectionSlot,
    /// Connections on the transport: CONNECTs that were accepted, and not followed by a DISCONNECT.
    open_connections: AtomicU32,
    /// CONNECTs received, including refused ones.
    connects: AtomicU32,
    /// Why the server has closed the transport, if the session does not know it.
    end_reason: Arc<OnceLock<EndReason>>,
    /// Only on Engine.IO 3.
    early: OnceLock<Arc<EarlyEvents>>,
}

impl Handshake {
    /// The handshake of a new transport.
    #[must_use]
    pub fn new(
        token: Option<String>,
        origin: HandshakeOrigin,
        slot: ConnectionSlot,
        connections: Arc<Connections>,
    ) -> Self {
        Self {
            connections,
            token,
            origin,
            slot,
            open_connections: AtomicU32::new(0),
            connects: AtomicU32::new(0),
            end_reason: Arc::default(),
            early: OnceLock::new(),
        }
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(super) fn origin(&self) -> &HandshakeOrigin {
        &self.origin
    }

    /// Delivery closes the transport for that reason.
    pub(super) fn mark_closed(&self, reason: EndReason) {
        // An error means that another reason came first.
        let _ = self.end_reason.set(reason);
    }

    /// The reason for which the server has closed the transport, if the session does not know it.
    pub(super) fn end_reason(&self) -> Option<EndReason> {
        self.end_reason.get().copied()
    }

    /// Passes the events that came before the connection was accepted to their receiver.
    pub(super) fn pass_early_events(&self, receiver: &Arc<dyn Intercept>) {
        if let Some(early) = self.early.get() {
            early.pass_to(receiver);
        }
    }

    /// Drops the events that came before the connection was refused.
    pub(super) fn drop_early_events(&self) {
        if let Some(early) = self.early.get() {
            early.refuse();
        }
    }

    /// Logs that a connection on the transport was refused.
    pub(super) fn log_refused(&self, session: &SessionHandle, refusal: &Refusal) {
        self.connections
            .log_refused(&self.origin, labels(session), refusal);
    }

    /// Counts a CONNECT, and returns the number of CONNECTs so far.
    pub(super) fn count_connect(&self) -> u32 {
        self.connects.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn has_open_connection(&self) -> bool {
        self.open_connections.load(Ordering::Acquire) > 0
    }
}

impl SessionData for Handshake {
    /// From now on the transport can be closed for a new one, if it has no user. On Engine.IO 3,
    /// events may come before the connection is accepted.
    fn opened(&self, session: &SessionHandle) {
        if session.protocol() == ProtocolVersion::V3 {
            let waiting_bytes = self.connections.waiting_bytes();
            let early = || Arc::new(EarlyEvents::new(waiting_bytes));
            session.intercept(self.early.get_or_init(early).clone());
        }
        let (session, end_reason) = (session.clone(), self.end_reason.clone());
        self.slot.make_evictable(Arc::new(move || {
            let _ = end_reason.set(EndReason::Evicted);
            session.close();
        }));
    }

    /// Refuses a client with the msgpack parser, whose CONNECT is binary. Otherwise the session
    /// would be closed for a malformed packet, and the client would reconnect again and again.
    fn incoming_binary(&self, session: &SessionHandle, data: Bytes) -> Option<Bytes> {
        // After a CONNECT, binary messages are attachments.
        if self.connects.load(Ordering::Relaxed) > 0 {
            return Some(data);
        }
        let Some(namespace) = msgpack::namespace_of_connect(&data) else {
            return Some(data);
        };
        msgpack::warn();
        self.log_refused(session, &Refusal::bad_request("msgpack is not supported"));
        session.send_binary(&msgpack::connect_error(namespace));
        session.send_binary(&msgpack::disconnect(namespace));
        session.close_after_flush(FLUSH_TIMEOUT);
        None
    }

    /// Replaces the refusals that socketioxide sends.
    fn outgoing_text(&self, session: &SessionHandle, text: &str) -> Option<Frame> {
        match packet::namespace_of_connect_error(text) {
            // The gateway has sent its own.
            Some("/") => None,
            Some(name) => {
                self.log_refused(session, &Refusal::bad_request("the namespace is invalid"));
                Some(packet::invalid_namespace(session.protocol(), name))
            }
            None => Some(Frame::text(text)),
        }
    }
}

/// Counts a connection on its transport until dropped.
pub(super) struct OpenConnection(Arc<Handshake>);

impl OpenConnection {
    pub fn on(handshake: &Arc<Handshake>) -> Self {
        handshake.open_connections.fetch_add(1, Ordering::AcqRel);
        Self(handshake.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open_connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Counts a connection with a user in its transport's slot until dropped.
pub(super) struct AuthenticatedConnection(Arc<Handshake>);

impl AuthenticatedConnection {
    pub fn on(handshake: &Arc<Handshake>) -> Self {
        handshake.slot.add_authenticated();
        Self(handshake.clone())
    }
}

impl Drop for AuthenticatedConnection {
    fn drop(&mut self) {
        self.0.slot.remove_authenticated();
    }
}
