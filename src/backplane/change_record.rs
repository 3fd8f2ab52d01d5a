//! The record of a change: a JSON object with the name of its event and the event's fields.
//!
//! As the [`record`](super::record) of a message it lacks the fields that the log assigns.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{Change, Chat, ChatRole, MemberChange, RoomId, UserId};

/// The fields of an event.
#[derive(Serialize)]
#[serde(untagged)]
enum Fields<'a> {
    SessionEnded {
        session_id: Uuid,
        reason: &'static str,
    },
    Chat {
        chat: ChatFields<'a>,
    },
    Member {
        chat_id: Uuid,
        target_room_id: String,
        user_id: &'a str,
        username: &'a str,
        role: &'static str,
    },
}

/// A chat, as its events have it.
#[derive(Serialize)]
struct ChatFields<'a> {
    id: Uuid,
    room_id: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    history: &'static str,
    members: u64,
    /// In a user's feed only.
    #[serde(skip_serializing_if = "Option::is_none")]
    my: Option<MyFields>,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize)]
struct MyFields {
    role: &'static str,
}

impl<'a> Fields<'a> {
    fn chat(chat: &'a Chat, role: Option<ChatRole>) -> Self {
        let my = |role: ChatRole| MyFields {
            role: role.as_str(),
        };
        Self::Chat {
            chat: ChatFields {
                id: chat.id,
                room_id: chat.room().as_str().to_owned(),
                kind: chat.kind.as_str(),
                name: chat.name.as_deref(),
                history: chat.history.as_str(),
                members: chat.members,
                my: role.map(my),
                created_at: chat.created_at.to_string(),
                updated_at: chat.updated_at.to_string(),
            },
        }
    }

    fn member(member: &'a MemberChange) -> Self {
        Self::Member {
            chat_id: member.chat,
            target_room_id: RoomId::chat(member.chat).as_str().to_owned(),
            user_id: member.user.as_str(),
            username: &member.username,
            role: member.role.as_str(),
        }
    }
}

/// The fields of a change's event as a JSON object that is never empty.
#[must_use]
pub fn fields(change: &Change) -> String {
    let fields = match change {
        Change::SessionEnded { session, reason } => Fields::SessionEnded {
            session_id: *session,
            reason: reason.as_str(),
        },
        Change::ChatCreated { chat, role } => Fields::chat(chat, Some(*role)),
        Change::ChatUpdated { chat, role } => Fields::chat(chat, *role),
        Change::MemberAdded(member) | Change::MemberRemoved(member) => Fields::member(member),
    };
    serde_json::to_string(&fields).expect("the fields of a change always serialise")
}

/// The record of a change: `{"event":"<event>","entry_id":"<id>","room_id":"<room>"`, and then the
/// fields.
///
/// `event` needs no escapes, and `fields` is a JSON object that is not empty.
#[must_use]
pub fn encode(room: &RoomId, event: &str, id: Uuid, fields: &str) -> Bytes {
    let room = serde_json::to_string(room.as_str()).expect("a string always serialises");
    let fields = fields.trim_start().strip_prefix('{').unwrap_or("}");
    let head = format!("{{\"event\":\"{event}\",\"entry_id\":\"{id}\",\"room_id\":{room},");
    [head.as_str(), fields].concat().into()
}

/// Whether a text can be the fields of a change: a JSON object that is not empty.
#[must_use]
pub fn is_payload(text: &str) -> bool {
    let object: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(text);
    object.is_ok_and(|object| !object.is_empty())
}

/// Whether the name of a record's event begins so. Most records are of other events, and may be long.
fn is_event(record: &[u8], name: &str) -> bool {
    let behind = record.strip_prefix(b"{\"event\":\"");
    behind.is_some_and(|behind| behind.starts_with(name.as_bytes()))
}

/// The session that a record announces as ended; `None` for every other record.
#[must_use]
pub fn ended_session(record: &[u8]) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Ended {
        event: String,
        session_id: Uuid,
    }
    if !is_event(record, "session_ended") {
        return None;
    }
    let ended: Ended = serde_json::from_slice(record).ok()?;
    (ended.event == "session_ended").then_some(ended.session_id)
}

/// A change of a chat's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// The member.
    pub user: UserId,
    /// Whether the user is no member any more.
    pub is_removed: bool,
}

