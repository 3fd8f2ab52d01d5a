//! Entries of messages that are read already, and get a form that is newer.

use serde::Deserialize;
use uuid::Uuid;

use super::applied_change::last_version;
use super::log::{Entry, EntryKind};
use super::message_form;
use crate::domain::{FormContent, Head, MessageForm, RoomId, Tombstone, UserId};

/// The version of a message in the form that its own entry shows.
#[must_use]
pub fn version(entry: &Entry) -> u64 {
    if entry.kind == EntryKind::Message {
        return entry.seq;
    }
    let record = std::str::from_utf8(&entry.record).unwrap_or_default();
    last_version(record).unwrap_or(entry.seq)
}

/// Gives the own entry of a message this form, if it is newer. A deletion stays.
pub fn renew(entry: &mut Entry, form: &MessageForm) {
    let is_deleted = matches!(form.content, FormContent::Deleted(_));
    let shows_deletion = entry.kind == EntryKind::Change;
    if form.version > version(entry) && (is_deleted || !shows_deletion) {
        message_form::apply(form, entry);
    }
}

/// Replaces the own entry of a message by that of its deletion. `version`: of the message.
pub fn delete(entry: &mut Entry, deleted_by: &UserId, thread: Option<Uuid>, version: u64) {
    #[derive(Deserialize)]
    struct Fields {
        id: Uuid,
        room_id: String,
        user_id: String,
    }
    if !matches!(entry.kind, EntryKind::Message | EntryKind::Amended) {
        return;
    }
    let Ok(fields) = serde_json::from_slice::<Fields>(&entry.record) else {
        message_form::hide(entry);
        return;
    };
    let form = MessageForm {
        position: Head {
            epoch: entry.epoch.clone(),
            seq: entry.seq,
        },
        at: entry.at,
        version,
        edited_at: None,
        content: FormContent::Deleted(Tombstone {
            id: fields.id,
            room: RoomId::trusted(&fields.room_id),
            author: UserId::trusted(&fields.user_id),
            deleted_by: deleted_by.clone(),
            thread,
        }),
        reactions: None,
    };
    message_form::apply(&form, entry);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Epoch, Timestamp};

    fn message() -> Entry {
        let id = Uuid::from_u128(7);
        let record = format!(
            "{{\"id\":\"{id}\",\"room_id\":\"a\",\"user_id\":\"ann\",\"content\":\"secret\"}}"
        );
        Entry {
            seq: 7,
            epoch: Epoch::trusted("e1"),
            at: Timestamp(1),
            kind: EntryKind::Message,
            record: record.into(),
        }
    }

    fn edited(version: u64) -> MessageForm {
        let entry = message();
        MessageForm {
            position: Head {
                epoch: entry.epoch,
                seq: entry.seq,
            },
            at: entry.at,
            version,
            edited_at: Some(Timestamp(version)),
            content: FormContent::Edited(entry.record),
            reactions: None,
        }
    }

    #[test]
    fn a_form_replaces_older_ones_only() {
        let mut entry = message();
        assert_eq!(version(&entry), 7);
        renew(&mut entry, &edited(9));
        assert_eq!((entry.kind, version(&entry)), (EntryKind::Amended, 9));
        renew(&mut entry, &edited(8));
        assert_eq!(version(&entry), 9);
    }

    #[test]
    fn a_deleted_message_stays_deleted_and_has_no_content() {
        let mut entry = message();
        delete(&mut entry, &UserId::trusted("eve"), None, 8);
        assert_eq!((entry.kind, version(&entry)), (EntryKind::Change, 8));
        renew(&mut entry, &edited(12));
        let record = String::from_utf8(entry.record.to_vec()).unwrap();
        assert!(record.contains("\"deleted_by\":\"eve\"") && !record.contains("secret"));
    }
}
