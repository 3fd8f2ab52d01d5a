//! The promises of presence: connections, rooms' members and users' status.

use async_trait::async_trait;

use super::{BusTopic, Result};
use crate::domain::{ConnId, LogSpan, OnlineStatus, RoomChange, RoomId, UserId, Username};

/// The result of a join: log and members of the room at the same moment.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The extent of the room's log.
    pub span: LogSpan,
    /// The room's members.
    pub roster: Roster,
}

impl Joined {
    /// The result for a listener that isn't a member: the log, and an empty roster.
    #[must_use]
    pub fn listening(span: LogSpan) -> Self {
        Self {
            span,
            roster: Roster::empty(),
        }
    }
}

/// The members of a room at one moment.
#[derive(Debug, Clone)]
pub struct Roster {
    /// At most as many ids as asked for, in no particular order. The roster that a join returns
    /// always contains the user that joined.
    pub users: Vec<UserId>,
    /// The number of members, users in their grace included.
    pub total: u64,
    /// The version of the last change that the roster contains; 0 if there was none.
    pub version: u64,
}

impl Roster {
    /// The roster of a room without members or changes.
    pub(crate) fn empty() -> Self {
        Self {
            users: Vec::new(),
            total: 0,
            version: 0,
        }
    }
}

/// A page of a room's members, sorted by the bytes of their ids.
#[derive(Debug, Clone)]
pub struct OccupantPage {
    /// Id and name of each.
    pub members: Vec<(UserId, Username)>,
    /// The number of members on all pages.
    pub total: u64,
    /// The last id of this page if more members follow: `after` of the next page.
    pub next: Option<UserId>,
}

/// The changes after a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes<T> {
    /// All of them, in order; empty when there were none.
    Since(Vec<T>),
    /// Some of the changes are no longer kept, or the version is unknown: read the current state
    /// instead.
    TooOld,
}

/// The live connections of users, the members of rooms, and the status of users.
///
/// A user is a member of a room while at least one of the user's connections is in it, and for a
/// *grace* of `presence_grace` after such a connection was lost. In the same way a user is online
/// while connected, and for the grace after losing a connection.
///
/// The state of a room and the state of a user are independent of each other: no step needs both.
/// Each step that changes one of them stores the new version, keeps the change, and publishes it to
/// the topic, atomically. So there is exactly one event per change, whichever node caused it.
///
/// At least the last 100 changes of each room and each user are kept.
#[async_trait]
pub trait Presence: Send + Sync {
    /// Registers a live connection of a user and ends the user's grace. The first connection makes
    /// the user online. For a connection that is registered already, only the user's name is
    /// updated.
    ///
    /// After an error a new connection isn't registered, or will be unregistered without a further
    /// call; one that was registered before stays so, perhaps under the new name. A caller that
    /// drops the future must call [`connection_lost`](Self::connection_lost).
    ///
    /// # Errors
    /// `Unavailable`; `TooManyConnections` (lost connections and those of dead nodes don't count).
    async fn connect(&self, conn: &ConnId, user: &UserId, username: &Username) -> Result<()>;

    /// Adds the connection to the room and ends the user's grace there. If the connection is in the
    /// room already, only the user's name is updated.
    ///
    /// Atomic: log span and roster are of the same moment, after the join. Costs
    /// O(log members + `Limits::ROSTER`). The connection must have been registered by
    /// [`connect`](Self::connect).
    ///
    /// After an error the connection may be in the room; [`connection_lost`](Self::connection_lost)
    /// removes it.
    ///
    /// # Errors
    /// `Unavailable`, `Full`.
    async fn join(
        &self,
        conn: &ConnId,
        user: &UserId,
        username: &Username,
        room: &RoomId,
    ) -> Result<Joined>;

    /// Removes the connection from the room. If it was the user's last one there, the user leaves at
    /// once, without a grace; but a grace that is running because another connection was lost still
    /// counts. Does nothing when the connection isn't in the room.
    ///
    /// After an error the connection still counts as in the room: if it was removed after all, the
    /// node adds it again.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn leave(&self, conn: &ConnId, user: &UserId, room: &RoomId) -> Result<()>;

    /// Unregisters a connection that is lost, and removes it from `rooms`. The user's grace begins
    /// for each when the backplane processes the loss.
    ///
    /// Never fails for the caller: while the backplane is unavailable the loss is kept on this node
    /// and published when the backplane is back. Repeating it doesn't prolong a grace.
    async fn connection_lost(&self, conn: &ConnId, user: &UserId, rooms: &[RoomId]);

    /// The room's members: at most `limit` ids.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn roster(&self, room: &RoomId, limit: usize) -> Result<Roster>;

    /// A page of at most `limit` members with ids greater than `after`.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn members(
        &self,
        room: &RoomId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<OccupantPage>;

    /// Whether the user is a member of the room, possibly in a grace.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn is_occupant(&self, room: &RoomId, user: &UserId) -> Result<bool>;

    /// The room's changes after `version`.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn room_changes(&self, room: &RoomId, version: u64) -> Result<Changes<RoomChange>>;

    /// The user's live connections on all nodes. Connections of a node that died are included until
    /// the node is reaped.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn connections(&self, user: &UserId) -> Result<Vec<ConnId>>;

    /// The user's current status.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn status(&self, user: &UserId) -> Result<OnlineStatus>;

    /// The user's changes after `version`.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn status_changes(&self, user: &UserId, version: u64) -> Result<Changes<OnlineStatus>>;

    /// Restores a status that watchers on this node were sent and that the backplane has lost. A
    /// grace begins, at the end of which the user goes offline unless a node has registered a
    /// connection of the user again.
    ///
    /// Does nothing when the backplane knows this version or a later one, so repeating it has no
    /// effect.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn restore_status(&self, _seen: &OnlineStatus) -> Result<()> {
        Ok(())
    }

    /// The version of each topic's last change, in the order of `topics`; 0 when none is known.
    /// Comparing versions finds a *last* change that was lost, which no later event reveals.
    ///
    /// Not atomic: each version is read on its own.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn versions(&self, topics: &[BusTopic]) -> Result<Vec<u64>>;
}
