//! The listener: who is let in, how long a peer may take, and how it all ends.

pub mod admission;
mod drain;
mod listener;
pub mod tls;

pub use drain::drain;
pub use listener::{Listener, Peer, Timeouts};
