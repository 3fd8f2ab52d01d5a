//! What clients received: each event once, in order, as the archive has it, and nothing after the
//! removal of the user.

use std::collections::{BTreeMap, BTreeSet};

use super::super::faults::{FaultKind, Faults};
use super::super::stats::Stats;
use super::ChatHistory;
use super::expected::Expected;
use crate::history::chats::{ChatEvent, ChatFact, room_of};

pub(super) struct DeliveryCheck<'r, 'a> {
    history: &'r ChatHistory<'a>,
    expected: &'r Expected<'a>,
    faults: &'r mut Faults,
    stats: &'r mut Stats,
    memberships: Memberships<'a>,
}

/// A client in a room.
#[derive(Clone, Copy)]
struct Presence {
    /// The last event that it has received, or that it asked to leave out.
    position: u64,
    /// When it joined the room the last time.
    joined: u64,
}

impl<'r, 'a> DeliveryCheck<'r, 'a> {
    pub fn new(
        history: &'r ChatHistory<'a>,
        expected: &'r Expected<'a>,
        faults: &'r mut Faults,
        stats: &'r mut Stats,
    ) -> Self {
        Self {
            history,
            expected,
            faults,
            stats,
            memberships: Memberships::of(history),
        }
    }

    pub fn check(mut self) {
        let mut positions: BTreeMap<(&str, String), u64> = BTreeMap::new();
        for (client, facts) in &self.history.clients {
            for (room, presence) in self.check_client(client, facts) {
                positions.insert((client, room), presence.position);
            }
        }
        self.check_watchers(&positions);
        self.check_messages();
    }

