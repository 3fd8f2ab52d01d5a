//! The record of a change: a JSON object with the name of its event and the event's fields.
//!
//! As the [`record`](super::record) of a message it lacks the fields that the log assigns.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{Change, RoomId};

/// The fields of an event.
#[derive(Serialize)]
#[serde(untagged)]
enum Fields {
    SessionEnded {
        session_id: Uuid,
        reason: &'static str,
    },
}

/// The fields of a change's event as a JSON object that is never empty.
#[must_use]
pub fn fields(change: &Change) -> String {
    let fields = match change {
        Change::SessionEnded { session, reason } => Fields::SessionEnded {
            session_id: *session,
            reason: reason.as_str(),
        },
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

/// The session that a record announces as ended; `None` for every other record.
#[must_use]
pub fn ended_session(record: &[u8]) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Ended {
        event: String,
        session_id: Uuid,
    }
    let ended: Ended = serde_json::from_slice(record).ok()?;
    (ended.event == "session_ended").then_some(ended.session_id)
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
    use crate::domain::SessionEnd;

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
}
