//! Messages that change: requests, acknowledgements and REST bodies.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::fields::Fields;
use super::request_fields::MAX_SEQ;
use super::server_event::write_message;
use crate::delivery::{Entry, EntryKind};
use crate::domain::{Code, Head, Limits, Reaction, Refusal, RoomId, UserId};
use crate::features::messages::{
    AnnouncedChange, ChangeRefused, CurrentMessage, EditFields, MessageState, MessageVersion,
    PinnedMessage, ReadPosition, Reader, Replacement, RoomUnread, ThreadPage, ThreadState, Unread,
    UserThread, VersionPage, encode_reactions,
};

/// What `null` means in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Null {
    /// The field is as if left out.
    Absent,
    /// The field is cleared: in a PATCH.
    Clears,
}

/// The fields of an edit, and the version that the client has seen.
///
/// # Errors
/// `bad_request`, `too_large`.
pub(crate) fn edit_fields(
    fields: &Fields<'_>,
    null: Null,
) -> Result<(EditFields, Option<u64>), Refusal> {
    let clears = |field: &str| null == Null::Clears && fields.is_null(field);
    let content = match fields.text("content")? {
        None if clears("content") => Some(String::new()),
        content => content,
    };
    let attachment_urls = if fields.raw("attachment_urls").is_some() || clears("attachment_urls") {
        Some(fields.texts("attachment_urls")?)
    } else {
        None
    };
    let edit = EditFields {
        content,
        title: replacement(fields.text("title")?, clears("title")),
        payload: replacement(fields.json("payload")?, clears("payload")),
        attachment_urls,
    };
    Ok((edit, fields.number("version", 0, MAX_SEQ)?))
}

fn replacement<T>(value: Option<T>, is_cleared: bool) -> Replacement<T> {
    match value {
        Some(value) => Replacement::Set(value),
        None if is_cleared => Replacement::Clear,
        None => Replacement::Keep,
    }
}

/// The body of `PATCH /api/v1/rooms/{room_id}/messages/{id}`.
#[derive(Debug)]
pub(crate) struct EditRequest {
    pub fields: EditFields,
    pub version: Option<u64>,
}

impl EditRequest {
    /// # Errors
    /// `bad_request`, `too_large`.
    pub fn decode(body: &str, limits: &Limits) -> Result<Self, Refusal> {
        let fields = Fields::parse(body, limits.event_bytes, "body")?;
        let (fields, version) = edit_fields(&fields, Null::Clears)?;
        Ok(Self { fields, version })
    }
}

/// The version in the value of a header `If-Match`; `None` for `*`.
///
/// # Errors
/// `bad_request`.
pub(crate) fn if_match(value: &str) -> Result<Option<u64>, Refusal> {
    let value = value.trim();
    if value == "*" {
        return Ok(None);
    }
    let quoted = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    let version = quoted.and_then(|version| version.parse().ok());
    match version {
        Some(version) if version <= MAX_SEQ => Ok(Some(version)),
        _ => {
            let text = "If-Match must be a version in quotes";
            Err(Refusal::bad_request(text).field("If-Match"))
        }
    }
}

/// The body of `PUT …/read`.
#[derive(Debug, Deserialize)]
pub(crate) struct ReadRequest {
    pub seq: u64,
    #[serde(default)]
    pub thread_id: Option<String>,
}

/// The body of `POST …/unread`.
#[derive(Debug, Deserialize)]
pub(crate) struct UnreadRequest {
    pub seq: u64,
}

impl From<ChangeRefused> for Refusal {
    fn from(refused: ChangeRefused) -> Self {
        match refused {
            ChangeRefused::Refusal(refusal) => refusal,
            ChangeRefused::Conflict(message) => {
                Self::new(Code::Conflict, "the message has another version")
                    .message(current_json(&message).get())
            }
        }
    }
}

/// The acknowledgement of a change.
#[derive(Serialize)]
pub(crate) struct ChangeAck<'a> {
    ok: bool,
    room_id: &'a str,
    id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

impl<'a> ChangeAck<'a> {
    /// Of a deletion, of a pin.
    pub fn of(room: &'a RoomId, made: AnnouncedChange) -> Self {
        Self {
            ok: true,
            room_id: room.as_str(),
            id: made.id,
            seq: Some(made.seq),
            version: None,
        }
    }

    /// Of an edit, whose announcement is the version.
    pub fn of_edit(room: &'a RoomId, made: AnnouncedChange) -> Self {
        Self {
            version: Some(made.seq),
            ..Self::of(room, made)
        }
    }

