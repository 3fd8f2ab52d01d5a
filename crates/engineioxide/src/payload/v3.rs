//! Engine.IO 3's payload: `length:packet…` as text, or a binary form for clients that accept it.
//!
//! In the text form, lengths count UTF-16 code units, as JavaScript strings do.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{Encoded, Extent, Invalid, Searched};
use crate::frame::{Body, Frame};
use crate::packet::Malformed;

/// The byte that ends a length in the binary form.
const END_OF_LENGTH: u8 = 255;
/// The longest length, in digits.
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

/// Finds the first packet of `rest`. `searched` is the part behind the length in which code units
/// are counted already.
pub(super) fn first_text(
    rest: &[u8],
    limit: usize,
    searched: &mut Searched,
) -> Result<Option<Extent>, Invalid> {
    let Some(digits) = length_digits(rest, b':')? else {
        return Ok(None);
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Invalid::Malformed);
    }
    let units = number(digits.iter().map(|digit| digit - b'0'));
    let start = digits.len() + 1;
    let packet = &rest[start..];
    // A code unit takes at least one byte.
    if units > limit as u64 {
        return Err(Invalid::PacketTooLarge);
    }
    while (searched.utf16_units as u64) < units {
        let Some(&lead) = packet.get(searched.bytes) else {
            return Ok(None);
        };
        let (bytes, utf16_units) = character_size(lead)?;
        searched.bytes += bytes;
        searched.utf16_units += utf16_units;
        if searched.bytes > limit {
            return Err(Invalid::PacketTooLarge);
        }
    }
    // A length that ends inside a surrogate pair is invalid.
    if searched.utf16_units as u64 > units {
        return Err(Invalid::Malformed);
    }
    if packet.len() < searched.bytes {
        return Ok(None);
    }
    let end = start + searched.bytes;
    Ok(Some(Extent {
        is_binary: false,
        packet: start..end,
        taken: end,
    }))
}

/// The bytes and the UTF-16 code units of the character whose first byte in UTF-8 is `lead`. The
/// bytes behind it are not checked.
fn character_size(lead: u8) -> Result<(usize, usize), Malformed> {
    match lead {
        0..0x80 => Ok((1, 1)),
        0xC0..0xE0 => Ok((2, 1)),
        0xE0..0xF0 => Ok((3, 1)),
        0xF0..=0xFF => Ok((4, 2)),
        0x80..0xC0 => Err(Malformed),
    }
}

/// The digits in front of the byte that ends a length; `None` if that byte has not arrived. Only
/// as many digits as a valid length has are searched, so that their number does not overflow.
fn length_digits(bytes: &[u8], end: u8) -> Result<Option<&[u8]>, Malformed> {
    let searched = &bytes[..bytes.len().min(MAX_LENGTH_DIGITS + 1)];
    match searched.iter().position(|&byte| byte == end) {
        None if searched.len() > MAX_LENGTH_DIGITS => Err(Malformed),
        None => Ok(None),
        Some(0) => Err(Malformed),
        Some(length) => Ok(Some(&bytes[..length])),
    }
}

/// The number with these decimal digits.
fn number(digits: impl Iterator<Item = u8>) -> u64 {
    digits.fold(0, |sum, digit| sum * 10 + u64::from(digit))
}

/// As [`first_text`], for the binary form.
pub(super) fn first_binary(rest: &[u8], limit: usize) -> Result<Option<Extent>, Invalid> {
    let Some((&kind, after)) = rest.split_first() else {
        return Ok(None);
    };
    if kind > 1 {
        return Err(Invalid::Malformed);
    }
    let Some(digits) = length_digits(after, END_OF_LENGTH)? else {
        return Ok(None);
    };
    if digits.iter().any(|&digit| digit > 9) {
        return Err(Invalid::Malformed);
    }
    let start = 1 + digits.len() + 1;
    let length = match usize::try_from(number(digits.iter().copied())) {
        Ok(length) if length <= limit => length,
        _ => return Err(Invalid::PacketTooLarge),
    };
    if rest.len() - start < length {
        return Ok(None);
    }
    Ok(Some(Extent {
        is_binary: kind == 1,
        packet: start..start + length,
        taken: start + length,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Incoming;
    use bytes::Bytes;
    use engineioxide_core::{ProtocolVersion, Str};

    fn decode_text(body: &str) -> Result<Vec<Incoming>, Invalid> {
        crate::payload::decode_all(body.as_bytes(), ProtocolVersion::V3, false)
    }

    fn decode_binary(body: &[u8]) -> Result<Vec<Incoming>, Invalid> {
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
            assert_eq!(decode_text(bad), Err(Invalid::Malformed), "{bad:?}");
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
            assert_eq!(decode_binary(bad), Err(Invalid::Malformed), "{bad:?}");
        }
    }
}
