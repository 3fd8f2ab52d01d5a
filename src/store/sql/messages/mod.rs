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
//! Transactions lock rows in one order, so that they form no deadlock: entries (by id), rows of the outbox
//! (by id), `hubbub_messages` (by room and `seq`), `hubbub_message_changes`, threads, and then rooms
//! of the unread messages. A transaction may leave out any of them. New rows of the outbox, which no other transaction
//! sees, may be added at any time.

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

use async_trait::async_trait;

pub(super) use forms::of_room as forms;

use super::store::SqlStore;
use super::value::{Text, loaded};
use crate::domain::{MessageChangeKind, MessageForm, Reaction, RoomId, UserId};
use crate::store::{
    ChangeOutcome, ChangeRow, Changer, MessageEdit, MessageRef, MessageState, MessageStore, Pin,
    PublishedChange, ReactionChange, Result, StoredKind, StoredMessage, VersionPage,
};

#[async_trait]
impl MessageStore for SqlStore {
    async fn edit(&self, edit: &MessageEdit) -> Result<ChangeOutcome> {
        let outcome = edit::edit(self.db(), edit).await?;
        self.announce_change(&outcome);
        Ok(outcome)
    }

    async fn delete(&self, message: &MessageRef, by: &Changer) -> Result<ChangeOutcome> {
        let outcome = delete::delete(self.db(), message, by).await?;
        self.announce_change(&outcome);
        Ok(outcome)
    }

    async fn pin(&self, message: &MessageRef, by: &Changer, on: bool) -> Result<ChangeOutcome> {
        let outcome = pins::pin(self.db(), message, by, on).await?;
        self.announce_change(&outcome);
        Ok(outcome)
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

impl SqlStore {
    /// Announces the row that a change has added.
    fn announce_change(&self, outcome: &ChangeOutcome) {
        if let ChangeOutcome::Changed(_) = outcome {
            self.announce_rows();
        }
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
