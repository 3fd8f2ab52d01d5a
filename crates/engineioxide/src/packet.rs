//! The packets that a client may send, on either transport.

use bytes::Bytes;
use engineioxide_core::Str;

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
    /// Parses a packet's text, type included.
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        match text.as_bytes() {
            [b'4', ..] => Ok(Self::Message(Str::copy_from_slice(&text[1..]))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_packet_types_are_parsed_and_other_texts_are_malformed() {
        let parse = Incoming::parse;
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
}
