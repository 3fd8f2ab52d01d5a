//! Health, counters and shutdown of a backplane.

use async_trait::async_trait;

use super::Result;

/// The implementations of the backplane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackplaneKind {
    /// The node shares nothing with other nodes.
    Embedded,
    /// The nodes of a cluster share one Redis.
    Redis,
}

impl BackplaneKind {
    /// The name in the answer of `/health`: `embedded` or `redis`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Redis => "redis",
        }
    }
}

/// The lifecycle of a backplane.
#[async_trait]
pub trait Lifecycle: Send + Sync {
    /// Which implementation it is.
    fn kind(&self) -> BackplaneKind;
    /// A description for the log: the kind, for Redis with its topology and addresses. Contains no
    /// password.
    fn describe(&self) -> String;
    /// False when the node must not be sent new work: two heartbeats in a row have failed, or none
    /// has succeeded yet.
    fn is_up(&self) -> bool;
    /// The name of the deployment: of the nodes that share this backplane. `None` if this node alone has
    /// it. Two backplanes with the same data have the same name, and no others, unless one began as a copy
    /// of the other's data. When the data is lost, the name changes. Contains no password.
    ///
    /// # Errors
    /// `Unavailable` while the backplane is down.
    async fn deployment(&self) -> Result<Option<String>>;
    /// The counts since the start.
    fn counters(&self) -> Counters;
    /// Stops the backplane's tasks. Connections that are still registered count as lost: their
    /// users' graces begin.
    async fn stop(&self);
}

/// Counts of a backplane since its start. None of them decreases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls over the network.
    pub round_trips: u64,
    /// Calls over the network that failed or timed out.
    pub errors: u64,
    /// Presence changes that this node caused: a user went online or offline, or joined or left a
    /// room.
    pub presence_changes: u64,
    /// Logs from which this node has removed the texts of deleted messages.
    pub log_scrubs: u64,
    /// Interruptions of subscriptions, counted per topic.
    pub interruptions: u64,
}
