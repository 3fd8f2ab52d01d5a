//! The application's handle of one session, whatever the layers between keep with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use engineioxide_core::{ProtocolVersion, Sid, Str, TransportType};

use crate::frame::Frame;
use crate::session::{Farewell, Session};
use crate::socket::DisconnectReason;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// It is in the outbox, and will be written unless the transport dies.
    Queued,
    /// The outbox would have passed `outbox_bytes`: the frame isn't sent, and the transport is
    /// closed.
    Overflow,
    /// As much is unwritten as the caller said, or the frame doesn't fit: it isn't sent, and nothing else happens.
    Busy,
    /// The session is closed, or closes after its flush.
    Closed,
}

/// Takes texts of a session before the layer above does.
pub trait Intercept: Send + Sync {
    /// A text message, in the order of arrival, in the stack of the session's own task: must not block. `Err` gives it
    /// back, and the layer above gets it.
    ///
    /// # Errors
    /// The text, when it isn't taken.
    fn text(&self, text: Str) -> Result<(), Str>;
}

/// A handle of one session. Cheap to clone and to keep: a closed session's handle holds little.
#[derive(Clone)]
pub struct SessionHandle(Arc<Session>);

impl SessionHandle {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self(session)
    }

    /// The session's id.
    pub fn id(&self) -> Sid {
        self.0.id
    }

    /// The version of Engine.IO that the client speaks.
    pub fn protocol(&self) -> ProtocolVersion {
        self.0.protocol
    }

    /// What carries the session now.
    pub fn transport(&self) -> TransportType {
        self.0.transport()
    }

    /// Puts a frame at the outbox's end. Never blocks, never drops a frame and goes on.
    pub fn send(&self, frame: &Frame) -> SendOutcome {
        self.0.send(frame.clone())
    }

    /// As [`send`](Self::send), if fewer bytes than that are unwritten and the frame fits. Nothing is closed otherwise.
    pub fn send_below(&self, unwritten: usize, frame: &Frame) -> SendOutcome {
        self.0.send_below(unwritten, frame)
    }

    /// Bytes not yet written to the transport. For polling, bytes not yet handed to HTTP.
    pub fn unwritten(&self) -> usize {
        self.0.unwritten()
    }

    /// Calls `then` once, as soon as fewer than `bytes` are unwritten or the session is closed.
    /// The call is always made on a task of this layer, never in the stack of whoever calls
    /// `when_below`, [`send`](Self::send) or [`close`](Self::close), so it may take any lock;
    /// it must not block. Read [`unwritten`](Self::unwritten) first where that saves the trip.
    pub fn when_below(&self, bytes: usize, then: Box<dyn FnOnce() + Send>) {
        self.0.when_below(bytes, then);
    }

    /// Lets `intercept` see every text that comes from now on, in place of whoever did before. It is let go at the session's
    /// end; a session that is over doesn't take it.
    pub fn intercept(&self, intercept: Arc<dyn Intercept>) {
        self.0.intercept(intercept);
    }

    /// Closes the transport at once: what is unwritten is lost. A WebSocket gets a close frame,
    /// if it takes one, and the TCP connection ends; a waiting poll is answered with 400. Clients
    /// see a broken transport and come back by themselves. `on_disconnect` follows on a task of
    /// this layer.
    pub fn close(&self) {
        self.0
            .close(DisconnectReason::TransportClose, Farewell::Refuse);
    }

    /// Takes no more frames, and closes the transport as [`close`](Self::close) does when what
    /// is queued has been written, at the latest after `limit`.
    pub fn close_after_flush(&self, limit: Duration) {
        self.0.close_after_flush(limit);
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Resolves when the session is over and `on_disconnect` has returned. Safe to cancel.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionHandle").field(&self.0.id).finish()
    }
}
