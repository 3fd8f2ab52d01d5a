//! Payloads of polling: several packets in one HTTP body.

#[cfg(test)]
mod fuzz;
mod v3;
mod v4;

use std::ops::Range;

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

/// The reason why a body cannot be decoded any further.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    Malformed,
    /// A packet is larger than the limit of packets.
    PacketTooLarge,
}

impl From<Malformed> for Invalid {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

/// The packets of a POST's body, each decoded as soon as it has arrived. Only the part of a packet
/// that has arrived is kept, so that a body takes no more memory than its largest packet.
pub(crate) struct Packets {
    protocol: ProtocolVersion,
    form: Form,
    /// The largest packet, in bytes.
    limit: usize,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are decoded.
    position: usize,
    /// The part of the next packet that is searched for its end already.
    searched: Searched,
    is_empty: bool,
}

enum Form {
    V3Binary,
    V3Text,
    V4,
}

/// A part of a packet without the packet's end.
#[derive(Default)]
struct Searched {
    bytes: usize,
    utf16_units: usize,
}

/// The position of the first packet in some bytes.
#[derive(Debug)]
struct Extent {
    is_binary: bool,
    /// The packet's bytes.
    packet: Range<usize>,
    /// All bytes up to the next packet.
    taken: usize,
}

impl Packets {
    /// `binary`: the body was sent as `application/octet-stream`. `limit` bounds the bytes of a
    /// packet.
    pub(crate) fn new(protocol: ProtocolVersion, binary: bool, limit: usize) -> Self {
        let form = match protocol {
            ProtocolVersion::V3 if binary => Form::V3Binary,
            ProtocolVersion::V3 => Form::V3Text,
            ProtocolVersion::V4 => Form::V4,
        };
        Self {
            protocol,
            form,
            limit,
            buffer: Vec::new(),
            position: 0,
            searched: Searched::default(),
            is_empty: true,
        }
    }

    /// Adds the next bytes of the body. Call [`next`](Self::next) until it returns `None` before
    /// more bytes are added.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.position);
        self.position = 0;
        self.buffer.extend_from_slice(bytes);
        self.is_empty &= bytes.is_empty();
    }

    /// Decodes the next packet; `None` if it has not arrived completely.
    ///
    /// # Errors
    /// If the packet is malformed or too large. The body cannot be decoded any further then.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming>, Invalid> {
        let rest = &self.buffer[self.position..];
        let extent = match self.form {
            Form::V3Binary => v3::first_binary(rest, self.limit)?,
            Form::V3Text => v3::first_text(rest, self.limit, &mut self.searched)?,
            Form::V4 => v4::first(rest, self.limit, &mut self.searched)?,
        };
        let Some(extent) = extent else {
            return Ok(None);
        };
        let packet = self.decode(&rest[extent.packet], extent.is_binary)?;
        self.position += extent.taken;
        self.searched = Searched::default();
        Ok(Some(packet))
    }

    /// Decodes the last packet of the body, which no separator follows in Engine.IO 4. Call it when
    /// all bytes were added and `next` has returned `None`.
    ///
    /// # Errors
    /// If the body is empty or ends within a packet.
    pub(crate) fn finish(self) -> Result<Option<Incoming>, Invalid> {
        let rest = &self.buffer[self.position..];
        match self.form {
            Form::V4 => Ok(Some(self.decode(rest, false)?)),
            _ if self.is_empty || !rest.is_empty() => Err(Invalid::Malformed),
            _ => Ok(None),
        }
    }

    fn decode(&self, packet: &[u8], is_binary: bool) -> Result<Incoming, Malformed> {
        if is_binary {
            return Incoming::parse_typed_binary(packet);
        }
        let text = std::str::from_utf8(packet).map_err(|_| Malformed)?;
        Incoming::parse(text, self.protocol)
    }
}

/// Decodes a body that arrives in the given pieces.
#[cfg(test)]
pub(crate) fn decode_pieces<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    protocol: ProtocolVersion,
    binary: bool,
    limit: usize,
) -> Result<Vec<Incoming>, Invalid> {
    let mut packets = Packets::new(protocol, binary, limit);
    let mut decoded = Vec::new();
    for piece in pieces {
        packets.push(piece);
        while let Some(packet) = packets.next()? {
            decoded.push(packet);
        }
    }
    decoded.extend(packets.finish()?);
    Ok(decoded)
}

#[cfg(test)]
pub(crate) fn decode_all(
    body: &[u8],
    protocol: ProtocolVersion,
    binary: bool,
) -> Result<Vec<Incoming>, Invalid> {
    decode_pieces(std::iter::once(body), protocol, binary, usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODIES: [(ProtocolVersion, bool, &[u8]); 3] = [
        (
            ProtocolVersion::V4,
            false,
            "4€😀\x1e6\x1ebAQIDBA\x1e4".as_bytes(),
        ),
        (
            ProtocolVersion::V3,
            false,
            "4:4€😀1:610:b4AQIDBA==1:4".as_bytes(),
        ),
        (
            ProtocolVersion::V3,
            true,
            &[
                0, 4, 255, b'4', 0xE2, 0x82, 0xAC, 1, 5, 255, 4, 1, 2, 3, 4, 0, 1, 255, b'6',
            ],
        ),
    ];

    #[test]
    fn packets_do_not_depend_on_the_pieces_in_which_a_body_arrives() {
        for (protocol, binary, body) in BODIES {
            let whole = decode_all(body, protocol, binary).unwrap();
            for size in 1..body.len() {
                let pieces = decode_pieces(body.chunks(size), protocol, binary, usize::MAX);
                assert_eq!(pieces.as_ref(), Ok(&whole), "{size}");
            }
        }
    }

    #[test]
    fn a_packet_is_decoded_as_soon_as_it_has_arrived() {
        let packets = |protocol, binary, body: &[u8]| {
            let mut packets = Packets::new(protocol, binary, 10);
            packets.push(body);
            let first = packets.next();
            (first, packets.next())
        };
        let decoded = (Ok(Some(Incoming::Noop)), Ok(None));
        assert_eq!(packets(ProtocolVersion::V4, false, b"6\x1e4a"), decoded);
        assert_eq!(packets(ProtocolVersion::V3, false, b"1:63:4a"), decoded);
        assert_eq!(packets(ProtocolVersion::V3, false, b"1:6"), decoded);
        assert_eq!(
            packets(ProtocolVersion::V3, true, &[0, 1, 255, b'6', 0]),
            decoded
        );
    }

    #[test]
    fn a_packet_beyond_the_limit_is_refused_before_it_has_arrived() {
        let refused = |protocol, binary, body: &[u8], limit| {
            let mut packets = Packets::new(protocol, binary, limit);
            packets.push(body);
            packets.next() == Err(Invalid::PacketTooLarge)
        };
        let cases: [(ProtocolVersion, bool, &[u8], usize); 4] = [
            (ProtocolVersion::V4, false, b"4xxx", 3),
            (ProtocolVersion::V3, false, b"4:", 3),
            // Two code units, and seven bytes.
            (ProtocolVersion::V3, false, "3:4€€".as_bytes(), 6),
            (ProtocolVersion::V3, true, &[0, 4, 255], 3),
        ];
        for (protocol, binary, body, limit) in cases {
            assert!(refused(protocol, binary, body, limit), "{body:?}");
            assert!(!refused(protocol, binary, body, limit + 1), "{body:?}");
        }
    }
}