    /// Of a reaction, whose announcement may follow.
    pub fn of_reaction(room: &'a RoomId, made: AnnouncedChange) -> Self {
        Self {
            seq: None,
            ..Self::of(room, made)
        }
    }
}

/// The acknowledgement of `read`.
#[derive(Serialize)]
pub(crate) struct ReadAck<'a> {
    ok: bool,
    room_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_id: Option<Uuid>,
    last_read_seq: u64,
    #[serde(flatten)]
    unread: UnreadJson,
}

impl<'a> ReadAck<'a> {
    pub fn of(room: &'a RoomId, thread: Option<Uuid>, position: &ReadPosition) -> Self {
        Self {
            ok: true,
            room_id: room.as_str(),
            thread_id: thread,
            last_read_seq: position.last_read_seq,
            unread: position.unread.into(),
        }
    }
}

/// A number of unread messages.
#[derive(Serialize)]
pub(super) struct UnreadJson {
    unread: u64,
    /// There may be more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    capped: bool,
}

impl From<Unread> for UnreadJson {
    fn from(unread: Unread) -> Self {
        Self {
            unread: unread.count,
            capped: unread.is_capped,
        }
    }
}

/// A room of `GET /api/v1/me/unread`.
#[derive(Serialize)]
pub(crate) struct RoomUnreadJson<'a> {
    room_id: &'a str,
    last_read_seq: u64,
    #[serde(flatten)]
    unread: UnreadJson,
    mentions: u64,
}

impl<'a> From<&'a RoomUnread> for RoomUnreadJson<'a> {
    fn from(room: &'a RoomUnread) -> Self {
        Self {
            room_id: room.room.as_str(),
            last_read_seq: room.last_read_seq,
            unread: room.unread.into(),
            mentions: room.mentions,
        }
    }
}

/// A thread of `GET /api/v1/me/threads`.
#[derive(Serialize)]
pub(crate) struct UserThreadJson<'a> {
    room_id: &'a str,
    thread_id: Uuid,
    seq: u64,
    last_seq: u64,
    last_read_seq: u64,
    #[serde(flatten)]
    unread: UnreadJson,
}

impl<'a> From<&'a UserThread> for UserThreadJson<'a> {
    fn from(thread: &'a UserThread) -> Self {
        Self {
            room_id: thread.room.as_str(),
            thread_id: thread.root,
            seq: thread.root_seq,
            last_seq: thread.last_seq,
            last_read_seq: thread.last_read_seq,
            unread: thread.unread.into(),
        }
    }
}

/// The state of a message, as histories show it.
#[derive(Serialize)]
struct StateJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reactions: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reactions_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<ThreadJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned_seq: Option<u64>,
}

#[derive(Serialize)]
struct ThreadJson<'a> {
    replies: u64,
    last_seq: u64,
    participants: Vec<&'a str>,
}

impl<'a> StateJson<'a> {
    fn of(state: &'a MessageState) -> Self {
        let thread = |thread: &'a ThreadState| ThreadJson {
            replies: thread.replies,
            last_seq: thread.last_seq,
            participants: thread.participants.iter().map(UserId::as_str).collect(),
        };
        let reactions = state.reactions.as_ref();
        Self {
            reactions: reactions.map(|(reactions, _)| reactions_json(reactions)),
            reactions_seq: reactions.map(|(_, seq)| *seq),
            thread: state.thread.as_ref().map(thread),
            pinned: state.pinned.map(|(is_pinned, _)| is_pinned),
            pinned_seq: state.pinned.map(|(_, seq)| seq),
        }
    }
}

/// The reactions to a message.
#[derive(Serialize)]
pub(crate) struct ReactionList {
    items: Box<RawValue>,
    has_more: bool,
}

impl ReactionList {
    pub fn of(reactions: &[Reaction]) -> Self {
        Self {
            items: reactions_json(reactions),
            has_more: false,
        }
    }
}

/// Reactions, as everywhere.
fn reactions_json(reactions: &[Reaction]) -> Box<RawValue> {
    raw(encode_reactions(reactions))
}

