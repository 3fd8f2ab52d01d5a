//! Attacks on a whole node through raw sockets. Each test checks how the attack ends, and that
//! other clients are not affected.

// A failed `unwrap` ends the test and names the line.
#![allow(clippy::unwrap_used)]

#[path = "../cluster/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../cluster/node.rs"]
#[allow(dead_code)]
mod node;
#[path = "../backplane/server.rs"]
#[allow(dead_code)]
mod server;

mod cve;
mod frames;
mod plain;
mod polling;
mod raw;
mod slow;
mod socketio;
