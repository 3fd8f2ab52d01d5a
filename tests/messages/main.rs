//! Messages that change, of whole nodes: by connections and by REST.

// A test that cannot go on should stop and say where.
#![allow(clippy::unwrap_used)]

mod changes;
mod cluster;
mod deletions;
mod editors;
mod fixture;
mod hidden_changes;
mod measure;
mod mention_rules;
mod mentions;
mod positions;
mod reactions;
mod reactions_scale;
mod replays;
mod rights;
mod threads;
mod unread;
