//! Changes of messages as they arrive, applied to entries that a node keeps in memory: so these show the
//! newest form, as entries do that are read again.

use bytes::Bytes;
use uuid::Uuid;

use super::change_record::Parts;
use super::log::{Entry, EntryKind};
use crate::domain::MessageChangeKind;

/// The announcement of a change of a message, as readers get it. It borrows the record; nothing is parsed as
/// JSON.
#[derive(Debug, Clone, Copy)]
pub struct AppliedChange<'a> {
    kind: MessageChangeKind,
    /// The number of the announcement.
    seq: u64,
    /// The number of the message.
    target: u64,
    /// The room and the event's fields, without the opening brace.
    fields: &'a str,
}

impl<'a> AppliedChange<'a> {
    /// The change of a message that an entry announces; `None` for every other entry.
    #[must_use]
    pub fn of(entry: &'a Entry) -> Option<Self> {
        if entry.kind != EntryKind::Change {
            return None;
        }
        let parts = Parts::of(&entry.record)?;
        let kind = MessageChangeKind::of_event(parts.event)?;
        // A quote in a text is escaped, so keys occur nowhere else.
        let key = match kind {
            MessageChangeKind::Edited => "\"message\":{\"seq\":",
            _ => "\"target_seq\":",
        };
        Some(Self {
            kind,
            seq: entry.seq,
            target: number_after(parts.fields, parts.fields.find(key)? + key.len())?,
            fields: parts.fields,
        })
    }

    /// The number of the message.
    #[must_use]
    pub fn target(&self) -> u64 {
        self.target
    }

    /// The number of the message, and the name of the change's event. Of changes that have both in common the
    /// last one has the newest form.
    #[must_use]
    pub fn key(&self) -> (u64, &'static str) {
        (self.target, self.kind.event())
    }

    /// An earlier entry of the message in its newest form. `None` if it stays as it is.
    #[must_use]
    pub fn apply(&self, entry: &Entry) -> Option<Entry> {
        if entry.seq >= self.seq {
            return None;
        }
        let (kind, record) = if entry.seq == self.target {
            self.as_message(entry)?
        } else {
            (EntryKind::Change, self.as_announcement(entry)?)
        };
        Some(Entry {
            kind,
            record,
            ..entry.clone()
        })
    }

    /// The message's own entry.
    fn as_message(&self, entry: &Entry) -> Option<(EntryKind, Bytes)> {
        if !matches!(entry.kind, EntryKind::Message | EntryKind::Amended) {
            return None;
        }
        match self.kind {
            MessageChangeKind::Deleted => {
                let id = self.fields.split_once("\"id\":\"")?.1.get(..36)?;
                let record = self.record(Uuid::try_parse(id).ok()?);
                Some((EntryKind::Change, record))
            }
            MessageChangeKind::Edited => {
                if is_newer(entry, self.fields) {
                    return None;
                }
                let (_, message) = self.fields.split_once("\"message\":{\"seq\":")?;
                let (_, message) = message.split_once("\"timestamp\":\"")?;
                let (_, message) = message.split_once("\",")?;
                let message = message.strip_suffix('}')?;
                Some((EntryKind::Amended, format!("{{{message}").into()))
            }
            _ => None,
        }
    }

    /// The record of an earlier announcement.
    fn as_announcement(&self, entry: &Entry) -> Option<Bytes> {
        let earlier = AppliedChange::of(entry)?;
        if earlier.target != self.target || earlier.kind == MessageChangeKind::Deleted {
            return None;
        }
        let id = Parts::of(&entry.record)?.id;
        match self.kind {
            MessageChangeKind::Deleted => Some(self.record(id)),
            // Pins name their own users.
            MessageChangeKind::Pinned | MessageChangeKind::Unpinned => None,
            kind if kind != earlier.kind || is_newer(entry, self.fields) => None,
            _ => Some(self.record(id)),
        }
    }

    fn record(&self, entry_id: Uuid) -> Bytes {
        let (event, fields) = (self.kind.event(), self.fields);
        format!("{{\"event\":\"{event}\",\"entry_id\":\"{entry_id}\",{fields}").into()
    }
}

/// Whether an entry, which was read later than the change was published, has a later version.
fn is_newer(entry: &Entry, fields: &str) -> bool {
    if entry.kind == EntryKind::Message {
        return false;
    }
    let record = std::str::from_utf8(&entry.record).unwrap_or_default();
    last_version(record) > last_version(fields)
}

/// The version behind all fields of a message.
pub(super) fn last_version(text: &str) -> Option<u64> {
    let key = "\"version\":";
    number_after(text, text.rfind(key)? + key.len())
}

