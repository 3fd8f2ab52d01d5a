//! Whole nodes, several in one process, on the embedded backplane and on a real Redis, through real
//! connections.

// A test that cannot go on should stop and say where.
#![allow(clippy::unwrap_used)]

mod abuse;
mod bench;
mod broadcast;
mod flood;
mod identity;
mod logs;
mod order;
mod origins;
mod paused;
mod plain;
mod presence;
mod program;
mod property;
mod rest;
mod secrets;
mod settings;
mod slow;
mod storm;
mod tls;
mod websocket;
