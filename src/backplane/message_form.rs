//! The newest form of a message that was changed, and the announcements of its changes.
//!
//! The content of a message is stored once in each place that keeps it: a log, and the archive. The
//! announcement of a change is an entry that only *points* to its message ([`EntryKind::Pointer`]).
//! Readers get entries [resolved](resolve): every entry of a message shows its newest form.
//!
//! - The message's own entry becomes [`EntryKind::Amended`], or the event `message_deleted`.
//! - A pointer becomes an [`EntryKind::Change`] with the complete event. Once the message is deleted, it is
//!   `message_deleted`, also in place of other kinds.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use uuid::Uuid;

use super::log::{Entry, EntryKind};
use crate::domain::{
    Amendment, Emoji, Epoch, FormContent, Head, MessageChangeKind, MessageForm, Reaction, RoomId,
    Timestamp, Tombstone, UserId,
};

/// The fields of a tombstone as a JSON object.
fn encode_tombstone(tombstone: &Tombstone) -> String {
    let mut fields = serde_json::json!({
        "room_id": tombstone.room.as_str(),
        "id": tombstone.id,
        "user_id": tombstone.author.as_str(),
        "deleted_by": tombstone.deleted_by.as_str(),
    });
    if let Some(thread) = tombstone.thread {
        fields["thread_id"] = thread.to_string().into();
    }
    fields.to_string()
}

fn decode_tombstone(fields: &[u8]) -> Option<Tombstone> {
    #[derive(Deserialize)]
    struct Fields {
        room_id: String,
        id: Uuid,
        user_id: String,
        deleted_by: String,
        thread_id: Option<Uuid>,
    }
    let fields: Fields = serde_json::from_slice(fields).ok()?;
    Some(Tombstone {
        id: fields.id,
        room: RoomId::trusted(&fields.room_id),
        author: UserId::trusted(&fields.user_id),
        deleted_by: UserId::trusted(&fields.deleted_by),
        thread: fields.thread_id,
    })
}

/// Encodes reactions as the JSON array of the event `reactions_changed`.
#[must_use]
pub fn encode_reactions(reactions: &[Reaction]) -> String {
    let encode = |reaction: &Reaction| {
        let users: Vec<&str> = reaction.users.iter().map(UserId::as_str).collect();
        let mut fields = serde_json::json!({
            "emoji": reaction.emoji.as_str(),
            "count": reaction.count,
            "user_ids": users,
        });
        if reaction.is_clipped() {
            fields["clipped"] = true.into();
        }
        fields
    };
    let reactions: Vec<serde_json::Value> = reactions.iter().map(encode).collect();
    serde_json::Value::from(reactions).to_string()
}

fn decode_reactions(reactions: &[u8]) -> Option<Vec<Reaction>> {
    #[derive(Deserialize)]
    struct Fields {
        emoji: String,
        count: u64,
        user_ids: Vec<String>,
    }
    let reactions: Vec<Fields> = serde_json::from_slice(reactions).ok()?;
    let decode = |fields: Fields| Reaction {
        emoji: Emoji::trusted(&fields.emoji),
        count: fields.count,
        users: fields
            .user_ids
            .iter()
            .map(|user| UserId::trusted(user))
            .collect(),
    };
    Some(reactions.into_iter().map(decode).collect())
}

/// The announcement of a change, which points to its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// The kind of the change.
    pub kind: MessageChangeKind,
    /// The id of the announcement's entry.
    pub entry_id: Uuid,
    /// The room.
    pub room: RoomId,
    /// The id of the message.
    pub id: Uuid,
    /// The number of the message.
    pub target_seq: u64,
    /// The user that has pinned the message or removed its pin; `None` for other kinds.
    pub user: Option<UserId>,
}

#[derive(Deserialize)]
struct PointerFields {
    event: String,
    entry_id: Uuid,
    room_id: String,
    id: Uuid,
    target_seq: u64,
    user_id: Option<String>,
}

