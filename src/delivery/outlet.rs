//! All that delivery knows of a socket.

use super::shared_event::SharedEvent;
use crate::domain::{ConnId, UserId};

/// Why delivery gives up an outlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The log no longer holds what the replay was about to send: the client must resume, and be told of the gap.
    ReplayOutrun,
}

/// One connection's way out. Nothing here waits: what doesn't fit closes the connection.
pub trait Outlet: Send + Sync {
    /// Which connection.
    fn conn(&self) -> &ConnId;
    /// Whose.
    fn user(&self) -> &UserId;
    /// Queues the event for the client; order of calls is order on the wire. Closes the transport when too much is unwritten.
    fn deliver(&self, event: &SharedEvent);
    /// As [`Outlet::deliver`], if the outlet takes so much. False: it doesn't, and nothing was queued; the message is to come
    /// again once the outlet has room.
    fn offer(&self, event: &SharedEvent) -> bool {
        let has_capacity = self.has_capacity();
        if has_capacity {
            self.deliver(event);
        }
        has_capacity
    }
    /// True while so little is unwritten that messages may follow.
    fn has_capacity(&self) -> bool;
    /// Calls `wake` once, as soon as [`Outlet::has_capacity`] or the outlet is closed; never while a lock is held.
    fn when_writable(&self, wake: Box<dyn FnOnce() + Send>);
    /// True when nothing can be sent any more.
    fn is_closed(&self) -> bool;
    /// Closes the transport, so that the client comes back by itself.
    fn close(&self, reason: CloseReason);
}
