//! Whole nodes, several in one process, on the embedded backplane and on a real Redis, through real sockets.

#[path = "../backplane/server.rs"]
#[allow(dead_code)]
mod server;

mod client;
mod node;
mod order;
mod presence;
mod rest;
