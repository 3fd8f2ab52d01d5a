//! Runs of retention, as the database records them.

use uuid::Uuid;

use crate::domain::Timestamp;

/// A run of retention: its claim while it is under way, and its report afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionRun {
    /// Unique among all runs.
    pub id: Uuid,
    /// When it began.
    pub started_at: Timestamp,
    /// When it last reported its progress.
    pub reported_at: Timestamp,
    /// When it had deleted everything; `None` while it is under way, and if it was interrupted.
    pub finished_at: Option<Timestamp>,
    /// It deletes the messages that were appended before.
    pub cutoff: Timestamp,
    /// Rooms of which it has deleted messages.
    pub rooms: u64,
    /// Messages that it has deleted.
    pub entries: u64,
    /// The bytes of their records.
    pub bytes: u64,
}

impl RetentionRun {
    /// A run that begins now.
    #[must_use]
    pub fn new(now: Timestamp, cutoff: Timestamp) -> Self {
        Self {
            id: Uuid::now_v7(),
            started_at: now,
            reported_at: now,
            finished_at: None,
            cutoff,
            rooms: 0,
            entries: 0,
            bytes: 0,
        }
    }
}

/// The conditions under which another run of retention keeps a new one from beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionClaim {
    /// Another run is under way if it has reported at this time or later.
    pub alive_since: Timestamp,
    /// Nothing is to be done if another run has finished that had this cutoff or a later one.
    pub done_since: Timestamp,
}