impl Pointer {
    /// The record of the entry. It begins as that of every change
    /// ([`change_record`](super::change_record)).
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let user = match &self.user {
            Some(user) => format!(",\"user_id\":{}", json(user.as_str())),
            None => String::new(),
        };
        let (room, id, target) = (json(self.room.as_str()), self.id, self.target_seq);
        let fields = format!("\"room_id\":{room},\"id\":\"{id}\",\"target_seq\":{target}{user}}}");
        [self.head(self.kind).as_str(), &fields].concat().into()
    }

    /// Decodes the record of an entry. `None` if it is damaged.
    #[must_use]
    pub fn decode(record: &[u8]) -> Option<Self> {
        let fields: PointerFields = serde_json::from_slice(record).ok()?;
        Some(Self {
            kind: MessageChangeKind::of_event(&fields.event)?,
            entry_id: fields.entry_id,
            room: RoomId::trusted(&fields.room_id),
            id: fields.id,
            target_seq: fields.target_seq,
            user: fields.user_id.as_deref().map(UserId::trusted),
        })
    }

    /// The beginning of a change's record.
    fn head(&self, kind: MessageChangeKind) -> String {
        let (event, id) = (kind.event(), self.entry_id);
        format!("{{\"event\":\"{event}\",\"entry_id\":\"{id}\",")
    }

    /// The record of the complete event. `None` if the form doesn't fit.
    fn resolved(&self, form: &MessageForm) -> Option<Bytes> {
        if let FormContent::Deleted(tombstone) = &form.content {
            return Some(deleted_record(self.entry_id, tombstone, form));
        }
        let (room, id, target) = (json(self.room.as_str()), self.id, self.target_seq);
        let head = self.head(self.kind);
        match self.kind {
            MessageChangeKind::Edited => {
                let FormContent::Edited(record) = &form.content else {
                    return None;
                };
                let message = amended(form, record)?;
                let message = message.strip_prefix('{')?;
                let Head { epoch, seq } = &form.position;
                let (epoch, at) = (epoch.as_str(), form.at);
                Some(
                    format!(
                        "{head}\"room_id\":{room},\"message\":{{\"seq\":{seq},\"epoch\":\"{epoch}\",\
                         \"timestamp\":\"{at}\",{message}}}"
                    )
                    .into(),
                )
            }
            MessageChangeKind::ReactionsChanged => {
                let reactions = encode_reactions(form.reactions.as_deref().unwrap_or_default());
                Some(
                    format!(
                        "{head}\"room_id\":{room},\"id\":\"{id}\",\"target_seq\":{target},\
                         \"reactions\":{reactions}}}"
                    )
                    .into(),
                )
            }
            MessageChangeKind::Pinned | MessageChangeKind::Unpinned => Some(self.encode()),
            MessageChangeKind::Deleted => None,
        }
    }
}

