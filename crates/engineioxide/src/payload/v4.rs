//! Engine.IO 4's payload: packets separated by `\x1e`, binary messages as `b` and base64.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{Extent, Invalid, Searched};
use crate::frame::{Body, Frame};

const SEPARATOR: u8 = 0x1e;

pub(super) fn encode(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames.iter().map(Frame::len).sum());
    for frame in frames {
        match frame.body() {
            Body::Text(text) => {
                separate(&mut out);
                out.extend_from_slice(text);
            }
            Body::Binary(data) => {
                separate(&mut out);
                out.push(b'b');
                out.extend_from_slice(BASE64_STANDARD.encode(data).as_bytes());
            }
            Body::Control => {}
        }
    }
    out
}

fn separate(out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(SEPARATOR);
    }
}

/// Finds the first packet of `rest`, and the separator behind it. The last packet has no separator.
pub(super) fn first(
    rest: &[u8],
    limit: usize,
    searched: &mut Searched,
) -> Result<Option<Extent>, Invalid> {
    let unsearched = &rest[searched.bytes..];
    let separator = unsearched.iter().position(|&byte| byte == SEPARATOR);
    let length = searched.bytes + separator.unwrap_or(unsearched.len());
    if length > limit {
        return Err(Invalid::PacketTooLarge);
    }
    searched.bytes = length;
    if separator.is_none() {
        return Ok(None);
    }
    Ok(Some(Extent {
        is_binary: false,
        packet: 0..length,
        taken: length + 1,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Incoming;
    use bytes::Bytes;
    use engineioxide_core::{ProtocolVersion, Str};

    fn decode(body: &str) -> Result<Vec<Incoming>, Invalid> {
        crate::payload::decode_all(body.as_bytes(), ProtocolVersion::V4, false)
    }

    #[test]
    fn the_example_of_the_specification_is_encoded_and_decoded() {
        let frames = [
            Frame::text("hello"),
            Frame::packet("2"),
            Frame::binary(&[1, 2, 3, 4], ProtocolVersion::V4),
        ];
        assert_eq!(encode(&frames), b"4hello\x1e2\x1ebAQIDBA==");
        assert_eq!(
            decode("4hello\x1e3\x1ebAQIDBA=="),
            Ok(vec![
                Incoming::Message(Str::from("hello")),
                Incoming::Pong,
                Incoming::Binary(Bytes::from_static(&[1, 2, 3, 4])),
            ])
        );
    }

    #[test]
    fn characters_outside_the_basic_multilingual_plane_are_preserved() {
        let frames = [Frame::text("€ 😀"), Frame::text("é")];
        assert_eq!(encode(&frames), "4€ 😀\x1e4é".as_bytes());
        assert_eq!(
            decode("4€ 😀\x1e4é"),
            Ok(vec![
                Incoming::Message(Str::from("€ 😀")),
                Incoming::Message(Str::from("é"))
            ])
        );
    }

    #[test]
    fn invalid_payloads_are_malformed() {
        for bad in ["", "abc", "4a\x1e", "\x1e4a", "b!", "bA", "6\x1e\x1e6"] {
            assert_eq!(decode(bad), Err(Invalid::Malformed), "{bad:?}");
        }
    }
}
