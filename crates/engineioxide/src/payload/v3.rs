//! Engine.IO 3's payload: `length:packet…` as text, or a binary form for clients that accept it.
//!
//! In the text form, lengths count UTF-16 code units, as JavaScript strings do.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::Encoded;
use crate::frame::{Body, Frame};
use crate::packet::{Incoming, Malformed};

/// The byte that ends a length in the binary form.
const END_OF_LENGTH: u8 = 255;
/// The longest length in the binary form, in digits.
const MAX_LENGTH_DIGITS: usize = 15;

pub(super) fn encode(frames: &[Frame], b64: bool) -> Encoded {
    let binary = !b64
        && frames
            .iter()
            .any(|frame| matches!(frame.body(), Body::Binary(_)));
    let mut bytes = Vec::with_capacity(frames.iter().map(|frame| frame.len() + 8).sum());
    for frame in frames {
        match (frame.body(), binary) {
            (Body::Text(text), false) => {
                bytes.extend_from_slice(format!("{}:", utf16_len(text)).as_bytes());
                bytes.extend_from_slice(text);
            }
            (Body::Binary(data), false) => {
                // Without the frame's type byte: the prefix `b4` replaces it.
                let base64 = BASE64_STANDARD.encode(data.get(1..).unwrap_or_default());
                bytes.extend_from_slice(format!("{}:b4{base64}", base64.len() + 2).as_bytes());
            }
            (Body::Text(data), true) => put_binary(&mut bytes, 0, data),
            (Body::Binary(data), true) => put_binary(&mut bytes, 1, data),
            (Body::Control, _) => {}
        }
    }
    Encoded { bytes, binary }
}

fn put_binary(out: &mut Vec<u8>, kind: u8, data: &[u8]) {
    out.push(kind);
    // The length's decimal digits, one byte of value 0 to 9 for each.
    out.extend(data.len().to_string().bytes().map(|digit| digit - b'0'));
    out.push(END_OF_LENGTH);
    out.extend_from_slice(data);
}

/// The UTF-16 code units of valid UTF-8: two for each character of four bytes, else one.
fn utf16_len(utf8: &[u8]) -> usize {
    utf8.iter()
        .map(|&byte| usize::from(byte & 0xC0 != 0x80) + usize::from(byte >= 0xF0))
        .sum()
}

/// Decodes the first packet of `rest`. Returns it and the number of bytes it takes.
pub(super) fn first_text(rest: &str) -> Result<(Incoming, usize), Malformed> {
    let (digits, after) = rest.split_once(':').ok_or(Malformed)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed);
    }
    let units: usize = digits.parse().map_err(|_| Malformed)?;
    let (packet, _) = after.split_at(bytes_of(after, units)?);
    let taken = digits.len() + 1 + packet.len();
    let decoded = match packet.strip_prefix("b4") {
        Some(base64) => Incoming::Binary(
            BASE64_STANDARD
                .decode(base64)
                .map_err(|_| Malformed)?
                .into(),
        ),
        None => Incoming::parse(packet)?,
    };
    Ok((decoded, taken))
}

/// The number of bytes that the first `units` UTF-16 code units of `text` take.
fn bytes_of(text: &str, units: usize) -> Result<usize, Malformed> {
    let mut left = units;
    for (at, character) in text.char_indices() {
        if left == 0 {
            return Ok(at);
        }
        // A length that ends inside a surrogate pair is invalid.
        left = left.checked_sub(character.len_utf16()).ok_or(Malformed)?;
    }
    if left == 0 {
        Ok(text.len())
    } else {
        Err(Malformed)
    }
}

