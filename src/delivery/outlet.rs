//! The interface through which delivery writes to a connection.

use super::shared_event::SharedEvent;
use crate::domain::{ConnId, UserId};

/// The reason for which delivery closes an outlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The log no longer holds the message that the replay needed next. The client has to resume,
    /// and is then told of the gap.
    ReplayOutrun,
    /// The log could not be read for the replay for some time, for example because the database of an
    /// archive is away. The client has to resume.
    ReplayFailed,
}

/// The outgoing side of one connection. No method waits: an event that doesn't fit closes the
/// connection.
pub trait Outlet: Send + Sync {
    /// The connection's id.
    fn conn(&self) -> &ConnId;
    /// The user that the connection belongs to.
    fn user(&self) -> &UserId;
    /// Queues the event for the client. Events are written in the order of the calls. Closes the
    /// transport when more is unwritten than the outbox may hold.
    fn deliver(&self, event: &SharedEvent);
    /// As [`Outlet::deliver`], if the outlet has capacity for the event. Returns false when it has
    /// none: nothing was queued, and the event is to be offered again once the outlet is writable.
    fn offer(&self, event: &SharedEvent) -> bool {
        let has_capacity = self.has_capacity();
        if has_capacity {
            self.deliver(event);
        }
        has_capacity
    }
    /// True while so little is unwritten that more messages may be queued.
    fn has_capacity(&self) -> bool;
    /// Calls `wake` once, as soon as [`Outlet::has_capacity`] or the outlet is closed; never while
    /// a lock is held.
    fn when_writable(&self, wake: Box<dyn FnOnce() + Send>);
    /// True when nothing can be sent any more.
    fn is_closed(&self) -> bool;
    /// Closes the transport in such a way that the client reconnects by itself.
    fn close(&self, reason: CloseReason);
}
