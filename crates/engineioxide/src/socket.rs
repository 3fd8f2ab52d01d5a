//! The layer above's face of a session.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Sid, Str, TransportType};
use http::request::Parts;
use tokio::sync::mpsc::error::TrySendError;

use crate::control::Retained;
use crate::frame::Frame;
use crate::handle::{SendOutcome, SessionHandle};
use crate::handler::EngineIoHandler;
use crate::session::{Farewell, Owner, Session};

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DisconnectReason {
    /// One side closed, or the connection ended.
    TransportClose,
    /// The connection broke, or the client didn't read.
    TransportError,
    /// The client's heartbeat stopped.
    HeartbeatTimeout,
    /// The client polled twice at a time.
    MultipleHttpPollingError,
    /// The client sent what can't be understood.
    PacketParsingError,
    /// The server goes.
    ClosingServer,
}

/// A session, with what the layer above keeps with it.
pub struct Socket<D> {
    /// The session's id.
    pub id: Sid,
    /// The version of Engine.IO that the client speaks.
    pub protocol: ProtocolVersion,
    /// What the layer above keeps.
    pub data: D,
    /// No request's real parts: empty but for the extensions [`Retained`] (if the request had
    /// it) and [`SessionHandle`].
    pub req_parts: Parts,
    session: Arc<Session>,
}

impl<D: Default> Socket<D> {
    pub(crate) fn new(session: Arc<Session>, retained: Option<Retained>) -> Arc<Self> {
        let (mut req_parts, ()) = http::Request::new(()).into_parts();
        if let Some(retained) = retained {
            req_parts.extensions.insert(retained);
        }
        req_parts
            .extensions
            .insert(SessionHandle::new(session.clone()));
        Arc::new(Self {
            id: session.id,
            protocol: session.protocol,
            data: D::default(),
            req_parts,
            session,
        })
    }
}

impl<D> Socket<D> {
    /// A permit to send. It holds no room: the outbox is bounded by bytes, and a session that
    /// overflows is closed.
    ///
    /// # Errors
    /// `Closed` if the session is over or about to be. Never `Full`.
    pub fn reserve(&self) -> Result<Permit<'_>, TrySendError<()>> {
        if self.session.is_open() {
            Ok(Permit {
                session: &self.session,
            })
        } else {
            Err(TrySendError::Closed(()))
        }
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// `Closed`, with the message, if the session is over or the outbox overflowed, which ends
    /// it. Never `Full`.
    pub fn emit(&self, msg: impl Into<Str>) -> Result<(), TrySendError<Str>> {
        let msg = msg.into();
        sent(self.session.send(Frame::text(&msg)), msg)
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// As [`emit`](Self::emit).
    pub fn emit_binary(&self, data: impl Into<Bytes>) -> Result<(), TrySendError<Bytes>> {
        let data = data.into();
        sent(self.session.send(Frame::binary(&data, self.protocol)), data)
    }

    /// Sends a text message and binary ones right behind it, all or none.
    ///
    /// # Errors
    /// As [`emit`](Self::emit).
    pub fn emit_many(
        &self,
        msg: impl Into<Str>,
        data: VecDeque<Bytes>,
    ) -> Result<(), TrySendError<(Str, VecDeque<Bytes>)>> {
        let msg = msg.into();
        let frames = many(&msg, &data, self.protocol);
        sent(self.session.send_all(frames), (msg, data))
    }

    /// Sends a text message if the session is open and less than half of its outbox is in use;
    /// otherwise the message is dropped. Returns whether it was sent.
    pub fn emit_volatile(&self, msg: impl Into<Str>) -> bool {
        self.session.has_room() && self.emit(msg).is_ok()
    }

    /// As [`emit_volatile`](Self::emit_volatile), of a binary message.
    pub fn emit_binary_volatile(&self, data: impl Into<Bytes>) -> bool {
        self.session.has_room() && self.emit_binary(data).is_ok()
    }

    /// As [`emit_volatile`](Self::emit_volatile), of a text message with binary ones.
    pub fn emit_many_volatile(&self, msg: impl Into<Str>, data: VecDeque<Bytes>) -> bool {
        self.session.has_room() && self.emit_many(msg, data).is_ok()
    }

    /// Closes the transport at once; see [`SessionHandle::close`].
    pub fn close(&self, reason: DisconnectReason) {
        let farewell = match reason {
            DisconnectReason::PacketParsingError => Farewell::Code(1002),
            DisconnectReason::ClosingServer => Farewell::Code(1001),
            _ => Farewell::Refuse,
        };
        self.session.close(reason, farewell);
    }

    /// Resolves when the session is over and `on_disconnect` has returned. Safe to cancel.
    pub async fn closed(&self) {
        self.session.closed().await;
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// What carries the session now.
    pub fn transport_type(&self) -> TransportType {
        self.session.transport()
    }
}

impl<D> fmt::Debug for Socket<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("id", &self.id)
            .field("protocol", &self.protocol)
            .finish()
    }
}

/// A permit to send one message. What is sent on a session that has closed since is lost, as the
/// session is.
pub struct Permit<'a> {
    session: &'a Arc<Session>,
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.session.id).finish()
    }
}

impl Permit<'_> {
    /// Sends a text message.
    pub fn emit(self, msg: Str) {
        self.session.send(Frame::text(&msg));
    }

    /// Sends a binary message.
    pub fn emit_binary(self, data: Bytes) {
        self.session
            .send(Frame::binary(&data, self.session.protocol));
    }

    /// Sends a text message and binary ones right behind it.
    pub fn emit_many(self, msg: Str, data: VecDeque<Bytes>) {
        let frames = many(&msg, &data, self.session.protocol);
        self.session.send_all(frames);
    }
}

fn many(msg: &Str, data: &VecDeque<Bytes>, protocol: ProtocolVersion) -> Vec<Frame> {
    let binary = data.iter().map(|data| Frame::binary(data, protocol));
    std::iter::once(Frame::text(msg)).chain(binary).collect()
}

fn sent<T>(outcome: SendOutcome, message: T) -> Result<(), TrySendError<T>> {
    match outcome {
        SendOutcome::Queued => Ok(()),
        // Never busy: nobody here says how much may be unwritten.
        SendOutcome::Overflow | SendOutcome::Busy | SendOutcome::Closed => {
            Err(TrySendError::Closed(message))
        }
    }
}

/// A handler and its socket, as the session sees them.
pub(crate) struct Bound<H: EngineIoHandler> {
    handler: Arc<H>,
    socket: Arc<Socket<H::Data>>,
}

impl<H: EngineIoHandler> Bound<H> {
    /// Lets the handler meet the session, then binds it.
    pub(crate) fn connect(handler: &Arc<H>, session: &Arc<Session>, retained: Option<Retained>) {
        let socket = Socket::new(session.clone(), retained);
        handler.clone().on_connect(socket.clone());
        session.attach(Arc::new(Self {
            handler: handler.clone(),
            socket,
        }));
    }
}

impl<H: EngineIoHandler> Owner for Bound<H> {
    fn message(&self, text: Str) {
        self.handler.on_message(text, self.socket.clone());
    }

    fn binary(&self, data: Bytes) {
        self.handler.on_binary(data, self.socket.clone());
    }

    fn disconnected(&self, reason: DisconnectReason) {
        self.handler.on_disconnect(self.socket.clone(), reason);
    }
}
