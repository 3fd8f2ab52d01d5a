//! The requests of connections: to join a room, to listen to one, or to watch a user.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Gate, Outlet};
use crate::backplane::{BackplaneError, Result};
use crate::domain::{Epoch, Head, OnlineStatus, RoomId, UserId, Username};

/// The position from which a joining connection requests the room's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayFrom {
    /// New messages only.
    Live,
    /// The last `n` messages, then live.
    Last(u64),
    /// Every message after `seq` of `epoch` (`None`: the current epoch), then live.
    Since {
        /// The last message that the client has seen.
        seq: u64,
        /// The epoch in which that `seq` counts.
        epoch: Option<Epoch>,
        /// The most messages to replay. If more follow `seq`, the last so many are replayed, and
        /// the outcome is a gap.
        limit: Option<u64>,
    },
    /// As `from`, but never the messages up to `floor`, which the client may not see: they don't count
    /// as missed either, and changes of them are not delivered while the connection is attached. Made by
    /// [`ReplayFrom::above`].
    Above {
        /// A number of the current numbering.
        floor: u64,
        /// The position that the client requests.
        from: Box<Self>,
    },
}

impl ReplayFrom {
    /// The same without the messages up to `floor`, which the client may not see.
    #[must_use]
    pub fn above(self, floor: u64) -> Self {
        if floor == 0 {
            return self;
        }
        let from = Box::new(self);
        Self::Above { floor, from }
    }

    /// The request for a log that ends at `head`, and the lowest position at which its replay may
    /// begin.
    pub(super) fn resolved(&self, head: u64) -> (Self, u64) {
        let Self::Above { floor, from } = self else {
            return (self.clone(), 0);
        };
        let floor = (*floor).min(head);
        let from = match &**from {
            Self::Last(count) => Self::Last((*count).min(head - floor)),
            // The floor is a number of the current epoch, whichever the client knows.
            Self::Since { seq, limit, .. } if *seq < floor => Self::Since {
                seq: floor,
                epoch: None,
                limit: *limit,
            },
            other => other.clone(),
        };
        (from, floor)
    }

    /// The number up to which messages are hidden from the client; 0 where none are.
    pub(super) fn hidden_seq(&self) -> u64 {
        match self {
            Self::Above { floor, .. } => *floor,
            Self::Live | Self::Last(_) | Self::Since { .. } => 0,
        }
    }

    /// Whether the client requests new messages only.
    pub(super) fn is_live(&self) -> bool {
        match self {
            Self::Live => true,
            Self::Above { from, .. } => from.is_live(),
            Self::Last(_) | Self::Since { .. } => false,
        }
    }

    /// The epoch in which the client's position counts, if it has named one.
    #[must_use]
    pub fn epoch(&self) -> Option<&Epoch> {
        match self {
            Self::Since { epoch, .. } => epoch.as_ref(),
            Self::Above { from, .. } => from.epoch(),
            Self::Live | Self::Last(_) => None,
        }
    }
}

/// The content of a join's acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinOutcome {
    /// The number of occupants, the joining user included.
    pub total: u64,
    /// The log's end at that moment.
    pub head: Head,
    /// True when every message after the requested position follows.
    pub recovered: bool,
    /// True when not every message after the requested position follows: some are no longer
    /// available, or there are more than the request allows.
    pub gap: bool,
    /// How many messages follow before `room_users`.
    pub replayed: u64,
    /// True when this node has still to deliver entries up to `head`.
    pub is_ahead: bool,
}

/// Called once when a join has succeeded, by the room's worker, because the acknowledgement must be
/// written before the replay. A join that fails drops it uncalled.
pub type OnJoined = Box<dyn FnOnce(&JoinOutcome) + Send>;

/// Called once with the status of a newly watched user, by the user's worker, before that status is
/// delivered. A watch that fails drops it uncalled.
pub type OnWatched = Box<dyn FnOnce(&OnlineStatus) + Send>;

/// A join that is being processed.
pub(super) struct JoinRequest {
    pub room: RoomId,
    pub outlet: Arc<dyn Outlet>,
    /// The name of the new occupant; `None` when the connection only listens.
    pub username: Option<Username>,
    pub start: ReplayFrom,
    pub on_joined: OnJoined,
    /// Nothing of the room reaches the outlet before the gate is open.
    pub gate: Option<Gate>,
    pub accepted: oneshot::Sender<Result<ReplayEnd>>,
}

/// Resolves when a join's replay is over and `room_users` is sent. Its sender is dropped when the
/// connection left, joined again or closed before, or the feed ended.
pub type ReplayEnd = oneshot::Receiver<()>;

/// A subscription to a user's status that is being processed.
pub(super) struct WatchRequest {
    pub user: UserId,
    pub outlet: Arc<dyn Outlet>,
    pub on_watched: OnWatched,
    pub done: oneshot::Sender<Result<()>>,
}

/// The error of a request that was dropped unanswered: its worker has been stopped, or a fault
/// ended its feed.
pub(super) fn stopped() -> BackplaneError {
    BackplaneError::Unavailable("the delivery worker has stopped".to_owned())
}