/// The change of members that a record announces; `None` for every other record.
#[must_use]
pub fn member_change(record: &[u8]) -> Option<MemberRecord> {
    #[derive(Deserialize)]
    struct Member<'a> {
        event: &'a str,
        #[serde(default)]
        user_id: &'a str,
    }
    if !is_event(record, "member_") {
        return None;
    }
    let member: Member<'_> = serde_json::from_slice(record).ok()?;
    let is_removed = match member.event {
        "member_added" => false,
        "member_removed" => true,
        _ => return None,
    };
    Some(MemberRecord {
        user: UserId::trusted(member.user_id),
        is_removed,
    })
}

/// The parts of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The name of the event.
    pub event: &'a str,
    /// The id of the entry.
    pub id: Uuid,
    /// The room and the event's fields, without the opening brace.
    pub fields: &'a str,
}

impl<'a> Parts<'a> {
    /// Takes a record apart. `None` if it is damaged.
    #[must_use]
    pub fn of(record: &'a [u8]) -> Option<Self> {
        let record = std::str::from_utf8(record).ok()?;
        let rest = record.strip_prefix("{\"event\":\"")?;
        let (event, rest) = rest.split_once("\",\"entry_id\":\"")?;
        let (id, fields) = rest.split_once("\",")?;
        let id = Uuid::try_parse(id).ok()?;
        Some(Self { event, id, fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ChatHistory, ChatKind, SessionEnd, Timestamp};

    #[test]
    fn a_record_has_the_event_the_id_and_the_fields() {
        let session = Uuid::now_v7();
        let reason = SessionEnd::LoggedOut;
        let change = Change::SessionEnded { session, reason };
        let id = Uuid::now_v7();
        let room = RoomId::trusted("user:1");
        let record = encode(&room, change.event(), id, &fields(&change));
        let json: serde_json::Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(json["event"], "session_ended");
        assert_eq!(json["session_id"], session.to_string());
        assert_eq!(json["reason"], "logged_out");
        let parts = Parts::of(&record).unwrap();
        assert_eq!((parts.event, parts.id), ("session_ended", id));
        assert_eq!(json["room_id"], "user:1");
        let expected = format!(
            "\"room_id\":\"user:1\",\"session_id\":\"{session}\",\"reason\":\"logged_out\"}}"
        );
        assert_eq!(parts.fields, expected);
        for damaged in ["", "{}", "{\"event\":\"a\",\"entry_id\":\"b\",}"] {
            assert_eq!(Parts::of(damaged.as_bytes()), None, "{damaged}");
        }
    }

    #[test]
    fn the_record_of_a_chat_names_the_role_in_a_feed_only() {
        let chat = Chat {
            id: Uuid::nil(),
            kind: ChatKind::Group,
            name: Some("\"team\"".to_owned()),
            history: ChatHistory::Joined,
            members: 3,
            created_by: UserId::trusted("ann"),
            created_at: Timestamp(0),
            updated_at: Timestamp(1),
        };
        let updated = |role| {
            let chat = chat.clone();
            fields(&Change::ChatUpdated { chat, role })
        };
        let room = "chat:00000000-0000-0000-0000-000000000000";
        let expected = format!(
            r#"{{"chat":{{"id":"{}","room_id":"{room}","kind":"group","name":"\"team\"","history":"joined","members":3,"my":{{"role":"owner"}},"created_at":"1970-01-01T00:00:00.000Z","updated_at":"1970-01-01T00:00:00.001Z"}}}}"#,
            Uuid::nil()
        );
        assert_eq!(updated(Some(ChatRole::Owner)), expected);
        let without = expected.replace(r#""my":{"role":"owner"},"#, "");
        assert_eq!(updated(None), without);
        let removed = Change::MemberRemoved(MemberChange {
            chat: Uuid::nil(),
            user: UserId::trusted("bob"),
            username: "Bob".to_owned(),
            role: ChatRole::Member,
        });
        let expected = format!(
            r#"{{"chat_id":"{}","target_room_id":"{room}","user_id":"bob","username":"Bob","role":"member"}}"#,
            Uuid::nil()
        );
        assert_eq!(fields(&removed), expected);
        let record = encode(
            &RoomId::trusted("user:1"),
            removed.event(),
            Uuid::nil(),
            &expected,
        );
        let bob = |is_removed| MemberRecord {
            user: UserId::trusted("bob"),
            is_removed,
        };
        assert_eq!(member_change(&record), Some(bob(true)));
        let of_chat = |event, fields| {
            let record = encode(&RoomId::trusted(room), event, Uuid::nil(), fields);
            member_change(&record)
        };
        assert_eq!(of_chat("member_added", &expected), Some(bob(false)));
        assert_eq!(of_chat("chat_updated", &without), None);
        assert_eq!(of_chat("session_ended", r#"{"user_id":"bob"}"#), None);
    }
}