fn raw(json: String) -> Box<RawValue> {
    // Only a damaged record is no valid JSON. The rest of the answer is still of use.
    RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// A message in its newest form.
pub(crate) fn current_json(message: &CurrentMessage) -> Box<RawValue> {
    listed_json(&message.entry, Some(&message.state))
}

/// The messages of a page with their state.
pub(crate) fn listed(
    entries: &[Entry],
    states: &BTreeMap<u64, MessageState>,
) -> Vec<Box<RawValue>> {
    let json = |entry: &Entry| listed_json(entry, states.get(&entry.seq));
    entries.iter().map(json).collect()
}

/// A message with its state, or the tombstone of one.
pub(crate) fn listed_json(entry: &Entry, state: Option<&MessageState>) -> Box<RawValue> {
    if entry.kind == EntryKind::Change {
        return tombstone_json(entry);
    }
    let mut json = String::new();
    write_message(entry, &mut json);
    if let Some(state) = state {
        let state = super::to_json(&StateJson::of(state));
        let fields = state.trim_start_matches('{');
        if fields != "}" && json.pop() == Some('}') {
            json.extend([",", fields]);
        }
    }
    raw(json)
}

/// The record of a deletion.
#[derive(Deserialize)]
struct Deletion<'a> {
    #[serde(borrow)]
    room_id: &'a RawValue,
    id: Uuid,
    #[serde(borrow)]
    user_id: &'a RawValue,
    #[serde(borrow)]
    deleted_by: &'a RawValue,
    version: u64,
    thread_id: Option<Uuid>,
}

#[derive(Serialize)]
struct TombstoneJson<'a> {
    seq: u64,
    epoch: &'a str,
    timestamp: String,
    version: u64,
    id: Uuid,
    room_id: &'a RawValue,
    user_id: &'a RawValue,
    deleted: bool,
    deleted_by: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_id: Option<Uuid>,
}

fn tombstone_json(entry: &Entry) -> Box<RawValue> {
    let Ok(deletion) = serde_json::from_slice::<Deletion<'_>>(&entry.record) else {
        return RawValue::NULL.to_owned();
    };
    raw(super::to_json(&TombstoneJson {
        seq: entry.seq,
        epoch: entry.epoch.as_str(),
        timestamp: entry.at.to_string(),
        version: deletion.version,
        id: deletion.id,
        room_id: deletion.room_id,
        user_id: deletion.user_id,
        deleted: true,
        deleted_by: deletion.deleted_by,
        thread_id: deletion.thread_id,
    }))
}

/// A form that a message has had: its record, with its version and when it was made. `None` while its
/// change is not announced yet.
fn version_json(version: &MessageVersion) -> Option<Box<RawValue>> {
    if version.version == 0 {
        return None;
    }
    let record = std::str::from_utf8(&version.record).ok()?;
    let fields = record.strip_prefix('{')?;
    let (number, at) = (version.version, version.at);
    Some(raw(format!(
        "{{\"version\":{number},\"timestamp\":\"{at}\",{fields}"
    )))
}

/// A position of a room.
#[derive(Serialize)]
pub(crate) struct PositionJson<'a> {
    seq: u64,
    epoch: &'a str,
}

impl<'a> From<&'a Head> for PositionJson<'a> {
    fn from(head: &'a Head) -> Self {
        Self {
            seq: head.seq,
            epoch: head.epoch.as_str(),
        }
    }
}

/// A page of the forms of a message.
#[derive(Serialize)]
pub(crate) struct VersionList<'a> {
    /// The forms whose announcements are published, oldest first.
    items: Vec<Box<RawValue>>,
    has_more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    as_of: PositionJson<'a>,
}

impl<'a> VersionList<'a> {
    /// The next page begins at the cursor.
    pub fn of(page: &VersionPage, next_cursor: Option<String>, as_of: &'a Head) -> Self {
        Self {
            items: page.versions.iter().filter_map(version_json).collect(),
            has_more: next_cursor.is_some(),
            next_cursor,
            as_of: as_of.into(),
        }
    }
}

/// A page of a thread.
#[derive(Serialize)]
pub(crate) struct ThreadList<'a> {
    root: Box<RawValue>,
    /// The replies, in ascending `seq`.
    items: Vec<Box<RawValue>>,
    has_more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    as_of: PositionJson<'a>,
}

impl<'a> ThreadList<'a> {
    /// `cursor` makes the cursor of the page behind a number.
    pub fn of(page: &'a ThreadPage, cursor: impl Fn(u64) -> String) -> Self {
        let replies = &page.replies;
        let last = replies.messages.last().filter(|_| replies.has_more);
        Self {
            root: current_json(&page.root),
            items: replies.messages.iter().map(current_json).collect(),
            has_more: replies.has_more,
            next_cursor: last.map(|last| cursor(last.entry.seq)),
            as_of: (&page.as_of).into(),
        }
    }
}

/// The pins of a room.
#[derive(Serialize)]
pub(crate) struct PinList<'a> {
    items: Vec<PinJson<'a>>,
    has_more: bool,
    as_of: PositionJson<'a>,
}

#[derive(Serialize)]
struct PinJson<'a> {
    message: Box<RawValue>,
    user_id: &'a str,
    pinned_at: String,
}

