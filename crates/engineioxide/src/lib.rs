//! The Engine.IO 3 and 4 server layer: turns HTTP polling and WebSocket connections into sessions
//! that carry messages in order and within limits, and that always end with a reason.
//!
//! This is hubbub's own implementation. The package has the name and version of the `engineioxide`
//! crate on crates.io because Cargo's `[patch]` replaces a package only by one of the same name;
//! see README.md. It has the part of that crate's public API that socketioxide 0.18 uses. In
//! addition, it offers the functions of a transport that a chat cluster needs: see [`Control`],
//! [`SessionHandle`] and [`Frame`].
//!
//! In reading order:
//! - [`config`], [`handler`], [`control`], [`frame`]: the types that the layers above use;
//! - `session`: the state of one session, its outbox and its close, independent of the transport;
//! - [`handle`], [`socket`]: a session's API for the application and for socketioxide;
//! - `timer`: one task for the deadlines of all sessions; [`pause`]: pauses of this process, in which
//!   deadlines pass;
//! - `packet`, `payload`: the protocol's text and binary forms;
//! - `polling`, `websocket`: the two transports;
//! - [`scheduler`]: the order in which connections write;
//! - [`service`]: routes an HTTP request to one of the transports.

pub mod config;
pub mod control;
pub mod frame;
pub mod handle;
pub mod handler;
pub mod pause;
pub mod scheduler;
pub mod service;
pub mod socket;

mod counters;
#[cfg(feature = "__test_harness")]
mod dummy;
mod packet;
mod payload;
mod polling;
mod refusal;
mod session;
mod timer;
mod websocket;

pub use control::{Control, Limits, Retained, SessionData};
pub use engineioxide_core::{Packet, ProtocolVersion, Sid, Str, TransportType};
pub use frame::Frame;
pub use handle::{Intercept, SendOutcome, SessionHandle};
pub use pause::PauseMonitor;
pub use scheduler::{Scheduled, WriteScheduler, yield_slice};
pub use socket::{DisconnectReason, Socket};
pub use websocket::{Link, first_subprotocol};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
