//! The application's handle of one session. It does not depend on the layer above's own data.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use engineioxide_core::{ProtocolVersion, Sid, Str, TransportType};

use crate::frame::Frame;
use crate::session::{CloseMode, Session};
use crate::socket::DisconnectReason;

/// The outcome of sending a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// The frame is in the outbox and will be written unless the transport breaks.
    Queued,
    /// The frame would have exceeded a limit of the outbox. It is not sent, and the transport is
    /// closed.
    Overflow,
    /// As many bytes as the caller allowed are already unwritten, or the frame does not fit. It is
    /// not sent; the session is unaffected.
    Busy,
    /// The session is closed, or is being flushed before its close.
    Closed,
}

/// Receives a session's text messages before the layer above does.
pub trait Intercept: Send + Sync {
    /// A text message, in the order of arrival. Called on the stack of the session's own task; must
    /// not block.
    ///
    /// # Errors
    /// Returns the text if it is not handled; the layer above then receives it.
    fn text(&self, text: Str) -> Result<(), Str>;
}

/// A handle of one session. Cheap to clone and to keep: the handle of a closed session holds little
/// memory.
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

    /// The Engine.IO version that the client speaks.
    pub fn protocol(&self) -> ProtocolVersion {
        self.0.protocol
    }

    /// The session's current transport.
    pub fn transport(&self) -> TransportType {
        self.0.transport()
    }

    /// Appends a frame to the outbox. Never blocks. A frame that does not fit is not skipped: it
    /// closes the session.
    pub fn send(&self, frame: &Frame) -> SendOutcome {
        self.0.send(frame.clone())
    }

    /// Appends a binary message to the outbox, as [`send`](Self::send) does for a frame.
    pub fn send_binary(&self, data: &[u8]) -> SendOutcome {
        self.0.send(Frame::binary(data, self.0.protocol))
    }

    /// As [`send`](Self::send), but only if fewer than `unwritten` bytes are unwritten and the
    /// frame fits. Otherwise the frame is not sent and the session stays open.
    pub fn send_below(&self, unwritten: usize, frame: &Frame) -> SendOutcome {
        self.0.send_below(unwritten, frame)
    }

    /// Bytes not yet written to the transport. For polling, bytes that HTTP has not taken yet.
    pub fn unwritten(&self) -> usize {
        self.0.unwritten()
    }

    /// Calls `then` once, as soon as fewer than `bytes` are unwritten or the session is closed.
    /// `then` always runs on a task of this layer and never on the stack of the code that calls
    /// `when_below`, [`send`](Self::send) or [`close`](Self::close). It may therefore take any
    /// lock, but it must not block. Check [`unwritten`](Self::unwritten) first where that avoids
    /// the detour.
    pub fn when_below(&self, bytes: usize, then: Box<dyn FnOnce() + Send>) {
        self.0.when_below(bytes, then);
    }

    /// Passes every text message from now on to `intercept`, which replaces an earlier interceptor.
    /// The session drops it when it closes; a closed session drops it at once.
    pub fn intercept(&self, intercept: Arc<dyn Intercept>) {
        self.0.intercept(intercept);
    }

    /// Closes the transport at once; unwritten data is lost. The TCP connection of a
    /// WebSocket ends without a close frame; a waiting poll is answered with status 400. Clients
    /// see a broken transport and reconnect by themselves. `on_disconnect` is called
    /// afterwards, on a task of this layer.
    pub fn close(&self) {
        self.0
            .close(DisconnectReason::TransportClose, CloseMode::Refuse);
    }

    /// Accepts no more frames, and closes the transport as [`close`](Self::close) does when all
    /// queued data has been written, but no later than after `limit`. While the session is
    /// [held](Self::hold), it still accepts frames and stays open until `limit`.
    pub fn close_after_flush(&self, limit: Duration) {
        self.0.close_after_flush(limit);
    }

    /// A frame is still to come that [`close_after_flush`](Self::close_after_flush) has to wait
    /// for. Each call needs a call of [`release`](Self::release) once the frame was sent.
    pub fn hold(&self) {
        self.0.hold();
    }

    /// Takes back a call of [`hold`](Self::hold).
    pub fn release(&self) {
        self.0.release();
    }

    /// Whether the session is closed.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// The reason of the close, or `None` while the session is open.
    pub fn close_reason(&self) -> Option<DisconnectReason> {
        self.0.close_reason()
    }

    /// Whether the session was closed because the client did not read.
    pub fn is_slow_consumer(&self) -> bool {
        self.0.is_slow_consumer()
    }

    /// Resolves when the session is closed and `on_disconnect` has returned. Cancel-safe.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionHandle").field(&self.0.id).finish()
    }
}
