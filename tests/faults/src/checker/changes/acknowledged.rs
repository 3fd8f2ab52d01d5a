//! Checks that acknowledged changes are kept, and that refusals have a reason.

use std::collections::{BTreeMap, BTreeSet};

use super::final_states::Histories;
use super::{Observed, Target};
use crate::checker::faults::{FaultKind, Faults};
use crate::history::changes::{ChangeFact, FinalMessage, MessageChange};

pub(super) fn check(facts: &[Observed<'_>], histories: &Histories<'_>, faults: &mut Faults) {
    check_kept(facts, histories, faults);
    check_conditions(facts, faults);
    check_contents(facts, histories, faults);
    check_refusals(facts, faults);
}

/// Each acknowledged change is in the history, or was followed by a later one.
fn check_kept(facts: &[Observed<'_>], histories: &Histories<'_>, faults: &mut Faults) {
    for Observed { at, fact, .. } in facts {
        let ChangeFact::Acked {
            room,
            target,
            seq,
            change,
        } = fact
        else {
            continue;
        };
        let kept = histories.find((room, *target));
        if !kept.is_some_and(|kept| is_kept(kept, change, *seq)) {
            faults.add(FaultKind::LostChange, *at, || {
                format!("{change:?} of {room}/{target}, acknowledged at {seq}: {kept:?}")
            });
        }
    }
}

fn is_kept(kept: &FinalMessage, change: &MessageChange, seq: u64) -> bool {
    match change {
        MessageChange::Send { content, .. } | MessageChange::Edit { content, .. } => {
            let has_content = || kept.content.as_ref().is_none_or(|kept| kept == content);
            kept.version > seq || kept.version == seq && has_content()
        }
        MessageChange::Delete => kept.content.is_none(),
        MessageChange::Pin { on } => {
            // A message that was never pinned has no announcement: removing its pin changes nothing.
            let last = kept.pinned_seq.unwrap_or(kept.seq);
            kept.content.is_none() || last > seq || last == seq && kept.pinned == *on
        }
        // These have no numbers.
        MessageChange::React { .. } => true,
    }
}

/// Of the edits that name one version, one is acknowledged. A repeat has the same content.
fn check_conditions(facts: &[Observed<'_>], faults: &mut Faults) {
    let mut contents: BTreeMap<(Target<'_>, u64), &str> = BTreeMap::new();
    for Observed { at, fact, .. } in facts {
        if let ChangeFact::Acked {
            room,
            target,
            change:
                MessageChange::Edit {
                    content,
                    condition: Some(version),
                },
            ..
        } = fact
        {
            let key = ((&**room, *target), *version);
            let first = *contents.entry(key).or_insert(content);
            if first != content {
                faults.add(FaultKind::EditedTwice, *at, || {
                    format!("version {version} of {room}/{target}: {first} and {content}")
                });
            }
        }
    }
}

/// Each message has a content that its sender or an editor gave it, and no other message has it; and no
/// number is that of two changes.
fn check_contents(facts: &[Observed<'_>], histories: &Histories<'_>, faults: &mut Faults) {
    let mut attempted = BTreeSet::new();
    let mut numbers: BTreeMap<Target<'_>, &str> = BTreeMap::new();
    for Observed { at, fact, .. } in facts {
        match fact {
            ChangeFact::Attempted {
                room,
                change: MessageChange::Send { content, .. } | MessageChange::Edit { content, .. },
                ..
            } => {
                attempted.insert((&**room, &**content));
            }
            ChangeFact::Acked {
                room,
                seq: seq @ 1..,
                change: MessageChange::Send { content, .. } | MessageChange::Edit { content, .. },
                ..
            } => {
                let first = *numbers.entry((room, *seq)).or_insert(content);
                if first != content {
                    faults.add(FaultKind::ConflictingMessage, *at, || {
                        format!("{room}/{seq} is acknowledged for {first} and for {content}")
                    });
                }
            }
            _ => {}
        }
    }
    let mut seen = BTreeSet::new();
    for (room, message) in histories.messages() {
        let Some(content) = &message.content else {
            continue;
        };
        let seq = message.seq;
        if !attempted.contains(&(room, &**content)) {
            faults.add(FaultKind::ConflictingMessage, 0, || {
                format!("nobody wrote {content}, the content of {room}/{seq}")
            });
        }
        if !seen.insert(content) {
            faults.add(FaultKind::ConflictingMessage, 0, || {
                format!("{room}/{seq} has a content that another message has: {content}")
            });
        }
    }
}

/// A conditional edit may conflict, a message may be deleted, and a room has the most pins.
fn check_refusals(facts: &[Observed<'_>], faults: &mut Faults) {
    let mut deleting: BTreeSet<Target<'_>> = BTreeSet::new();
    for Observed { fact, .. } in facts {
        if let ChangeFact::Attempted {
            room,
            target,
            change: MessageChange::Delete,
            ..
        } = fact
        {
            deleting.insert((room, *target));
        }
    }
    for Observed { at, fact, .. } in facts {
        let ChangeFact::Refused {
            room,
            target,
            change,
            code,
        } = fact
        else {
            continue;
        };
        let has_reason = match (&**code, change) {
            ("conflict", MessageChange::Edit { condition, .. }) => condition.is_some(),
            // The root of a reply.
            ("message_deleted", MessageChange::Send { thread, .. }) => {
                thread.is_some() && !deleting.is_empty()
            }
            ("message_deleted", _) => deleting.contains(&(&**room, *target)),
            ("too_large", MessageChange::Pin { on }) => *on,
            _ => false,
        };
        if !has_reason {
            faults.add(FaultKind::ChangeRefused, *at, || {
                format!("{change:?} of {room}/{target} was answered with {code}")
            });
        }
    }
}
