//! The order of a room's announcements, as its users received them: any two users that received the same
//! two announcements received them in the same order, with the same numbers.
//!
//! This check needs no archive. It compares the users with each other.

use std::collections::{BTreeMap, HashMap};

use super::super::faults::{FaultKind, Faults};
use super::ChatHistory;
use crate::history::chats::{ChatEvent, ChatFact, room_of};

pub(super) struct OrderCheck<'r, 'a> {
    pub history: &'r ChatHistory<'a>,
    pub faults: &'r mut Faults,
}

/// An announcement as a client received it: the time, the number, and the event.
type Received<'a> = (u64, u64, &'a ChatEvent);

/// A client's stay in a room, from one join to the next: the client may join again at an earlier position.
type Stay<'a> = (&'a str, usize);

/// What was received in one room.
type RoomViews<'a> = BTreeMap<Stay<'a>, Vec<Received<'a>>>;

impl<'a> OrderCheck<'_, 'a> {
    pub fn check(mut self) {
        for (room, views) in self.views() {
            self.check_numbers(room, &views);
            self.check_order(room, &views);
        }
    }

    fn views(&self) -> BTreeMap<&'a str, RoomViews<'a>> {
        let mut rooms: BTreeMap<&str, RoomViews<'_>> = BTreeMap::new();
        for (client, facts) in &self.history.clients {
            let mut joins: BTreeMap<String, usize> = BTreeMap::new();
            for (at, fact) in facts {
                match fact {
                    ChatFact::Joined { chat, .. } => *joins.entry(room_of(chat)).or_default() += 1,
                    ChatFact::Received { event, .. } if is_message(event) => {}
                    ChatFact::Received {
                        room, seq, event, ..
                    } => {
                        let stay = (*client, joins.get(room).copied().unwrap_or(0));
                        let views = rooms.entry(room).or_default();
                        views.entry(stay).or_default().push((*at, *seq, event));
                    }
                    _ => {}
                }
            }
        }
        rooms
    }

    /// A number is the same announcement for all.
    fn check_numbers(&mut self, room: &str, views: &RoomViews<'a>) {
        let mut known: HashMap<u64, (&str, &ChatEvent)> = HashMap::new();
        for ((client, _), received) in views {
            for (at, seq, event) in received {
                let (first, expected) = *known.entry(*seq).or_insert((client, event));
                if expected != *event {
                    self.faults.add(FaultKind::RoomOrder, *at, || {
                        format!(
                            "{seq} of {room} is {event:?} for {client}, and {expected:?} for {first}"
                        )
                    });
                }
            }
        }
    }

    /// Two announcements have one order for all.
    fn check_order(&mut self, room: &str, views: &RoomViews<'a>) {
        // The pairs that a client received in falling order, and one such client. A pair that is in none
        // of them has one order.
        let mut falling: BTreeMap<(u64, u64), (&str, u64)> = BTreeMap::new();
        for ((client, _), received) in views {
            for (at, lower, higher) in inversions(received) {
                falling.entry((lower, higher)).or_insert((client, at));
            }
        }
        for ((client, _), received) in views {
            for ((lower, higher), (other, at)) in &falling {
                if rises(received, *lower, *higher) {
                    self.faults.add(FaultKind::RoomOrder, *at, || {
                        format!(
                            "{client} received {lower} of {room} before {higher}, and {other} after it"
                        )
                    });
                }
            }
        }
    }
}

fn is_message(event: &ChatEvent) -> bool {
    matches!(event, ChatEvent::Message { .. })
}

/// Pairs of numbers that the client first received in falling order, with the time.
fn inversions(received: &[Received<'_>]) -> Vec<(u64, u64, u64)> {
    let mut inverted = Vec::new();
    let mut before: Vec<u64> = Vec::new();
    for (at, seq, _) in received {
        // A repeat, which another check reports, has its first position.
        if before.contains(seq) {
            continue;
        }
        let greater = before.iter().filter(|other| *other > seq);
        inverted.extend(greater.map(|other| (*at, *seq, *other)));
        before.push(*seq);
    }
    inverted
}

/// Whether the client first received the lower number before the higher one.
fn rises(received: &[Received<'_>], lower: u64, higher: u64) -> bool {
    let position = |wanted| received.iter().position(|(_, seq, _)| *seq == wanted);
    match (position(lower), position(higher)) {
        (Some(lower), Some(higher)) => lower < higher,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Fact, Record};

    fn record(source: &str, fact: ChatFact) -> Record {
        Record {
            at: 1,
            source: source.into(),
            fact: Fact::Chat(fact),
        }
    }

    fn joined(source: &str) -> Record {
        let joined = ChatFact::Joined {
            chat: "c".into(),
            user: source.into(),
            position: 0,
            gap: false,
        };
        record(source, joined)
    }

    /// The client receives the removal of a user under a number.
    fn removed(source: &str, seq: u64, user: &str) -> Record {
        let received = ChatFact::Received {
            room: room_of("c"),
            user: source.into(),
            seq,
            event: ChatEvent::MemberRemoved {
                chat: "c".into(),
                user: user.into(),
                role: None,
            },
        };
        record(source, received)
    }

    fn message(source: &str, seq: u64, msg: &str) -> Record {
        let received = ChatFact::Received {
            room: room_of("c"),
            user: source.into(),
            seq,
            event: ChatEvent::Message {
                msg: Some(msg.into()),
                sender: "ann".into(),
            },
        };
        record(source, received)
    }

    fn faults(history: &[Record]) -> Vec<String> {
        let mut faults = Faults::default();
        let parsed = ChatHistory::parse(history, &mut faults);
        let check = OrderCheck {
            history: &parsed,
            faults: &mut faults,
        };
        check.check();
        faults.into_texts()
    }

    #[test]
    fn users_that_received_announcements_in_one_order_are_accepted() {
        let history = [
            joined("a"),
            removed("a", 1, "x"),
            removed("a", 2, "y"),
            removed("a", 4, "z"),
            joined("b"),
            removed("b", 2, "y"),
            removed("b", 4, "z"),
            // A join at an earlier position brings earlier ones again.
            joined("b"),
            removed("b", 1, "x"),
            removed("b", 2, "y"),
        ];
        assert_eq!(faults(&history), Vec::<String>::new());
    }

    #[test]
    fn two_orders_of_the_same_announcements_are_noticed() {
        let history = [
            joined("a"),
            removed("a", 1, "x"),
            removed("a", 2, "y"),
            removed("a", 3, "z"),
            joined("b"),
            removed("b", 1, "x"),
            removed("b", 3, "z"),
            removed("b", 2, "y"),
        ];
        let faults = faults(&history);
        assert_eq!(faults.len(), 1, "{faults:?}");
        let expected = "a received 2 of chat:c before 3, and b after it";
        assert!(faults[0].ends_with(expected), "{faults:?}");
        assert!(faults[0].starts_with("order in a room"), "{faults:?}");
    }

    #[test]
    fn a_number_with_two_announcements_is_noticed() {
        let history = [
            joined("a"),
            removed("a", 1, "x"),
            removed("a", 2, "y"),
            joined("b"),
            removed("b", 1, "y"),
            removed("b", 2, "x"),
        ];
        assert_eq!(faults(&history).len(), 2);
    }

    #[test]
    fn messages_and_clients_alone_are_no_matter_of_this_check() {
        let history = [
            joined("a"),
            removed("a", 2, "x"),
            removed("a", 1, "y"),
            message("a", 5, "m"),
            joined("b"),
            message("b", 5, "n"),
        ];
        assert_eq!(faults(&history), Vec::<String>::new());
    }
}