fn number_after(text: &str, start: usize) -> Option<u64> {
    let rest = text.get(start..)?;
    let end = rest.find(|char: char| !char.is_ascii_digit())?;
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::backplane::{Pointer, message_form};
    use crate::domain::{
        Emoji, Epoch, FormContent, Head, MessageForm, Reaction, RoomId, Timestamp, Tombstone,
        UserId,
    };

    const ROOM: &str = "a \"message\":{\"seq\":1 and \"id\":\"";

    fn entry(seq: u64, kind: EntryKind, record: Bytes) -> Entry {
        Entry {
            seq,
            epoch: Epoch::trusted("e1"),
            at: Timestamp(seq),
            kind,
            record,
        }
    }

    fn form(version: u64, content: FormContent, count: u64) -> MessageForm {
        MessageForm {
            position: Head {
                epoch: Epoch::trusted("e1"),
                seq: 7,
            },
            at: Timestamp(7),
            version,
            edited_at: Some(Timestamp(version)),
            content,
            reactions: Some(vec![Reaction {
                emoji: Emoji::trusted("+1"),
                count,
                users: Vec::new(),
            }]),
        }
    }

    fn edited(text: &str) -> FormContent {
        let record = serde_json::json!({"id": "x", "payload": {"version": 99}, "content": text});
        FormContent::Edited(record.to_string().into())
    }

    fn deleted() -> FormContent {
        FormContent::Deleted(Tombstone {
            id: Uuid::from_u128(7),
            room: RoomId::trusted(ROOM),
            author: UserId::trusted("ann"),
            deleted_by: UserId::trusted("bob"),
            thread: None,
        })
    }

    /// The stored entries of the room: the message, an entry of another message, and one announcement of
    /// each kind from number 9 on.
    fn stored() -> Vec<Entry> {
        let message = |text| format!("{{\"id\":\"x\",\"content\":\"{text}\"}}").into();
        let mut entries = vec![
            entry(7, EntryKind::Message, message("old")),
            entry(8, EntryKind::Message, message("other")),
        ];
        for (kind, seq) in MessageChangeKind::ALL.into_iter().cycle().zip(9_u64..19) {
            let pointer = Pointer {
                kind,
                entry_id: Uuid::from_u128(seq.into()),
                room: RoomId::trusted(ROOM),
                id: Uuid::from_u128(7),
                target_seq: 7,
                user: Some(UserId::trusted("ann")),
            };
            entries.push(entry(seq, EntryKind::Pointer, pointer.encode()));
        }
        entries
    }

    fn resolved(form: &MessageForm) -> Vec<Entry> {
        let mut entries = stored();
        let forms = BTreeMap::from([(7, form.clone())]);
        message_form::resolve(&mut entries, &forms);
        entries
    }

    fn apply(change: &Entry, entries: &mut [Entry]) {
        let change = AppliedChange::of(change).expect("a change of a message");
        assert_eq!(change.target(), 7);
        for entry in entries {
            if let Some(changed) = change.apply(entry) {
                *entry = changed;
            }
        }
    }

    #[test]
    fn kept_entries_become_as_if_they_were_read_again() {
        let before = form(9, edited("old"), 1);
        for (after, announcement) in [
            (form(14, edited("new"), 1), 14),
            (form(9, edited("old"), 2), 16),
            (form(15, deleted(), 1), 15),
        ] {
            let mut kept = resolved(&before);
            let read_again = resolved(&after);
            let index = announcement - 7;
            kept.truncate(index);
            let change = &read_again[index];
            apply(change, &mut kept);
            for (kept, read) in kept.iter().zip(&read_again) {
                let is_edit_without_form = kept.kind == EntryKind::Unknown;
                if !is_edit_without_form {
                    assert_eq!(kept, read, "{announcement}");
                }
            }
        }
    }

    #[test]
    fn a_form_that_was_read_later_stays() {
        let mut kept = resolved(&form(20, edited("newest"), 1));
        let expected = kept.clone();
        let earlier = resolved(&form(14, edited("new"), 1));
        apply(&earlier[7], &mut kept);
        assert_eq!(kept, expected);
        let mut kept = resolved(&form(20, deleted(), 1));
        let expected = kept.clone();
        apply(&earlier[7], &mut kept);
        assert_eq!(kept, expected);
    }

    #[test]
    fn other_changes_concern_no_message() {
        let record = super::super::change_record::encode(
            &RoomId::trusted(ROOM),
            "member_added",
            Uuid::nil(),
            "{\"target_seq\":7}",
        );
        assert!(AppliedChange::of(&entry(9, EntryKind::Change, record)).is_none());
    }
}
