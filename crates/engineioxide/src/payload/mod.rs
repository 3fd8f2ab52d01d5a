//! Payloads of polling: several packets in one HTTP body.

#[cfg(test)]
mod fuzz;
mod v3;
mod v4;

use engineioxide_core::ProtocolVersion;

use crate::frame::Frame;
use crate::packet::{Incoming, Malformed};

/// The body of a response.
#[derive(Debug, PartialEq)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// The body has Engine.IO 3's binary form.
    pub(crate) binary: bool,
}

/// Encodes frames as the body of a response. `b64`: the client (Engine.IO 3) accepts text only.
pub(crate) fn encode(frames: &[Frame], protocol: ProtocolVersion, b64: bool) -> Encoded {
    match protocol {
        ProtocolVersion::V3 => v3::encode(frames, b64),
        ProtocolVersion::V4 => Encoded {
            bytes: v4::encode(frames),
            binary: false,
        },
    }
}

/// The packets of a POST's body, decoded one at a time. Decoding all at once would take many times
/// the memory of a body that consists of tiny packets.
pub(crate) struct Packets {
    body: Payload,
    /// Bytes of the body decoded so far.
    position: usize,
}

enum Payload {
    V3Binary(Vec<u8>),
    V3Text(String),
    V4(String),
}

impl Packets {
    /// `binary`: the body was sent as `application/octet-stream`.
    ///
    /// # Errors
    /// If the body is empty, or text that is not valid UTF-8.
    pub(crate) fn new(
        body: Vec<u8>,
        protocol: ProtocolVersion,
        binary: bool,
    ) -> Result<Self, Malformed> {
        if body.is_empty() {
            return Err(Malformed);
        }
        let text = |body| String::from_utf8(body).map_err(|_| Malformed);
        let body = match protocol {
            ProtocolVersion::V3 if binary => Payload::V3Binary(body),
            ProtocolVersion::V3 => Payload::V3Text(text(body)?),
            ProtocolVersion::V4 => Payload::V4(text(body)?),
        };
        Ok(Self { body, position: 0 })
    }
}

impl Iterator for Packets {
    type Item = Result<Incoming, Malformed>;

    /// Decodes the next packet. A malformed packet is the last one, because its end is unknown.
    fn next(&mut self) -> Option<Self::Item> {
        let (length, decoded) = match &self.body {
            Payload::V3Binary(body) => {
                let rest = body.get(self.position..).filter(|rest| !rest.is_empty())?;
                (body.len(), v3::first_binary(rest))
            }
            Payload::V3Text(body) => {
                let rest = body.get(self.position..).filter(|rest| !rest.is_empty())?;
                (body.len(), v3::first_text(rest))
            }
            Payload::V4(body) => (body.len(), v4::first(body.get(self.position..)?)),
        };
        Some(match decoded {
            Ok((packet, taken)) => {
                self.position += taken;
                Ok(packet)
            }
            Err(Malformed) => {
                // Beyond the end of the body, where the decoders of all versions find nothing.
                self.position = length + 1;
                Err(Malformed)
            }
        })
    }
}

#[cfg(test)]
pub(crate) fn decode_all(
    body: &[u8],
    protocol: ProtocolVersion,
    binary: bool,
) -> Result<Vec<Incoming>, Malformed> {
    Packets::new(body.to_vec(), protocol, binary)?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_stops_after_a_malformed_packet() {
        let all = |body: &[u8], protocol, binary| {
            Packets::new(body.to_vec(), protocol, binary)
                .unwrap()
                .map(|packet| packet.is_ok())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            all(b"6\x1e6\x1e?\x1e6", ProtocolVersion::V4, false),
            [true, true, false]
        );
        assert_eq!(
            all(b"1:61:69:61:6", ProtocolVersion::V3, false),
            [true, true, false]
        );
        assert_eq!(
            all(
                &[0, 1, 255, b'6', 7, 1, 255, b'6'],
                ProtocolVersion::V3,
                true
            ),
            [true, false]
        );
    }
}
