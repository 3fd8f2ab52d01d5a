//! The Engine.IO 3 and 4 server layer: it turns HTTP polling and WebSocket connections into
//! sessions that carry messages, in order, within limits, until they die a clean death.
//!
//! It has the public face that socketioxide 0.18 builds on, and beside it what a chat cluster
//! needs from its transport: see [`Control`], [`SessionHandle`] and [`Frame`].
//!
//! In reading order:
//! - [`config`], [`handler`], [`control`], [`frame`]: what the layers above say and hold;
//! - `session`: the state of one session, its outbox and its death, whatever carries it;
//! - [`handle`], [`socket`]: the two faces of a session;
//! - `clock`: every deadline of every session, kept by one task;
//! - `packet`, `payload`: the protocol's text and binary forms;
//! - `polling`, `websocket`: the two carriers;
//! - [`rota`]: the line in which connections wait to write;
//! - [`service`]: from an HTTP request to one of them.

pub mod config;
pub mod control;
pub mod frame;
pub mod handle;
pub mod handler;
pub mod rota;
pub mod service;
pub mod socket;

mod clock;
#[cfg(feature = "__test_harness")]
mod dummy;
mod packet;
mod payload;
mod polling;
mod refusal;
mod session;
mod websocket;

pub use control::{Control, Limits, Retained};
pub use engineioxide_core::{Packet, ProtocolVersion, Sid, Str, TransportType};
pub use frame::Frame;
pub use handle::{Intercept, SendOutcome, SessionHandle};
pub use rota::{Rota, Waiting, another_turn};
pub use socket::{DisconnectReason, Socket};
pub use websocket::Link;
