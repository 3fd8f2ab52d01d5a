//! Checks the messages that change: clients' folded states, nodes' histories, acknowledgements, and the
//! numbered events that clients received.

mod acknowledged;
mod deletions;
mod deliveries;
mod final_states;
mod reactions;

use super::faults::{FaultKind, Faults};
use super::stats::Stats;
use crate::history::changes::{ChangeFact, MessageChange};
use crate::history::{Fact, Record};

/// A fact with its time and its source.
#[derive(Clone, Copy)]
struct Observed<'a> {
    at: u64,
    source: &'a str,
    fact: &'a ChangeFact,
}

/// A room and the number of a message.
type Target<'a> = (&'a str, u64);

/// Checks the changes of a history, if it has any.
pub(super) fn check(records: &[Record], faults: &mut Faults, stats: &mut Stats) {
    let facts = records.iter().filter_map(|record| match &record.fact {
        Fact::Change(fact) => Some(Observed {
            at: record.at,
            source: &record.source,
            fact,
        }),
        _ => None,
    });
    let facts: Vec<_> = facts.collect();
    if facts.is_empty() {
        return;
    }
    count(&facts, stats);
    let histories = final_states::check(&facts, faults);
    acknowledged::check(&facts, &histories, faults);
    deletions::check(&facts, faults);
    reactions::check(&facts, &histories, faults);
    deliveries::check(&facts, faults);
    for Observed { at, fact, .. } in facts {
        if let ChangeFact::LeftInOutbox { row, kind, failed } = fact {
            faults.add(FaultKind::LeftInOutbox, at, || {
                format!("row {row}, {kind}, failed: {failed}")
            });
        }
    }
}

fn count(facts: &[Observed<'_>], stats: &mut Stats) {
    let mut clients = std::collections::BTreeSet::new();
    let mut rooms = std::collections::BTreeSet::new();
    // The root of the reply is deleted.
    let mut refused_sends = 0;
    for Observed { source, fact, .. } in facts {
        match fact {
            ChangeFact::Attempted {
                change, is_repeat, ..
            } => {
                let is_send = matches!(change, MessageChange::Send { .. });
                stats.attempts += u64::from(is_send);
                stats.sent += u64::from(is_send && !is_repeat);
                stats.message_changes_repeated += u64::from(*is_repeat);
            }
            ChangeFact::Acked { change, .. } => match change {
                MessageChange::Send { thread, .. } => {
                    stats.acknowledged += 1;
                    stats.replies += u64::from(thread.is_some());
                }
                MessageChange::Edit { .. } => stats.edits += 1,
                MessageChange::Delete => stats.deletions += 1,
                MessageChange::React { .. } => stats.reactions += 1,
                MessageChange::Pin { .. } => stats.pins += 1,
            },
            ChangeFact::Refused { code, change, .. } => {
                stats.refused += 1;
                refused_sends += u64::from(matches!(change, MessageChange::Send { .. }));
                stats.conflicts += u64::from(code == "conflict");
            }
            ChangeFact::Joined {
                room,
                is_resume,
                recovered,
                gap,
                ..
            } => {
                clients.insert(*source);
                rooms.insert(room);
                stats.resumes += u64::from(*is_resume && *recovered);
                stats.gaps += u64::from(*gap);
            }
            ChangeFact::Received { .. } => stats.delivered += 1,
            ChangeFact::Reset { .. } => stats.resets += 1,
            ChangeFact::Shown { .. }
            | ChangeFact::ReactionsReceived { .. }
            | ChangeFact::Final { .. }
            | ChangeFact::LeftInOutbox { .. } => {}
        }
    }
    stats.clients += clients.len();
    stats.rooms += rooms.len();
    stats.unacknowledged += stats
        .sent
        .saturating_sub(stats.acknowledged + refused_sends);
}
