//! Frames of plain WebSocket clients, in both directions: `{"type": …, "payload": {…}, "ref": …}`.

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::fields::Fields;
use super::incoming::{MalformedEvent, RawEvent};
use crate::domain::{Code, Refusal};

/// The longest `ref`, in bytes of its JSON.
const MAX_REF_BYTES: usize = 64;
/// Frames longer than this are never treated as pings.
const MAX_PING_BYTES: usize = 512;

/// A frame, split into its parts.
pub struct ParsedFrame<'a> {
    /// The frame's `ref`, a JSON string or number, which the acknowledgement repeats.
    pub reference: Option<Box<str>>,
    /// The event in the frame.
    pub event: Result<RawEvent<'a>, MalformedEvent>,
}

/// Reads a frame.
#[must_use]
pub fn parse_frame(text: &str) -> ParsedFrame<'_> {
    let fields = match Fields::parse_unchecked(text, "frame") {
        Ok(fields) => fields,
        Err(refusal) => return ParsedFrame::malformed(String::new(), refusal),
    };
    // The `ref` is read first, so that a refusal of any other part reaches the client as an
    // acknowledgement.
    let reference = match fields.raw("ref").map(parse_reference).transpose() {
        Ok(reference) => reference,
        Err(refusal) => {
            let name = event_name(&fields).unwrap_or_default();
            return ParsedFrame::malformed(name, refusal);
        }
    };
    let event = match event_name(&fields) {
        Ok(name) => Ok(RawEvent::new(name.into(), fields.raw("payload"))),
        Err(refusal) => Err(MalformedEvent {
            name: String::new(),
            refusal,
        }),
    };
    ParsedFrame { reference, event }
}

impl ParsedFrame<'_> {
    fn malformed(name: String, refusal: Refusal) -> Self {
        Self {
            reference: None,
            event: Err(MalformedEvent { name, refusal }),
        }
    }
}

fn event_name(fields: &Fields<'_>) -> Result<String, Refusal> {
    fields
        .text("type")?
        .ok_or_else(|| Refusal::bad_request("type is missing"))
}

fn parse_reference(json: &RawValue) -> Result<Box<str>, Refusal> {
    let json = json.get();
    let is_string = serde_json::from_str::<String>(json).is_ok();
    if !is_string && serde_json::from_str::<f64>(json).is_err() {
        return Err(Refusal::bad_request("ref must be a string or a number"));
    }
    if json.len() > MAX_REF_BYTES {
        let text = format!("ref must be at most {MAX_REF_BYTES} bytes");
        return Err(Refusal::new(Code::TooLarge, text));
    }
    Ok(json.into())
}

/// Whether the frame is `{"type":"ping"}`, possibly with further fields.
#[must_use]
pub fn is_ping(text: &str) -> bool {
    if text.len() > MAX_PING_BYTES || !text.contains("\"ping\"") {
        return false;
    }
    let Ok(fields) = Fields::parse_unchecked(text, "frame") else {
        return false;
    };
    event_name(&fields).is_ok_and(|name| name == "ping")
}

/// The text of a binary frame, if it is JSON in UTF-8: some clients send every frame as binary.
#[must_use]
pub fn json_text(data: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(data).ok()?;
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    Some(text)
}

/// The reply to a ping.
#[must_use]
pub const fn pong() -> &'static str {
    r#"{"type":"pong"}"#
}

/// The acknowledgement of the request with that `ref`. Both arguments are JSON.
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

    #[test]
    fn an_acknowledgement_repeats_the_reference() {
        assert_eq!(
            encode_ack("\"7\"", "{}"),
            r#"{"type":"ack","ref":"7","payload":{}}"#
        );
    }

    #[test]
    fn a_ping_is_recognised_by_its_type_alone() {
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
