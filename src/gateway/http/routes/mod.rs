//! One file for each resource.

pub(super) mod broadcasts;
pub(super) mod socketio;
pub(super) mod websocket;
