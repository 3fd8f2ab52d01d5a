//! A plain connection as delivery sees it: once for the rooms it is in, and once for the broadcasts it hears.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use tokio::time::Instant;

use super::FLUSH;
use super::end::End;
use super::outbox::Outbox;
use crate::delivery::{CloseReason, Event, Outlet, SharedEvent};
use crate::domain::{ConnId, UserId};
use crate::gateway::connections::Bounds;
use crate::gateway::wire::{Envelope, encode_broadcast, encode_event};

/// An event as plain clients get it, shared by all of them.
struct ChatFrame(Utf8Bytes);

impl ChatFrame {
    fn of(event: &Event) -> Self {
        Self(encode_event(Envelope::Plain, event).into())
    }
}

/// The same for what happens in the room of broadcasts. `None`: they are told nothing of it.
struct BroadcastFrame(Option<Utf8Bytes>);

impl BroadcastFrame {
    fn of(event: &Event) -> Self {
        Self(match event {
            Event::Message(entry) => {
                let frame = encode_broadcast(entry);
                if frame.is_none() {
                    tracing::error!(
                        seq = entry.seq,
                        "a broadcast is damaged, and is told to nobody"
                    );
                }
                frame.map(Into::into)
            }
            Event::RoomReset { .. } => Some(encode_event(Envelope::Plain, event).into()),
            // Nobody is a member there.
            Event::RoomUsers { .. }
            | Event::RoomChanged(..)
            | Event::Typing(_)
            | Event::OnlineStatus { .. } => None,
        })
    }
}

/// What is delivered over a plain connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Programme {
    /// The rooms it is in, and the users it watches.
    Chat,
    /// Broadcasts.
    Broadcasts,
}

pub(super) struct PlainOutlet {
    pub conn: ConnId,
    pub user: UserId,
    pub outbox: Arc<Outbox>,
    pub bounds: Bounds,
    pub programme: Programme,
}

impl PlainOutlet {
    /// What the client gets of it, if anything.
    fn frame(&self, event: &SharedEvent) -> Option<Utf8Bytes> {
        match self.programme {
            Programme::Chat => match event.encoded(ChatFrame::of) {
                Some(ChatFrame(frame)) => Some(frame.clone()),
                None => Some(ChatFrame::of(event.event()).0),
            },
            Programme::Broadcasts => match event.encoded(BroadcastFrame::of) {
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
        self.frame(event)
            .is_none_or(|frame| self.outbox.send_below(self.bounds.messages, frame))
    }

    fn has_capacity(&self) -> bool {
        self.outbox.unwritten() < self.bounds.half
    }

    fn when_writable(&self, wake: Box<dyn FnOnce() + Send>) {
        self.outbox.when_below(self.bounds.half, wake);
    }

    fn is_closed(&self) -> bool {
        self.outbox.is_closed()
    }

    fn close(&self, reason: CloseReason) {
        tracing::debug!(conn = %self.conn, ?reason, "transport closed");
        match reason {
            CloseReason::ReplayOutrun => self
                .outbox
                .end_by(End::ReplayOutrun, Instant::now() + FLUSH),
        }
    }
}
