//! Socket.IO packets of the namespace `/`, as frames that every session can send.

use engineioxide::Frame;
use serde::Serialize;

/// An acknowledgement.
pub(super) fn ack<T: Serialize>(id: i64, payload: &T) -> Frame {
    let json = serde_json::to_string(payload).expect("the wire's shapes always serialise");
    Frame::text(&format!("3{id}[{json}]"))
}

/// A DISCONNECT of the namespace: the client doesn't come back by itself.
pub(super) fn disconnect() -> Frame {
    Frame::text("1")
}
