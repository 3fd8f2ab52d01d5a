//! What the layer above implements to hear of sessions and messages.

use std::sync::Arc;

use bytes::Bytes;
use engineioxide_core::Str;

use crate::socket::{DisconnectReason, Socket};

/// Hears of sessions and their messages. All calls are synchronous and must not block: the
/// connection's task makes them, and reads no further meanwhile.
///
/// For every `on_connect` there is exactly one `on_disconnect`, after `on_connect` has returned.
/// A session's messages come one after another, in the order in which they were sent. At the
/// moment of a close from elsewhere, a message may still be in `on_message` while
/// `on_disconnect` begins.
pub trait EngineIoHandler: Send + Sync + 'static {
    /// What is kept with each session.
    type Data: Default + Send + Sync + 'static;

    /// A session has begun. What is emitted here goes out right after the open packet.
    fn on_connect(self: Arc<Self>, socket: Arc<Socket<Self::Data>>);

    /// The session is over; nothing can be sent any more.
    fn on_disconnect(&self, socket: Arc<Socket<Self::Data>>, reason: DisconnectReason);

    /// A text message.
    fn on_message(self: &Arc<Self>, msg: Str, socket: Arc<Socket<Self::Data>>);

    /// A binary message.
    fn on_binary(self: &Arc<Self>, data: Bytes, socket: Arc<Socket<Self::Data>>);
}