/// As [`first_text`], for the binary form.
pub(super) fn first_binary(rest: &[u8]) -> Result<(Incoming, usize), Malformed> {
    let (&kind, after) = rest.split_first().ok_or(Malformed)?;
    // Only as many digits as a valid length has are searched, so the sum below cannot overflow.
    let end = after
        .iter()
        .take(MAX_LENGTH_DIGITS + 1)
        .position(|&byte| byte == END_OF_LENGTH)
        .ok_or(Malformed)?;
    let (digits, after) = (&after[..end], &after[end + 1..]);
    if digits.is_empty() || digits.iter().any(|&digit| digit > 9) {
        return Err(Malformed);
    }
    let length = digits
        .iter()
        .fold(0u64, |sum, &digit| sum * 10 + u64::from(digit));
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let packet = after.get(..length).ok_or(Malformed)?;
    let decoded = match kind {
        0 => Incoming::parse(std::str::from_utf8(packet).map_err(|_| Malformed)?)?,
        1 => Incoming::parse_typed_binary(packet)?,
        _ => return Err(Malformed),
    };
    Ok((decoded, 1 + end + 1 + length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use engineioxide_core::{ProtocolVersion, Str};

    fn decode_text(body: &str) -> Result<Vec<Incoming>, Malformed> {
        crate::payload::decode_all(body.as_bytes(), ProtocolVersion::V3, false)
    }

    fn decode_binary(body: &[u8]) -> Result<Vec<Incoming>, Malformed> {
        crate::payload::decode_all(body, ProtocolVersion::V3, true)
    }

    fn message(text: &'static str) -> Incoming {
        Incoming::Message(Str::from(text))
    }

    fn binary() -> Frame {
        Frame::binary(&[1, 2, 3, 4], ProtocolVersion::V3)
    }

    #[test]
    fn text_counts_utf16_code_units() {
        // é and € are one code unit each, 😀 is two. With the packet type: 2, 2 and 3.
        let frames = [Frame::text("é"), Frame::text("€"), Frame::text("😀")];
        let encoded = encode(&frames, false);
        assert_eq!(encoded.bytes, "2:4é2:4€3:4😀".as_bytes());
        assert!(!encoded.binary);
        assert_eq!(
            decode_text("2:4é2:4€3:4😀6:4hello"),
            Ok(vec![
                message("é"),
                message("€"),
                message("😀"),
                message("hello")
            ])
        );
    }

    #[test]
    fn binary_is_base64_for_clients_that_accept_text_only() {
        let encoded = encode(&[Frame::text("hello"), binary()], true);
        assert_eq!(encoded.bytes, b"6:4hello10:b4AQIDBA==");
        assert!(!encoded.binary);
        assert_eq!(
            decode_text("6:4hello10:b4AQIDBA=="),
            Ok(vec![
                message("hello"),
                Incoming::Binary(Bytes::from_static(&[1, 2, 3, 4]))
            ])
        );
    }

    #[test]
    fn the_binary_form_counts_bytes() {
        let encoded = encode(&[Frame::text("€"), binary()], false);
        let expected = [0, 4, 255, b'4', 0xE2, 0x82, 0xAC, 1, 5, 255, 4, 1, 2, 3, 4];
        assert_eq!(encoded.bytes, expected);
        assert!(encoded.binary);
        assert_eq!(
            decode_binary(&expected),
            Ok(vec![
                message("€"),
                Incoming::Binary(Bytes::from_static(&[1, 2, 3, 4]))
            ])
        );
    }

    #[test]
    fn invalid_payloads_are_malformed() {
        for bad in [
            "",
            "abc",
            "4hello",
            ":4",
            "3:4a",
            "+2:4a",
            "2:4😀",
            "99999999999999999999:4",
            "1:7",
        ] {
            assert_eq!(decode_text(bad), Err(Malformed), "{bad:?}");
        }
        let bad: [&[u8]; 8] = [
            &[],
            &[0],
            &[0, 255],
            &[0, 2, 255, b'4'],
            &[2, 1, 255, b'4'],
            &[1, 1, 255, 5],
            &[0, 2, 255, b'4', 0xFF],
            &[
                0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 255, b'4',
            ],
        ];
        for bad in bad {
            assert_eq!(decode_binary(bad), Err(Malformed), "{bad:?}");
        }
    }
}
