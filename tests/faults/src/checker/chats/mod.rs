//! Checks the chats: each change is announced once, in the room and in the feeds of the users concerned;
//! all users receive the announcements of a room in one order; the tables are the result of the
//! announced changes; a removed user receives nothing more, and has no right on any node.

mod deliveries;
mod expected;
mod feeds;
mod order;
mod rights;
mod rooms;

use std::collections::BTreeMap;

use self::deliveries::DeliveryCheck;
use self::expected::Expected;
use self::feeds::FeedCheck;
use self::order::OrderCheck;
use self::rights::RightCheck;
use self::rooms::RoomCheck;
use super::faults::{FaultKind, Faults};
use super::stats::Stats;
use crate::history::chats::{ChatEvent, ChatFact, Role, Wanted};
use crate::history::{Fact, LAB, Record};

/// The facts about chats, sorted.
#[derive(Default)]
struct ChatHistory<'a> {
    /// In the order of their first attempts.
    changes: Vec<Change<'a>>,
    /// By client: what it did and received, in order.
    clients: BTreeMap<&'a str, Vec<(u64, &'a ChatFact)>>,
    /// By room: the archive's entries.
    entries: BTreeMap<&'a str, Vec<Entry<'a>>>,
    /// By chat: its name.
    chats: BTreeMap<&'a str, Option<&'a str>>,
    /// By chat and user.
    members: BTreeMap<(&'a str, &'a str), Role>,
    /// What the lab recorded besides the tables, and the reads after removals.
    others: Vec<(u64, &'a ChatFact)>,
    tables_read: Option<u64>,
}

/// A change, with all its attempts.
struct Change<'a> {
    wanted: &'a Wanted,
    /// The time of the first attempt.
    at: u64,
    attempts: u64,
    /// The chat, once the change is acknowledged.
    acked: Option<&'a str>,
}

/// An entry of the archive.
#[derive(Clone, Copy)]
struct Entry<'a> {
    seq: u64,
    id: &'a str,
    event: &'a ChatEvent,
}

/// Checks the chats of a history, if it has any.
pub(super) fn check(history: &[Record], faults: &mut Faults, stats: &mut Stats) {
    let parsed = ChatHistory::parse(history, faults);
    if parsed.changes.is_empty() {
        return;
    }
    let Some(at) = parsed.tables_read else {
        faults.add(FaultKind::Malformed, 0, || {
            "the lab did not read the tables of chats".to_owned()
        });
        return;
    };
    parsed.count(stats);
    let expected = Expected::of(&parsed);
    RoomCheck {
        history: &parsed,
        expected: &expected,
        faults,
        at,
    }
    .check();
    FeedCheck {
        history: &parsed,
        expected: &expected,
        faults,
        at,
    }
    .check();
    DeliveryCheck::new(&parsed, &expected, faults, stats).check();
    OrderCheck {
        history: &parsed,
        faults,
    }
    .check();
    RightCheck {
        history: &parsed,
        faults,
        stats,
    }
    .check();
}

impl<'a> ChatHistory<'a> {
    fn parse(history: &'a [Record], faults: &mut Faults) -> Self {
        let mut parsed = Self::default();
        let mut indices: BTreeMap<&str, usize> = BTreeMap::new();
        for record in history {
            let Fact::Chat(fact) = &record.fact else {
                continue;
            };
            let at = record.at;
            if is_lab_fact(fact) != (record.source == LAB) {
                faults.add(FaultKind::Malformed, at, || {
                    format!("{} may not record {fact:?}", record.source)
                });
                continue;
            }
            match fact {
                ChatFact::ChangeAttempted { change, wanted } => {
                    let index = *indices.entry(change).or_insert_with(|| {
                        parsed.changes.push(Change {
                            wanted,
                            at,
                            attempts: 0,
                            acked: None,
                        });
                        parsed.changes.len() - 1
                    });
                    parsed.changes[index].attempts += 1;
                }
                ChatFact::ChangeAcked { change, chat } => match indices.get(&**change) {
                    Some(index) => parsed.changes[*index].acked = Some(chat),
                    None => faults.add(FaultKind::Malformed, at, || {
                        format!("{change} is acknowledged, and was not attempted")
                    }),
                },
                ChatFact::ChangeRefused { change, status } => {
                    faults.add(FaultKind::ChangeRefused, at, || {
                        format!("{change} was answered with {status}")
                    });
                }
                ChatFact::Joined { .. }
                | ChatFact::Received { .. }
                | ChatFact::Sent { .. }
                | ChatFact::Acked { .. } => {
                    let client = parsed.clients.entry(&record.source).or_default();
                    client.push((at, fact));
                }
                ChatFact::KeptEntry {
                    room,
                    seq,
                    id,
                    event,
                } => {
                    let entry = Entry {
                        seq: *seq,
                        id,
                        event,
                    };
                    parsed.entries.entry(room).or_default().push(entry);
                }
                ChatFact::KeptChat { chat, name } => {
                    parsed.chats.insert(chat, name.as_deref());
                }
                ChatFact::KeptMember { chat, user, role } => {
                    parsed.members.insert((chat, user), *role);
                }
                ChatFact::TablesRead => parsed.tables_read = Some(at),
                ChatFact::ReadAfterRemoval { .. }
                | ChatFact::Watcher { .. }
                | ChatFact::LeftInOutbox { .. }
                | ChatFact::FinalRight { .. } => parsed.others.push((at, fact)),
            }
        }
        parsed
    }

    fn count(&self, stats: &mut Stats) {
        stats.clients += self.clients.len();
        stats.rooms += self.entries.len();
        for change in &self.changes {
            stats.changes += u64::from(change.acked.is_some());
            stats.changes_repeated += change.attempts - 1;
        }
        for (room, entries) in &self.entries {
            let is_change = |entry: &&Entry<'_>| !matches!(entry.event, ChatEvent::Message { .. });
            let changes = entries.iter().filter(is_change).count() as u64;
            if room.starts_with("chat:") {
                stats.announced_in_rooms += changes;
            } else {
                stats.announced_in_feeds += changes;
            }
        }
    }

    /// The entries of a room; none if the archive doesn't know it.
    fn entries_of(&self, room: &str) -> &[Entry<'a>] {
        self.entries.get(room).map_or(&[], Vec::as_slice)
    }
}

fn is_lab_fact(fact: &ChatFact) -> bool {
    matches!(
        fact,
        ChatFact::Watcher { .. }
            | ChatFact::KeptEntry { .. }
            | ChatFact::KeptChat { .. }
            | ChatFact::KeptMember { .. }
            | ChatFact::LeftInOutbox { .. }
            | ChatFact::FinalRight { .. }
            | ChatFact::TablesRead
    )
}
