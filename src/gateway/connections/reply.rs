//! Replies to events: an acknowledgement or a refusal, sent to where the client expects it.

use std::sync::Arc;

use serde::Serialize;

use super::events::RequestName;
use super::pending_acks::PendingReply;
use super::{ClientTransport, Connection};
use crate::domain::Refusal;
use crate::gateway::wire::{Exception, ServerEvent, refusal_ack, to_json};

/// How the client recognises the reply to its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyTo {
    /// It asked for no acknowledgement. Only a refusal is sent, as the event `exception`.
    None,
    /// The number of a Socket.IO acknowledgement.
    Ack(i64),
    /// The `ref` of a plain client's frame, as JSON.
    Ref(Box<str>),
}

/// A reply as it is sent.
#[derive(Debug)]
pub(super) enum Output {
    /// The client expects nothing.
    Nothing,
    /// A JSON object.
    Acknowledgement(ReplyTo, String),
    /// The JSON object of the event `exception`.
    Exception(String),
}

impl Output {
    pub fn send(&self, transport: &dyn ClientTransport) {
        match self {
            Self::Nothing => {}
            Self::Acknowledgement(reply_to, json) => transport.acknowledge(reply_to, json),
            Self::Exception(json) => transport.send_event(ServerEvent::Exception, json),
        }
    }
}

/// Sends the reply to one event that is processed: behind the replies to earlier ones.
#[derive(Clone)]
pub(super) struct Reply {
    pub connection: Arc<Connection>,
    pub reply_to: ReplyTo,
    pub name: RequestName,
}

impl Reply {
    /// Sends the acknowledgement, if the client asked for one.
    pub fn acknowledge<T: Serialize>(&self, payload: &T) {
        let connection = &self.connection;
        if connection.pending_acks.count() > 0 {
            connection.send_in_order(self.acknowledgement(payload));
        } else if self.reply_to != ReplyTo::None {
            let json = to_json(payload);
            connection.transport.acknowledge(&self.reply_to, &json);
        }
    }

    /// Sends the refusal: as the acknowledgement, if the client asked for one, else as an event.
    pub fn refuse(&self, refusal: &Refusal) {
        self.connection.send_in_order(self.refusal(refusal));
    }

    /// The reply follows later. Replies to later events wait for it.
    pub fn later(&self) -> PendingReply {
        self.connection.reply_later(self.clone())
    }

    pub fn acknowledgement<T: Serialize>(&self, payload: &T) -> Output {
        match &self.reply_to {
            ReplyTo::None => Output::Nothing,
            reply_to => Output::Acknowledgement(reply_to.clone(), to_json(payload)),
        }
    }

    pub fn refusal(&self, refusal: &Refusal) -> Output {
        let Self { reply_to, name, .. } = self;
        self.connection.refusal(reply_to, name, refusal)
    }
}

impl Connection {
    /// Counts and logs the refusal of an event. Returns the reply.
    pub(super) fn refusal(
        &self,
        reply_to: &ReplyTo,
        name: &RequestName,
        refusal: &Refusal,
    ) -> Output {
        self.tally.count_refusal();
        self.connections.counters.refused.add(1);
        tracing::debug!(
            conn = %self.conn,
            event = name.as_str(),
            code = refusal.code.as_str(),
            reason = &*refusal.text,
            "event refused"
        );
        match reply_to {
            ReplyTo::None => {
                Output::Exception(to_json(&Exception::of(refusal, Some(name.as_str()))))
            }
            ReplyTo::Ack(_) | ReplyTo::Ref(_) => {
                Output::Acknowledgement(reply_to.clone(), to_json(&refusal_ack(refusal)))
            }
        }
    }

    /// Refuses an event that is not processed at once, ahead of the replies to earlier ones.
    pub(super) fn refuse_at_once(&self, reply_to: &ReplyTo, name: &RequestName, refusal: &Refusal) {
        self.refusal(reply_to, name, refusal).send(&*self.transport);
    }
}
