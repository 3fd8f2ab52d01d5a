//! Logs, counters, and what `/metrics` shows.

pub mod exposition;
pub(crate) mod log;
pub mod meter;
