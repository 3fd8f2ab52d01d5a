//! How far users have read rooms and threads, and their unread messages.
//!
//! Unread messages are computed from a position: messages with a greater `seq` that are not deleted, not
//! replies of threads, and not the user's own. They are capped at [`UNREAD_CAP`].

use async_trait::async_trait;
use uuid::Uuid;

use super::{MessageRef, Result};
use crate::domain::{RoomId, Timestamp, UserId};

/// The number at which unread messages are no longer counted.
pub const UNREAD_CAP: u64 = 1000;

/// The least time between two announcements of a user's positions in a room, in milliseconds.
pub const POSITIONS_INTERVAL_MS: u64 = 1000;

/// The unread messages of a room or thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unread {
    /// At most [`UNREAD_CAP`].
    pub count: u64,
    /// Whether there are more.
    pub is_capped: bool,
}

/// A user's view of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomUnread {
    /// The room.
    pub room: RoomId,
    /// The last `seq` that the user has read.
    pub last_read_seq: u64,
    /// The unread messages.
    pub unread: Unread,
    /// Those of them that mention the user; replies of threads included.
    pub mentions: u64,
}

/// A position to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPosition {
    /// The user.
    pub user: UserId,
    /// The room.
    pub room: RoomId,
    /// The last `seq` that the user has read.
    pub seq: u64,
    /// Entries with this `seq` and lower ones are hidden from the user.
    pub hidden_seq: u64,
    /// Whether the user has an account, and so a personal feed, which announces the position.
    pub has_feed: bool,
}

/// A position after a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadPosition {
    /// The last `seq` that the user has read.
    pub last_read_seq: u64,
    /// The messages after it.
    pub unread: Unread,
    /// Whether the call has moved it.
    pub has_moved: bool,
}

/// A thread that a user takes part in: by its root or a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserThread {
    /// The room.
    pub room: RoomId,
    /// The number of the room in the store.
    pub room_no: u64,
    /// The root.
    pub root: Uuid,
    /// The number of the root.
    pub root_seq: u64,
    /// The number of the last reply that is not deleted.
    pub last_seq: u64,
    /// When that reply was sent. Lists are in this order.
    pub last_at: Timestamp,
    /// The last reply that the user has read.
    pub last_read_seq: u64,
    /// Replies after it of others.
    pub unread: Unread,
}

impl UserThread {
    /// The position of the thread in the list.
    #[must_use]
    pub fn cursor(&self) -> ThreadCursor {
        ThreadCursor {
            last_at: self.last_at,
            room_no: self.room_no,
            root_seq: self.root_seq,
        }
    }
}

/// The position of a thread in a list. No two threads have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadCursor {
    /// When the last reply was sent.
    pub last_at: Timestamp,
    /// The number of the room in the store.
    pub room_no: u64,
    /// The number of the root.
    pub root_seq: u64,
}

/// The positions of users.
#[async_trait]
pub trait PositionStore: Send + Sync {
    /// Raises the position of a user in a room; never lowers it. If it moves and the user has a feed, a row
    /// of the outbox announces it there, due at once or [`POSITIONS_INTERVAL_MS`] after the one before. As
    /// long as no worker has claimed that row, it serves all positions that come
    /// ([`Outbox::claim_positions`](super::Outbox::claim_positions)).
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn read(&self, position: &NewPosition) -> Result<ReadPosition>;

    /// Sets the position of a user in a room, also to a lower number. Announced as by
    /// [`read`](Self::read).
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn set(&self, position: &NewPosition) -> Result<ReadPosition>;

    /// Raises the position of a user in a thread, of which this is the root. `None` without such a message.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn read_thread(
        &self,
        root: &MessageRef,
        user: &UserId,
        seq: u64,
    ) -> Result<Option<ReadPosition>>;

    /// Records that users were in rooms whose heads were these: a position that exists stays. Announces
    /// nothing.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn joined(&self, users: &[(UserId, RoomId, u64)]) -> Result<()>;

    /// All rooms of a user: chats of which the user is a member, and open rooms with a position. At most three
    /// statements, whatever their number.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn unread(&self, user: &UserId) -> Result<Vec<RoomUnread>>;

    /// The same for these rooms only.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn unread_in(&self, user: &UserId, rooms: &[RoomId]) -> Result<Vec<RoomUnread>>;

    /// The users that have read up to a number, with their positions, at most `limit`, ordered by their
    /// ids, after this one.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn readers(
        &self,
        room: &RoomId,
        seq: u64,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, u64, Timestamp)>>;

    /// The threads of a user in rooms that it can read, the one with the newest reply first, after the
    /// one at this position.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn threads(
        &self,
        user: &UserId,
        before: Option<ThreadCursor>,
        limit: usize,
    ) -> Result<Vec<UserThread>>;
}
