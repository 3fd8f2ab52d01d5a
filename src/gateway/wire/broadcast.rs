//! Broadcasts: as they are asked for, and as plain clients get them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::event::EventName;
use super::fields::Fields;
use super::request::{ClientEvent, one_key};
use crate::delivery::Entry;
use crate::domain::{ClientMsgId, Limits, MessageFields, Refusal};

/// Types of frames that aren't broadcasts, beside the names of events: nobody may pass off a broadcast as one of them.
const TAKEN: [&str; 3] = ["ack", "ping", "pong"];

/// The body of `POST /api/broadcast`.
pub struct BroadcastRequest;

impl BroadcastRequest {
    /// Decodes the body: `type`, and any JSON as `data` (an empty object where there is none). `idempotency_key` is the
    /// header's.
    ///
    /// # Errors
    /// `bad_request`, `too_large`.
    pub fn decode(
        body: &str,
        idempotency_key: Option<&str>,
        limits: &Limits,
    ) -> Result<MessageFields, Refusal> {
        let fields = Fields::parse(body, limits.event_bytes, "body")?;
        let kind = fields
            .text("type")?
            .ok_or_else(|| Refusal::bad_request("type is missing"))?;
        if TAKEN.contains(&kind.as_str())
            || EventName::ALL.iter().any(|name| name.as_str() == kind)
            || ClientEvent::named(&kind).is_some()
        {
            return Err(Refusal::bad_request("type is a name of the protocol's own"));
        }
        let client_msg_id = one_key(
            fields.id("client_msg_id", ClientMsgId::parse)?,
            idempotency_key,
        )?;
        let payload = fields.json("data")?.or_else(|| Some("{}".into()));
        Ok(MessageFields {
            kind: Some(kind),
            payload,
            client_msg_id,
            ..MessageFields::default()
        })
    }
}

/// What of a stored message a broadcast is.
#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    r#type: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Serialize)]
struct Broadcast<'a> {
    r#type: &'a str,
    payload: &'a RawValue,
    seq: u64,
    epoch: &'a str,
    timestamp: String,
}

/// The frame of a broadcast. Its payload goes through byte for byte; `None` for data that are damaged.
#[must_use]
pub fn encode_broadcast(entry: &Entry) -> Option<String> {
    let stored: Stored<'_> = serde_json::from_slice(&entry.record).ok()?;
    let (seq, epoch, timestamp) = (entry.seq, entry.epoch.as_str(), entry.at.to_string());
    let frame = Broadcast {
        r#type: &stored.r#type,
        payload: stored.payload,
        seq,
        epoch,
        timestamp,
    };
    serde_json::to_string(&frame).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::record;
    use crate::delivery::EntryKind;
    use crate::domain::{Code, Epoch, NewMessage, RoomId, Timestamp, UserId, Username};

    fn decode(body: &str) -> Result<MessageFields, Refusal> {
        BroadcastRequest::decode(body, None, &Limits::default())
    }

    #[test]
    fn what_is_broadcast_arrives_as_it_was_said() {
        let fields =
            decode(r#"{"type":"task \"x\"","data":{"b":1.0,"a":[ 2 ]},"more":1}"#).unwrap();
        let user = UserId::trusted("system");
        let draft = NewMessage::new(
            RoomId::trusted("broadcast"),
            user.clone(),
            Username::from(&user),
            fields,
            &Limits::default(),
        );
        let record = record::encode(&draft.unwrap());
        let entry = Entry {
            seq: 7,
            epoch: Epoch::trusted("e1"),
            at: Timestamp(0),
            kind: EntryKind::Message,
            record,
        };
        assert_eq!(
            encode_broadcast(&entry).unwrap(),
            r#"{"type":"task \"x\"","payload":{"b":1.0,"a":[ 2 ]},"seq":7,"epoch":"e1","timestamp":"1970-01-01T00:00:00.000Z"}"#
        );
        assert_eq!(
            encode_broadcast(&Entry {
                record: "{}".into(),
                ..entry
            }),
            None
        );
    }

    #[test]
    fn the_fields_are_checked() {
        assert_eq!(
            decode(r#"{"type":"a"}"#).unwrap().payload.as_deref(),
            Some("{}")
        );
        assert_eq!(
            decode(r#"{"type":"a","data":null}"#)
                .unwrap()
                .payload
                .as_deref(),
            Some("{}")
        );
        assert_eq!(
            decode(r#"{"type":"a","data":[1,"x"]}"#)
                .unwrap()
                .payload
                .as_deref(),
            Some("[1,\"x\"]")
        );
        for body in [
            "",
            "[]",
            "{}",
            r#"{"type":1}"#,
            r#"{"type":null,"data":1}"#,
            r#"{"type":"a","data":1e999}"#,
        ] {
            assert_eq!(decode(body).unwrap_err().code, Code::BadRequest, "{body}");
        }
        for taken in [
            "message",
            "ack",
            "pong",
            "ping",
            "room_reset",
            "going_away",
            "exception",
            "resumed",
        ] {
            let body = format!(r#"{{"type":"{taken}","data":{{}}}}"#);
            assert_eq!(decode(&body).unwrap_err().code, Code::BadRequest, "{taken}");
        }
        let deep = format!(
            r#"{{"type":"a","data":{}{}}}"#,
            "[".repeat(33),
            "]".repeat(33)
        );
        assert_eq!(decode(&deep).unwrap_err().code, Code::TooLarge);
        let keyed = |header| {
            BroadcastRequest::decode(
                r#"{"type":"a","client_msg_id":"k"}"#,
                header,
                &Limits::default(),
            )
        };
        assert_eq!(
            keyed(Some("k")).unwrap().client_msg_id,
            keyed(None).unwrap().client_msg_id
        );
        assert!(keyed(Some("other")).is_err());
    }
}
