//! Socket.IO event packets as clients send them: `["name", payload, …]`.

use std::borrow::Cow;
use std::marker::PhantomData;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::fields::{Fields, Name};
use super::incoming::{MalformedEvent, RawEvent};
use crate::domain::{Limits, Refusal};

/// A packet's JSON array: the event's name and its first argument. Further arguments are ignored.
struct Packet<'a, T>(Cow<'a, str>, Option<T>);

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Packet<'a, T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = Packet<'de, T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an event")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Packet<'de, T>, A::Error> {
                let name: Name<'de> = seq
                    .next_element()?
                    .ok_or_else(|| serde::de::Error::custom("no name"))?;
                let first = seq.next_element()?;
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Packet(name.0, first))
            }
        }
        deserializer.deserialize_seq(Visitor(PhantomData))
    }
}

/// Reads the JSON array of a Socket.IO event packet.
///
/// # Errors
/// [`MalformedEvent`] if it is not an array that begins with a string.
pub fn parse_packet<'a>(packet: &'a str, limits: &Limits) -> Result<RawEvent<'a>, MalformedEvent> {
    // Most packets are correct, which a single pass over the text establishes. Only for the others,
    // a second pass finds out which part is wrong.
    if Fields::check(packet, limits.event_bytes, "packet").is_ok()
        && let Ok(Packet(name, Some(fields))) =
            serde_json::from_str::<Packet<'_, Fields<'_>>>(packet)
    {
        return Ok(RawEvent::with_fields(name, fields));
    }
    parse_packet_by_parts(packet)
}

/// Like [`parse_packet`], but leaves the payload to be checked on its own, so that the refusal can
/// name the part that is wrong.
pub(super) fn parse_packet_by_parts(packet: &str) -> Result<RawEvent<'_>, MalformedEvent> {
    match serde_json::from_str::<Packet<'_, &RawValue>>(packet) {
        Ok(Packet(name, payload)) => Ok(RawEvent::new(name, payload)),
        Err(_) => Err(MalformedEvent {
            name: first_string(packet),
            refusal: Refusal::bad_request("the event is not a JSON array"),
        }),
    }
}

/// The event's name, even if the JSON after it is malformed.
fn first_string(packet: &str) -> String {
    let start = packet.trim_start_matches([' ', '[']);
    let mut strings = serde_json::Deserializer::from_str(start).into_iter::<String>();
    strings.next().and_then(Result::ok).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_in_a_packet_that_is_malformed_behind_it() {
        let malformed = parse_packet("[\"join\",{]", &Limits::default())
            .err()
            .unwrap();
        assert_eq!(malformed.name, "join");
        let malformed = parse_packet("{\"join\":1}", &Limits::default())
            .err()
            .unwrap();
        assert_eq!(malformed.name, "");
    }
}
