//! The commands of the program, run as a user runs them.

// A test that cannot go on should stop and say where.
#![allow(clippy::unwrap_used)]

mod copy;
mod copy_changes;
mod files;
mod fixture;
mod nodes;
mod outbox;
mod prune;
mod seed;
mod usage;
mod verify;
