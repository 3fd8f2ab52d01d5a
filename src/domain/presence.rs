//! Occupants of rooms and online status of users, as numbered changes.
//!
//! Each change has a version: the greater of the previous version plus 1 and the backplane's time
//! in milliseconds. So versions rise even across a loss of data, but they skip numbers. Each change
//! therefore also names the version before it, which lets a reader detect a missing change.

use super::id::{UserId, Username};
use super::time::Timestamp;

/// The kind of change to a room's occupants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A user's first connection joined.
    Joined,
    /// A user's last connection left, or its grace ended.
    Left,
    /// Occupants were restored after a loss of data. Nobody joined or left, but watchers must read
    /// the newest state.
    Restored,
}

/// One numbered change of a room's occupants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomChange {
    /// The version of this change.
    pub version: u64,
    /// The version of the change before it; 0 for the first.
    pub previous: u64,
    /// The kind of change.
    pub kind: ChangeKind,
    /// The user that joined or left.
    pub user: UserId,
    /// The user's name at that time.
    pub username: Username,
    /// Number of occupants after the change, including users in their grace.
    pub total: u64,
}

/// Whether a user is online: the state after the change `version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnlineStatus {
    /// The user.
    pub user: UserId,
    /// The name of the last authentication; `None` for a user never seen.
    pub username: Option<Username>,
    /// True while the user has a connection, or a lost connection in its grace.
    pub online: bool,
    /// The time of the last change to offline, or the current time while online; `None` for a user
    /// never seen.
    pub last_seen: Option<Timestamp>,
    /// The version of the last change; 0 for a user never seen.
    pub version: u64,
    /// The version of the change before it; 0 for the first.
    pub previous: u64,
}

impl OnlineStatus {
    /// The status of a user never seen.
    #[must_use]
    pub fn never_seen(user: UserId) -> Self {
        Self {
            user,
            username: None,
            online: false,
            last_seen: None,
            version: 0,
            previous: 0,
        }
    }
}
