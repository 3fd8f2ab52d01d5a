//! Checks that every position (room, epoch, seq) has one message, and every message one position.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::faults::{FaultKind, Faults};
use super::interner::{Interner, Symbol};
use super::parsed_history::ParsedHistory;
use super::sends::{Sends, collect_sends, report_unacknowledged};
use super::stats::Stats;
use crate::history::{Fact, Record};

/// The position of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct MessagePosition {
    pub room: Symbol,
    pub epoch: Symbol,
    pub seq: u64,
}

/// The properties that identify a message, as far as they are known.
#[derive(Clone, Copy)]
struct Identity {
    id: Symbol,
    /// The sender's `client_msg_id`.
    msg: Option<Symbol>,
    /// `None` while the message is known only from acknowledgements.
    user: Option<Symbol>,
}

/// The message at a position.
pub(super) struct IndexedMessage {
    identity: Identity,
    /// The time of the first acknowledgement.
    pub acked: Option<u64>,
    /// An acknowledgement said that the message was new.
    acked_new: bool,
    /// The time of the first record about it.
    pub at: u64,
}

/// All messages that appear in the history, by position.
pub(super) struct MessageIndex {
    pub messages: HashMap<MessagePosition, IndexedMessage>,
    by_id: HashMap<Symbol, MessagePosition>,
    /// By `client_msg_id`, and also by epoch if data was lost.
    by_msg: HashMap<(Symbol, Option<Symbol>), MessagePosition>,
    data_loss: bool,
}

