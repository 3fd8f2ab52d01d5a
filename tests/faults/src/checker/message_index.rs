//! Checks that every position (room, epoch, seq) has one message, and every message one position.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::faults::{FaultKind, Faults};
use super::interner::{Interner, Symbol};
use super::parsed_history::ParsedHistory;
use super::sends::{Sends, collect_sends, report_unacknowledged};
use super::stats::Stats;
use crate::history::{ContentDigest, Fact, KeptMessage, Record};

/// The name of the archive in reports.
pub(super) const ARCHIVE: &str = "the archive";

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
    /// `None` while the message is known only from acknowledgements, and so is `content`.
    user: Option<Symbol>,
    content: Option<ContentDigest>,
}

/// A message that a client received, or that the archive has.
struct Sighting<'a> {
    /// The client, or a name for the archive.
    source: &'a str,
    at: u64,
    room: &'a str,
    epoch: &'a str,
    seq: u64,
    id: &'a str,
    msg: Option<&'a str>,
    user: &'a str,
    content: Option<ContentDigest>,
}

/// The place of a record, for reports.
#[derive(Clone, Copy)]
struct Source<'a> {
    name: &'a str,
    at: u64,
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
    /// The archive has it, at this position.
    pub archived: bool,
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
                        let was_sent = sends
                            .get(msg.as_str())
                            .is_some_and(|send| send.sender == client.name && send.room == room);
                        if !was_sent {
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
                        if let Some(delivery) = Sighting::of_delivery(record) {
                            index.add_sighting(&delivery, &sends, interner, faults);
                        }
                    }
                    _ => {}
                }
            }
        }
        for room in history.archive.values() {
            for entry in &room.entries {
                stats.archived += 1;
                let archived = Sighting::of_archive(entry, room.at);
                let message = index.add_sighting(&archived, &sends, interner, faults);
                message.archived = true;
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
            content: None,
        };
        let source = Source {
            name: &record.source,
            at: record.at,
        };
        let message = self.insert(position, identity, source, interner, faults);
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

    /// Adds a message that a client received, or that the archive has.
    fn add_sighting<'a>(
        &mut self,
        sighting: &Sighting<'a>,
        sends: &Sends<'_>,
        interner: &mut Interner<'a>,
        faults: &mut Faults,
    ) -> &mut IndexedMessage {
        let position = MessagePosition {
            room: interner.intern(sighting.room),
            epoch: interner.intern(sighting.epoch),
            seq: sighting.seq,
        };
        let identity = Identity {
            id: interner.intern(sighting.id),
            msg: sighting.msg.map(|msg| interner.intern(msg)),
            user: Some(interner.intern(sighting.user)),
            content: sighting.content,
        };
        if !self.messages.contains_key(&position) {
            sighting.report_unless_sent(sends, faults);
        }
        let source = Source {
            name: sighting.source,
            at: sighting.at,
        };
        self.insert(position, identity, source, interner, faults)
    }

    /// Inserts a message at a position, and compares it with the earlier records of the message and
    /// of the position.
    fn insert(
        &mut self,
        position: MessagePosition,
        identity: Identity,
        source: Source<'_>,
        interner: &Interner<'_>,
        faults: &mut Faults,
    ) -> &mut IndexedMessage {
        match self.messages.entry(position) {
            Entry::Occupied(entry) => {
                let message = entry.into_mut();
                let known = message.identity;
                if known.contradicts(identity) {
                    faults.add(FaultKind::ConflictingMessage, source.at, || {
                        format!(
                            "{} has {} at {}; an earlier record has {} there",
                            source.name,
                            identity.describe(interner),
                            position.describe(interner),
                            known.describe(interner)
                        )
                    });
                }
                message.identity.msg = known.msg.or(identity.msg);
                message.identity.user = known.user.or(identity.user);
                message.identity.content = known.content.or(identity.content);
                message.at = message.at.min(source.at);
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
                    faults.add(FaultKind::ConflictingMessage, source.at, || {
                        format!(
                            "{} has {} at {}; an earlier record has it at {}",
                            source.name,
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
                    at: source.at,
                    archived: false,
                })
            }
        }
    }
}

impl<'a> Sighting<'a> {
    fn of_delivery(record: &'a Record) -> Option<Self> {
        let Fact::Received {
            room,
            epoch,
            seq,
            id,
            msg,
            user,
            content,
        } = &record.fact
        else {
            return None;
        };
        Some(Self {
            source: &record.source,
            at: record.at,
            room,
            epoch,
            seq: *seq,
            id,
            msg: msg.as_deref(),
            user,
            content: *content,
        })
    }

    fn of_archive(entry: &'a KeptMessage, at: u64) -> Self {
        Self {
            source: ARCHIVE,
            at,
            room: &entry.room,
            epoch: &entry.epoch,
            seq: entry.seq,
            id: &entry.id,
            msg: entry.msg.as_deref(),
            user: &entry.user,
            content: Some(entry.content),
        }
    }

    /// Reports a message that no client sent to the room, or not with this content.
    fn report_unless_sent(&self, sends: &Sends<'_>, faults: &mut Faults) {
        let Some(msg) = self.msg else { return };
        let was_sent = sends
            .get(msg)
            .is_some_and(|send| send.room == self.room && send.may_contain(self.content));
        if !was_sent {
            let Self {
                source,
                room,
                epoch,
                seq,
                ..
            } = self;
            faults.add(FaultKind::ConflictingMessage, self.at, || {
                format!(
                    "{source} has {msg} at {epoch}/{seq} in {room}, and no client sent that to \
                     this room"
                )
            });
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
        let contents = self.content.zip(other.content);
        self.id != other.id
            || differ(self.msg, other.msg)
            || differ(self.user, other.user)
            || contents.is_some_and(|(one, two)| one != two)
    }

    fn describe(self, interner: &Interner<'_>) -> String {
        let text = |symbol: Option<Symbol>| symbol.map_or("?", |symbol| interner.text(symbol));
        let content = match self.content {
            Some(digest) => format!("{digest:08x}"),
            None => "?".to_owned(),
        };
        format!(
            "{} of {} with id {} and content {content}",
            text(self.msg),
            text(self.user),
            interner.text(self.id)
        )
    }
}
