//! The API of a session for the layer above.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Sid, Str, TransportType};
use http::request::Parts;
use tokio::sync::mpsc::error::TrySendError;

use crate::control::{Retained, SessionData};
use crate::frame::Frame;
use crate::handle::{SendOutcome, SessionHandle};
use crate::handler::EngineIoHandler;
use crate::session::{CloseMode, Session, SessionHandler};

/// The reason why a session was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DisconnectReason {
    /// One side closed the session, or the connection ended.
    TransportClose,
    /// The connection broke, or the client did not read.
    TransportError,
    /// The client's heartbeat stopped.
    HeartbeatTimeout,
    /// The client sent a poll while another one was waiting.
    MultipleHttpPollingError,
    /// The client sent data that cannot be decoded.
    PacketParsingError,
    /// The server is shutting down.
    ClosingServer,
}

/// A session, with the data that the layer above keeps with it.
pub struct Socket<D> {
    /// The session's id.
    pub id: Sid,
    /// The Engine.IO version that the client speaks.
    pub protocol: ProtocolVersion,
    /// The data of the layer above.
    pub data: D,
    /// Not the parts of a real request: they are empty except for the extensions [`Retained`] (if
    /// the request had it) and [`SessionHandle`].
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
    /// The application's data of this session.
    fn retained(&self) -> Option<&dyn SessionData> {
        let retained = self.req_parts.extensions.get::<Retained>()?;
        Some(&*retained.0)
    }

    /// A permit to send. It reserves no capacity: the outbox is bounded by bytes and frames, and a
    /// session that exceeds a bound is closed.
    ///
    /// # Errors
    /// `Closed` if the session is closed or is being flushed before its close. Never `Full`.
    pub fn reserve(&self) -> Result<Permit<'_>, TrySendError<()>> {
        if self.session.is_open() {
            Ok(Permit {
                session: &self.session,
                retained: self.retained(),
            })
        } else {
            Err(TrySendError::Closed(()))
        }
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// `Closed`, with the message, if the session is closed or the message overflows the outbox,
    /// which closes the session. Never `Full`.
    pub fn emit(&self, msg: impl Into<Str>) -> Result<(), TrySendError<Str>> {
        let msg = msg.into();
        match text_frame(&self.session, self.retained(), &msg) {
            Some(frame) => send_result(self.session.send(frame), msg),
            None => Ok(()),
        }
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// As [`emit`](Self::emit).
    pub fn emit_binary(&self, data: impl Into<Bytes>) -> Result<(), TrySendError<Bytes>> {
        let data = data.into();
        send_result(self.session.send(Frame::binary(&data, self.protocol)), data)
    }

    /// Sends a text message directly followed by binary ones: all of them or none.
    ///
    /// # Errors
    /// As [`emit`](Self::emit).
    pub fn emit_many(
        &self,
        msg: impl Into<Str>,
        data: VecDeque<Bytes>,
    ) -> Result<(), TrySendError<(Str, VecDeque<Bytes>)>> {
        let msg = msg.into();
        let frames = text_and_binary_frames(&msg, &data, self.protocol);
        send_result(self.session.send_all(frames), (msg, data))
    }

    /// Sends a text message if the session is open and less than half of its outbox is in use;
    /// otherwise the message is dropped. Returns whether it was sent.
    pub fn emit_volatile(&self, msg: impl Into<Str>) -> bool {
        self.session.has_capacity() && self.emit(msg).is_ok()
    }

    /// As [`emit_volatile`](Self::emit_volatile), for a binary message.
    pub fn emit_binary_volatile(&self, data: impl Into<Bytes>) -> bool {
        self.session.has_capacity() && self.emit_binary(data).is_ok()
    }

    /// As [`emit_volatile`](Self::emit_volatile), for a text message followed by binary ones.
    pub fn emit_many_volatile(&self, msg: impl Into<Str>, data: VecDeque<Bytes>) -> bool {
        self.session.has_capacity() && self.emit_many(msg, data).is_ok()
    }

    /// Closes the transport at once; see [`SessionHandle::close`].
    pub fn close(&self, reason: DisconnectReason) {
        let close_mode = match reason {
            DisconnectReason::PacketParsingError => CloseMode::Code(1002),
            DisconnectReason::ClosingServer => CloseMode::Code(1001),
            _ => CloseMode::Refuse,
        };
        self.session.close(reason, close_mode);
    }

    /// Resolves when the session is closed and `on_disconnect` has returned. Cancel-safe.
    pub async fn closed(&self) {
        self.session.closed().await;
    }

    /// Whether the session is closed.
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// The session's current transport.
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

/// A permit to send one message. If the session has been closed since the permit was issued, the
/// message is lost with the session.
pub struct Permit<'a> {
    session: &'a Arc<Session>,
    retained: Option<&'a dyn SessionData>,
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.session.id).finish()
    }
}

