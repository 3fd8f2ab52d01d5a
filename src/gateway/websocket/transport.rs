//! A plain WebSocket as its connection sees it.

use std::sync::Arc;

use tokio::time::Instant;

use super::FLUSH;
use super::end::End;
use super::outbox::Outbox;
use super::outlet::{PlainOutlet, Programme};
use crate::delivery::Outlet;
use crate::domain::{ConnId, Limits, Refusal, UserId};
use crate::gateway::connections::{
    Arrived, Bounds, ClientTransport, CloseReason, IncomingEvent, ReplyTo,
};
use crate::gateway::wire::{Envelope, EventName, Exception, decode_frame, encode_ack};
use crate::server::admission::ConnectionSlot;

pub(super) struct PlainLine {
    pub outbox: Arc<Outbox>,
    pub bounds: Bounds,
    /// Freed with the connection.
    pub place: ConnectionSlot,
}

impl PlainLine {
    pub fn outlet_for(
        &self,
        conn: &ConnId,
        user: &UserId,
        programme: Programme,
    ) -> Arc<dyn Outlet> {
        let (conn, user, outbox) = (conn.clone(), user.clone(), self.outbox.clone());
        Arc::new(PlainOutlet {
            conn,
            user,
            outbox,
            bounds: self.bounds,
            programme,
        })
    }
}

impl ClientTransport for PlainLine {
    fn decode(&self, arrived: &Arrived, limits: &Limits) -> IncomingEvent {
        let frame = decode_frame(arrived.json(), limits);
        let reference = frame.reference.map_or(ReplyTo::None, ReplyTo::Ref);
        IncomingEvent {
            event: frame.event,
            reference,
            decoded: frame.decoded,
        }
    }

    fn answer(&self, to: &ReplyTo, json: &str) {
        if let ReplyTo::Ref(reference) = to {
            self.outbox.send(encode_ack(reference, json).into());
        }
    }

    fn tell(&self, name: EventName, json: &str) {
        self.outbox.send(Envelope::Plain.wrap(name, json).into());
    }

    fn outlet(&self, conn: &ConnId, user: &UserId) -> Arc<dyn Outlet> {
        self.outlet_for(conn, user, Programme::Chat)
    }

    fn unwritten(&self) -> usize {
        self.outbox.unwritten()
    }

    fn when_below(&self, bytes: usize, then: Box<dyn FnOnce() + Send>) {
        self.outbox.when_below(bytes, then);
    }

    fn is_closed(&self) -> bool {
        self.outbox.is_closed()
    }

    fn close(&self, why: CloseReason) {
        self.outbox.end(why.into());
    }

    fn send_away(&self, refusal: &Refusal) {
        let json = serde_json::to_string(&Exception::of(refusal, None))
            .expect("the wire's shapes always serialise");
        self.tell(EventName::Exception, &json);
        self.outbox
            .end_by(End::refused(refusal), Instant::now() + FLUSH);
    }

    fn introduce(&self) {
        self.place.mark_authenticated();
    }

    /// The transport ends with the connection: by what ended it.
    fn ended(&self) {}
}
