//! The interface between a connection and the transport that carries it, which Socket.IO and plain
//! WebSockets implement: decoding of events, sending, and closing.

use std::sync::Arc;

use super::events::{Request, RequestName};
use super::inbox::EventText;
use super::log::EndReason;
use super::reply::ReplyTo;
use crate::delivery::Outlet;
use crate::domain::{ConnId, Limits, Refusal, UserId};
use crate::gateway::wire::ServerEvent;

/// An event, decoded.
pub struct IncomingEvent {
    /// Its name, for the refusal.
    pub name: RequestName,
    /// The address of the reply.
    pub reply_to: ReplyTo,
    /// The request, or the reason why it is not valid.
    pub request: Result<Request, Refusal>,
}

/// Why the server closes a transport in such a way that the client reconnects by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client kept sending although its events were refused for its rate.
    RateLimitAbuse,
    /// An internal error.
    Fault,
    /// The client did not authenticate in time.
    NotAuthenticated,
}

/// One client's transport. No method blocks.
pub trait ClientTransport: Send + Sync {
    /// Decodes an event.
    fn decode(&self, text: &EventText, limits: &Limits) -> IncomingEvent;
    /// Acknowledges a request with that JSON object. Does nothing for [`ReplyTo::None`].
    fn acknowledge(&self, reply_to: &ReplyTo, json: &str);
    /// Sends an event with that JSON object.
    fn send_event(&self, event: ServerEvent, json: &str);
    /// Makes the outlet by which delivery sends to the client, once its user is known.
    fn outlet(&self, conn: &ConnId, user: &UserId) -> Arc<dyn Outlet>;
    /// The number of bytes that are queued and not written yet.
    fn unwritten(&self) -> usize;
    /// Calls `then` once, as soon as fewer than `bytes` are unwritten or the transport is closed,
    /// and never in the caller's stack.
    fn when_below(&self, bytes: usize, then: Box<dyn FnOnce() + Send>);
    /// A reply is still to come that a drain of the node has to wait for, within limits. Each call
    /// is followed by one of [`release`](Self::release), after the reply was sent.
    fn hold(&self);
    /// Takes back a call of [`hold`](Self::hold).
    fn release(&self);
    /// Whether nothing can be sent any more.
    fn is_closed(&self) -> bool;
    /// Why the transport ended, or the connection on it.
    fn end_reason(&self) -> EndReason;
    /// Closes the transport in such a way that the client reconnects by itself.
    fn close(&self, reason: CloseReason);
    /// Sends the refusal and ends the connection in such a way that the client does not reconnect
    /// by itself: for faults of identity only.
    fn disconnect(&self, refusal: &Refusal);
    /// The connection has a user from now on, and no longer counts as unauthenticated.
    fn mark_authenticated(&self);
    /// The connection counts as lost, even if its transport still exists. May be called repeatedly.
    fn connection_ended(&self);
}
