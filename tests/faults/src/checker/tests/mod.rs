//! Tests of the checker: correct histories that it must accept, and for every rule some histories
//! that it must reject.

mod archive;
mod changes;
mod chats;
mod completeness;
mod history_builder;
mod order;
mod random;
mod room_users;
mod status;
mod wellformedness;
