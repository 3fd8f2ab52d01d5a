//! A Socket.IO socket as its connection sees it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use engineioxide::{Frame, SessionHandle};
use parking_lot::Mutex;

use super::outlet::SocketOutlet;
use super::{Handshake, Living, packet};
use crate::delivery::Outlet;
use crate::domain::{ConnId, Limits, Refusal, UserId};
use crate::gateway::connections::{
    Arrived, Bounds, ClientTransport, CloseReason, Connections, IncomingEvent, ReplyTo,
};
use crate::gateway::wire::{Envelope, EventName, Exception, decode};

/// How long a client that was sent away has to end the connection by itself.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a last packet may take to be written.
const FLUSH: Duration = Duration::from_secs(2);

pub(super) struct SocketLine {
    connections: Arc<Connections>,
    handle: SessionHandle,
    handshake: Arc<Handshake>,
    /// Given back at the connection's end.
    living: Mutex<Option<Living>>,
}

/// Whether a transport is there and nobody on it. It is not held on to: its places in the counts are free when it is gone.
fn is_deserted(handshake: &Weak<Handshake>) -> bool {
    handshake
        .upgrade()
        .is_some_and(|handshake| handshake.living.load(Ordering::Acquire) == 0)
}

impl SocketLine {
    pub fn new(
        connections: &Arc<Connections>,
        handle: SessionHandle,
        handshake: Arc<Handshake>,
    ) -> Self {
        let living = Mutex::new(Some(Living::on(&handshake)));
        Self {
            connections: connections.clone(),
            handle,
            handshake,
            living,
        }
    }

    /// As long as a socket may take to say who it is.
    fn patience(&self) -> Duration {
        self.connections.chat().limits().auth_timeout
    }

    /// The CONNECT was refused. The client won't come back by itself; it may end the transport in its own time, but not for
    /// ever: it is closed, unless a later CONNECT on it was welcome. After a DISCONNECT: without it, JavaScript clients before
    /// 4 take the close for a broken transport, come back, and are refused again, without end.
    pub fn end_refused(&self) {
        let (handle, handshake) = (self.handle.clone(), Arc::downgrade(&self.handshake));
        let end = move || {
            if is_deserted(&handshake) {
                handle.send(&packet::disconnect());
                handle.close_after_flush(FLUSH);
            }
        };
        self.connections.call_after(self.patience(), Box::new(end));
    }
}

impl ClientTransport for SocketLine {
    fn decode(&self, arrived: &Arrived, limits: &Limits) -> IncomingEvent {
        let (event, decoded) = decode(arrived.json(), limits);
        let decoded = match decoded {
            Ok(_) if arrived.is_binary() => Err(Refusal::bad_request(
                "the payload must not hold attachments",
            )),
            decoded => decoded,
        };
        IncomingEvent {
            event,
            reference: arrived.ack().map_or(ReplyTo::None, ReplyTo::Ack),
            decoded,
        }
    }

    fn answer(&self, to: &ReplyTo, json: &str) {
        if let ReplyTo::Ack(id) = to {
            self.handle.send(&packet::ack(*id, json));
        }
    }

    fn tell(&self, name: EventName, json: &str) {
        self.handle
            .send(&Frame::text(&Envelope::SocketIo.wrap(name, json)));
    }

    fn outlet(&self, conn: &ConnId, user: &UserId) -> Arc<dyn Outlet> {
        let (conn, user, handle) = (conn.clone(), user.clone(), self.handle.clone());
        Arc::new(SocketOutlet {
            conn,
            user,
            handle,
            bounds: Bounds::of(self.connections.outbox_bytes()),
        })
    }

    fn unwritten(&self) -> usize {
        self.handle.unwritten()
    }

    fn when_below(&self, bytes: usize, then: Box<dyn FnOnce() + Send>) {
        self.handle.when_below(bytes, then);
    }

    fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    fn close(&self, _: CloseReason) {
        self.handle.close();
    }

    fn send_away(&self, refusal: &Refusal) {
        let json = serde_json::to_string(&Exception::of(refusal, None))
            .expect("the wire's shapes always serialise");
        self.tell(EventName::Exception, &json);
        self.handle.send(&packet::disconnect());
        let handle = self.handle.clone();
        self.connections
            .call_after(FAREWELL, Box::new(move || handle.close()));
    }

    fn introduce(&self) {
        if let Some(place) = &self.handshake.place {
            place.mark_authenticated();
        }
    }

    /// The client may have left the namespace only. The transport is closed, unless it comes back: or anyone could keep one
    /// without ever saying who it is.
    fn ended(&self) {
        let living = self.living.lock().take();
        if living.is_none() || self.handle.is_closed() {
            return;
        }
        let (handle, handshake) = (self.handle.clone(), Arc::downgrade(&self.handshake));
        let end = move || {
            if is_deserted(&handshake) {
                handle.close();
            }
        };
        self.connections.call_after(self.patience(), Box::new(end));
    }
}
