//! Replies to events: an acknowledgement or a refusal, sent to where the client expects it.

use std::sync::Arc;

use serde::Serialize;

use super::events::RequestName;
use super::{ClientTransport, Connections};
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

/// Sends the reply to one event.
#[derive(Clone)]
pub(super) struct Reply {
    pub transport: Arc<dyn ClientTransport>,
    pub reply_to: ReplyTo,
    pub name: RequestName,
    pub connections: Arc<Connections>,
}

impl Reply {
    /// Sends the acknowledgement, if the client asked for one.
    pub fn acknowledge<T: Serialize>(&self, payload: &T) {
        if self.reply_to != ReplyTo::None {
            self.transport
                .acknowledge(&self.reply_to, &to_json(payload));
        }
    }

    /// Sends the refusal: as the acknowledgement, if the client asked for one, else as an event.
    pub fn refuse(&self, refusal: &Refusal) {
        self.connections.counters.refused.add(1);
        let name = self.name.as_str();
        match self.reply_to {
            ReplyTo::None => self.transport.send_event(
                ServerEvent::Exception,
                &to_json(&Exception::of(refusal, Some(name))),
            ),
            ReplyTo::Ack(_) | ReplyTo::Ref(_) => self.acknowledge(&refusal_ack(refusal)),
        }
    }
}
