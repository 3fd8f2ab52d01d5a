//! The listener: who is let in, how long a peer may take, and how it all ends.

pub mod admission;
mod client;
mod drain;
#[cfg(test)]
mod fuzz;
mod listener;
mod metrics;
mod patience;
pub mod tls;

pub use client::{BadNetwork, Client, TrustedProxies};
pub use drain::{Drained, drain};
pub use listener::{Listener, Peer, Timeouts};
pub use patience::carry_sessions;
