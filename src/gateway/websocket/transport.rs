//! A plain WebSocket as its connection sees it.

use std::sync::Arc;

use tokio::time::Instant;

use super::FLUSH_TIMEOUT;
use super::close_status::CloseStatus;
use super::outbox::Outbox;
use super::outlet::{OutletKind, PlainOutlet};
use crate::delivery::Outlet;
use crate::domain::{ConnId, Limits, Refusal, UserId};
use crate::gateway::connections::{
    ClientTransport, CloseReason, EndReason, EventText, IncomingEvent, OutboxThresholds, ReplyTo,
    decode_event,
};
use crate::gateway::wire::{Envelope, Exception, ServerEvent, encode_ack, parse_frame, to_json};
use crate::server::admission::ConnectionSlot;

pub(super) struct PlainTransport {
    pub outbox: Arc<Outbox>,
    pub thresholds: OutboxThresholds,
    /// Released when the transport is dropped, with its connection.
    pub _slot: ConnectionSlot,
}

impl PlainTransport {
    pub fn outlet_of_kind(
        &self,
        conn: &ConnId,
        user: &UserId,
        kind: OutletKind,
    ) -> Arc<dyn Outlet> {
        Arc::new(PlainOutlet {
            conn: conn.clone(),
            user: user.clone(),
            outbox: self.outbox.clone(),
            thresholds: self.thresholds,
            kind,
        })
    }
}

impl ClientTransport for PlainTransport {
    fn decode(&self, text: &EventText, limits: &Limits) -> IncomingEvent {
        let frame = parse_frame(text.json());
        let (name, request) = decode_event(frame.event, limits);
        IncomingEvent {
            name,
            reply_to: frame.reference.map_or(ReplyTo::None, ReplyTo::Ref),
            request,
        }
    }

    fn acknowledge(&self, reply_to: &ReplyTo, json: &str) {
        if let ReplyTo::Ref(reference) = reply_to {
            self.outbox.send(encode_ack(reference, json).into());
        }
    }

    fn send_event(&self, event: ServerEvent, json: &str) {
        self.outbox.send(Envelope::Plain.wrap(event, json).into());
    }

    fn outlet(&self, conn: &ConnId, user: &UserId) -> Arc<dyn Outlet> {
        self.outlet_of_kind(conn, user, OutletKind::Chat)
    }

    fn unwritten(&self) -> usize {
        self.outbox.unwritten()
    }

    fn when_below(&self, bytes: usize, then: Box<dyn FnOnce() + Send>) {
        self.outbox.when_below(bytes, then);
    }

    fn hold(&self) {
        self.outbox.hold();
    }

    fn release(&self) {
        self.outbox.release();
    }

    fn is_closed(&self) -> bool {
        self.outbox.is_closed()
    }

    fn end_reason(&self) -> EndReason {
        match self.outbox.closing() {
            Some((status, _)) => status.into(),
            None => EndReason::ClientClosed,
        }
    }

    fn close(&self, reason: CloseReason) {
        self.outbox.close_now(reason.into());
    }

    fn disconnect(&self, refusal: &Refusal) {
        let json = to_json(&Exception::of(refusal, None));
        self.send_event(ServerEvent::Exception, &json);
        self.outbox.close_with(
            CloseStatus::of_refusal(refusal),
            Instant::now() + FLUSH_TIMEOUT,
        );
    }

    /// Nothing to do: a plain client never counts as unauthenticated.
    fn mark_authenticated(&self) {}

    /// Nothing to do: a plain client's transport closes for the same reason as its connection.
    fn connection_ended(&self) {}
}
