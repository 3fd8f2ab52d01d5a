//! Checks the numbered events that clients received: each number once and in order, also over reconnects,
//! and the same message at the same number for every client.

use std::collections::BTreeMap;

use super::{Observed, Target};
use crate::checker::faults::{FaultKind, Faults};
use crate::history::changes::ChangeFact;

pub(super) fn check(facts: &[Observed<'_>], faults: &mut Faults) {
    let mut check = DeliveryCheck {
        positions: BTreeMap::new(),
        targets: BTreeMap::new(),
        faults,
    };
    for observed in facts {
        check.add(*observed);
    }
}

struct DeliveryCheck<'a, 'f> {
    /// By client and room: the number of its last event.
    positions: BTreeMap<(&'a str, &'a str), u64>,
    /// By room and number: the message that the event is about.
    targets: BTreeMap<Target<'a>, u64>,
    faults: &'f mut Faults,
}

impl<'a> DeliveryCheck<'a, '_> {
    fn add(&mut self, Observed { at, source, fact }: Observed<'a>) {
        match fact {
            ChangeFact::Joined {
                room,
                position,
                is_resume,
                recovered,
                gap,
            } => self.joined(
                at,
                (source, room, *position),
                (*is_resume, *recovered, *gap),
            ),
            ChangeFact::Received {
                room,
                seq,
                target,
                version,
                ..
            } => {
                self.received(at, (source, room, *seq));
                self.compare_target(at, (source, room, *seq), *target);
                if version.is_some_and(|version| version < *seq) {
                    self.faults.add(FaultKind::StaleForm, at, || {
                        format!(
                            "{source} received the edit {room}/{seq} of {target} with the version \
                             {version:?}"
                        )
                    });
                }
            }
            // There is an archive, and no data is lost.
            ChangeFact::Reset { room } => self.faults.add(FaultKind::UnexpectedLoss, at, || {
                format!("{source} got room_reset for {room}")
            }),
            _ => {}
        }
    }

    fn joined(
        &mut self,
        at: u64,
        (client, room, position): (&'a str, &'a str, u64),
        (is_resume, recovered, gap): (bool, bool, bool),
    ) {
        let known = self.positions.insert((client, room), position);
        let fits = match known {
            Some(known) if recovered => known == position,
            // It asks for a part only.
            Some(known) => gap && known <= position,
            None => !is_resume,
        };
        if !fits {
            self.faults.add(FaultKind::ImpossibleJoinAnswer, at, || {
                format!(
                    "{client} was at {known:?} of {room}, and is at {position}: resume \
                     {is_resume}, recovered {recovered}, gap {gap}"
                )
            });
        }
    }

    fn received(&mut self, at: u64, (client, room, seq): (&'a str, &'a str, u64)) {
        let Some(known) = self.positions.get_mut(&(client, room)) else {
            return self.faults.add(FaultKind::NotSubscribed, at, || {
                format!("{client} received {room}/{seq} before it joined")
            });
        };
        let last = *known;
        *known = seq;
        let kind = match seq.cmp(&(last + 1)) {
            std::cmp::Ordering::Equal => return,
            std::cmp::Ordering::Greater => FaultKind::Hole,
            std::cmp::Ordering::Less if seq == last => FaultKind::Repeat,
            std::cmp::Ordering::Less => FaultKind::OutOfOrder,
        };
        self.faults.add(kind, at, || {
            format!("{client} received {room}/{seq} after {last}")
        });
    }

    fn compare_target(
        &mut self,
        at: u64,
        (client, room, seq): (&'a str, &'a str, u64),
        target: u64,
    ) {
        let first = *self.targets.entry((room, seq)).or_insert(target);
        if first != target {
            self.faults.add(FaultKind::ConflictingMessage, at, || {
                format!("{room}/{seq} is about {first}, and for {client} about {target}")
            });
        }
    }
}
