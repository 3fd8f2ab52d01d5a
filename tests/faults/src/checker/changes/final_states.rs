//! Compares the final states of clients and nodes with each other.

use std::collections::BTreeMap;

use super::{Observed, Target};
use crate::checker::faults::{FaultKind, Faults};
use crate::history::changes::{ChangeFact, FinalMessage};

/// By room: the messages of its first history, by number.
#[derive(Default)]
pub(super) struct Histories<'a>(BTreeMap<&'a str, BTreeMap<u64, &'a FinalMessage>>);

impl<'a> Histories<'a> {
    /// The message as the history has it.
    pub fn find(&self, (room, seq): Target<'_>) -> Option<&'a FinalMessage> {
        self.0.get(room)?.get(&seq).copied()
    }

    /// All messages, with their rooms.
    pub fn messages(&self) -> impl Iterator<Item = (&'a str, &'a FinalMessage)> {
        let rooms = self.0.iter();
        rooms.flat_map(|(room, messages)| messages.values().map(|message| (*room, *message)))
    }
}

/// Compares every final state with the first history of its room. Returns these histories.
pub(super) fn check<'a>(facts: &[Observed<'a>], faults: &mut Faults) -> Histories<'a> {
    let mut histories = Histories::default();
    for Observed { fact, .. } in facts {
        if let ChangeFact::Final {
            is_history: true,
            room,
            messages,
            ..
        } = fact
        {
            let by_number = messages.iter().map(|message| (message.seq, message));
            histories
                .0
                .entry(room)
                .or_insert_with(|| by_number.collect());
        }
    }
    for Observed { at, fact, .. } in facts {
        if let ChangeFact::Final {
            observer,
            is_history,
            room,
            messages,
        } = fact
        {
            let history = histories.0.get(&**room);
            let messages = messages.iter().map(|message| {
                let kept = history.and_then(|history| history.get(&message.seq));
                match kept {
                    Some(kept) if !is_history => with_numbers_of(message.clone(), kept),
                    _ => message.clone(),
                }
            });
            compare(
                (*at, observer, room),
                history.unwrap_or(&BTreeMap::new()),
                &messages.collect::<Vec<_>>(),
                faults,
            );
        }
    }
    histories
}

/// A client that has learnt of reactions or a pin from a page, before their announcement, has the position of
/// the page as their number, which may be higher than that of the announcement.
fn with_numbers_of(mut folded: FinalMessage, kept: &FinalMessage) -> FinalMessage {
    if folded.pinned == kept.pinned && folded.pinned_seq > kept.pinned_seq {
        folded.pinned_seq = kept.pinned_seq;
    }
    if folded.reactions == kept.reactions && folded.reactions_seq > kept.reactions_seq {
        folded.reactions_seq = kept.reactions_seq;
    }
    folded
}

/// Each message that differs is a fault.
fn compare(
    (at, observer, room): (u64, &str, &str),
    history: &BTreeMap<u64, &FinalMessage>,
    messages: &[FinalMessage],
    faults: &mut Faults,
) {
    let mut left = history.clone();
    let mut last = 0;
    for message in messages {
        if message.seq <= last {
            faults.add(FaultKind::FoldDiffers, at, || {
                format!("{observer} has {room}/{} behind {last}", message.seq)
            });
        }
        last = message.seq;
        let kept = left.remove(&message.seq);
        if kept != Some(message) {
            faults.add(FaultKind::FoldDiffers, at, || {
                format!("{observer} has in {room} {message:?}, and the history {kept:?}")
            });
        }
    }
    for (seq, message) in left {
        faults.add(FaultKind::FoldDiffers, at, || {
            format!("{observer} lacks {room}/{seq}: {message:?}")
        });
    }
}
