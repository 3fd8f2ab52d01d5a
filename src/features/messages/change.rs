//! Changing messages: one call of the store, and the wait for its announcement.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::edit::EditFields;
use super::form::CurrentMessage;
use super::{Messages, may_be_unarchived, message_deleted, message_ref, no_such_message, refused};
use crate::domain::policy::{Deleting, Permit, Sending};
use crate::domain::{Code, Emoji, Refusal, RoomId, UserId};
use crate::store::{
    Announced, ChangeOutcome, Changed, Changer, MessageEdit, MessageRef, ReactionChange,
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

/// A change to make.
enum Change {
    Edit(MessageEdit),
    Delete(MessageRef, Changer),
    Pin(MessageRef, Changer, bool),
    React(ReactionChange),
}

impl Change {
    fn message(&self) -> &MessageRef {
        match self {
            Self::Edit(edit) => &edit.message,
            Self::Delete(message, _) | Self::Pin(message, ..) => message,
            Self::React(change) => &change.message,
        }
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
        let mentions = self.mentions_of_edit(&permit, user, &fields).await?;
        let edit = MessageEdit {
            record: fields.into_edit(mentions, self.messaging.limits().clone()),
            message: message_ref(permit.room(), id),
            by: changer(&permit, user),
            version,
        };
        self.change(permit.room(), id, &Change::Edit(edit)).await
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
        let change = Change::Delete(message, by);
        self.change(permit.room(), id, &change).await
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
        let change = Change::Pin(message, by, on);
        self.change(permit.room(), id, &change).await
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
        let change = Change::React(change);
        self.make(permit.room(), &change).await.map(drop)
    }

    /// Makes a change, and waits for its announcement.
    async fn change(
        &self,
        room: &RoomId,
        id: Uuid,
        change: &Change,
    ) -> Result<Made, ChangeRefused> {
        let Changed {
            target_seq,
            announcement,
        } = self.make(room, change).await?;
        let seq = match announcement {
            Announced::At(seq) => seq,
            Announced::ByRow { revision, .. } => {
                self.publications.wait(room, target_seq, revision).await?
            }
        };
        Ok(Made { id, seq })
    }

    async fn attempt(&self, change: &Change) -> Result<ChangeOutcome, Refusal> {
        let outcome = match change {
            Change::Edit(edit) => self.store.edit(edit).await,
            Change::Delete(message, by) => self.store.delete(message, by).await,
            Change::Pin(message, by, on) => self.store.pin(message, by, *on).await,
            Change::React(change) => return self.reactions.react(change.clone()).await,
        };
        outcome.map_err(refused)
    }

    /// Repeats an attempt until its outcome is final: once the message is archived, and once earlier
    /// changes that it depends on are published.
    async fn make(&self, room: &RoomId, change: &Change) -> Result<Changed, ChangeRefused> {
        let deadline = Instant::now() + RETRY_TIME;
        let mut is_archived = !may_be_unarchived(change.message().id);
        loop {
            match self.attempt(change).await? {
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
                        let text = "the message has too many changes at once: try again";
                        return Err(Refusal::new(Code::Unavailable, text).into());
                    }
                    self.publications
                        .wait_for_earlier(room, target_seq, revision)
                        .await?;
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
