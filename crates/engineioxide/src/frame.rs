//! An outgoing message, encoded once and shared by all its recipients.

use std::fmt;
use std::sync::Arc;

use engineioxide_core::ProtocolVersion;

/// The first header byte of a final text frame: FIN and opcode 1.
const TEXT: u8 = 0x81;
/// The first header byte of a final binary frame: FIN and opcode 2.
const BINARY: u8 = 0x82;
/// The first header byte of a close frame: FIN and opcode 8.
const CLOSE: u8 = 0x88;
/// The first header byte of a pong frame: FIN and opcode 10.
const PONG: u8 = 0x8A;

/// An encoded outgoing packet: the bytes of one whole, unmasked WebSocket frame. Cloning it
/// increments one reference count; no recipient needs a copy of its own. Polling responses are
/// derived from the same bytes.
#[derive(Clone)]
pub struct Frame(Arc<[u8]>);

impl Frame {
    /// A text message, which both protocol versions encode in the same way. `text` is the message
    /// of the layer above (a Socket.IO packet), without Engine.IO's leading `4`.
    pub fn text(text: &str) -> Self {
        Self::build(TEXT, b"4", text.as_bytes())
    }

    /// Bytes of the whole WebSocket frame, header included. This is its size in an outbox.
    #[allow(clippy::len_without_is_empty)] // never empty: it has at least its header
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A binary message. Engine.IO 3 puts the packet's type in front of the data, as one byte.
    pub(crate) fn binary(data: &[u8], protocol: ProtocolVersion) -> Self {
        match protocol {
            ProtocolVersion::V3 => Self::build(BINARY, &[4], data),
            ProtocolVersion::V4 => Self::build(BINARY, &[], data),
        }
    }

    /// A packet other than a message. `text` is its whole text, type included.
    pub(crate) fn packet(text: &str) -> Self {
        Self::build(TEXT, &[], text.as_bytes())
    }

    /// A pong frame of the WebSocket protocol; `data` is at most 125 bytes.
    pub(crate) fn websocket_pong(data: &[u8]) -> Self {
        Self::build(PONG, &[], data)
    }

    /// A close frame of the WebSocket protocol.
    pub(crate) fn websocket_close(code: u16) -> Self {
        Self::build(CLOSE, &[], &code.to_be_bytes())
    }

    fn build(first: u8, prefix: &[u8], data: &[u8]) -> Self {
        let len = prefix.len() + data.len();
        let mut header = [first, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let header: &[u8] = match (u8::try_from(len), u16::try_from(len)) {
            (Ok(short @ 0..=125), _) => {
                header[1] = short;
                &header[..2]
            }
            (_, Ok(medium)) => {
                header[1] = 126;
                header[2..4].copy_from_slice(&medium.to_be_bytes());
                &header[..4]
            }
            _ => {
                header[1] = 127;
                header[2..10].copy_from_slice(&(len as u64).to_be_bytes());
                &header[..]
            }
        };
        let mut bytes = Vec::with_capacity(header.len() + len);
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(prefix);
        bytes.extend_from_slice(data);
        Self(bytes.into())
    }

    /// The frame as it is sent on a WebSocket.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The frame's payload.
    pub(crate) fn body(&self) -> Body<'_> {
        let header = match self.0[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let payload = &self.0[header..];
        match self.0[0] {
            TEXT => Body::Text(payload),
            BINARY => Body::Binary(payload),
            _ => Body::Control,
        }
    }
}

/// The payload of a frame, for the transport that does not send frames.
pub(crate) enum Body<'a> {
    /// A packet's text, type included. Valid UTF-8 by construction.
    Text(&'a [u8]),
    /// A message's bytes; in Engine.IO 3 they begin with the type byte.
    Binary(&'a [u8]),
    /// A control frame of the WebSocket protocol, which polling does not send.
    Control,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_size_follows_the_payload_length() {
        for (len, header) in [
            (0usize, 2usize),
            (124, 2),
            (125, 4),
            (65_534, 4),
            (65_535, 10),
        ] {
            let frame = Frame::text(&"x".repeat(len));
            assert_eq!(frame.len(), header + 1 + len, "{len}");
            assert_eq!(frame.as_bytes()[0], 0x81);
            match frame.body() {
                Body::Text(text) => assert_eq!(text.len(), len + 1),
                _ => panic!("not text"),
            }
        }
    }

    #[test]
    fn binary_has_a_type_only_in_version_3() {
        let v4 = Frame::binary(&[1, 2], ProtocolVersion::V4);
        assert_eq!(v4.as_bytes(), [0x82, 2, 1, 2]);
        let v3 = Frame::binary(&[1, 2], ProtocolVersion::V3);
        assert_eq!(v3.as_bytes(), [0x82, 3, 4, 1, 2]);
    }

    #[test]
    fn clones_share_their_bytes() {
        let frame = Frame::text("hello");
        assert!(std::ptr::eq(frame.as_bytes(), frame.clone().as_bytes()));
    }
}
