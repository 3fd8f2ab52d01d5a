//! Events of rooms that follow from changes in the database.

use uuid::Uuid;

use super::id::RoomId;

/// Why a session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// Its user has logged out.
    LoggedOut,
    /// Its refresh token was used a second time, by somebody who has copied it.
    TokenReused,
}

impl SessionEnd {
    /// The reason on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoggedOut => "logged_out",
            Self::TokenReused => "token_reused",
        }
    }
}

/// A change that a room's members, or a user's connections, are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A session of the feed's user has ended.
    SessionEnded {
        /// The session.
        session: Uuid,
        /// Why.
        reason: SessionEnd,
    },
}

impl Change {
    /// The names of all events.
    pub const EVENTS: &[&str] = &["session_ended"];

    /// The name of the event.
    #[must_use]
    pub const fn event(&self) -> &'static str {
        match self {
            Self::SessionEnded { .. } => "session_ended",
        }
    }
}

/// A change, and the room in which it gets its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The room.
    pub room: RoomId,
    /// The change.
    pub change: Change,
}
