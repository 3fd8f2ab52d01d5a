//! Stores of tests.

use std::ops::RangeInclusive;

use async_trait::async_trait;

use super::{
    ChangeOutcome, ChangeRow, Changer, MessageEdit, MessageRef, MessageState, MessageStore,
    NewPosition, Pin, PositionStore, PublishedChange, ReactionChange, ReadPosition, Result,
    RoomUnread, StoreError, StoredMessage, ThreadCursor, UserThread, VersionPage,
};
use crate::domain::{MessageForm, Reaction, RoomId, Timestamp, UserId};

/// The calls of a [`MessageStore`] that a test implements; all others fail.
#[async_trait]
pub(crate) trait MessageCalls: Send + Sync {
    async fn delete(&self, _: &MessageRef, _: &Changer) -> Result<ChangeOutcome> {
        Err(missing())
    }

    async fn pin(&self, _: &MessageRef, _: &Changer, _: bool) -> Result<ChangeOutcome> {
        Err(missing())
    }

    async fn react(&self, _: &[ReactionChange]) -> Result<Vec<ChangeOutcome>> {
        Err(missing())
    }

    async fn to_publish(&self, _: &RoomId, _: &ChangeRow) -> Result<Option<MessageForm>> {
        Err(missing())
    }

    async fn done(&self, _: &[PublishedChange]) -> Result<()> {
        Err(missing())
    }

    async fn published(&self, _: &RoomId, _: u64, _: u64) -> Result<Option<u64>> {
        Err(missing())
    }

    async fn states(&self, _: RangeInclusive<u64>, _: bool) -> Result<Vec<(u64, MessageState)>> {
        Err(missing())
    }
}

/// A store of messages that has these calls.
pub(crate) struct FakeMessages<T>(pub T);

fn missing() -> StoreError {
    StoreError::Broken("the store of the test has no such call".to_owned())
}

#[async_trait]
impl<T: MessageCalls> MessageStore for FakeMessages<T> {
    async fn edit(&self, _: &MessageEdit) -> Result<ChangeOutcome> {
        Err(missing())
    }

    async fn delete(&self, message: &MessageRef, by: &Changer) -> Result<ChangeOutcome> {
        self.0.delete(message, by).await
    }

    async fn pin(&self, message: &MessageRef, by: &Changer, on: bool) -> Result<ChangeOutcome> {
        self.0.pin(message, by, on).await
    }

    async fn react(&self, changes: &[ReactionChange]) -> Result<Vec<ChangeOutcome>> {
        self.0.react(changes).await
    }

    async fn to_publish(&self, room: &RoomId, row: &ChangeRow) -> Result<Option<MessageForm>> {
        self.0.to_publish(room, row).await
    }

    async fn done(&self, published: &[PublishedChange]) -> Result<()> {
        self.0.done(published).await
    }

    async fn published(&self, room: &RoomId, target: u64, revision: u64) -> Result<Option<u64>> {
        self.0.published(room, target, revision).await
    }

    async fn message(&self, _: &MessageRef) -> Result<Option<StoredMessage>> {
        Err(missing())
    }

    async fn states(
        &self,
        _: &RoomId,
        seqs: RangeInclusive<u64>,
        has_threads: bool,
    ) -> Result<Vec<(u64, MessageState)>> {
        self.0.states(seqs, has_threads).await
    }

    async fn versions(
        &self,
        _: &MessageRef,
        _: Option<u64>,
        _: usize,
    ) -> Result<Option<VersionPage>> {
        Err(missing())
    }

    async fn reactions(&self, _: &MessageRef) -> Result<Option<Vec<Reaction>>> {
        Err(missing())
    }

    async fn pins(&self, _: &RoomId) -> Result<Vec<Pin>> {
        Err(missing())
    }

    async fn replies(
        &self,
        _: &MessageRef,
        _: u64,
        _: usize,
    ) -> Result<Option<Vec<StoredMessage>>> {
        Err(missing())
    }
}

/// A store without positions, all of whose calls fail.
pub(crate) struct NoPositions;

#[async_trait]
impl PositionStore for NoPositions {
    async fn read(&self, _: &NewPosition) -> Result<ReadPosition> {
        Err(missing())
    }

    async fn set(&self, _: &NewPosition) -> Result<ReadPosition> {
        Err(missing())
    }

    async fn read_thread(
        &self,
        _: &MessageRef,
        _: &UserId,
        _: u64,
    ) -> Result<Option<ReadPosition>> {
        Err(missing())
    }

    async fn joined(&self, _: &[(UserId, RoomId, u64)]) -> Result<()> {
        Err(missing())
    }

    async fn unread(&self, _: &UserId) -> Result<Vec<RoomUnread>> {
        Err(missing())
    }

    async fn unread_in(&self, _: &UserId, _: &[RoomId]) -> Result<Vec<RoomUnread>> {
        Err(missing())
    }

    async fn readers(
        &self,
        _: &RoomId,
        _: u64,
        _: Option<&UserId>,
        _: usize,
    ) -> Result<Vec<(UserId, u64, Timestamp)>> {
        Err(missing())
    }

    async fn threads(
        &self,
        _: &UserId,
        _: Option<ThreadCursor>,
        _: usize,
    ) -> Result<Vec<UserThread>> {
        Err(missing())
    }
}