impl MessageIndex {
    /// Reads the records of all clients, reports contradictions, and counts.
    pub fn build<'a>(
        history: &ParsedHistory<'a>,
        data_loss: bool,
        interner: &mut Interner<'a>,
        faults: &mut Faults,
        stats: &mut Stats,
    ) -> Self {
        let mut index = Self {
            messages: HashMap::new(),
            by_id: HashMap::new(),
            by_msg: HashMap::new(),
            data_loss,
        };
        let sends = collect_sends(history, faults, stats);
        let mut acked: HashSet<&str> = HashSet::new();
        for client in &history.clients {
            for record in &client.records {
                match &record.fact {
                    Fact::Acked { room, msg, .. } => {
                        if sends.get(msg.as_str()) != Some(&(client.name, room.as_str())) {
                            faults.add(FaultKind::Malformed, record.at, || {
                                format!(
                                    "{} received an acknowledgement of {msg} in {room}, which it \
                                     never sent there",
                                    client.name
                                )
                            });
                        }
                        acked.insert(msg);
                        index.add_ack(record, interner, faults);
                    }
                    Fact::Received { .. } => {
                        stats.delivered += 1;
                        index.add_delivery(record, &sends, interner, faults);
                    }
                    _ => {}
                }
            }
        }
        report_unacknowledged(history, &sends, &acked, faults);
        stats.sent = sends.len() as u64;
        stats.acknowledged = acked.len() as u64;
        stats.unacknowledged = sends.keys().filter(|msg| !acked.contains(*msg)).count() as u64;
        index
    }

    fn add_ack<'a>(
        &mut self,
        record: &'a Record,
        interner: &mut Interner<'a>,
        faults: &mut Faults,
    ) {
        let Fact::Acked {
            room,
            msg,
            id,
            epoch,
            seq,
            duplicate,
        } = &record.fact
        else {
            return;
        };
        let position = MessagePosition {
            room: interner.intern(room),
            epoch: interner.intern(epoch),
            seq: *seq,
        };
        let identity = Identity {
            id: interner.intern(id),
            msg: Some(interner.intern(msg)),
            user: None,
        };
        let message = self.insert(position, identity, record, interner, faults);
        let first_ack = message.acked.unwrap_or(record.at).min(record.at);
        message.acked = Some(first_ack);
        if *duplicate {
            return;
        }
        if message.acked_new {
            faults.add(FaultKind::AckedNewTwice, record.at, || {
                format!(
                    "the acknowledgement to {} says that {msg} at {epoch}/{seq} in {room} is new, \
                     and an earlier one said so, too",
                    record.source
                )
            });
        }
        message.acked_new = true;
    }

    fn add_delivery<'a>(
        &mut self,
        record: &'a Record,
        sends: &Sends<'_>,
        interner: &mut Interner<'a>,
        faults: &mut Faults,
    ) {
        let Fact::Received {
            room,
            epoch,
            seq,
            id,
            msg,
            user,
        } = &record.fact
        else {
            return;
        };
        let position = MessagePosition {
            room: interner.intern(room),
            epoch: interner.intern(epoch),
            seq: *seq,
        };
        let identity = Identity {
            id: interner.intern(id),
            msg: msg.as_ref().map(|msg| interner.intern(msg)),
            user: Some(interner.intern(user)),
        };
        let is_known = self.messages.contains_key(&position);
        self.insert(position, identity, record, interner, faults);
        if is_known {
            return;
        }
        let Some(msg) = msg else { return };
        let was_sent = sends
            .get(msg.as_str())
            .is_some_and(|(_, sent_to)| sent_to == room);
        if !was_sent {
            faults.add(FaultKind::ConflictingMessage, record.at, || {
                format!(
                    "{} received {msg} at {epoch}/{seq} in {room}, and no client sent that to this \
                     room",
                    record.source
                )
            });
        }
    }

    /// Inserts a message at a position, and compares it with the earlier records of the message and
    /// of the position.
    fn insert(
        &mut self,
        position: MessagePosition,
        identity: Identity,
        record: &Record,
        interner: &Interner<'_>,
        faults: &mut Faults,
    ) -> &mut IndexedMessage {
        match self.messages.entry(position) {
            Entry::Occupied(entry) => {
                let message = entry.into_mut();
                let known = message.identity;
                if known.contradicts(identity) {
                    faults.add(FaultKind::ConflictingMessage, record.at, || {
                        format!(
                            "{} has {} at {}; an earlier record has {} there",
                            record.source,
                            identity.describe(interner),
                            position.describe(interner),
                            known.describe(interner)
                        )
                    });
                }
                message.identity.msg = known.msg.or(identity.msg);
                message.identity.user = known.user.or(identity.user);
                message.at = message.at.min(record.at);
                message
            }
            Entry::Vacant(vacant) => {
                let same_id = self.by_id.insert(identity.id, position);
                let epoch = if self.data_loss {
                    Some(position.epoch)
                } else {
                    None
                };
                let same_msg = match identity.msg {
                    Some(msg) => self.by_msg.insert((msg, epoch), position),
                    None => None,
                };
                if let Some(other) = same_id.or(same_msg) {
                    faults.add(FaultKind::ConflictingMessage, record.at, || {
                        format!(
                            "{} has {} at {}; an earlier record has it at {}",
                            record.source,
                            identity.describe(interner),
                            position.describe(interner),
                            other.describe(interner)
                        )
                    });
                }
                vacant.insert(IndexedMessage {
                    identity,
                    acked: None,
                    acked_new: false,
                    at: record.at,
                })
            }
        }
    }
}

impl MessagePosition {
    fn describe(self, interner: &Interner<'_>) -> String {
        format!(
            "{}/{} in {}",
            interner.text(self.epoch),
            self.seq,
            interner.text(self.room)
        )
    }
}

impl Identity {
    /// Whether both can't be the same message. Unknown properties contradict nothing.
    fn contradicts(self, other: Self) -> bool {
        let differ =
            |one: Option<Symbol>, two: Option<Symbol>| one.is_some() && two.is_some() && one != two;
        self.id != other.id || differ(self.msg, other.msg) || differ(self.user, other.user)
    }

    fn describe(self, interner: &Interner<'_>) -> String {
        let text = |symbol: Option<Symbol>| symbol.map_or("?", |symbol| interner.text(symbol));
        format!(
            "{} of {} with id {}",
            text(self.msg),
            text(self.user),
            interner.text(self.id)
        )
    }
}
