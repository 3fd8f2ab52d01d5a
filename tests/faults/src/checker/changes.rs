//! Checks the messages that change: clients' folded states, nodes' histories, and acknowledgements.

use std::collections::BTreeMap;

use super::faults::{FaultKind, Faults};
use crate::history::changes::{ChangeFact, FinalMessage, MessageChange};
use crate::history::{Fact, Record};

/// More announcements of one message's reactions than this within a second are a fault: two, and one
/// for the edges of the second.
const MAX_PER_SECOND: usize = 3;

type Target<'a> = (&'a str, u64);

/// Checks the changes of a history, if it has any.
pub(super) fn check(records: &[Record], faults: &mut Faults) {
    let facts = records.iter().filter_map(|record| match &record.fact {
        Fact::Change(fact) => Some((record.at, fact)),
        _ => None,
    });
    let facts: Vec<_> = facts.collect();
    let histories = check_final_states(&facts, faults);
    check_acknowledged(&facts, &histories, faults);
    check_deletions(&facts, faults);
    check_reactions(&facts, &histories, faults);
    check_rate(&facts, faults);
}

/// Compares every final state with the first history of its room. Returns these histories.
fn check_final_states<'a>(
    facts: &[(u64, &'a ChangeFact)],
    faults: &mut Faults,
) -> BTreeMap<&'a str, &'a [FinalMessage]> {
    let mut histories = BTreeMap::new();
    for (_, fact) in facts {
        if let ChangeFact::Final {
            is_history: true,
            room,
            messages,
            ..
        } = fact
        {
            histories.entry(&**room).or_insert(&messages[..]);
        }
    }
    for (at, fact) in facts {
        let ChangeFact::Final {
            observer,
            room,
            messages,
            ..
        } = fact
        else {
            continue;
        };
        let history = histories.get(&**room).copied().unwrap_or_default();
        if history != messages.as_slice() {
            let differing = history
                .iter()
                .zip(messages)
                .find(|(left, right)| left != right);
            faults.add(FaultKind::FoldDiffers, *at, || {
                format!(
                    "{observer} has {} messages of {room}, the history {}; first difference: \
                     {differing:?}",
                    messages.len(),
                    history.len()
                )
            });
        }
    }
    histories
}

fn check_acknowledged(
    facts: &[(u64, &ChangeFact)],
    histories: &BTreeMap<&str, &[FinalMessage]>,
    faults: &mut Faults,
) {
    let mut conditional: BTreeMap<(&str, u64, u64), u64> = BTreeMap::new();
    for (at, fact) in facts {
        let ChangeFact::Acked {
            room,
            target,
            seq,
            change,
        } = fact
        else {
            continue;
        };
        if let MessageChange::Edit {
            condition: Some(version),
            ..
        } = change
        {
            let first = *conditional.entry((room, *target, *version)).or_insert(*seq);
            if first != *seq {
                faults.add(FaultKind::EditedTwice, *at, || {
                    format!("version {version} of {room}/{target}: at {first} and at {seq}")
                });
            }
        }
        let kept = find(histories, (room, *target));
        let is_kept = kept.is_some_and(|kept| match change {
            MessageChange::Send { content } | MessageChange::Edit { content, .. } => {
                kept.version > *seq
                    || kept.version == *seq
                        && kept.content.as_ref().is_none_or(|kept| kept == content)
            }
            MessageChange::Delete => kept.content.is_none(),
            MessageChange::React { .. } => true,
        });
        if !is_kept {
            faults.add(FaultKind::LostChange, *at, || {
                format!("{change:?} of {room}/{target}, acknowledged at {seq}: {kept:?}")
            });
        }
    }
}

fn check_deletions(facts: &[(u64, &ChangeFact)], faults: &mut Faults) {
    let mut deleted: BTreeMap<Target<'_>, u64> = BTreeMap::new();
    for (at, fact) in facts {
        if let ChangeFact::Acked {
            room,
            target,
            change: MessageChange::Delete,
            ..
        } = fact
        {
            let first = deleted.entry((room, *target)).or_insert(*at);
            *first = (*first).min(*at);
        }
    }
    for (at, fact) in facts {
        let ChangeFact::Shown {
            room,
            target,
            began,
        } = fact
        else {
            continue;
        };
        // Times of different sources are exact to the millisecond only.
        if deleted
            .get(&(&**room, *target))
            .is_some_and(|acked| began > acked)
        {
            faults.add(FaultKind::ShownAfterDeletion, *at, || {
                format!("{room}/{target}")
            });
        }
    }
}

/// Each user's reactions are changed by one driver, so their order is known.
fn check_reactions(
    facts: &[(u64, &ChangeFact)],
    histories: &BTreeMap<&str, &[FinalMessage]>,
    faults: &mut Faults,
) {
    let mut last = BTreeMap::new();
    for (at, fact) in facts {
        let (room, target, change, known) = match fact {
            ChangeFact::Acked {
                room,
                target,
                change,
                ..
            } => (room, target, change, true),
            ChangeFact::GivenUp {
                room,
                target,
                change,
            } => (room, target, change, false),
            _ => continue,
        };
        if let MessageChange::React { user, emoji, on } = change {
            last.insert((&**room, *target, user, emoji), (*at, known.then_some(*on)));
        }
    }
    for ((room, target, user, emoji), (at, on)) in last {
        let Some(kept) = find(histories, (room, target)) else {
            continue;
        };
        let has = kept
            .reactions
            .get(emoji)
            .is_some_and(|users| users.contains(user));
        if kept.content.is_some() && on.is_some_and(|on| on != has) {
            faults.add(FaultKind::LostChange, at, || {
                format!("{emoji} of {user} for {room}/{target} is set: {has}")
            });
        }
    }
}

fn check_rate(facts: &[(u64, &ChangeFact)], faults: &mut Faults) {
    let mut announced: BTreeMap<Target<'_>, BTreeMap<u64, u64>> = BTreeMap::new();
    for (_, fact) in facts {
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

fn find<'a>(
    histories: &BTreeMap<&str, &'a [FinalMessage]>,
    (room, target): Target<'_>,
) -> Option<&'a FinalMessage> {
    histories
        .get(room)?
        .iter()
        .find(|message| message.seq == target)
}
