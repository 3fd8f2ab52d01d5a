//! The WebSocket transport (RFC 6455): handshake, codec, and the one task of each connection.

mod codec;
mod connection;
#[cfg(test)]
mod fuzz;
mod handshake;
mod input;
mod link;
mod output;
mod stream;
mod upgrade;

pub(crate) use connection::{CloseOnDrop, Role, refuse};
pub use handshake::first_subprotocol;
pub(crate) use handshake::{accept, check};
pub use link::Link;
pub(crate) use link::{AnyStream, Unbox, UpgradedStream, unbox};
