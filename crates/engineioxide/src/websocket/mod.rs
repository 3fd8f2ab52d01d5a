//! The WebSocket carrier (RFC 6455): handshake, codec, and the one task of each connection.

mod carrier;
mod codec;
mod connection;
#[cfg(test)]
mod fuzz;
mod handshake;
mod link;
mod output;

pub(crate) use connection::{Last, Role, refuse};
pub(crate) use handshake::{accept, check};
pub use link::Link;
pub(crate) use link::{Come, Foreign, Unbox, unbox};
