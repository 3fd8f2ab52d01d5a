//! Attacks on a whole node through raw sockets: each shows what becomes of whoever tries it, and that nobody else suffers.

// A test that can't go on should stop, and say where.
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
