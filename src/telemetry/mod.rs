//! Logs, counters and the text of `/metrics`.
//!
//! Parts below `app` use only [`meter`] and [`sample`]: they count, and offer their numbers.

pub(crate) mod exposition;
pub(crate) mod log;
pub mod meter;
pub(crate) mod process;
pub(crate) mod sample;
