//! A Socket.IO session as delivery sees it.

use engineioxide::{Frame, SendOutcome, SessionHandle};

use crate::delivery::{CloseReason, Event, Outlet, SharedEvent};
use crate::domain::{ConnId, UserId};
use crate::gateway::connections::Bounds;
use crate::gateway::wire::{Envelope, encode_event};

/// The way out of one session.
pub(super) struct SocketOutlet {
    pub conn: ConnId,
    pub user: UserId,
    pub handle: SessionHandle,
    pub bounds: Bounds,
}

fn frame(event: &Event) -> Frame {
    Frame::text(&encode_event(Envelope::SocketIo, event))
}

impl Outlet for SocketOutlet {
    fn conn(&self) -> &ConnId {
        &self.conn
    }

    fn user(&self) -> &UserId {
        &self.user
    }

    fn deliver(&self, event: &SharedEvent) {
        // What doesn't fit closes the session, which is all that is to be done about it.
        match event.encoded(frame) {
            Some(frame) => self.handle.send(frame),
            None => self.handle.send(&frame(event.event())),
        };
    }

    fn offer(&self, event: &SharedEvent) -> bool {
        let most = self.bounds.messages;
        let outcome = match event.encoded(frame) {
            Some(frame) => self.handle.send_below(most, frame),
            None => self.handle.send_below(most, &frame(event.event())),
        };
        outcome != SendOutcome::Busy
    }

    fn has_capacity(&self) -> bool {
        self.handle.unwritten() < self.bounds.half
    }

    fn when_writable(&self, wake: Box<dyn FnOnce() + Send>) {
        self.handle.when_below(self.bounds.half, wake);
    }

    fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    fn close(&self, reason: CloseReason) {
        tracing::debug!(conn = %self.conn, ?reason, "transport closed");
        self.handle.close();
    }
}
