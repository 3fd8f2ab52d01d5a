//! Logs, counters and the text of `/metrics`.
//!
//! Parts below `app` use only [`meter`] and [`sample`], to count and offer their numbers, and
//! [`line_budget`], to limit how many log lines they write.

pub(crate) mod exposition;
pub mod line_budget;
pub(crate) mod log;
pub mod meter;
pub(crate) mod process;
pub(crate) mod sample;
