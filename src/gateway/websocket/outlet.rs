//! A plain WebSocket as delivery sees it: one outlet for the rooms that the connection is in, and
//! one for broadcasts.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use tokio::time::Instant;

use super::FLUSH_TIMEOUT;
use super::close_status::CloseStatus;
use super::outbox::Outbox;
use crate::delivery::{CloseReason, EntryKind, Event, Outlet, SharedEvent};
use crate::domain::{ConnId, UserId};
use crate::gateway::connections::OutboxThresholds;
use crate::gateway::wire::{Envelope, encode_broadcast, encode_event};

/// An event as plain clients get it, encoded once and shared by all of them.
struct ChatFrame(Utf8Bytes);

impl ChatFrame {
    fn of(event: &Event) -> Self {
        Self(encode_event(Envelope::Plain, event).into())
    }
}

/// An event of the broadcast room, encoded once and shared by all clients. `None` if it is not sent
/// to clients.
struct BroadcastFrame(Option<Utf8Bytes>);

impl BroadcastFrame {
    fn of(event: &Event) -> Self {
        Self(match event {
            Event::Message(entry) if entry.kind == EntryKind::Change => None,
            Event::Message(entry) => {
                let frame = encode_broadcast(entry);
                if frame.is_none() {
                    tracing::error!(seq = entry.seq, "a broadcast is damaged and is not sent");
                }
                frame.map(Into::into)
            }
            Event::RoomReset { .. } => Some(encode_event(Envelope::Plain, event).into()),
            // The broadcast room has no occupants.
            Event::RoomUsers { .. }
            | Event::RoomChanged(..)
            | Event::Typing(_)
            | Event::Receipt(_)
            | Event::OnlineStatus { .. } => None,
        })
    }
}

/// Which events an outlet carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OutletKind {
    /// Those of the rooms that the connection is in, and of the users that it watches.
    Chat,
    /// Broadcasts.
    Broadcasts,
}

pub(super) struct PlainOutlet {
    pub conn: ConnId,
    pub user: UserId,
    pub outbox: Arc<Outbox>,
    pub thresholds: OutboxThresholds,
    pub kind: OutletKind,
}

impl PlainOutlet {
    /// The event's frame; `None` if it is not sent to the client.
    fn frame(&self, event: &SharedEvent) -> Option<Utf8Bytes> {
        match self.kind {
            OutletKind::Chat => match event.encoded(ChatFrame::of) {
                Some(ChatFrame(frame)) => Some(frame.clone()),
                None => Some(ChatFrame::of(event.event()).0),
            },
            OutletKind::Broadcasts => match event.encoded(BroadcastFrame::of) {
                Some(BroadcastFrame(frame)) => frame.clone(),
                None => BroadcastFrame::of(event.event()).0,
            },
        }
    }
}

impl Outlet for PlainOutlet {
    fn conn(&self) -> &ConnId {
        &self.conn
    }

    fn user(&self) -> &UserId {
        &self.user
    }

    fn deliver(&self, event: &SharedEvent) {
        if let Some(frame) = self.frame(event) {
            self.outbox.send(frame);
        }
    }

    fn offer(&self, event: &SharedEvent) -> bool {
        match self.frame(event) {
            Some(frame) => self.outbox.send_below(self.thresholds.live_messages, frame),
            None => true,
        }
    }

    fn has_capacity(&self) -> bool {
        self.outbox.unwritten() < self.thresholds.writable
    }

    fn when_writable(&self, wake: Box<dyn FnOnce() + Send>) {
        self.outbox.when_below(self.thresholds.writable, wake);
    }

    fn is_closed(&self) -> bool {
        self.outbox.is_closed()
    }

    fn close(&self, reason: CloseReason) {
        tracing::debug!(conn = %self.conn, ?reason, "transport closed");
        let status = match reason {
            CloseReason::ReplayOutrun => CloseStatus::ReplayOutrun,
            CloseReason::ReplayFailed => CloseStatus::ReplayFailed,
        };
        self.outbox
            .close_with(status, Instant::now() + FLUSH_TIMEOUT);
    }
}
