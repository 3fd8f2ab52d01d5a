//! Events of rooms that follow from changes in the database.

use uuid::Uuid;

use super::chat::{Chat, ChatRole};
use super::id::{RoomId, UserId};

/// Why a session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// Its user has logged out.
    LoggedOut,
    /// Its refresh token was used a second time, from a copy of it.
    TokenReused,
    /// The user has changed the password in another session.
    PasswordChanged,
    /// An admin has disabled the account.
    AccountDisabled,
    /// An admin has ended it, or has set another password.
    ByAdmin,
    /// The token of a bot was deleted.
    TokenDeleted,
    /// Its user has set a new password by a mail.
    PasswordReset,
    /// Its account was deleted.
    AccountDeleted,
    /// Its user has begun so many sessions that this one, used longest ago, was too many.
    TooManySessions,
}

impl SessionEnd {
    /// The reason on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoggedOut => "logged_out",
            Self::TokenReused => "token_reused",
            Self::PasswordChanged => "password_changed",
            Self::AccountDisabled => "account_disabled",
            Self::ByAdmin => "ended_by_admin",
            Self::TokenDeleted => "token_deleted",
            Self::PasswordReset => "password_reset",
            Self::AccountDeleted => "account_deleted",
            Self::TooManySessions => "too_many_sessions",
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
    /// A chat was created, of which the feed's user is a member.
    ChatCreated {
        /// The chat.
        chat: Chat,
        /// The role of the feed's user.
        role: ChatRole,
    },
    /// The chat's name, or the role of the feed's user, has changed.
    ChatUpdated {
        /// The chat.
        chat: Chat,
        /// The role of the feed's user; `None` in the room of the chat.
        role: Option<ChatRole>,
    },
    /// A user has become a member of a chat.
    MemberAdded(MemberChange),
    /// A user is no longer a member of a chat.
    MemberRemoved(MemberChange),
}

/// A member that was added to a chat or removed from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberChange {
    /// The chat.
    pub chat: Uuid,
    /// The member.
    pub user: UserId,
    /// The member's unique name.
    pub username: String,
    /// The member's role, or the last one.
    pub role: ChatRole,
}

impl Change {
    /// The names of all events.
    pub const EVENTS: &[&str] = &[
        "session_ended",
        "chat_created",
        "chat_updated",
        "member_added",
        "member_removed",
        Self::POSITION_EVENT,
    ];

    /// The name of the event that announces how far the feed's user has read a room.
    pub const POSITION_EVENT: &str = "read";

    /// The names of the events that take something away. They are published before those of other rooms.
    pub const URGENT_EVENTS: [&str; 2] = ["session_ended", "member_removed"];

    /// The name of the event.
    #[must_use]
    pub const fn event(&self) -> &'static str {
        match self {
            Self::SessionEnded { .. } => "session_ended",
            Self::ChatCreated { .. } => "chat_created",
            Self::ChatUpdated { .. } => "chat_updated",
            Self::MemberAdded(_) => "member_added",
            Self::MemberRemoved(_) => "member_removed",
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
