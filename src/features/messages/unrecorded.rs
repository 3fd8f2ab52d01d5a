//! Changes that a room's log announces before the store records the numbers of their announcements.
//!
//! An answer from the store has the content of all changes up to its `as_of`, since a change is stored
//! before it is announced. But the number of the announcement may not be recorded yet. A client takes the
//! larger number of two, and would not get the announcement again.

use crate::backplane::{Entry, RoomLog, resolved_entry};
use crate::domain::{Head, Refusal, RoomId};
use crate::store::MessageState;

use super::CurrentMessage;

/// A message of an answer, with its state.
pub(in crate::features) type Listed<'a> = (&'a mut Entry, &'a mut MessageState);

/// Gives messages, which were read from the store behind `head`, numbers that are not lower than those of the
/// announcements up to `head`. Returns the position that the messages reflect then: `head`, or a lower one if
/// the log has trimmed an announcement that is not recorded.
///
/// # Errors
/// `unavailable`.
pub(in crate::features) async fn reconcile(
    log: &dyn RoomLog,
    room: &RoomId,
    head: &Head,
    mut messages: Vec<Listed<'_>>,
) -> Result<Head, Refusal> {
    messages.retain(|(_, state)| state.unrecorded.is_any());
    for (_, state) in &mut messages {
        let unrecorded = state.unrecorded;
        if let Some((_, seq)) = &mut state.reactions
            && unrecorded.reactions
        {
            *seq = head.seq.max(*seq);
        }
        if let Some((_, seq)) = &mut state.pinned
            && unrecorded.revision
        {
            *seq = head.seq.max(*seq);
        }
    }
    messages.retain(|(_, state)| state.unrecorded.revision);
    let mut as_of = head.clone();
    if messages.is_empty() {
        return Ok(as_of);
    }
    let seqs: Vec<u64> = messages.iter().map(|(entry, _)| entry.seq).collect();
    let announced = log.announced_forms(room, &seqs).await?;
    for (entry, _) in messages {
        match announced.forms.get(&entry.seq) {
            Some(form) => resolved_entry::renew(entry, form),
            None => {
                let version = resolved_entry::version(entry);
                // An announcement behind the version that the log had would still be in it.
                if version + 1 < announced.oldest {
                    as_of.seq = as_of.seq.min(version);
                }
            }
        }
    }
    Ok(as_of)
}

/// As [`reconcile`].
pub(super) async fn reconcile_all<'a>(
    log: &dyn RoomLog,
    room: &RoomId,
    head: &Head,
    messages: impl Iterator<Item = &'a mut CurrentMessage>,
) -> Result<Head, Refusal> {
    let listed = messages.map(|message| (&mut message.entry, &mut message.state));
    reconcile(log, room, head, listed.collect()).await
}
