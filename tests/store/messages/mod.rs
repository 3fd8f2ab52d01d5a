//! Changes of messages.

mod deletions;
mod edits;
mod fixture;
mod projection;
mod reactions;
