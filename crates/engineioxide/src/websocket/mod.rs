//! The WebSocket carrier (RFC 6455): handshake, codec, and the one task of each connection.

mod carrier;
mod codec;
mod connection;
#[cfg(test)]
mod fuzz;
mod handshake;
mod output;

pub(crate) use connection::{Role, refuse, run};
pub(crate) use handshake::{accept, check};
