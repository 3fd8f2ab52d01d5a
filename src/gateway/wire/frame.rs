//! What plain clients send and are answered: `{"type": …, "payload": {…}, "ref": …}`, both ways.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::fields::Fields;
use super::request::{Decoded, decode_named};
use crate::domain::{Code, Limits, Refusal};

/// The longest `ref`, in bytes of its JSON.
const REF_BYTES: usize = 64;
/// A longer frame is no ping.
const PING_BYTES: usize = 512;

/// A frame, taken apart: the event's name (for its refusal), the JSON by which the client wants to know the answer again, and
/// what it asks.
pub struct DecodedFrame {
    /// Empty where it has none.
    pub event: Cow<'static, str>,
    /// A string or a number.
    pub reference: Option<Box<str>>,
    /// What is asked.
    pub decoded: Result<Decoded, Refusal>,
}

/// Takes a frame apart.
#[must_use]
pub fn decode_frame(text: &str, limits: &Limits) -> DecodedFrame {
    let refused = |refusal| DecodedFrame {
        event: "".into(),
        reference: None,
        decoded: Err(refusal),
    };
    let fields = match Fields::around(text, "frame") {
        Ok(fields) => fields,
        Err(refusal) => return refused(refusal),
    };
    // First, so that whatever else is wrong is answered.
    let reference = match fields.take("ref").map(reference).transpose() {
        Ok(reference) => reference,
        Err(refusal) => {
            return DecodedFrame {
                event: name(&fields).unwrap_or_default().into(),
                ..refused(refusal)
            };
        }
    };
    let (event, decoded) = match name(&fields) {
        Err(refusal) => ("".into(), Err(refusal)),
        Ok(name) => decode_named(name.into(), fields.take("payload"), limits),
    };
    DecodedFrame {
        event,
        reference,
        decoded,
    }
}

fn name(fields: &Fields<'_>) -> Result<String, Refusal> {
    fields
        .text("type")?
        .ok_or_else(|| Refusal::bad_request("type is missing"))
}

fn reference(json: &RawValue) -> Result<Box<str>, Refusal> {
    let json = json.get();
    let is_text = serde_json::from_str::<String>(json).is_ok();
    if !is_text && serde_json::from_str::<f64>(json).is_err() {
        return Err(Refusal::bad_request("ref must be a string or a number"));
    }
    if json.len() > REF_BYTES {
        return Err(Refusal::new(
            Code::TooLarge,
            format!("ref must be at most {REF_BYTES} bytes"),
        ));
    }
    Ok(json.into())
}

/// Whether the frame is `{"type":"ping"}`, whatever else is in it.
#[must_use]
pub fn is_ping(text: &str) -> bool {
    text.len() <= PING_BYTES
        && text.contains("\"ping\"")
        && Fields::around(text, "frame")
            .is_ok_and(|fields| name(&fields).is_ok_and(|name| name == "ping"))
}

/// The answer to a ping.
#[must_use]
pub const fn pong() -> &'static str {
    r#"{"type":"pong"}"#
}

/// The answer to the request of that `ref`; both are JSON.
#[must_use]
pub fn encode_ack(reference: &str, payload: &str) -> String {
    [
        r#"{"type":"ack","ref":"#,
        reference,
        r#","payload":"#,
        payload,
        "}",
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> DecodedFrame {
        decode_frame(text, &Limits::default())
    }

    #[test]
    fn a_frame_has_a_type_a_payload_and_a_reference() {
        let frame = decode(r#"{"type":"join","payload":{"room_id":"a"},"ref":"7","more":[1]}"#);
        assert_eq!(
            (&*frame.event, frame.reference.as_deref()),
            ("join", Some("\"7\""))
        );
        assert!(matches!(frame.decoded, Ok(Decoded::Join(..))));
        let frame = decode(r#"{"ref":-1.5,"payload":{"room_id":"a"},"type":"leave"}"#);
        assert_eq!(frame.reference.as_deref(), Some("-1.5"));
        assert!(matches!(frame.decoded, Ok(Decoded::Leave(_))));
        assert_eq!(
            decode(r#"{"type":"leave","payload":{"room_id":"a"},"ref":null}"#).reference,
            None
        );
        assert_eq!(
            encode_ack("\"7\"", "{}"),
            r#"{"type":"ack","ref":"7","payload":{}}"#
        );
    }

    #[test]
    fn whatever_is_wrong_is_said() {
        let deep = format!(
            r#"{{"type":"join","payload":{}{}}}"#,
            "[".repeat(5000),
            "]".repeat(5000)
        );
        for (text, event, code) in [
            ("", "", Code::BadRequest),
            ("ping", "", Code::BadRequest),
            ("[]", "", Code::BadRequest),
            ("{}", "", Code::BadRequest),
            (r#"{"type":5}"#, "", Code::BadRequest),
            (r#"{"type":"\ud800"}"#, "", Code::BadRequest),
            (r#"{"type":"join"}"#, "join", Code::BadRequest),
            (
                r#"{"type":"join","payload":null}"#,
                "join",
                Code::BadRequest,
            ),
            (r#"{"type":"join","payload":"a"}"#, "join", Code::BadRequest),
            (
                r#"{"type":"join","payload":{"room_id":"a"},"ref":{}}"#,
                "join",
                Code::BadRequest,
            ),
            (
                r#"{"type":"join","payload":{"room_id":"a"},"ref":true}"#,
                "join",
                Code::BadRequest,
            ),
            (
                r#"{"type":"task_created","payload":{}}"#,
                "task_created",
                Code::UnknownEvent,
            ),
            (
                r#"{"type":"join","payload":{"room_id":"a"},"ref":"\ud800"}"#,
                "join",
                Code::BadRequest,
            ),
            (&deep, "join", Code::BadRequest),
        ] {
            let frame = decode(text);
            assert_eq!(
                (&*frame.event, frame.decoded.unwrap_err().code),
                (event, code),
                "{text}"
            );
        }
        let long = format!(
            r#"{{"type":"leave","payload":{{"room_id":"a"}},"ref":"{}"}}"#,
            "x".repeat(64)
        );
        assert_eq!(decode(&long).decoded.unwrap_err().code, Code::TooLarge);
        let frame = decode(r#"{"type":"leave","payload":{"room_id":"\ud800"},"ref":"7"}"#);
        assert_eq!(
            (frame.reference.as_deref(), frame.decoded.unwrap_err().code),
            (Some("\"7\""), Code::BadRequest)
        );
        let long = format!(
            r#"{{"type":"message","payload":{{"content":"{}"}},"ref":1}}"#,
            "x".repeat(65_536)
        );
        let frame = decode(&long);
        assert_eq!(
            (frame.reference.as_deref(), frame.decoded.unwrap_err().code),
            (Some("1"), Code::TooLarge)
        );
    }

    #[test]
    fn a_ping_is_known_by_its_type_alone() {
        for ping in [
            r#"{"type":"ping"}"#,
            r#" { "payload": {"at": 1}, "type" : "ping" }"#,
        ] {
            assert!(is_ping(ping), "{ping}");
        }
        for other in [
            r#"{"type":"pong"}"#,
            r#"{"payload":"ping"}"#,
            r#"{"type":["ping"]}"#,
            "\"ping\"",
            "ping",
        ] {
            assert!(!is_ping(other), "{other}");
        }
    }
}
