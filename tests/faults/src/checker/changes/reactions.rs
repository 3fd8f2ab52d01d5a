//! Checks the reactions to messages, and how often they are announced.

use std::collections::BTreeMap;

use super::final_states::Histories;
use super::{Observed, Target};
use crate::checker::faults::{FaultKind, Faults};
use crate::history::changes::{ChangeFact, MessageChange};

/// More announcements of one message's reactions than this within a second are a fault: two, and one
/// for the edges of the second.
const MAX_PER_SECOND: usize = 3;

pub(super) fn check(facts: &[Observed<'_>], histories: &Histories<'_>, faults: &mut Faults) {
    check_last(facts, histories, faults);
    check_rate(facts, faults);
}

/// Each reaction of a user is changed by one client, so the order of its changes is known.
fn check_last(facts: &[Observed<'_>], histories: &Histories<'_>, faults: &mut Faults) {
    let mut last = BTreeMap::new();
    for Observed { at, fact, .. } in facts {
        let (room, target, change, is_acked) = match fact {
            ChangeFact::Acked {
                room,
                target,
                change,
                ..
            } => (room, target, change, true),
            // Nobody knows whether it is made.
            ChangeFact::Attempted {
                room,
                target,
                change,
                ..
            } => (room, target, change, false),
            _ => continue,
        };
        if let MessageChange::React { user, emoji, on } = change {
            let key = ((&**room, *target), user, emoji);
            last.insert(key, (*at, is_acked.then_some(*on)));
        }
    }
    for ((target, user, emoji), (at, on)) in last {
        let (Some(on), Some(kept)) = (on, histories.find(target)) else {
            continue;
        };
        let users = kept.reactions.get(emoji);
        let has = users.is_some_and(|users| users.contains(user));
        if kept.content.is_some() && on != has {
            faults.add(FaultKind::LostChange, at, || {
                let (room, target) = target;
                format!("{emoji} of {user} for {room}/{target} is set: {has}")
            });
        }
    }
}

fn check_rate(facts: &[Observed<'_>], faults: &mut Faults) {
    let mut announced: BTreeMap<Target<'_>, BTreeMap<u64, u64>> = BTreeMap::new();
    for Observed { fact, .. } in facts {
        if let ChangeFact::ReactionsReceived {
            room,
            target,
            seq,
            timestamp,
        } = fact
        {
            let times = announced.entry((room, *target)).or_default();
            times.insert(*seq, *timestamp);
        }
    }
    for ((room, target), times) in announced {
        let times: Vec<u64> = times.into_values().collect();
        for window in times.windows(MAX_PER_SECOND + 1) {
            if window[MAX_PER_SECOND].saturating_sub(window[0]) < 1000 {
                faults.add(FaultKind::TooManyAnnouncements, 0, || {
                    format!("reactions of {room}/{target}: {window:?}")
                });
            }
        }
    }
}