    fn check_client(
        &mut self,
        client: &'a str,
        facts: &[(u64, &'a ChatFact)],
    ) -> BTreeMap<String, Presence> {
        let mut rooms: BTreeMap<String, Presence> = BTreeMap::new();
        let mut in_feed = 0;
        for (at, fact) in facts.iter().copied() {
            match fact {
                ChatFact::Joined {
                    chat,
                    position,
                    gap,
                    ..
                } => {
                    if *gap {
                        self.faults.add(FaultKind::UnexpectedLoss, at, || {
                            format!("{client} joined {chat} with a gap")
                        });
                    }
                    let presence = Presence {
                        position: *position,
                        joined: at,
                    };
                    rooms.insert(room_of(chat), presence);
                }
                ChatFact::Received {
                    room,
                    user,
                    seq,
                    event,
                } => {
                    self.stats.delivered += 1;
                    self.check_content(client, at, room, *seq, event);
                    if room.starts_with("user:") {
                        if *seq <= in_feed {
                            self.repeated(client, at, room, *seq, in_feed);
                        }
                        in_feed = *seq;
                        continue;
                    }
                    let Some(presence) = rooms.get_mut(room) else {
                        self.faults.add(FaultKind::NotSubscribed, at, || {
                            format!("{client} received {seq} of {room}, and had not joined it")
                        });
                        continue;
                    };
                    let before = std::mem::replace(
                        presence,
                        Presence {
                            position: *seq,
                            ..*presence
                        },
                    );
                    if *seq <= before.position {
                        self.repeated(client, at, room, *seq, before.position);
                    } else if *seq != before.position + 1 {
                        self.faults.add(FaultKind::Hole, at, || {
                            format!(
                                "{client} received {seq} of {room} after {}",
                                before.position
                            )
                        });
                    }
                    self.check_right(client, at, (room, user), *seq, before.joined);
                }
                _ => {}
            }
        }
        rooms
    }

    fn repeated(&mut self, client: &str, at: u64, room: &str, seq: u64, after: u64) {
        self.faults.add(FaultKind::Repeat, at, || {
            format!("{client} received {seq} of {room} after {after}")
        });
    }

    fn check_content(&mut self, client: &str, at: u64, room: &str, seq: u64, event: &ChatEvent) {
        let entries = self.history.entries_of(room);
        let index = entries.binary_search_by_key(&seq, |entry| entry.seq);
        let kept = index.ok().map(|index| entries[index]);
        if kept.is_none_or(|kept| kept.event != event) {
            self.faults.add(FaultKind::ConflictingMessage, at, || {
                let kept = kept.map(|kept| kept.event);
                format!("{client} received {event:?} as {seq} of {room}; the archive has {kept:?}")
            });
        }
    }

    /// A user that is no member receives nothing. A user that is added has the right from the commit
    /// on, so its client may join before the announcement of it has a number.
    fn check_right(
        &mut self,
        client: &str,
        at: u64,
        (room, user): (&str, &str),
        seq: u64,
        joined: u64,
    ) {
        let (removals, is_member) = self.memberships.before(room, user, seq);
        if is_member {
            return;
        }
        let chat = room.trim_start_matches("chat:");
        let added_at = self.expected.added_at.get(&(chat, user));
        let next = added_at.and_then(|times| times.get(removals));
        if next.is_none_or(|next| *next > joined) {
            self.faults.add(FaultKind::AfterRemoval, at, || {
                format!(
                    "{client} received {seq} of {room} after the removal number {removals} of {user}"
                )
            });
        }
    }

    /// Watchers have received everything, from the first entry to the last.
    fn check_watchers(&mut self, positions: &BTreeMap<(&str, String), u64>) {
        for (at, fact) in &self.history.others {
            let ChatFact::Watcher { client, chat } = fact else {
                continue;
            };
            let room = room_of(chat);
            let first = self.first_position(client, chat);
            let last = self.history.entries_of(&room).last();
            let last = last.map_or(0, |entry| entry.seq);
            let position = positions.get(&(client, room)).copied().unwrap_or(0);
            if first != Some(0) || position != last {
                self.faults.add(FaultKind::Missing, *at, || {
                    format!(
                        "{client} received what came after {first:?} in {chat}, up to {position}; \
                         the archive ends at {last}"
                    )
                });
            }
        }
    }

    fn first_position(&self, client: &str, chat: &str) -> Option<u64> {
        let facts = self.history.clients.get(client)?;
        facts.iter().find_map(|(_, fact)| match fact {
            ChatFact::Joined {
                chat: joined,
                position,
                ..
            } if joined == chat => Some(*position),
            _ => None,
        })
    }

    /// Each message of the archive was sent by a client, and each acknowledged one is there, at its
    /// number and nowhere else.
    fn check_messages(&mut self) {
        let mut sent: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut acked: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
        for (at, fact) in self.history.clients.values().flatten() {
            match fact {
                ChatFact::Sent { room, msg } => {
                    self.stats.attempts += 1;
                    sent.insert((room, msg));
                }
                ChatFact::Acked { room, msg, seq } => {
                    acked.insert((room, msg), (*at, *seq));
                }
                _ => {}
            }
        }
        self.stats.sent += sent.len() as u64;
        self.stats.acknowledged += acked.len() as u64;
        self.stats.unacknowledged += (sent.len() - acked.len()) as u64;
        let mut kept: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for (room, entries) in &self.history.entries {
            for entry in entries {
                let ChatEvent::Message { msg, .. } = entry.event else {
                    continue;
                };
                let msg = msg.as_deref().unwrap_or_default();
                let other = kept.insert((room, msg), entry.seq);
                if other.is_some() || !sent.contains(&(*room, msg)) {
                    self.faults.add(FaultKind::ArchivedTwice, 0, || {
                        format!(
                            "{room} has {msg:?} at {}; before at {other:?}, sent: {}",
                            entry.seq,
                            sent.contains(&(*room, msg))
                        )
                    });
                }
            }
        }
        for ((room, msg), (at, seq)) in acked {
            let kept = kept.get(&(room, msg)).copied();
            if kept != Some(seq) {
                self.faults.add(FaultKind::NotArchived, at, || {
                    format!("{msg} was acknowledged as {seq} of {room}; archived as {kept:?}")
                });
            }
        }
    }
}

/// By room and user: the numbers at which it was added (true) or removed (false).
struct Memberships<'a>(BTreeMap<(&'a str, &'a str), Vec<(u64, bool)>>);

impl<'a> Memberships<'a> {
    fn of(history: &ChatHistory<'a>) -> Self {
        let mut memberships: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (room, entries) in &history.entries {
            for entry in entries {
                let (user, added) = match entry.event {
                    ChatEvent::MemberAdded { user, .. } => (user, true),
                    ChatEvent::MemberRemoved { user, .. } => (user, false),
                    _ => continue,
                };
                let changes = memberships.entry((*room, user.as_str())).or_default();
                changes.push((entry.seq, added));
            }
        }
        Self(memberships)
    }

    /// How often the user was removed before this number, and whether it was a member then.
    fn before(&self, room: &str, user: &str, seq: u64) -> (usize, bool) {
        let changes = self.0.get(&(room, user)).map_or(&[][..], Vec::as_slice);
        let before = &changes[..changes.partition_point(|(number, _)| *number < seq)];
        let removals = before.iter().filter(|(_, added)| !added).count();
        (removals, before.last().is_some_and(|(_, added)| *added))
    }
}
