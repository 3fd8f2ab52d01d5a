//! What nodes share: rooms' logs, presence and the bus, as traits whose docs are the promises.
//!
//! Two implementations keep them: [`memory`] (one node alone) and [`redis`] (a cluster). One conformance suite,
//! `tests/backplane/`, runs on both.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::domain::{
    Charges, ConnId, Epoch, Head, LogSpan, NewMessage, OnlineStatus, RoomChange, RoomId, Timestamp,
    UserId, Username,
};

pub mod memory;
pub mod record;
pub mod redis;

/// What can go wrong with a backplane.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackplaneError {
    /// It can't be reached, or answers too late: what was asked may or may not have happened. Every call is safe to repeat.
    #[error("the backplane can't be reached: {0}")]
    Unavailable(String),
    /// The embedded backplane holds as many rooms as it may.
    #[error("too many rooms are held")]
    Full,
    /// The user has as many connections as one may have.
    #[error("the user has too many connections")]
    TooManyConnections,
    /// It answered something that it never should: a fault of ours or of its data.
    #[error("the backplane's answer makes no sense: {0}")]
    Broken(String),
}

/// The result of a call to a backplane.
pub type Result<T> = std::result::Result<T, BackplaneError>;

/// What either backplane is told of limits and times.
#[derive(Debug, Clone)]
pub struct BackplaneLimits {
    /// Messages kept for a room (`HISTORY_SIZE`).
    pub history_size: usize,
    /// How long they are kept after the room's last message (`HISTORY_TTL_SECS`).
    pub history_ttl: std::time::Duration,
    /// How long `seq` and `epoch` outlive the last message or member (`ROOM_TTL_SECS`).
    pub room_ttl: std::time::Duration,
    /// How long a send is remembered (`DEDUPE_TTL_SECS`).
    pub dedupe_ttl: std::time::Duration,
    /// How long a lost connection still counts (`PRESENCE_GRACE_MS`).
    pub presence_grace: std::time::Duration,
    /// Live connections a user may have (`MAX_SOCKETS_PER_USER`).
    pub sockets_per_user: usize,
    /// Rooms that the embedded backplane holds (`MAX_ROOMS`).
    pub rooms: usize,
}

impl Default for BackplaneLimits {
    fn default() -> Self {
        use std::time::Duration;
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

/// A message in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number: 1, 2, 3, … without a hole within an epoch, and going on across a continued one.
    pub seq: u64,
    /// The epoch in which it was given.
    pub epoch: Epoch,
    /// When, by the backplane's clock.
    pub at: Timestamp,
    /// What was said: JSON made once by [`record::encode`], passed on byte for byte.
    pub record: Bytes,
}

/// The place that an append gave, or had given before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The message's id: the first one's, for a duplicate.
    pub id: Uuid,
    /// Its number.
    pub seq: u64,
    /// The numbering's life.
    pub epoch: Epoch,
    /// When, by the backplane's clock.
    pub at: Timestamp,
    /// True when the same user had sent the same key to the room before: nothing was appended now.
    pub duplicate: bool,
}

/// Which part of a log to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The first messages with `seq` greater than this one.
    After(u64),
    /// The last messages with `seq` lower than this one.
    Before(u64),
    /// The last messages.
    Newest,
}

/// A part of a log, read at one moment.
#[derive(Debug, Clone)]
pub struct Slice {
    /// In rising `seq`, without a hole.
    pub entries: Vec<Entry>,
    /// The whole log at that moment.
    pub span: LogSpan,
}

/// Every room's ordered, bounded, duplicate-free log.
#[async_trait]
pub trait RoomLog: Send + Sync {
    /// Gives `draft` the room's next `seq`, keeps it, and publishes it to the room's topic, in one atomic step.
    ///
    /// `key` identifies the send for its user and room: within `dedupe_ttl` a repeat appends nothing and returns the
    /// first place with `duplicate: true`. So a call that failed with `Unavailable` can be repeated with the same key;
    /// without a key a repeat is another message.
    ///
    /// # Errors
    /// `Unavailable`, `Full`.
    async fn append(&self, draft: &NewMessage, key: Option<&str>) -> Result<Appended>;

    /// Reads at most `limit` messages that come to at most `max_bytes` of records (but always one, if there is one).
    /// Atomic: entries and span are of one moment. A room that has none yet has a span with `seq` 0 and a lasting epoch.
    ///
    /// # Errors
    /// `Unavailable`, `Full`.
    async fn read(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Slice>;

    /// The heads of many rooms, in their order; `None` for a room that isn't known. Each is read on its own.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>>;
}

/// What a joiner finds: all of one moment.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The room's log.
    pub span: LogSpan,
    /// Who is there.
    pub roster: Roster,
}

