//! Messages as answers show them.

use crate::backplane::{AppliedChange, Entry, EntryKind};
use crate::domain::{FormContent, MessageForm};
use crate::store::{MessageState, StoredMessage};

/// A message in its newest form, with its state.
#[derive(Debug, Clone)]
pub struct CurrentMessage {
    /// The newest form: [`EntryKind::Message`], [`EntryKind::Amended`], or a tombstone.
    pub entry: Entry,
    /// The state.
    pub state: MessageState,
}

impl From<StoredMessage> for CurrentMessage {
    fn from(stored: StoredMessage) -> Self {
        let StoredMessage {
            form,
            record,
            state,
        } = stored;
        let mut entry = Entry {
            seq: form.position.seq,
            epoch: form.position.epoch.clone(),
            at: form.at,
            kind: EntryKind::Message,
            record: record.clone(),
        };
        let form = match form.content {
            FormContent::Original | FormContent::Deleted(_) => form,
            FormContent::Edited(_) => MessageForm {
                content: FormContent::Edited(record),
                ..form
            },
        };
        let forms = [(entry.seq, form)].into();
        crate::backplane::message_form::resolve(std::slice::from_mut(&mut entry), &forms);
        Self { entry, state }
    }
}

/// Whether histories list the entry: a message, or the tombstone of one. Other entries are events.
#[must_use]
pub fn is_listed(entry: &Entry) -> bool {
    match entry.kind {
        EntryKind::Message | EntryKind::Amended => true,
        EntryKind::Change => is_tombstone(entry),
        EntryKind::Pointer | EntryKind::Unknown => false,
    }
}

fn is_tombstone(entry: &Entry) -> bool {
    /// The beginning of the record of every deletion.
    const DELETION: &[u8] = b"{\"event\":\"message_deleted\"";
    let stands_for_itself = |change: AppliedChange<'_>| change.target() == entry.seq;
    entry.record.starts_with(DELETION) && AppliedChange::of(entry).is_some_and(stands_for_itself)
}
