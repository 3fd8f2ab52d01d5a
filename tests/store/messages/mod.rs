//! Changes of messages.

mod answers;
mod deletions;
mod edits;
pub(crate) mod fixture;
mod given_up;
mod own_rows;
mod projection;
mod reactions;
mod versions;
