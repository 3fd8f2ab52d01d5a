//! What a connection needs of its door: how requests are read there, answers written, and what its end looks like.

use std::borrow::Cow;
use std::sync::Arc;

use super::Arrived;
use crate::delivery::Outlet;
use crate::domain::{ConnId, Limits, Refusal, UserId};
use crate::gateway::wire::{Decoded, EventName};

/// By which a client knows the answer to its request again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyTo {
    /// It wants none; only a refusal is told, as the event `exception`.
    None,
    /// The number of an acknowledgement of Socket.IO.
    Ack(i64),
    /// Whatever a plain client named its request, as JSON.
    Ref(Box<str>),
}

/// A request, taken apart.
pub struct IncomingEvent {
    /// The event's name, for its refusal.
    pub event: Cow<'static, str>,
    /// Where the answer goes.
    pub reference: ReplyTo,
    /// What is asked.
    pub decoded: Result<Decoded, Refusal>,
}

/// Why a transport is closed of which the client may come back by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// It went on when it was refused for a rate.
    RateLimitAbuse,
    /// A fault of ours.
    Fault,
    /// Nobody could have said who it is: the backplane is away.
    Unavailable,
}

/// One connection's way in and out. Nothing here waits.
pub trait ClientTransport: Send + Sync {
    /// Takes a request apart.
    fn decode(&self, arrived: &Arrived, limits: &Limits) -> IncomingEvent;
    /// Answers a request by that JSON object. Does nothing for [`ReplyTo::None`].
    fn answer(&self, to: &ReplyTo, json: &str);
    /// Tells an event with that JSON object.
    fn tell(&self, name: EventName, json: &str);
    /// The way out that delivery uses, once it is known whose it is.
    fn outlet(&self, conn: &ConnId, user: &UserId) -> Arc<dyn Outlet>;
    /// How much is not yet written, in bytes.
    fn unwritten(&self) -> usize;
    /// Calls `then` once, as soon as fewer than `bytes` are unwritten, or the line is closed; never in the stack of the caller.
    fn when_below(&self, bytes: usize, then: Box<dyn FnOnce() + Send>);
    /// True when nothing can be sent any more.
    fn is_closed(&self) -> bool;
    /// Closes the transport so that the client comes back by itself.
    fn close(&self, why: CloseReason);
    /// Tells the refusal and ends the connection so that the client doesn't come back by itself: only for faults of identity.
    fn send_away(&self, refusal: &Refusal);
    /// From now on it is known who is connected.
    fn introduce(&self);
    /// The connection counts as gone, whatever becomes of its transport. May be called again.
    fn ended(&self);
}
