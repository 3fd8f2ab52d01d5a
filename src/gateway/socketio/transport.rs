//! A Socket.IO session as its connection sees it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use engineioxide::{DisconnectReason, Frame, SessionHandle};
use parking_lot::Mutex;

use super::handshake::AuthenticatedConnection;
use super::outlet::SocketIoOutlet;
use super::{Handshake, OpenConnection, packet};
use crate::delivery::Outlet;
use crate::domain::{ConnId, Limits, Refusal, UserId};
use crate::gateway::connections::{
    ClientTransport, CloseReason, Connections, EndReason, EventText, IncomingEvent,
    OutboxThresholds, ReplyTo, decode_event,
};
use crate::gateway::wire::{Envelope, Exception, ServerEvent, parse_packet, to_json};

/// How long a client that was sent DISCONNECT has to close the transport itself.
const CLIENT_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time that a transport may stay open without a connection, after a refused CONNECT or
/// a DISCONNECT.
const UNUSED_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a last packet may take to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct SocketIoTransport {
    connections: Arc<Connections>,
    handle: SessionHandle,
    handshake: Arc<Handshake>,
    /// Dropped when the connection ends.
    open_connection: Mutex<Option<OpenConnection>>,
    /// Set when the connection has a user, and dropped when it ends.
    authenticated: Mutex<Option<AuthenticatedConnection>>,
}

/// Whether the transport still exists and no connection is open on it. The handshake is held
/// weakly, so that its slot is released as soon as the transport is gone.
fn is_unused(handshake: &Weak<Handshake>) -> bool {
    handshake
        .upgrade()
        .is_some_and(|handshake| !handshake.has_open_connection())
}

impl SocketIoTransport {
    pub fn new(
        connections: &Arc<Connections>,
        handle: SessionHandle,
        handshake: Arc<Handshake>,
    ) -> Self {
        let open_connection = Mutex::new(Some(OpenConnection::on(&handshake)));
        Self {
            connections: connections.clone(),
            handle,
            handshake,
            open_connection,
            authenticated: Mutex::default(),
        }
    }

    /// Closes the session at once. The client reconnects by itself.
    pub fn close_now(&self) {
        self.handle.close();
    }

    /// Closes the transport after a refused CONNECT, unless another CONNECT on it is accepted within
    /// [`UNUSED_TIMEOUT`].
    ///
    /// After a refused CONNECT, a client does not reconnect by itself, and may close the transport
    /// in that time. DISCONNECT is sent before the close: without it, JavaScript clients before
    /// version 4 take the close for a broken transport, reconnect and are refused again, endlessly.
    pub fn close_after_refused_connect(&self) {
        let handle = self.handle.clone();
        self.if_unused_after_timeout(move || {
            handle.send(&packet::disconnect());
            handle.close_after_flush(FLUSH_TIMEOUT);
        });
    }

    /// Runs the action if no connection is open on the transport after [`UNUSED_TIMEOUT`], or the
    /// time for authentication if that is shorter.
    fn if_unused_after_timeout(&self, action: impl FnOnce() + Send + 'static) {
        let handshake = Arc::downgrade(&self.handshake);
        let auth_timeout = self.connections.messaging().limits().auth_timeout;
        let timeout = UNUSED_TIMEOUT.min(auth_timeout);
        let run = move || {
            if is_unused(&handshake) {
                action();
            }
        };
        self.connections.call_after(timeout, Box::new(run));
    }
}

impl ClientTransport for SocketIoTransport {
    fn decode(&self, text: &EventText, limits: &Limits) -> IncomingEvent {
        let (name, mut request) = decode_event(parse_packet(text.json(), limits), limits);
        if request.is_ok() && text.has_attachments() {
            let refusal = Refusal::bad_request("the payload must not hold attachments");
            request = Err(refusal);
        }
        IncomingEvent {
            name,
            reply_to: text.ack().map_or(ReplyTo::None, ReplyTo::Ack),
            request,
        }
    }

    fn acknowledge(&self, reply_to: &ReplyTo, json: &str) {
        if let ReplyTo::Ack(id) = reply_to {
            self.handle.send(&packet::ack(*id, json));
        }
    }

    fn send_event(&self, event: ServerEvent, json: &str) {
        self.handle
            .send(&Frame::text(&Envelope::SocketIo.wrap(event, json)));
    }

    fn outlet(&self, conn: &ConnId, user: &UserId) -> Arc<dyn Outlet> {
        Arc::new(SocketIoOutlet {
            conn: conn.clone(),
            user: user.clone(),
            handle: self.handle.clone(),
            thresholds: OutboxThresholds::of(self.connections.outbox_bytes()),
            handshake: self.handshake.clone(),
        })
    }

    fn unwritten(&self) -> usize {
        self.handle.unwritten()
    }

    fn when_below(&self, bytes: usize, then: Box<dyn FnOnce() + Send>) {
        self.handle.when_below(bytes, then);
    }

    fn hold(&self) {
        self.handle.hold();
    }

    fn release(&self) {
        self.handle.release();
    }

    fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    fn end_reason(&self) -> EndReason {
        if let Some(reason) = self.handshake.end_reason() {
            return reason;
        }
        if self.handle.is_slow_consumer() {
            return EndReason::SlowConsumer;
        }
        match self.handle.close_reason() {
            // The client has left the namespace.
            None => EndReason::ClientClosed,
            Some(DisconnectReason::HeartbeatTimeout) => EndReason::HeartbeatTimeout,
            Some(
                DisconnectReason::MultipleHttpPollingError | DisconnectReason::PacketParsingError,
            ) => EndReason::ProtocolError,
            Some(DisconnectReason::TransportError) => EndReason::TransportLost,
            // Closed by the client, or by the drain.
            Some(DisconnectReason::TransportClose | DisconnectReason::ClosingServer) => {
                if self.connections.is_draining() {
                    EndReason::Draining
                } else {
                    EndReason::ClientClosed
                }
            }
        }
    }

    fn close(&self, _: CloseReason) {
        self.handle.close();
    }

    fn disconnect(&self, refusal: &Refusal) {
        let json = to_json(&Exception::of(refusal, None));
        self.send_event(ServerEvent::Exception, &json);
        self.handle.send(&packet::disconnect());
        let handle = self.handle.clone();
        self.connections
            .call_after(CLIENT_CLOSE_TIMEOUT, Box::new(move || handle.close()));
    }

    fn mark_authenticated(&self) {
        let mut authenticated = self.authenticated.lock();
        if authenticated.is_none() {
            *authenticated = Some(AuthenticatedConnection::on(&self.handshake));
        }
    }

    /// The client may have left the namespace only, with its transport still open. The transport is
    /// closed after [`UNUSED_TIMEOUT`] unless the client comes back: otherwise a client could keep a
    /// transport open without ever authenticating.
    fn connection_ended(&self) {
        drop(self.authenticated.lock().take());
        let was_open = self.open_connection.lock().take().is_some();
        if !was_open || self.handle.is_closed() {
            return;
        }
        let handle = self.handle.clone();
        self.if_unused_after_timeout(move || handle.close());
    }
}
