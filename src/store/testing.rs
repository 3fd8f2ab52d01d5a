//! Stores of tests.

use std::ops::RangeInclusive;

use async_trait::async_trait;

use super::{
    ChangeOutcome, ChangeRow, Changer, MessageEdit, MessageRef, MessageState, MessageStore, Pin,
    PublishedChange, ReactionChange, Result, StoreError, StoredMessage, VersionPage,
};
use crate::domain::{MessageForm, Reaction, RoomId};

/// The calls of a [`MessageStore`] that a test implements; all others fail.
#[async_trait]
pub(crate) trait MessageCalls: Send + Sync {
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

    async fn delete(&self, _: &MessageRef, _: &Changer) -> Result<ChangeOutcome> {
        Err(missing())
    }

    async fn pin(&self, _: &MessageRef, _: &Changer, _: bool) -> Result<ChangeOutcome> {
        Err(missing())
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

    async fn states(&self, _: &RoomId, _: RangeInclusive<u64>) -> Result<Vec<(u64, MessageState)>> {
        Err(missing())
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
