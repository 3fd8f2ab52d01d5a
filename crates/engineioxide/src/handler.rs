//! The trait that the layer above implements to receive sessions and their messages.

use std::sync::Arc;

use bytes::Bytes;
use engineioxide_core::Str;

use crate::socket::{DisconnectReason, Socket};

/// Receives sessions and their messages. All calls are synchronous and must not block: they are
/// made on the connection's task, which reads no further input until the call returns.
///
/// For every `on_connect` there is exactly one `on_disconnect`, after `on_connect` has returned.
/// The messages of one session are delivered one at a time, in the order in which they were sent.
/// When a session is closed from elsewhere, `on_disconnect` may begin while `on_message` still
/// runs.
pub trait EngineIoHandler: Send + Sync + 'static {
    /// The data that the layer above keeps with each session.
    type Data: Default + Send + Sync + 'static;

    /// A session has begun. Messages emitted here are sent right after the open packet.
    fn on_connect(self: Arc<Self>, socket: Arc<Socket<Self::Data>>);

    /// The session is closed; nothing can be sent any more.
    fn on_disconnect(&self, socket: Arc<Socket<Self::Data>>, reason: DisconnectReason);

    /// A text message has arrived.
    fn on_message(self: &Arc<Self>, msg: Str, socket: Arc<Socket<Self::Data>>);

    /// A binary message has arrived.
    fn on_binary(self: &Arc<Self>, data: Bytes, socket: Arc<Socket<Self::Data>>);
}