impl<'a> PinList<'a> {
    pub fn of(pins: &'a [PinnedMessage], as_of: &'a Head) -> Self {
        let pin = |pin: &'a PinnedMessage| PinJson {
            message: current_json(&pin.message),
            user_id: pin.user.as_str(),
            pinned_at: pin.at.to_string(),
        };
        Self {
            items: pins.iter().map(pin).collect(),
            has_more: false,
            as_of: as_of.into(),
        }
    }
}

/// A user that has read a message.
#[derive(Serialize)]
pub(crate) struct ReaderJson<'a> {
    user_id: &'a str,
    last_read_seq: u64,
    read_at: String,
}

impl<'a> From<&'a Reader> for ReaderJson<'a> {
    fn from(reader: &'a Reader) -> Self {
        Self {
            user_id: reader.user.as_str(),
            last_read_seq: reader.last_read_seq,
            read_at: reader.at.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Emoji, Epoch, Timestamp};

    fn entry(kind: EntryKind, record: &str) -> Entry {
        Entry {
            seq: 7,
            epoch: Epoch::trusted("e1"),
            at: Timestamp(0),
            kind,
            record: record.to_owned().into(),
        }
    }

    #[test]
    fn a_message_is_followed_by_its_state() {
        let entry = entry(EntryKind::Amended, r#"{"id":"x","version":9}"#);
        let state = MessageState {
            reactions: Some((
                vec![Reaction {
                    emoji: Emoji::trusted("+1"),
                    count: 2,
                    users: vec![UserId::trusted("ann")],
                }],
                11,
            )),
            thread: Some(ThreadState {
                replies: 1,
                last_seq: 8,
                participants: vec![UserId::trusted("bob")],
            }),
            pinned: Some((true, 10)),
            ..MessageState::default()
        };
        let expected = r#"{"seq":7,"epoch":"e1","timestamp":"1970-01-01T00:00:00.000Z","id":"x","version":9,"reactions":[{"clipped":true,"count":2,"emoji":"+1","user_ids":["ann"]}],"reactions_seq":11,"thread":{"replies":1,"last_seq":8,"participants":["bob"]},"pinned":true,"pinned_seq":10}"#;
        assert_eq!(listed_json(&entry, Some(&state)).get(), expected);
        let plain =
            r#"{"seq":7,"epoch":"e1","timestamp":"1970-01-01T00:00:00.000Z","id":"x","version":9}"#;
        assert_eq!(listed_json(&entry, None).get(), plain);
        let without = MessageState::default();
        assert_eq!(listed_json(&entry, Some(&without)).get(), plain);
    }

    #[test]
    fn the_tombstone_of_a_message_has_no_content() {
        let id = Uuid::nil();
        let record = format!(
            r#"{{"event":"message_deleted","entry_id":"{id}","deleted_by":"bob","id":"{id}","room_id":"r","user_id":"ann","target_seq":7,"version":9}}"#
        );
        let expected = format!(
            r#"{{"seq":7,"epoch":"e1","timestamp":"1970-01-01T00:00:00.000Z","version":9,"id":"{id}","room_id":"r","user_id":"ann","deleted":true,"deleted_by":"bob"}}"#
        );
        let entry = entry(EntryKind::Change, &record);
        assert_eq!(listed_json(&entry, None).get(), expected);
    }

    #[test]
    fn null_clears_a_field_in_a_patch_only() {
        let json = r#"{"title":null,"payload":null,"attachment_urls":null,"content":null}"#;
        let fields = Fields::parse(json, 1000, "body").unwrap();
        let (edit, version) = edit_fields(&fields, Null::Clears).unwrap();
        assert_eq!((edit.title, version), (Replacement::Clear, None));
        assert_eq!(edit.payload, Replacement::Clear);
        assert_eq!(edit.attachment_urls, Some(vec![]));
        assert_eq!(edit.content.as_deref(), Some(""));
        let (edit, _) = edit_fields(&fields, Null::Absent).unwrap();
        assert_eq!((edit.title, edit.content), (Replacement::Keep, None));
        assert_eq!(edit.attachment_urls, None);
    }

    #[test]
    fn a_version_is_quoted_in_if_match() {
        assert_eq!(if_match("\"7\"").unwrap(), Some(7));
        assert_eq!(if_match("*").unwrap(), None);
        for other in ["7", "", "\"x\"", "W/\"7\"", "\"-1\""] {
            assert_eq!(
                if_match(other).unwrap_err().code,
                Code::BadRequest,
                "{other}"
            );
        }
    }
}
