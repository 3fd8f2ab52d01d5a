//! Logs, counters and what `/metrics` shows.
pub mod meter;
