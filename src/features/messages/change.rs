//! Changing messages: one call of the store, and the wait for its announcement.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use uuid::Uuid;

use super::edit::EditFields;
use super::form::CurrentMessage;
use super::publications::not_published;
use super::{Messages, message_deleted, message_ref, no_such_message, refused};
use crate::domain::policy::{Deleting, Permit, Sending};
use crate::domain::{Code, Emoji, Refusal, RoomId, UserId};
use crate::store::{
    Announced, ChangeOutcome, Changed, Changer, MessageEdit, MessageStore, ReactionChange,
    StoreError,
};

/// How long a change is repeated that finds other changes of its message unpublished.
const RETRY_TIME: Duration = Duration::from_secs(10);

/// A change that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// The message.
    pub id: Uuid,
    /// The number of the announcement.
    pub seq: u64,
}

/// Why a change was not made.
#[derive(Debug)]
pub enum ChangeRefused {
    /// For this reason.
    Refusal(Refusal),
    /// The message has another version than the caller has seen: this one.
    Conflict(Box<CurrentMessage>),
}

impl From<Refusal> for ChangeRefused {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl From<StoreError> for ChangeRefused {
    fn from(error: StoreError) -> Self {
        Self::Refusal(refused(error))
    }
}

/// Sets and removes reactions.
#[async_trait]
pub trait Reactions: Send + Sync {
    /// Sets or removes one reaction.
    ///
    /// # Errors
    /// `unavailable`.
    async fn react(&self, change: ReactionChange) -> Result<ChangeOutcome, Refusal>;
}

/// One transaction for each reaction.
pub struct StoredReactions(pub Arc<dyn MessageStore>);

#[async_trait]
impl Reactions for StoredReactions {
    async fn react(&self, change: ReactionChange) -> Result<ChangeOutcome, Refusal> {
        let outcomes = self.0.react(&[change]).await.map_err(refused)?;
        let lost = || refused(StoreError::Broken("a reaction has no outcome".to_owned()));
        outcomes.into_iter().next().ok_or_else(lost)
    }
}

fn changer<A>(permit: &Permit<A>, user: &UserId) -> Changer {
    Changer {
        user: user.clone(),
        is_moderator: permit.is_moderator(),
        hidden_seq: permit.hidden_seq(),
    }
}

impl Messages {
    /// Edits a message of the caller. Fields that are not given stay as they are. An edit that changes
    /// nothing is not announced: it has the number of the last change.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict`, `message_deleted`, `bad_request`, `too_large`,
    /// `unavailable`.
    pub async fn edit(
        &self,
        permit: Permit<Sending>,
        user: &UserId,
        id: Uuid,
        fields: EditFields,
        version: Option<u64>,
    ) -> Result<Made, ChangeRefused> {
        self.messaging
            .authorize_sending(user, permit.room())
            .await?;
        let message = message_ref(permit.room(), id);
        let mentions = self
            .mentions_of_edit(&permit, user, &message, &fields)
            .await?;
        let edit = MessageEdit {
            record: fields.into_edit(mentions.clone(), self.messaging.limits().clone()),
            message,
            by: changer(&permit, user),
            version,
            mentions,
        };
        let attempt = async || self.store.edit(&edit).await.map_err(ChangeRefused::from);
        self.change(permit.room(), id, attempt).await
    }

    /// Deletes a message: its content, its versions and its reactions are gone.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `unavailable`.
    pub async fn delete(
        &self,
        permit: Permit<Deleting>,
        user: &UserId,
        id: Uuid,
    ) -> Result<Made, ChangeRefused> {
        let (message, by) = (message_ref(permit.room(), id), changer(&permit, user));
        let attempt = async || Ok(self.store.delete(&message, &by).await?);
        self.change(permit.room(), id, attempt).await
    }

    /// Pins a message to its room (`on`), or removes its pin.
    ///
    /// # Errors
    /// `not_found`, `message_deleted`, `too_large`, `unavailable`.
    pub async fn pin(
        &self,
        permit: Permit<Sending>,
        user: &UserId,
        id: Uuid,
        on: bool,
    ) -> Result<Made, ChangeRefused> {
        self.messaging
            .authorize_sending(user, permit.room())
            .await?;
        let (message, by) = (message_ref(permit.room(), id), changer(&permit, user));
        let attempt = async || Ok(self.store.pin(&message, &by, on).await?);
        self.change(permit.room(), id, attempt).await
    }

    /// Sets a reaction of the caller (`on`), or removes it. Its announcement may follow later, together
    /// with others.
    ///
    /// # Errors
    /// `not_found`, `message_deleted`, `too_large`, `unavailable`.
    pub async fn react(
        &self,
        permit: Permit<Sending>,
        user: &UserId,
        id: Uuid,
        emoji: Emoji,
        on: bool,
    ) -> Result<(), ChangeRefused> {
        self.messaging
            .authorize_sending(user, permit.room())
            .await?;
        let change = ReactionChange {
            message: message_ref(permit.room(), id),
            by: changer(&permit, user),
            emoji,
            on,
        };
        let attempt = async || Ok(self.reactions.react(change.clone()).await?);
        self.make(permit.room(), attempt).await.map(drop)
    }

    /// Makes a change, and waits for its announcement.
    async fn change(
        &self,
        room: &RoomId,
        id: Uuid,
        attempt: impl AsyncFn() -> Result<ChangeOutcome, ChangeRefused>,
    ) -> Result<Made, ChangeRefused> {
        let Changed {
            target_seq,
            announcement,
        } = self.make(room, attempt).await?;
        let seq = match announcement {
            Announced::At(seq) => seq,
            Announced::ByRow { revision, .. } => {
                self.publications.wait(room, target_seq, revision).await?
            }
        };
        Ok(Made { id, seq })
    }

    /// Repeats an attempt until its outcome is final: once the message is archived, and once earlier
    /// changes that it depends on are published.
    async fn make(
        &self,
        room: &RoomId,
        attempt: impl AsyncFn() -> Result<ChangeOutcome, ChangeRefused>,
    ) -> Result<Changed, ChangeRefused> {
        let deadline = Instant::now() + RETRY_TIME;
        let mut is_archived = false;
        loop {
            match attempt().await? {
                ChangeOutcome::Changed(changed) => return Ok(changed),
                ChangeOutcome::NotFound if !is_archived => {
                    self.messaging
                        .log()
                        .archive_now(room)
                        .await
                        .map_err(Refusal::from)?;
                    is_archived = true;
                }
                ChangeOutcome::Pending {
                    target_seq,
                    revision,
                } => {
                    if Instant::now() > deadline {
                        return Err(not_published().into());
                    }
                    self.publications.wait(room, target_seq, revision).await?;
                }
                outcome => return Err(refusal(outcome)),
            }
        }
    }
}

/// Why the change was not made.
fn refusal(outcome: ChangeOutcome) -> ChangeRefused {
    let refusal = match outcome {
        ChangeOutcome::Conflict(message) => {
            return ChangeRefused::Conflict(Box::new((*message).into()));
        }
        ChangeOutcome::Deleted => message_deleted(),
        ChangeOutcome::Forbidden => {
            Refusal::new(Code::Forbidden, "the message belongs to another user")
        }
        ChangeOutcome::Full => Refusal::new(
            Code::TooLarge,
            "the room has the most pins, or the message the most emojis",
        ),
        ChangeOutcome::Refused(refusal) => refusal,
        ChangeOutcome::NotFound | ChangeOutcome::Changed(_) | ChangeOutcome::Pending { .. } => {
            no_such_message()
        }
    };
    refusal.into()
}