/// The record of `message_deleted`.
fn deleted_record(entry_id: Uuid, tombstone: &Tombstone, form: &MessageForm) -> Bytes {
    let fields = encode_tombstone(tombstone);
    let fields = fields.trim_start_matches('{').trim_end_matches('}');
    let event = MessageChangeKind::Deleted.event();
    let (target, version) = (form.position.seq, form.version);
    format!(
        "{{\"event\":\"{event}\",\"entry_id\":\"{entry_id}\",{fields},\
         \"target_seq\":{target},\"version\":{version}}}"
    )
    .into()
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The record with version and time of the last edit.
fn amended(form: &MessageForm, record: &[u8]) -> Option<String> {
    let record = std::str::from_utf8(record).ok()?.strip_suffix('}')?;
    let version = form.version;
    Some(match form.edited_at {
        Some(at) => format!("{record},\"version\":{version},\"edited_at\":\"{at}\"}}"),
        None => format!("{record},\"version\":{version}}}"),
    })
}

/// Gives the message's own entry this form.
pub(super) fn apply(form: &MessageForm, entry: &mut Entry) {
    let replacement = match &form.content {
        FormContent::Original => return,
        FormContent::Edited(record) => {
            amended(form, record).map(|record| (EntryKind::Amended, record.into()))
        }
        FormContent::Deleted(tombstone) => {
            let record = deleted_record(tombstone.id, tombstone, form);
            Some((EntryKind::Change, record))
        }
    };
    set(entry, replacement);
}

/// The form as text: `<version> <time of the edit, or 0> <tail>`. The [tail](encode_tail) stays when a log
/// replaces the version.
#[must_use]
pub fn encode(form: &MessageForm) -> Vec<u8> {
    let at = form.edited_at.map_or(0, |at| at.0);
    let mut text = format!("{} {at} ", form.version).into_bytes();
    text.extend(encode_tail(form));
    text
}

/// The form without version and time of the edit: `<seq> <epoch> <time> <O|E|D> <bytes of the content>`, a
/// line feed, the content, and the reactions.
#[must_use]
pub fn encode_tail(form: &MessageForm) -> Vec<u8> {
    let (letter, content): (char, Bytes) = match &form.content {
        FormContent::Original => ('O', Bytes::new()),
        FormContent::Edited(record) => ('E', record.clone()),
        FormContent::Deleted(tombstone) => ('D', encode_tombstone(tombstone).into()),
    };
    let Head { epoch, seq } = &form.position;
    let (epoch, at, length) = (epoch.as_str(), form.at.0, content.len());
    let mut tail = format!("{seq} {epoch} {at} {letter} {length}\n").into_bytes();
    tail.extend_from_slice(&content);
    if let Some(reactions) = &form.reactions {
        tail.extend_from_slice(encode_reactions(reactions).as_bytes());
    }
    tail
}

/// Decodes the text of a form. `None` if it is damaged.
#[must_use]
pub fn decode(form: &Bytes) -> Option<MessageForm> {
    let line_end = form.iter().position(|&byte| byte == b'\n')?;
    let line = std::str::from_utf8(&form[..line_end]).ok()?;
    let mut words = line.split(' ');
    let number = |word: Option<&str>| word?.parse::<u64>().ok();
    let (version, edited_at) = (number(words.next())?, number(words.next())?);
    let seq = number(words.next())?;
    let epoch = Epoch::trusted(words.next()?);
    let at = Timestamp(number(words.next())?);
    let letter = words.next()?;
    let length = usize::try_from(number(words.next())?).ok()?;
    let body = form.slice(line_end + 1..);
    if length > body.len() {
        return None;
    }
    let (content, reactions) = (body.slice(..length), body.slice(length..));
    let reactions = if reactions.is_empty() {
        None
    } else {
        Some(decode_reactions(&reactions)?)
    };
    Some(MessageForm {
        position: Head { epoch, seq },
        at,
        version,
        edited_at: (edited_at > 0).then_some(Timestamp(edited_at)),
        content: match letter {
            "O" => FormContent::Original,
            "E" => FormContent::Edited(content),
            "D" => FormContent::Deleted(decode_tombstone(&content)?),
            _ => return None,
        },
        reactions,
    })
}

/// The form that is the newest one once a change has got its number and its time. `earlier`: the newest one
/// before.
///
/// A form may have been read before an earlier change was published. So a version never becomes lower, an
/// edited message never shows its original content, and a tombstone stays.
#[must_use]
pub fn amend(
    earlier: Option<MessageForm>,
    amendment: &Amendment,
    seq: u64,
    at: Timestamp,
) -> MessageForm {
    let is_deleted = |form: &MessageForm| matches!(form.content, FormContent::Deleted(_));
    let mut form = amendment.form.clone();
    if let Some(earlier) = earlier {
        if is_deleted(&earlier) && !is_deleted(&form) {
            return earlier;
        }
        if earlier.version > form.version {
            form.version = earlier.version;
            form.edited_at = earlier.edited_at;
        }
        if form.content == FormContent::Original {
            form.content = earlier.content;
        }
    }
    if amendment.raises_version {
        form.version = seq;
        form.edited_at = Some(at);
    }
    form
}

/// Replaces the kind and the record. Without a replacement the entry is damaged: it keeps its place, and
/// clients don't receive it.
fn set(entry: &mut Entry, replacement: Option<(EntryKind, Bytes)>) {
    let (kind, record) = replacement.unwrap_or_else(|| {
        tracing::error!(seq = entry.seq, "the newest form of a message is damaged");
        (EntryKind::Unknown, Bytes::new())
    });
    entry.kind = kind;
    entry.record = record;
}

/// The entry keeps its place only.
pub(super) fn hide(entry: &mut Entry) {
    entry.kind = EntryKind::Unknown;
    entry.record = Bytes::new();
}

/// Gives entries that were read their newest form. `forms`, by the numbers of their messages: of every message
/// among the entries that was changed, and of the target of every pointer.
pub fn resolve(entries: &mut [Entry], forms: &BTreeMap<u64, MessageForm>) {
    for entry in entries {
        match entry.kind {
            EntryKind::Message => match forms.get(&entry.seq) {
                Some(form) => apply(form, entry),
                // Its text was removed.
                None if entry.record.is_empty() => set(entry, None),
                None => {}
            },
            EntryKind::Pointer => {
                let pointer = Pointer::decode(&entry.record);
                let form = pointer.as_ref().and_then(|to| forms.get(&to.target_seq));
                let record = pointer.as_ref().zip(form);
                let record = record.and_then(|(pointer, form)| pointer.resolved(form));
                match (form, record) {
                    // Retention has deleted the message.
                    (None, _) if pointer.is_some() => hide(entry),
                    (_, record) => set(entry, record.map(|record| (EntryKind::Change, record))),
                }
            }
            EntryKind::Amended | EntryKind::Change | EntryKind::Unknown => {}
        }
    }
}

/// Limits a page of resolved entries to so many bytes of records, but to at least one entry: the stored
/// records, by which it was read, may be shorter. `is_from_end`: the last entries stay.
pub fn limit_bytes(entries: &mut Vec<Entry>, is_from_end: bool, max_bytes: usize) {
    let mut bytes = 0_usize;
    let mut fits = |entry: &&Entry| {
        let is_first = bytes == 0;
        bytes = bytes.saturating_add(entry.record.len());
        is_first || bytes <= max_bytes
    };
    if is_from_end {
        let count = entries.iter().rev().take_while(&mut fits).count();
        entries.drain(..entries.len() - count);
    } else {
        let count = entries.iter().take_while(&mut fits).count();
        entries.truncate(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const MESSAGE: Uuid = Uuid::from_u128(1);
    const ENTRY: Uuid = Uuid::from_u128(2);

    fn form(content: FormContent) -> MessageForm {
        MessageForm {
            position: Head {
                epoch: Epoch::trusted("e1"),
                seq: 7,
            },
            at: Timestamp(0),
            version: 9,
            edited_at: Some(Timestamp(1)),
            content,
            reactions: None,
        }
    }

    fn edited() -> FormContent {
        FormContent::Edited(r#"{"id":"x","content":"new"}"#.into())
    }

    fn deleted() -> FormContent {
        FormContent::Deleted(Tombstone {
            id: MESSAGE,
            room: RoomId::trusted("lob\"by"),
            author: UserId::trusted("ann"),
            deleted_by: UserId::trusted("bob"),
            thread: None,
        })
    }

    fn entry(seq: u64, kind: EntryKind, record: Bytes) -> Entry {
        Entry {
            seq,
            epoch: Epoch::trusted("e1"),
            at: Timestamp(5),
            kind,
            record,
        }
    }

    fn pointer(kind: MessageChangeKind) -> Pointer {
        Pointer {
            kind,
            entry_id: ENTRY,
            room: RoomId::trusted("lob\"by"),
            id: MESSAGE,
            target_seq: 7,
            user: None,
        }
    }

    fn resolved(entry: Entry, form: MessageForm) -> (EntryKind, Value) {
        let mut entries = [entry];
        resolve(&mut entries, &BTreeMap::from([(form.position.seq, form)]));
        let [entry] = entries;
        let json = serde_json::from_slice(&entry.record).unwrap_or(Value::Null);
        (entry.kind, json)
    }

    #[test]
    fn a_form_is_decoded_as_it_was_encoded() {
        let reaction = Reaction {
            emoji: Emoji::trusted("+1"),
            count: 1,
            users: vec![UserId::trusted("ann")],
        };
        for content in [FormContent::Original, edited(), deleted()] {
            for reactions in [None, Some(vec![]), Some(vec![reaction.clone()])] {
                let form = MessageForm {
                    reactions,
                    ..form(content.clone())
                };
                let encoded = Bytes::from(encode(&form));
                assert_eq!(decode(&encoded), Some(form));
            }
        }
        for damaged in ["", "1 2 3", "1 0 7 e 0 E 9\n{}", "1 0 7 e 0 X 2\n{}"] {
            assert_eq!(decode(&damaged.into()), None, "{damaged}");
        }
    }

    #[test]
    fn a_message_shows_its_newest_form_at_its_own_place() {
        let original = || {
            entry(
                7,
                EntryKind::Message,
                r#"{"id":"x","content":"old"}"#.into(),
            )
        };
        let (kind, json) = resolved(original(), form(edited()));
        assert_eq!(kind, EntryKind::Amended);
        let edited_at = "1970-01-01T00:00:00.001Z";
        let expected = json!({"id": "x", "content": "new", "version": 9, "edited_at": edited_at});
        assert_eq!(json, expected);
        let (kind, json) = resolved(original(), form(deleted()));
        assert_eq!(kind, EntryKind::Change);
        assert_eq!(json["event"], "message_deleted");
        assert_eq!(json["entry_id"], MESSAGE.to_string());
        assert_eq!(
            (&json["target_seq"], &json["version"]),
            (&json!(7), &json!(9))
        );
        let (kind, json) = resolved(original(), form(FormContent::Original));
        assert_eq!(
            (kind, &json["content"]),
            (EntryKind::Message, &json!("old"))
        );
    }

    #[test]
    fn an_announcement_shows_the_newest_form_of_its_message() {
        for kind in MessageChangeKind::ALL {
            let at = |content| {
                let record = pointer(kind).encode();
                resolved(entry(9, EntryKind::Pointer, record), form(content))
            };
            let (found, json) = at(deleted());
            assert_eq!(found, EntryKind::Change);
            assert_eq!(json["event"], "message_deleted", "{kind:?}");
            assert_eq!(json["entry_id"], ENTRY.to_string());
            assert_eq!(json["room_id"], "lob\"by");
            assert_eq!(json["deleted_by"], "bob");
            let (found, json) = at(edited());
            if kind == MessageChangeKind::Deleted {
                assert_eq!(found, EntryKind::Unknown, "the tombstone is missing");
            } else {
                assert_eq!(
                    (found, &json["event"]),
                    (EntryKind::Change, &json!(kind.event()))
                );
            }
        }
        let record = pointer(MessageChangeKind::Edited).encode();
        let (_, json) = resolved(entry(9, EntryKind::Pointer, record), form(edited()));
        let message = json!({
            "seq": 7, "epoch": "e1", "timestamp": "1970-01-01T00:00:00.000Z", "id": "x",
            "content": "new", "version": 9, "edited_at": "1970-01-01T00:00:00.001Z",
        });
        assert_eq!(json["message"], message);
    }

    #[test]
    fn reactions_are_listed_and_clipped() {
        let reaction = Reaction {
            emoji: Emoji::trusted(":+1:"),
            count: 3,
            users: vec![UserId::trusted("ann")],
        };
        let form = MessageForm {
            reactions: Some(vec![reaction]),
            ..form(FormContent::Original)
        };
        let record = pointer(MessageChangeKind::ReactionsChanged).encode();
        let (_, json) = resolved(entry(9, EntryKind::Pointer, record), form);
        let expected = json!([{"emoji": ":+1:", "count": 3, "user_ids": ["ann"], "clipped": true}]);
        assert_eq!(json["reactions"], expected);
    }

    #[test]
    fn a_pointer_without_its_form_keeps_its_place_only() {
        let mut entries = [entry(
            9,
            EntryKind::Pointer,
            pointer(MessageChangeKind::Pinned).encode(),
        )];
        resolve(&mut entries, &BTreeMap::new());
        assert_eq!((entries[0].seq, entries[0].kind), (9, EntryKind::Unknown));
    }
}
