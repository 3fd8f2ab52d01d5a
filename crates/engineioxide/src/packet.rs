//! The packets that a client may send, on either transport.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Str};

/// Base64 with or without padding: some clients' encoders leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A packet from the client.
#[derive(Debug, PartialEq)]
pub(crate) enum Incoming {
    /// `1`: the client closes the session.
    Close,
    /// `2`: the client's heartbeat, in Engine.IO 3.
    Ping,
    /// `3`: the answer to the server's ping, in Engine.IO 4.
    Pong,
    /// `2probe`: the client tests a WebSocket before it upgrades to it.
    Probe,
    /// `4…`: a text message.
    Message(Str),
    /// `5`: the client upgrades; from now on the WebSocket carries the session.
    Upgrade,
    /// `6`: no operation.
    Noop,
    /// A binary message, without the encoding that its transport adds.
    Binary(Bytes),
}

/// The packet cannot be decoded: the session ends.
#[derive(Debug, PartialEq)]
pub(crate) struct Malformed;

impl Incoming {
    /// Parses a packet's text, type included. A binary message may be text, too: `b` and base64,
    /// and in Engine.IO 3 the type 4 in between. Polling always uses this form, and clients without
    /// binary frames use it on WebSockets.
    pub(crate) fn parse(text: &str, protocol: ProtocolVersion) -> Result<Self, Malformed> {
        match text.as_bytes() {
            [b'4', ..] => Ok(Self::Message(Str::copy_from_slice(&text[1..]))),
            [b'b', b'4', base64 @ ..] if protocol == ProtocolVersion::V3 => decode_base64(base64),
            [b'b', base64 @ ..] if protocol == ProtocolVersion::V4 => decode_base64(base64),
            b"1" => Ok(Self::Close),
            b"2probe" => Ok(Self::Probe),
            // Pings and pongs may carry data, which the server ignores.
            [b'2', ..] => Ok(Self::Ping),
            [b'3', ..] => Ok(Self::Pong),
            b"5" => Ok(Self::Upgrade),
            [b'6', ..] => Ok(Self::Noop),
            _ => Err(Malformed),
        }
    }

    /// Parses a binary message of Engine.IO 3, which begins with its type.
    pub(crate) fn parse_typed_binary(data: &[u8]) -> Result<Self, Malformed> {
        match data.split_first() {
            Some((4, data)) => Ok(Self::Binary(Bytes::copy_from_slice(data))),
            _ => Err(Malformed),
        }
    }
}

/// Decodes base64 that may have white space anywhere: encoders such as Java's end lines.
fn decode_base64(text: &[u8]) -> Result<Incoming, Malformed> {
    let decoded = if text.iter().any(u8::is_ascii_whitespace) {
        let mut text = text.to_vec();
        text.retain(|byte| !byte.is_ascii_whitespace());
        BASE64.decode(text)
    } else {
        BASE64.decode(text)
    };
    match decoded {
        Ok(data) => Ok(Incoming::Binary(data.into())),
        Err(_) => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_packet_types_are_parsed_and_other_texts_are_malformed() {
        let parse = |text| Incoming::parse(text, ProtocolVersion::V4);
        assert_eq!(parse("4"), Ok(Incoming::Message(Str::from(""))));
        assert_eq!(parse("4é"), Ok(Incoming::Message(Str::from("é"))));
        assert_eq!(parse("1"), Ok(Incoming::Close));
        assert_eq!(parse("2"), Ok(Incoming::Ping));
        assert_eq!(parse("2probe"), Ok(Incoming::Probe));
        assert_eq!(parse("3"), Ok(Incoming::Pong));
        assert_eq!(parse("5"), Ok(Incoming::Upgrade));
        assert_eq!(parse("6"), Ok(Incoming::Noop));
        for bad in ["", "0", "7", "abc", "é", "55"] {
            assert_eq!(parse(bad), Err(Malformed), "{bad}");
        }
    }
    #[test]
    fn base64_may_have_white_space_and_no_padding() {
        let decoded = |bytes: &'static [u8]| Ok(Incoming::Binary(Bytes::from_static(bytes)));
        for (base64, bytes) in [
            ("", &b""[..]),
            ("AQ", &[1]),
            ("AQ==", &[1]),
            ("AQ=", &[1]),
            ("AQI", &[1, 2]),
            ("AQI=\n", &[1, 2]),
            ("A Q\tI\r\nD\x0c", &[1, 2, 3]),
        ] {
            let v4 = Incoming::parse(&format!("b{base64}"), ProtocolVersion::V4);
            assert_eq!(v4, decoded(bytes), "{base64:?}");
            let v3 = Incoming::parse(&format!("b4{base64}"), ProtocolVersion::V3);
            assert_eq!(v3, decoded(bytes), "{base64:?}");
        }
        for bad in ["bA", "bAQIDB", "bA=QI", "b=", "bAQ*", "b\u{a0}AQ", "bAQ\0"] {
            assert_eq!(
                Incoming::parse(bad, ProtocolVersion::V4),
                Err(Malformed),
                "{bad:?}"
            );
        }
        // Without the packet's type.
        assert_eq!(
            Incoming::parse("bAQID", ProtocolVersion::V3),
            Err(Malformed)
        );
    }
}
