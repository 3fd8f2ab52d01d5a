//! Polling's payloads: several packets in one HTTP body.

#[cfg(test)]
mod fuzz;
mod v3;
mod v4;

use std::collections::VecDeque;

use engineioxide_core::ProtocolVersion;

use crate::frame::Frame;
use crate::packet::{Incoming, Malformed};

/// A body to be sent.
#[derive(Debug, PartialEq)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// Engine.IO 3's binary form.
    pub(crate) binary: bool,
}

/// Encodes frames as a polling response. `b64`: the client of Engine.IO 3 takes text only.
pub(crate) fn encode(frames: &VecDeque<Frame>, protocol: ProtocolVersion, b64: bool) -> Encoded {
    match protocol {
        ProtocolVersion::V3 => v3::encode(frames, b64),
        ProtocolVersion::V4 => Encoded { bytes: v4::encode(frames), binary: false },
    }
}

/// Decodes a POST's body. `binary`: it came as `application/octet-stream`.
pub(crate) fn decode(body: Vec<u8>, protocol: ProtocolVersion, binary: bool) -> Result<Vec<Incoming>, Malformed> {
    match protocol {
        ProtocolVersion::V3 if binary => v3::decode_binary(&body),
        ProtocolVersion::V3 => v3::decode_text(&text(body)?),
        ProtocolVersion::V4 => v4::decode(&text(body)?),
    }
}

fn text(body: Vec<u8>) -> Result<String, Malformed> {
    String::from_utf8(body).map_err(|_| Malformed)
}
