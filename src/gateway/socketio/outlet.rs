//! A Socket.IO session as delivery sees it.

use std::sync::Arc;

use engineioxide::{Frame, SendOutcome, SessionHandle};

use super::Handshake;
use crate::delivery::{CloseReason, Event, Outlet, SharedEvent};
use crate::domain::{ConnId, UserId};
use crate::gateway::connections::{EndReason, OutboxThresholds};
use crate::gateway::wire::{Envelope, encode_event};

/// Sends delivery's events over one session.
pub(super) struct SocketIoOutlet {
    pub conn: ConnId,
    pub user: UserId,
    pub handle: SessionHandle,
    pub thresholds: OutboxThresholds,
    pub handshake: Arc<Handshake>,
}

fn frame(event: &Event) -> Frame {
    Frame::text(&encode_event(Envelope::SocketIo, event))
}

impl Outlet for SocketIoOutlet {
    fn conn(&self) -> &ConnId {
        &self.conn
    }

    fn user(&self) -> &UserId {
        &self.user
    }

    fn deliver(&self, event: &SharedEvent) {
        // A frame that does not fit closes the session. Nothing else has to be done then.
        match event.encoded(frame) {
            Some(frame) => self.handle.send(frame),
            None => self.handle.send(&frame(event.event())),
        };
    }

    fn offer(&self, event: &SharedEvent) -> bool {
        let max_unwritten = self.thresholds.live_messages;
        let outcome = match event.encoded(frame) {
            Some(frame) => self.handle.send_below(max_unwritten, frame),
            None => self.handle.send_below(max_unwritten, &frame(event.event())),
        };
        outcome != SendOutcome::Busy
    }

    fn has_capacity(&self) -> bool {
        self.handle.unwritten() < self.thresholds.writable
    }

    fn when_writable(&self, wake: Box<dyn FnOnce() + Send>) {
        self.handle.when_below(self.thresholds.writable, wake);
    }

    fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    fn close(&self, reason: CloseReason) {
        self.handshake.mark_closed(match reason {
            CloseReason::ReplayOutrun => EndReason::ReplayOutrun,
            CloseReason::ReplayFailed => EndReason::ReplayFailed,
        });
        self.handle.close();
    }
}
