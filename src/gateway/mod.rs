//! The doors: decode a request, call one use case, encode the answer. What is on the wire is in [`wire`] alone.

pub mod access;
pub mod connections;
pub mod http;
pub mod socketio;
pub mod websocket;
pub mod wire;
