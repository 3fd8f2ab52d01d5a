//! Settings of the archive.

use std::time::Duration;

/// Settings of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveSettings {
    /// Whether a message is acknowledged only after its commit (`ACK_AFTER=archive`).
    pub acknowledge_commits: bool,
    /// The most messages of this node that wait for their commit (`ARCHIVE_BACKLOG`).
    pub backlog: usize,
    /// How long messages are kept (`RETENTION_DAYS`); `None`: for ever.
    pub retention: Option<Duration>,
}
