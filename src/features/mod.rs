//! The use cases, one folder for each area, and the parts that the areas share.

pub mod accounts;
pub mod chats;
pub mod idempotency;
pub mod messages;
pub mod messaging;
