//! Whole gateways over a log that the test controls, with real sockets.

mod commits;
mod health;
pub mod slow_log;
