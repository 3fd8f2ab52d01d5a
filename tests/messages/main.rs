//! Messages that change, of whole nodes: by connections and by REST.

// A test that cannot go on should stop and say where.
#![allow(clippy::unwrap_used)]

mod changes;
mod deletions;
mod fixture;
mod mentions;
mod positions;
mod reactions;
mod rights;
mod threads;
