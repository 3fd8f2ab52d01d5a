//! The use cases, one folder for each area.

pub mod accounts;
pub mod chats;
pub mod messaging;