impl Joined {
    /// What a listener finds: the log, and nobody.
    #[must_use]
    pub fn listening(span: LogSpan) -> Self {
        Self {
            span,
            roster: Roster {
                users: Vec::new(),
                total: 0,
                version: 0,
            },
        }
    }
}

/// Who is in a room, at one moment.
#[derive(Debug, Clone)]
pub struct Roster {
    /// At most as many ids as asked for, in no order that means anything; a joiner is always among those a join returns.
    pub users: Vec<UserId>,
    /// How many there are, users in their grace included.
    pub total: u64,
    /// The number of the last change that is in it.
    pub version: u64,
}

/// A page of a room's members, in the order of their ids.
#[derive(Debug, Clone)]
pub struct OccupantPage {
    /// Id and name.
    pub members: Vec<(UserId, Username)>,
    /// How many there are in all.
    pub total: u64,
    /// The last id of this page, when more follow: the next page's `after`.
    pub next: Option<UserId>,
}

/// Changes after a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes<T> {
    /// All of them, in order; empty when there is none.
    Since(Vec<T>),
    /// They are no longer kept, or the version is unknown: read the newest state instead.
    TooOld,
}

/// Who is connected, and who is in which room.
///
/// Users' and rooms' facts are kept right each on its own; no step needs both. Every step that changes presence sets the
/// new version, keeps the change, and publishes it to the topic, atomically: so there is one event per change, whichever
/// node saw it.
#[async_trait]
pub trait Presence: Send + Sync {
    /// Registers a live connection of a user, or (again, with another name) renames the user. Ends the user's grace.
    /// The user's first connection makes the user online.
    ///
    /// # Errors
    /// `Unavailable`, `TooManyConnections` (connections in their grace or of dead nodes don't count).
    async fn connect(&self, conn: &ConnId, user: &UserId, username: &Username) -> Result<()>;

    /// Puts the connection into the room, or (when it already is in it) just reads. Ends the user's grace in the room.
    /// Costs O(log members + `Limits::ROSTER`). The connection must be registered by `connect`.
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

    /// Takes the connection out of the room, at once: when it was the user's last one there, the user has left (unless
    /// another connection of the user is in its grace there). Does nothing when it isn't in it.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn leave(&self, conn: &ConnId, user: &UserId, room: &RoomId) -> Result<()>;

    /// The connection is lost: out of `rooms` and of its user's connections, each with the grace, which begins when the
    /// backplane has learned of it. Never fails for the caller: what can't be said now is said when the backplane is back.
    async fn lost(&self, conn: &ConnId, user: &UserId, rooms: &[RoomId]);

    /// Who is in the room: at most `limit` ids.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn roster(&self, room: &RoomId, limit: usize) -> Result<Roster>;

    /// A page of members with ids greater than `after`.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn members(
        &self,
        room: &RoomId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<OccupantPage>;

    /// Whether the user is in the room (or in grace there).
    ///
    /// # Errors
    /// `Unavailable`.
    async fn is_occupant(&self, room: &RoomId, user: &UserId) -> Result<bool>;

    /// The room's changes after `version`.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn room_changes(&self, room: &RoomId, version: u64) -> Result<Changes<RoomChange>>;

    /// The user's live connections, on whichever node; those of a node that died are among them until it is reaped.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn connections(&self, user: &UserId) -> Result<Vec<ConnId>>;

    /// Whether the user is online.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn status(&self, user: &UserId) -> Result<OnlineStatus>;

    /// The user's changes after `version`.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn status_changes(&self, user: &UserId, version: u64) -> Result<Changes<OnlineStatus>>;

    /// What someone here was told of a user, where the backplane has lost it: it takes that over, and tells of the user's
    /// going where nobody has the user any more. Repeating it does nothing, nor does what it knows, or knows better.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn recall(&self, _seen: &OnlineStatus) -> Result<()> {
        Ok(())
    }

    /// The versions of many topics' last changes, in their order (0: none known): to find a lost *last* change.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn versions(&self, topics: &[BusTopic]) -> Result<Vec<u64>>;
}

/// What one can subscribe to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BusTopic {
    /// A room's messages, changes of membership and typing.
    Room(RoomId),
    /// A user's changes of status.
    User(UserId),
    /// What every node is told; it has neither a log nor versions.
    Nodes,
}

