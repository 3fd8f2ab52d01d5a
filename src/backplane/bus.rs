//! The promises of the bus: fan-out between nodes.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Entry, Result};
use crate::domain::{OnlineStatus, RoomChange, RoomId, UserId, Username};

/// A topic that a node can subscribe to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BusTopic {
    /// A room's log entries, membership changes, typing notices and read receipts.
    Room(RoomId),
    /// A user's status changes.
    User(UserId),
    /// Commands to all nodes. This topic has neither a log nor versions.
    Nodes,
}

/// A notice that a user types or has stopped typing. It is sent to current subscribers and not
/// stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typing {
    /// The room in which the user types.
    pub room: RoomId,
    /// The user.
    pub user: UserId,
    /// The user's name.
    pub username: Username,
    /// False when the user has stopped.
    pub typing: bool,
}

/// A notice that a user has read a room up to a number, or has marked later messages as unread. It is sent
/// to current subscribers and not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadReceipt {
    /// The room.
    pub room: RoomId,
    /// The user.
    pub user: UserId,
    /// The last number that the user has read.
    pub last_read_seq: u64,
    /// The connections that it is for.
    pub audience: ReceiptAudience,
}

/// The connections in a room that a read receipt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptAudience {
    /// Those of other users.
    Others,
    /// The user's own. For users without a personal feed, which has the position of others.
    Own {
        /// The number of later messages.
        unread: u64,
        /// Whether there are more.
        is_capped: bool,
    },
}

/// An event that was published to a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusEvent {
    /// An entry was appended to a room's log. Its kind may be one that isn't a message.
    Message(RoomId, Entry),
    /// A room's membership changed.
    RoomChanged(RoomId, RoomChange),
    /// A user types in a room.
    Typing(Typing),
    /// A user has read a room.
    Receipt(ReadReceipt),
    /// A user went online or offline.
    StatusChanged(OnlineStatus),
    /// Every node must close all connections of this user.
    Disconnect(UserId),
}

/// The receiver of a node's events. The bus calls it from its own task or while it holds a lock, so
/// both methods must return at once.
pub trait BusSink: Send + Sync {
    /// An event arrived. The events of one topic arrive in the order in which they were published.
    fn event(&self, event: BusEvent);
    /// Events of the topic (`None`: of every topic) may have been lost: read the log and the
    /// changes.
    fn interrupted(&self, topic: Option<BusTopic>);
}

/// Fan-out between nodes. Delivery is at most once, and in order within a topic. An event that is
/// lost can be read from the log or the changes, except for typing notices, receipts and disconnects.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Sets the sink. Must be called once, before the first [`subscribe`](Self::subscribe).
    fn deliver_to(&self, sink: Arc<dyn BusSink>);

    /// Subscribes this node to the topic. Once the call returns, every later publication arrives at
    /// the sink, or the sink's [`interrupted`](BusSink::interrupted) is called.
    ///
    /// Dropping the future before it resolves ends the subscription again, unless the node was
    /// subscribed before.
    ///
    /// # Errors
    /// `Unavailable`; the node isn't subscribed then.
    async fn subscribe(&self, topic: &BusTopic) -> Result<()>;

    /// Ends the subscription as soon as possible. Events may arrive for a moment after the call
    /// returns.
    async fn unsubscribe(&self, topic: &BusTopic);

    /// True if no published event is ever lost, so that nodes need not compare heads and versions
    /// from time to time.
    fn is_lossless(&self) -> bool {
        false
    }

    /// Publishes a typing notice to the room's subscribers. It may be dropped.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn publish_typing(&self, typing: &Typing) -> Result<()>;

    /// Publishes a read receipt to the room's subscribers. It may be dropped.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn publish_receipt(&self, receipt: &ReadReceipt) -> Result<()>;

    /// Publishes to [`BusTopic::Nodes`] that every node must close the user's connections.
    ///
    /// The event may be lost. A caller that must be sure checks [`Presence::connections`] and
    /// publishes again.
    ///
    /// # Errors
    /// `Unavailable`.
    ///
    /// [`Presence::connections`]: super::Presence::connections
    async fn publish_disconnect(&self, user: &UserId) -> Result<()>;
}
