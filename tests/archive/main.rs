//! Whole nodes with an archive behind their logs, through real connections.

// A test that cannot go on should stop and say where.
#![allow(clippy::unwrap_used)]

mod cluster;
mod deployments;
mod history;
mod lone;
