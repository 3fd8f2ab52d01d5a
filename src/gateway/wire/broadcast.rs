//! Broadcasts: the request that a service sends, and the frame that plain WebSocket clients get.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::fields::Fields;
use super::request_fields::idempotency_key;
use super::server_event::ServerEvent;
use crate::delivery::Entry;
use crate::domain::{ClientMsgId, Limits, MessageFields, Refusal};
use crate::gateway::connections::ClientEvent;

/// Types of frames that are no events.
const RESERVED_TYPES: [&str; 3] = ["ack", "ping", "pong"];

/// Whether a frame of this type already has a meaning, so that a broadcast must not have it.
fn is_reserved(kind: &str) -> bool {
    RESERVED_TYPES.contains(&kind)
        || ServerEvent::ALL.iter().any(|event| event.name() == kind)
        || ClientEvent::named(kind).is_some()
}

/// The body of `POST /api/broadcast`.
pub(crate) struct BroadcastRequest;

impl BroadcastRequest {
    /// Decodes the body: `type`, and any JSON as `data` (an empty object by default), or as `payload`
    /// if there is no `data`. `key` is the value of the header `Idempotency-Key`.
    ///
    /// # Errors
    /// `bad_request`, `too_large`.
    pub fn decode(
        body: &str,
        key: Option<&str>,
        limits: &Limits,
    ) -> Result<MessageFields, Refusal> {
        let fields = Fields::parse(body, limits.event_bytes, "body")?;
        let Some(kind) = fields.text("type")? else {
            return Err(Refusal::bad_request("type is missing"));
        };
        if is_reserved(&kind) {
            return Err(Refusal::bad_request("type is reserved by the protocol"));
        }
        let payload = match fields.json("data")? {
            Some(data) => Some(data),
            None => fields.json("payload")?,
        };
        let client_msg_id = fields.id("client_msg_id", ClientMsgId::parse)?;
        Ok(MessageFields {
            client_msg_id: idempotency_key(client_msg_id, key)?,
            payload: Some(payload.unwrap_or_else(|| "{}".into())),
            kind: Some(kind),
            ..MessageFields::default()
        })
    }
}

/// The fields of a stored message that a broadcast's frame repeats.
#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
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

/// The frame of a broadcast, with its payload byte for byte; `None` if the record is damaged.
#[must_use]
pub(crate) fn encode_broadcast(entry: &Entry) -> Option<String> {
    let stored: Stored<'_> = serde_json::from_slice(&entry.record).ok()?;
    let frame = Broadcast {
        r#type: &stored.r#type,
        payload: stored.payload,
        seq: entry.seq,
        epoch: entry.epoch.as_str(),
        timestamp: entry.at.to_string(),
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
    fn a_broadcast_is_encoded_with_its_type_and_payload_unchanged() {
        let fields =
            decode(r#"{"type":"task \"x\"","data":{"b":1.0,"a":[ 2 ]},"more":1}"#).unwrap();
        let user = UserId::trusted("system");
        let message = NewMessage::new(
            RoomId::trusted("broadcast"),
            user.clone(),
            Username::from(&user),
            fields,
            &Limits::default(),
        );
        let record = record::encode(&message.unwrap());
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
    fn invalid_fields_and_reserved_types_are_refused() {
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
        for (body, payload) in [
            (r#"{"type":"a","payload":{"b":1.0}}"#, r#"{"b":1.0}"#),
            (r#"{"type":"a","data":null,"payload":2}"#, "2"),
            (r#"{"type":"a","data":[],"payload":2}"#, "[]"),
        ] {
            assert_eq!(decode(body).unwrap().payload.as_deref(), Some(payload));
        }
        for body in [
            "",
            "[]",
            "{}",
            r#"{"type":1}"#,
            r#"{"type":null,"data":1}"#,
            r#"{"type":"a","data":1e999}"#,
            r#"{"type":"a","payload":1e999}"#,
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