impl Permit<'_> {
    /// Sends a text message.
    pub fn emit(self, msg: Str) {
        if let Some(frame) = text_frame(self.session, self.retained, &msg) {
            self.session.send(frame);
        }
    }

    /// Sends a binary message.
    pub fn emit_binary(self, data: Bytes) {
        self.session
            .send(Frame::binary(&data, self.session.protocol));
    }

    /// Sends a text message directly followed by binary ones.
    pub fn emit_many(self, msg: Str, data: VecDeque<Bytes>) {
        let frames = text_and_binary_frames(&msg, &data, self.session.protocol);
        self.session.send_all(frames);
    }
}

/// The frame for a text message of the layer above, or `None` if the application's data of the
/// session suppresses it.
fn text_frame(
    session: &Arc<Session>,
    retained: Option<&dyn SessionData>,
    text: &str,
) -> Option<Frame> {
    match retained {
        Some(data) => data.outgoing_text(&SessionHandle::new(session.clone()), text),
        None => Some(Frame::text(text)),
    }
}

fn text_and_binary_frames(
    msg: &Str,
    data: &VecDeque<Bytes>,
    protocol: ProtocolVersion,
) -> Vec<Frame> {
    let binary = data.iter().map(|data| Frame::binary(data, protocol));
    std::iter::once(Frame::text(msg)).chain(binary).collect()
}

fn send_result<T>(outcome: SendOutcome, message: T) -> Result<(), TrySendError<T>> {
    match outcome {
        SendOutcome::Queued => Ok(()),
        // `Busy` cannot occur: these sends set no bound on unwritten bytes.
        SendOutcome::Overflow | SendOutcome::Busy | SendOutcome::Closed => {
            Err(TrySendError::Closed(message))
        }
    }
}

/// A handler together with its socket, as the session calls them.
pub(crate) struct BoundHandler<H: EngineIoHandler> {
    handler: Arc<H>,
    socket: Arc<Socket<H::Data>>,
}

impl<H: EngineIoHandler> BoundHandler<H> {
    /// Calls the handler's `on_connect`, then attaches the handler to the session.
    pub(crate) fn connect(handler: &Arc<H>, session: &Arc<Session>, retained: Option<Retained>) {
        let socket = Socket::new(session.clone(), retained);
        if let Some(data) = socket.retained() {
            data.opened(&SessionHandle::new(session.clone()));
        }
        handler.clone().on_connect(socket.clone());
        session.attach_handler(Arc::new(Self {
            handler: handler.clone(),
            socket,
        }));
    }
}

impl<H: EngineIoHandler> SessionHandler for BoundHandler<H> {
    fn on_message(&self, text: Str) {
        self.handler.on_message(text, self.socket.clone());
    }

    fn on_binary(&self, data: Bytes) {
        let unhandled = match self.socket.retained() {
            Some(retained) => {
                let handle = SessionHandle::new(self.socket.session.clone());
                retained.incoming_binary(&handle, data)
            }
            None => Some(data),
        };
        if let Some(data) = unhandled {
            self.handler.on_binary(data, self.socket.clone());
        }
    }

    fn on_disconnect(&self, reason: DisconnectReason) {
        self.handler.on_disconnect(self.socket.clone(), reason);
    }
}
