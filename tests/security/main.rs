//! Attacks on a whole node through raw sockets. Each test checks how the attack ends, and that
//! other clients are not affected.

// A failed `unwrap` ends the test and names the line.
#![allow(clippy::unwrap_used)]

mod cve;
mod frames;
mod plain;
mod polling;
mod raw;
mod slow;
mod socketio;
