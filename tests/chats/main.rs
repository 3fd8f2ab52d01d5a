//! Chats of whole nodes, by REST and by connections.

// A test that cannot go on should stop and say where.
#![allow(clippy::unwrap_used)]

mod announcements;
mod bots;
mod deletion;
mod doors;
mod evictions;
mod fixture;
mod groups;
mod history;
mod idempotency;
mod messages;
mod outages;
mod overdue;
mod pairs;
mod rates;
mod removals;
mod resets;
