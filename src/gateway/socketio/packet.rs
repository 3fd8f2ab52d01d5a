//! Socket.IO packets of the namespace `/`, as frames that every session can send.

use engineioxide::Frame;

/// An acknowledgement with that JSON.
pub(super) fn ack(id: i64, json: &str) -> Frame {
    Frame::text(&format!("3{id}[{json}]"))
}

/// A DISCONNECT of the namespace: the client doesn't come back by itself.
pub(super) fn disconnect() -> Frame {
    Frame::text("1")
}
