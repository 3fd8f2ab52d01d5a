//! Attacks on a whole node through raw sockets: each shows what becomes of whoever tries it, and that nobody else suffers.

// A test that can't go on should stop, and say where.
#![allow(clippy::unwrap_used)]

mod cve;
mod frames;
mod plain;
mod polling;
mod raw;
mod slow;
mod socketio;