/// Someone types, or has stopped: told to whoever listens now, kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typing {
    /// Where.
    pub room: RoomId,
    /// Who.
    pub user: UserId,
    /// The user's name.
    pub username: Username,
    /// False: has stopped.
    pub typing: bool,
}

/// What arrives from a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusEvent {
    /// A message of a room.
    Message(RoomId, Entry),
    /// A change of a room's membership.
    RoomChanged(RoomId, RoomChange),
    /// Someone types in a room.
    Typing(Typing),
    /// A user came or went.
    StatusChanged(OnlineStatus),
    /// All connections of a user are to end.
    Disconnect(UserId),
}

/// Where the bus hands what arrives. Both calls return at once: they run in the bus's own task, or under its lock.
pub trait BusSink: Send + Sync {
    /// Something arrived, in the order in which the topic was published to.
    fn event(&self, event: BusEvent);
    /// Events of the topic (`None`: of every topic) may have been missed: catch up from the log.
    fn interrupted(&self, topic: Option<BusTopic>);
}

/// Fan-out between nodes: at most once, in order within a topic. The log and the changes mend what it loses.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Names the sink. Called once, before the first `subscribe`.
    fn deliver_to(&self, sink: Arc<dyn BusSink>);

    /// Resolves when every later publication will arrive (or `interrupted` be called). Repeating it does nothing.
    ///
    /// # Errors
    /// `Unavailable`; the topic is then not subscribed.
    async fn subscribe(&self, topic: &BusTopic) -> Result<()>;

    /// Ends the subscription, as soon as it can.
    async fn unsubscribe(&self, topic: &BusTopic);

    /// True where nothing published is ever lost, so that nobody need look for it.
    fn is_lossless(&self) -> bool {
        false
    }

    /// Tells the room's subscribers of someone's typing; may be dropped.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn publish_typing(&self, typing: &Typing) -> Result<()>;

    /// Tells all nodes (of [`BusTopic::Nodes`]) to end the user's connections. It may be lost: whoever must be sure looks at
    /// [`Presence::connections`], and says it again.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn publish_disconnect(&self, user: &UserId) -> Result<()>;
}

/// What users have spent of their rates on all nodes: told now and then, never before an event.
#[async_trait]
pub trait RateLimiter: Send + Sync {
    /// Adds what users have spent, as the time that their rates take to make up for it, and gives what all nodes together
    /// have told and is not made up for yet. Time goes by the backplane's clock. Each user's part is atomic.
    ///
    /// Never fails for the caller: users whose part of the backplane can't be reached are left out. The call is not to be
    /// repeated for them, as it may have happened.
    async fn spend(&self, spent: Vec<(UserId, Charges)>) -> Vec<(UserId, Charges)>;
}

/// The implementations of the backplane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackplaneKind {
    /// [`memory`]: the node shares nothing with other nodes.
    Embedded,
    /// [`redis`]: the nodes of a cluster share one Redis.
    Redis,
}

impl BackplaneKind {
    /// The name under which the health check reports it: `embedded` or `redis`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Redis => "redis",
        }
    }
}

/// A backplane's life.
#[async_trait]
pub trait Lifecycle: Send + Sync {
    /// Which implementation it is.
    fn kind(&self) -> BackplaneKind;
    /// A description for the log: the kind, for Redis followed by its topology and address. Never holds a password.
    fn describe(&self) -> String;
    /// False when the node must not be sent new work: two heartbeats in a row were missed, or it never was reached.
    fn is_up(&self) -> bool;
    /// What it has counted since its start.
    fn counters(&self) -> Counters;
    /// Ends its tasks. Connections still registered are left to their graces.
    async fn stop(&self);
}

/// What a backplane counts; all of it only rises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls that went over a network.
    pub round_trips: u64,
    /// Those of them that failed or came too late.
    pub errors: u64,
    /// Presence changes that this node caused: a user or a member came or went.
    pub presence_changes: u64,
    /// Times that a subscription was interrupted.
    pub interruptions: u64,
}

/// Everything that nodes share.
#[derive(Clone)]
pub struct Backplane {
    /// Rooms' messages.
    pub log: Arc<dyn RoomLog>,
    /// Who is where.
    pub presence: Arc<dyn Presence>,
    /// Fan-out.
    pub bus: Arc<dyn Bus>,
    /// What users spend; `None` where no other node can be.
    pub rate_limiter: Option<Arc<dyn RateLimiter>>,
    /// Health and end.
    pub lifecycle: Arc<dyn Lifecycle>,
}
