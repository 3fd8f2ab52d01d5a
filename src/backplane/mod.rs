//! The state that nodes share: rooms' logs, presence, the bus and users' rate limits.
//!
//! Five traits describe it, and their docs are the promises that the rest of the server relies on:
//! [`RoomLog`], [`Presence`], [`Bus`], [`RateLimiter`] and [`Lifecycle`]. There are two
//! implementations: [`memory`] for a node that runs alone and [`redis`] for a cluster. The
//! conformance suite in `tests/backplane/` runs every promise on both.
//!
//! These rules hold for every call of every trait:
//!
//! - **Errors.** After `Unavailable` or `Broken` the outcome is unknown: the call may have taken
//!   effect. After `Full` or `TooManyConnections` nothing has changed.
//! - **Repeats.** Every call may be repeated. Unless its docs say otherwise, a repeat has no
//!   further effect.
//! - **Cancellation.** Dropping a call's future doesn't undo the call: it may still take effect,
//!   as after `Unavailable`.
//! - **Time.** Timestamps are milliseconds since the Unix epoch by the backplane's own clock:
//!   Redis's clock in a cluster, the node's clock otherwise.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{RoomId, RoomKind};

pub mod anonymous;
mod applied_change;
mod bus;
pub mod change_record;
mod commit;
mod editable_record;
mod hot_log;
mod lifecycle;
mod log;
pub mod memory;
pub mod message_form;
mod presence;
mod rate_limiter;
pub mod record;
pub mod redis;
pub mod resolved_entry;
mod unarchived;

pub use applied_change::AppliedChange;
pub use bus::{Bus, BusEvent, BusSink, BusTopic, ReadReceipt, ReceiptAudience, Typing};
pub use commit::{Commit, OnCommit, PendingCommit};
pub use editable_record::EditableRecord;
pub use hot_log::{
    ArchivedRanges, HotLog, HotState, RestorePoint, RestoreSource, RestoredSend, Unarchived,
    UnarchivedEntries,
};
pub use lifecycle::{BackplaneKind, Counters, Lifecycle};
pub use log::{
    AnnouncedForms, Appended, ArchiveStatus, Entry, EntryKind, NewChange, NewEntry, RoomLog, Slice,
    Traces, Window,
};
pub use message_form::Pointer;
pub use presence::{Changes, Joined, OccupantPage, Presence, Roster};
pub use rate_limiter::RateLimiter;
pub use unarchived::UnarchivedCursor;

/// An error of a backplane.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackplaneError {
    /// The backplane can't be reached or didn't reply in time. The call may or may not have taken
    /// effect; repeat it.
    #[error("the backplane is unavailable: {0}")]
    Unavailable(String),
    /// The embedded backplane already holds `MAX_ROOMS` rooms.
    #[error("the backplane holds the maximum number of rooms")]
    Full,
    /// The user already has `MAX_SOCKETS_PER_USER` live connections.
    #[error("the user has the maximum number of connections")]
    TooManyConnections,
    /// The message is larger than the archive can keep.
    #[error("the message is larger than the archive can keep")]
    TooLarge,
    /// The backplane sent a reply in an unexpected format, or refused a command as malformed: a bug
    /// of this server, or foreign data in Redis.
    #[error("the backplane sent an invalid reply: {0}")]
    Broken(String),
    /// Stored messages that a read needs can't be decoded. The part that stores them has logged it, and
    /// repeating the read doesn't help.
    #[error("stored messages can't be read: {0}")]
    Unreadable(String),
}

/// The positions up to the first error, and the error.
pub(crate) fn until_error(outcomes: Vec<Result<Appended>>) -> (Vec<Appended>, Result<()>) {
    let mut positions = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        match outcome {
            Ok(position) => positions.push(position),
            Err(error) => return (positions, Err(error)),
        }
    }
    (positions, Ok(()))
}

/// The result of a call to a backplane.
pub type Result<T> = std::result::Result<T, BackplaneError>;

/// Limits and retention times that both implementations apply.
#[derive(Debug, Clone)]
pub struct BackplaneLimits {
    /// Messages kept per room (`HISTORY_SIZE`).
    pub history_size: usize,
    /// How long a room's messages are kept after its last message (`HISTORY_TTL_SECS`).
    pub history_ttl: Duration,
    /// How long a room's `seq` and `epoch` are kept after its last message or after its last member
    /// left, whichever is later (`ROOM_TTL_SECS`).
    pub room_ttl: Duration,
    /// How long the key of a send is remembered (`DEDUPE_TTL_SECS`).
    pub dedupe_ttl: Duration,
    /// How long a user stays online, and in a room, after a connection was lost
    /// (`PRESENCE_GRACE_MS`).
    pub presence_grace: Duration,
    /// Live connections that one user may have (`MAX_SOCKETS_PER_USER`).
    pub sockets_per_user: usize,
    /// Rooms that the embedded backplane may hold (`MAX_ROOMS`). Redis has no such limit.
    pub rooms: usize,
}

impl Default for BackplaneLimits {
    fn default() -> Self {
        Self {
            history_size: 1000,
            history_ttl: Duration::from_secs(86_400),
            room_ttl: Duration::from_secs(604_800),
            dedupe_ttl: Duration::from_secs(600),
            presence_grace: Duration::from_millis(2000),
            sockets_per_user: 20,
            rooms: 100_000,
        }
    }
}

/// Whether the room's numbering is kept however long the room is silent and empty.
///
/// This is so for the broadcast room: its listeners aren't members, so the room always looks empty,
/// and a forgotten numbering would be announced to them as a loss of messages.
fn is_permanent(room: &RoomId) -> bool {
    room.kind() == RoomKind::Broadcast
}

/// The parts of one backplane.
#[derive(Clone)]
pub struct Backplane {
    /// Rooms' messages.
    pub log: Arc<dyn RoomLog>,
    /// The same log, as the archive sees it.
    pub hot_log: Arc<dyn HotLog>,
    /// Connections, rooms' members and users' status.
    pub presence: Arc<dyn Presence>,
    /// Fan-out between nodes.
    pub bus: Arc<dyn Bus>,
    /// Users' rate limits across nodes; `None` for a node that runs alone, as its own counts are
    /// complete.
    pub rate_limiter: Option<Arc<dyn RateLimiter>>,
    /// Health, counters and shutdown.
    pub lifecycle: Arc<dyn Lifecycle>,
}
