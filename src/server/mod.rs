//! Everything below HTTP: the listener, TLS, limits on slow peers, the address that a request
//! counts for, admission of new connections, and the drain at a node's end.

pub mod admission;
mod client_address;
mod drain;
#[cfg(test)]
mod fuzz;
mod head_timer;
mod host;
mod listener;
mod metrics;
mod slots;
mod slow_peers;
pub mod tls;

pub use client_address::{BadNetwork, ClientAddress, TrustedProxies};
pub use drain::{Drainable, drain};
pub use host::{HostAndPort, default_port};
pub use listener::{Listener, Peer, Timeouts};
pub use slow_peers::register_stream_types;
