//! The part that faces the network: decodes a request, calls one use case, encodes the reply. The
//! JSON shapes are in [`wire`] alone.

pub mod access;
pub mod connections;
pub mod http;
pub mod origins;
pub mod socketio;
#[cfg(test)]
mod tests;
pub mod websocket;
pub mod wire;
