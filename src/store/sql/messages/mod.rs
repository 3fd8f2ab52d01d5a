//! Changes of messages in a database.
//!
//! | table | contents |
//! | --- | --- |
//! | `hubbub_messages` | the state of each message that was changed |
//! | `hubbub_message_changes` | edits, with the content before each, deletions and pins |
//! | `hubbub_reactions` | the users that have reacted, by message and emoji |
//! | `hubbub_pins` | pinned messages |
//! | `hubbub_replies` | replies, by the root of their thread; `hubbub_threads` has their totals |
//! | `hubbub_mentions` | users that messages mention |
//!
//! The row of a message in `hubbub_entries` has its newest content. It is locked by each change, so that
//! the changes of a message have one order.
//!
//! Transactions lock rows in one order, so that they rarely form a deadlock: rooms, entries (by id), rows of
//! the outbox (by id), `hubbub_messages` (by room and `seq`), `hubbub_message_changes`, threads, and then rooms
//! of the unread messages. A transaction may leave out any of them. New rows of the outbox, which no other
//! transaction sees, may be added at any time. A late commit, which locks its room last, may form a deadlock;
//! then one of the two is repeated.

mod delete;
mod edit;
mod forms;
mod pins;
mod publish;
mod react;
mod reactions;
mod state;
mod target;
#[cfg(test)]
mod tests;
mod threads;
mod versions;

use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;

pub(super) use forms::of_room as forms;

use super::db::spawned;
use super::outbox::OwnClaim;
use super::store::SqlStore;
use super::value::{Text, loaded};
use crate::domain::{MessageChangeKind, MessageForm, Reaction, RoomId, UserId};
use crate::store::{
    ChangeOutcome, ChangeRow, Changer, MessageEdit, MessageRef, MessageState, MessageStore, OwnRow,
    Pin, PublishedChange, ReactionChange, Result, StoredKind, StoredMessage, VersionPage,
};

#[async_trait]
impl MessageStore for SqlStore {
    async fn edit(&self, edit: &MessageEdit) -> Result<ChangeOutcome> {
        let (db, edit) = (self.db().clone(), edit.clone());
        self.change(move |lease| async move { edit::edit(&db, &edit, lease).await })
            .await
    }

    async fn delete(&self, message: &MessageRef, by: &Changer) -> Result<ChangeOutcome> {
        let (db, message, by) = (self.db().clone(), message.clone(), by.clone());
        self.change(move |lease| async move { delete::delete(&db, &message, &by, lease).await })
            .await
    }

    async fn pin(&self, message: &MessageRef, by: &Changer, on: bool) -> Result<ChangeOutcome> {
        let (db, message, by) = (self.db().clone(), message.clone(), by.clone());
        self.change(move |lease| async move { pins::pin(&db, &message, &by, on, lease).await })
            .await
    }

    async fn react(&self, changes: &[ReactionChange]) -> Result<Vec<ChangeOutcome>> {
        let outcomes = react::react(self.db(), changes).await?;
        self.announce_rows();
        Ok(outcomes)
    }

    async fn to_publish(&self, room: &RoomId, row: &ChangeRow) -> Result<Option<MessageForm>> {
        publish::to_publish(self.db(), room, row).await
    }

    async fn done(&self, published: &[PublishedChange]) -> Result<()> {
        publish::done(self.db(), published).await
    }

    async fn published(
        &self,
        room: &RoomId,
        target_seq: u64,
        revision: u64,
    ) -> Result<Option<u64>> {
        publish::published(self.db(), room, target_seq, revision).await
    }

    async fn message(&self, message: &MessageRef) -> Result<Option<StoredMessage>> {
        state::message(self.db(), message).await
    }

    async fn states(
        &self,
        room: &RoomId,
        seqs: RangeInclusive<u64>,
        has_threads: bool,
    ) -> Result<Vec<(u64, MessageState)>> {
        state::states(self.db(), room, seqs, has_threads).await
    }

    async fn versions(
        &self,
        message: &MessageRef,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Option<VersionPage>> {
        versions::versions(self.db(), message, after, limit).await
    }

    async fn reactions(&self, message: &MessageRef) -> Result<Option<Vec<Reaction>>> {
        reactions::reactions(self.db(), message).await
    }

    async fn pins(&self, room: &RoomId) -> Result<Vec<Pin>> {
        pins::pins(self.db(), room).await
    }

    async fn replies(
        &self,
        root: &MessageRef,
        after: u64,
        limit: usize,
    ) -> Result<Option<Vec<StoredMessage>>> {
        threads::replies(self.db(), root, after, limit).await
    }
}

/// The outcome of a change that is committed, and the row of the outbox that its transaction has claimed.
type Committed = (ChangeOutcome, Option<OwnRow>);

impl SqlStore {
    /// Makes a change, with the lease for its row if it may claim one. In a task of its own, so that the
    /// worker gets the row also if the caller gives up.
    async fn change<F>(&self, change: impl FnOnce(Option<Duration>) -> F) -> Result<ChangeOutcome>
    where
        F: Future<Output = Result<Committed>> + Send + 'static,
    {
        let claim = self.own_row_queue().claim();
        let change = change(claim.as_ref().map(OwnClaim::lease));
        let store = self.clone();
        spawned(async move {
            let (outcome, row) = change.await?;
            match (claim, row) {
                (Some(claim), Some(row)) => claim.hand_over(row),
                _ if matches!(outcome, ChangeOutcome::Changed(_)) => store.announce_rows(),
                _ => {}
            }
            Ok(outcome)
        })
        .await
    }
}

/// The column `kind` of `hubbub_message_changes`.
const fn stored_kind(kind: MessageChangeKind) -> i64 {
    match kind {
        MessageChangeKind::Edited => EDITED,
        MessageChangeKind::Deleted => DELETED,
        MessageChangeKind::ReactionsChanged => 3,
        MessageChangeKind::Pinned => PINNED,
        MessageChangeKind::Unpinned => UNPINNED,
    }
}

/// The kinds of entries that are messages.
const MESSAGE_KINDS: [StoredKind; 2] = [StoredKind::MESSAGE, StoredKind::DELETED];

const EDITED: i64 = 1;
const DELETED: i64 = 2;
const PINNED: i64 = 4;
const UNPINNED: i64 = 5;

/// A number as the database has it.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn user(text: Text) -> UserId {
    UserId::trusted(&text.0)
}
