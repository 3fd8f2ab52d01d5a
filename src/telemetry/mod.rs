//! Logs, counters, and what `/metrics` shows.

pub mod exposition;
pub mod log;
pub mod meter;
