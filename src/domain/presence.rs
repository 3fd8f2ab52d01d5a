//! Who is in a room and who is online, as numbered changes.
//!
//! Versions rise with every change: the greater of the one before plus 1 and the backplane's time in milliseconds, so
//! that they rise even over a loss of data. As they skip numbers, each change also names the one before it: that is how
//! a hole is seen.

use super::id::{UserId, Username};
use super::time::Timestamp;

/// What happened to a room's membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A user's first connection entered.
    Joined,
    /// A user's last connection left, or its grace ended.
    Left,
    /// Membership was put back after a loss of data: nobody came or went, but whoever watches must read the newest state.
    Restored,
}

/// One numbered change of a room's membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomChange {
    /// This change's number.
    pub version: u64,
    /// The number of the change before it, 0 for the first.
    pub previous: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// To whom.
    pub user: UserId,
    /// The user's name at that time.
    pub username: Username,
    /// Members after the change, users in their grace included.
    pub total: u64,
}

/// Whether a user is online: the state after the change `version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnlineStatus {
    /// Whose.
    pub user: UserId,
    /// The name last authenticated with; `None` for a user never seen.
    pub username: Option<Username>,
    /// True while the user has a connection, or one in its grace.
    pub online: bool,
    /// The last change to offline, or now while online; `None` for a user never seen.
    pub last_seen: Option<Timestamp>,
    /// The change's number; 0 for a user never seen.
    pub version: u64,
    /// The number of the change before it, 0 for the first.
    pub previous: u64,
}

impl OnlineStatus {
    /// The state of a user never seen.
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
