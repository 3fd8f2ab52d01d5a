//! The forms of an entry: in the hot log, and in the archive.

use bytes::Bytes;
use serde::Deserialize;
use uuid::Uuid;

use crate::backplane::{Appended, Entry, EntryKind, change_record, record};
use crate::domain::{Epoch, NewMessage, RoomId, Timestamp, UserId};
use crate::store::{ArchivedEntry, BATCH_BYTES, BATCH_ENTRIES, StoreError, StoredKind};

/// An entry and its room.
pub(super) type ArchivedRow = (RoomId, ArchivedEntry);

/// The archived form of a message that was just appended.
pub(super) fn of_message(message: &NewMessage, at: &Appended, record: Bytes) -> ArchivedEntry {
    let key = message.client_msg_id.as_ref();
    ArchivedEntry {
        seq: at.seq,
        epoch: at.epoch.clone(),
        at: at.at,
        kind: StoredKind::MESSAGE,
        id: message.id,
        user: message.user.clone(),
        send_key: key.map(|key| key.as_str().into()),
        record,
    }
}

/// The archived form of a change that was just appended.
pub(super) fn of_change(kind: EntryKind, at: &Appended, record: Bytes) -> ArchivedEntry {
    ArchivedEntry {
        seq: at.seq,
        epoch: at.epoch.clone(),
        at: at.at,
        kind: match kind {
            EntryKind::Pointer => StoredKind::POINTER,
            _ => StoredKind::CHANGE,
        },
        id: at.id,
        user: UserId::nobody(),
        send_key: Some(at.id.to_string().into()),
        record,
    }
}

/// The archived form of a message with that position.
#[must_use]
pub fn of_record(message: &NewMessage, seq: u64, epoch: Epoch, at: Timestamp) -> ArchivedEntry {
    let appended = Appended {
        id: message.id,
        seq,
        epoch,
        at,
        duplicate: false,
    };
    of_message(message, &appended, record::encode(message))
}

/// The fields of a record that the archive has columns for.
#[derive(Deserialize)]
struct RecordFields<'a> {
    id: Uuid,
    #[serde(borrow)]
    user_id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    client_msg_id: Option<std::borrow::Cow<'a, str>>,
}

/// The archived form of an entry that was read from the hot log. `None` for an entry of a kind that
/// this release doesn't know: a node that knows it has to archive it.
pub(super) fn of_entry(entry: Entry) -> Option<ArchivedEntry> {
    match entry.kind {
        EntryKind::Message => {}
        EntryKind::Change | EntryKind::Pointer => {
            let id = change_record::Parts::of(&entry.record)?.id;
            let appended = Appended {
                id,
                seq: entry.seq,
                epoch: entry.epoch,
                at: entry.at,
                duplicate: false,
            };
            return Some(of_change(entry.kind, &appended, entry.record));
        }
        EntryKind::Amended | EntryKind::Unknown => return None,
    }
    let fields: RecordFields<'_> = serde_json::from_slice(&entry.record).ok()?;
    Some(ArchivedEntry {
        seq: entry.seq,
        epoch: entry.epoch,
        at: entry.at,
        kind: StoredKind::MESSAGE,
        id: fields.id,
        user: UserId::trusted(&fields.user_id),
        send_key: fields.client_msg_id.map(|key| key.as_ref().into()),
        record: entry.record.clone(),
    })
}

/// Whether an entry of the log is a message that was edited or deleted, and whose text the log has removed.
/// Only archived messages are changed, so the archive has it.
pub(super) fn is_without_text(entry: &Entry) -> bool {
    entry.kind == EntryKind::Message && entry.record.is_empty()
}

/// The fields of a record that make it a message.
#[derive(Deserialize)]
struct ContentFields<'a> {
    #[serde(borrow, default)]
    content: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    payload: Option<&'a serde_json::value::RawValue>,
    #[serde(default)]
    attachment_urls: Vec<serde::de::IgnoredAny>,
}

/// Whether a record can be read as a message: UTF-8, JSON, and with a content, a payload or an attachment.
pub(super) fn is_message(record: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(record) else {
        return false;
    };
    let fields: Result<ContentFields<'_>, _> = serde_json::from_str(text);
    fields.is_ok_and(|fields| {
        !fields.content.is_empty() || fields.payload.is_some() || !fields.attachment_urls.is_empty()
    })
}

/// The rows in parts, each as large as one commit may be.
pub(super) fn batches(rows: &[ArchivedRow]) -> Vec<&[ArchivedRow]> {
    let mut batches = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (index, (_, entry)) in rows.iter().enumerate() {
        bytes += entry.record.len();
        if index - first == BATCH_ENTRIES || (bytes > BATCH_BYTES && index > first) {
            batches.push(&rows[first..index]);
            (first, bytes) = (index, entry.record.len());
        }
    }
    if first < rows.len() {
        batches.push(&rows[first..]);
    }
    batches
}

/// As [`to_entry`], for an entry that goes to clients, inside other JSON. A deleted message has no record.
///
/// # Errors
/// `Broken` if the record of a message can't be a JSON object. The check is cheap, so it finds values
/// that are cut or replaced, but no errors within an object.
pub(super) fn to_checked_entry(archived: ArchivedEntry) -> crate::store::Result<Entry> {
    let is_deleted = archived.kind == StoredKind::DELETED && archived.record.is_empty();
    let entry = to_entry(archived);
    let is_object = is_deleted || matches!(&entry.record[..], [b'{', .., b'}']);
    if entry.kind != EntryKind::Unknown && !is_object {
        let text = format!("message {}: its record is not a JSON object", entry.seq);
        return Err(StoreError::Broken(text));
    }
    Ok(entry)
}

/// The entry as readers of logs know it.
pub(super) fn to_entry(archived: ArchivedEntry) -> Entry {
    let kind = match archived.kind {
        StoredKind::MESSAGE | StoredKind::DELETED => EntryKind::Message,
        StoredKind::CHANGE => EntryKind::Change,
        StoredKind::POINTER => EntryKind::Pointer,
        _ => EntryKind::Unknown,
    };
    Entry {
        seq: archived.seq,
        epoch: archived.epoch,
        at: archived.at,
        kind,
        record: archived.record,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ClientMsgId, Limits, MessageFields, Username};

    #[test]
    fn an_entry_read_from_the_log_is_archived_like_its_message() {
        let user = UserId::trusted("a\"n\\n");
        for key in [None, Some(ClientMsgId::trusted("k\u{0}\u{1f600}"))] {
            let fields = MessageFields {
                content: "hi".into(),
                client_msg_id: key,
                ..MessageFields::default()
            };
            let message = NewMessage::new(
                RoomId::trusted("lobby"),
                user.clone(),
                Username::from(&user),
                fields,
                &Limits::default(),
            )
            .unwrap();
            let appended = Appended {
                id: message.id,
                seq: 7,
                epoch: Epoch::trusted("e"),
                at: Timestamp(5),
                duplicate: false,
            };
            let record = record::encode(&message);
            let archived = of_message(&message, &appended, record);
            let entry = to_checked_entry(archived.clone()).unwrap();
            assert_eq!(of_entry(entry), Some(archived.clone()));
            for record in ["", "null", "{", "}", "{\"id\":1", "[{}]"] {
                let broken = ArchivedEntry {
                    record: record.into(),
                    ..archived.clone()
                };
                assert!(to_checked_entry(broken.clone()).is_err(), "{record}");
                let of_another_kind = ArchivedEntry {
                    kind: StoredKind(9),
                    ..broken
                };
                assert!(to_checked_entry(of_another_kind).is_ok());
            }
        }
    }
}
