//! Deleted accounts, and their messages.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::{Announce, AnnounceEnd, NewRow, Result};
use crate::domain::Timestamp;

/// The outcome of a [`Rewrite`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewritten {
    /// The record needs no change.
    Unchanged,
    /// The new record.
    Changed(Bytes),
    /// The record can't be read.
    Unreadable,
}

/// Makes a record anonymous.
pub type Rewrite = Arc<dyn Fn(&[u8]) -> Rewritten + Send + Sync>;

/// The progress of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletionReport {
    /// When the account was deleted.
    pub requested_at: Timestamp,
    /// The passes over all messages that are complete.
    pub passes: u64,
    /// The messages that were made anonymous.
    pub messages: u64,
    /// Entries that the last pass could not read, and groups that it could not process. They stay as they
    /// are.
    pub skipped: u64,
    /// When the last pass ended.
    pub finished_at: Option<Timestamp>,
}

/// The outcome of [`DeletionStore::rewrite_next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletionStep {
    /// Messages were examined; there are more.
    More,
    /// The first pass is complete. The job of the second one waits in the outbox.
    FirstPassComplete,
    /// Both passes are complete.
    Finished,
}

/// The result of a request to delete an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// The account is deleted. The sessions and bot tokens that have ended.
    Deleted(Vec<Uuid>),
    /// There is no such account any more, or it has another password now.
    Unknown,
    /// The account is that of the last admin, and there are others.
    LastAdmin,
}

/// Deletes accounts. Times come from the database's clock.
#[async_trait]
pub trait DeletionStore: Send + Sync {
    /// Removes the personal data of an account, ends its sessions, adds their announcements and the row
    /// of the job to the outbox, and begins the deletion, in one transaction. `verified` is the hash of
    /// the password that the caller knows.
    ///
    /// # Errors
    /// `Unavailable`: the account may be deleted.
    async fn delete_account(
        &self,
        user: Uuid,
        verified: String,
        job: NewRow,
        announce: AnnounceEnd,
    ) -> Result<DeleteOutcome>;

    /// Ends some of the memberships in groups of an account that is being deleted, each with its
    /// announcements in one transaction: in the order of the groups' ids, those with greater ids than
    /// `after`. Returns the last one; `None` if there are no more. A group that can't be read stays as it
    /// is. A group without an owner that can use
    /// its account gets one: of the members that can use theirs the one that joined first. A group
    /// without members is deleted. Direct chats stay as they are.
    ///
    /// # Errors
    /// `Unavailable`: memberships may have ended.
    async fn leave_groups(
        &self,
        user: Uuid,
        after: Uuid,
        announce: Announce,
    ) -> Result<Option<Uuid>>;

    /// Rewrites the next archived messages of the user, and changes with names, in one transaction with
    /// the position. Entries that can't be read are skipped and counted. After the first pass `job` is added to the outbox, due after ten minutes: for
    /// messages that were sent before the sockets closed, or archived later.
    ///
    /// # Errors
    /// `Unavailable`: the step may have been made.
    async fn rewrite_next(&self, user: Uuid, rewrite: Rewrite, job: NewRow)
    -> Result<DeletionStep>;

    /// The progress of a deletion.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn deletion(&self, user: Uuid) -> Result<Option<DeletionReport>>;
}
