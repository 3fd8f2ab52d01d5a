//! Changing messages: calls of the store until the change is made, and the wait for its announcement.
//!
//! These are three steps, so that a door can go on with other requests between them: the first attempt
//! ([`Messages::edit`] and so on), its repetition where something has to happen before
//! ([`Messages::make`]), and the announcement ([`Messages::announced`]).

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::changing_user::ChangingUser;
use super::edit::EditFields;
use super::form::CurrentMessage;
use super::metrics::{ChangeKind, ChangeResult};
use super::{Messages, may_be_unarchived, message_deleted, message_ref, no_such_message, refused};
use crate::domain::policy::Permit;
use crate::domain::{Code, Emoji, Refusal, RoomId};
use crate::store::{
    Announced, ChangeOutcome, Changed, Changer, EditRecord, MessageEdit, ReactionChange,
};

/// How long a change is repeated that finds other changes of its message unpublished.
const RETRY_TIME: Duration = Duration::from_secs(10);

/// A change that is made and announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnouncedChange {
    /// The message.
    pub id: Uuid,
    /// The number of the announcement; 0 for a reaction, whose announcement follows with others.
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

/// A change of a message after its first attempt.
#[must_use]
pub struct Attempt {
    request: ChangeRequest,
    progress: Progress,
}

impl Attempt {
    /// The change, if it is announced already.
    #[must_use]
    pub fn announced(&self) -> Option<AnnouncedChange> {
        match &self.progress {
            Progress::Made(made) => made.announced(),
            Progress::Unarchived | Progress::Unpublished { .. } => None,
        }
    }

    /// Whether the change is made. Otherwise it has to be repeated.
    #[must_use]
    pub fn is_made(&self) -> bool {
        matches!(self.progress, Progress::Made(_))
    }
}

/// A change that is made: its transaction is committed.
#[must_use]
pub struct MadeChange {
    room: RoomId,
    id: Uuid,
    kind: ChangeKind,
    changed: Changed,
    /// When its transaction was committed.
    at: Instant,
}

impl MadeChange {
    fn announced(&self) -> Option<AnnouncedChange> {
        match self.changed.announcement {
            Announced::At(seq) => Some(AnnouncedChange { id: self.id, seq }),
            Announced::ByRow { .. } => None,
        }
    }
}

/// The change that a user requests.
struct ChangeRequest {
    by: ChangingUser,
    id: Uuid,
    change: Change,
    /// Whether the message may be missing only because the archive has not reached it.
    may_be_unarchived: bool,
}

enum Change {
    Edit {
        record: EditRecord,
        version: Option<u64>,
    },
    Delete,
    /// Pins (`true`) or removes the pin.
    Pin(bool),
    /// Sets (`true`) or removes the reaction.
    React(Emoji, bool),
}

impl Change {
    fn kind(&self) -> ChangeKind {
        match self {
            Self::Edit { .. } => ChangeKind::Edit,
            Self::Delete => ChangeKind::Delete,
            Self::Pin(_) => ChangeKind::Pin,
            Self::React(..) => ChangeKind::React,
        }
    }
}

/// The outcome of an attempt.
enum Progress {
    Made(MadeChange),
    /// The message is not in the archive.
    Unarchived,
    /// The message has an earlier change that is not published, on which this one depends.
    Unpublished {
        target_seq: u64,
        revision: u64,
    },
}

impl Messages {
    /// Edits a message of the caller. Fields that are not given keep their values. An edit that changes
    /// nothing is not announced: it has the number of the last change.
    ///
    /// # Errors
    /// `not_in_room`, `not_found`, `forbidden`, `conflict`, `message_deleted`, `bad_request`,
    /// `too_large`, `unavailable`.
    pub async fn edit(
        &self,
        by: ChangingUser,
        id: Uuid,
        fields: EditFields,
        version: Option<u64>,
    ) -> Result<Attempt, ChangeRefused> {
        let changer = self.sender(&by).await?;
        let mentions = self.mentions_of_edit(&by, &fields).await?;
        let record = fields.into_edit(mentions, self.messaging.limits().clone());
        self.begin(by, changer, id, Change::Edit { record, version })
            .await
    }

    /// Deletes a message: its content, its versions and its reactions are gone.
    ///
    /// # Errors
    /// `not_in_room`, `not_found`, `forbidden`, `unavailable`.
    pub async fn delete(&self, by: ChangingUser, id: Uuid) -> Result<Attempt, ChangeRefused> {
        let permit = by.rights().may_delete()?;
        // From its commit on, no page of the log has the content.
        let log = self.messaging.log();
        log.expect_changes(permit.room())
            .await
            .map_err(Refusal::from)?;
        let changer = changer(&permit, &by);
        self.begin(by, changer, id, Change::Delete).await
    }

    /// Pins a message to its room (`on`), or removes its pin.
    ///
    /// # Errors
    /// `not_in_room`, `forbidden`, `not_found`, `message_deleted`, `too_large`, `unavailable`.
    pub async fn pin(
        &self,
        by: ChangingUser,
        id: Uuid,
        on: bool,
    ) -> Result<Attempt, ChangeRefused> {
        let changer = self.sender(&by).await?;
        self.begin(by, changer, id, Change::Pin(on)).await
    }

    /// Sets a reaction of the caller (`on`), or removes it. Its announcement may follow later, together
    /// with others.
    ///
    /// # Errors
    /// `not_in_room`, `forbidden`, `not_found`, `message_deleted`, `too_large`, `overloaded`,
    /// `unavailable`.
    pub async fn react(
        &self,
        by: ChangingUser,
        id: Uuid,
        emoji: Emoji,
        on: bool,
    ) -> Result<Attempt, ChangeRefused> {
        let changer = self.sender(&by).await?;
        self.begin(by, changer, id, Change::React(emoji, on)).await
    }

    /// Repeats the attempt until the change is made: once the message is archived, and once earlier
    /// changes that it depends on are published. The rights of the user are checked each time.
    ///
    /// # Errors
    /// Those of the first attempt.
    pub async fn make(&self, attempt: Attempt) -> Result<MadeChange, ChangeRefused> {
        let Attempt { request, progress } = attempt;
        if let Progress::Made(made) = progress {
            return Ok(made);
        }
        let kind = request.change.kind();
        let made = self.repeat(request, progress).await;
        self.counters.add(kind, ChangeResult::of(&made));
        made
    }

    async fn repeat(
        &self,
        mut request: ChangeRequest,
        mut progress: Progress,
    ) -> Result<MadeChange, ChangeRefused> {
        let deadline = Instant::now() + RETRY_TIME;
        loop {
            match progress {
                Progress::Made(made) => return Ok(made),
                Progress::Unarchived => {
                    let log = self.messaging.log();
                    let archived = log.archive_now(&request.by.room).await;
                    archived.map_err(Refusal::from)?;
                    request.may_be_unarchived = false;
                }
                Progress::Unpublished {
                    target_seq,
                    revision,
                } => {
                    if Instant::now() > deadline {
                        let text = "the message has too many changes at once: try again";
                        return Err(Refusal::new(Code::Unavailable, text).into());
                    }
                    self.publications
                        .wait_for_earlier(&request.by.room, target_seq, revision)
                        .await?;
                }
            }
            self.refresh(&mut request.by).await?;
            let changer = match request.change {
                Change::Delete => changer(&request.by.rights().may_delete()?, &request.by),
                _ => self.sender(&request.by).await?,
            };
            progress = self.attempt(&request, changer).await?;
        }
    }

    /// Waits for the announcement of a change.
    ///
    /// # Errors
    /// `unavailable` if it takes too long. The change is made all the same.
    pub async fn announced(&self, made: MadeChange) -> Result<AnnouncedChange, Refusal> {
        let seq = match made.changed.announcement {
            Announced::At(seq) => seq,
            Announced::ByRow { revision } => {
                let target = made.changed.target_seq;
                let published = self.publications.wait(&made.room, target, revision).await;
                match &published {
                    Ok(_) => self.counters.publish.observe(made.at.elapsed()),
                    Err(_) => self.counters.add(made.kind, ChangeResult::Late),
                }
                published?
            }
        };
        Ok(AnnouncedChange { id: made.id, seq })
    }

    /// All steps after the first attempt.
    ///
    /// # Errors
    /// Those of [`make`](Self::make) and [`announced`](Self::announced).
    pub async fn complete(&self, attempt: Attempt) -> Result<AnnouncedChange, ChangeRefused> {
        let made = self.make(attempt).await?;
        Ok(self.announced(made).await?)
    }

    /// The rights of a user that may send to the room.
    async fn sender(&self, by: &ChangingUser) -> Result<Changer, Refusal> {
        let permit = by.rights().may_send()?;
        self.messaging
            .authorize_sending(&by.user, permit.room())
            .await?;
        Ok(changer(&permit, by))
    }

    async fn begin(
        &self,
        by: ChangingUser,
        changer: Changer,
        id: Uuid,
        change: Change,
    ) -> Result<Attempt, ChangeRefused> {
        let request = ChangeRequest {
            by,
            id,
            change,
            may_be_unarchived: may_be_unarchived(id),
        };
        let progress = self.attempt(&request, changer).await;
        if !matches!(
            progress,
            Ok(Progress::Unarchived | Progress::Unpublished { .. })
        ) {
            let result = ChangeResult::of(&progress);
            self.counters.add(request.change.kind(), result);
        }
        let progress = progress?;
        Ok(Attempt { request, progress })
    }

    async fn attempt(
        &self,
        request: &ChangeRequest,
        by: Changer,
    ) -> Result<Progress, ChangeRefused> {
        let message = message_ref(&request.by.room, request.id);
        let hidden_seq = by.hidden_seq;
        let outcome = match &request.change {
            Change::Edit { record, version } => {
                let (record, version, message) = (record.clone(), *version, message.clone());
                let edit = MessageEdit {
                    message,
                    by,
                    version,
                    record,
                };
                self.store.edit(&edit).await.map_err(refused)?
            }
            Change::Delete => self.store.delete(&message, &by).await.map_err(refused)?,
            Change::Pin(on) => self.store.pin(&message, &by, *on).await.map_err(refused)?,
            Change::React(emoji, on) => {
                let (emoji, on) = (emoji.clone(), *on);
                let change = ReactionChange {
                    message: message.clone(),
                    by,
                    emoji,
                    on,
                };
                self.reactions.react(change).await?
            }
        };
        match outcome {
            ChangeOutcome::Changed(changed) => Ok(Progress::Made(MadeChange {
                room: request.by.room.clone(),
                id: request.id,
                kind: request.change.kind(),
                changed,
                at: Instant::now(),
            })),
            ChangeOutcome::NotFound if request.may_be_unarchived => Ok(Progress::Unarchived),
            ChangeOutcome::Pending {
                target_seq,
                revision,
            } => Ok(Progress::Unpublished {
                target_seq,
                revision,
            }),
            ChangeOutcome::Conflict(found) => {
                let found = self.as_announced(&message, (*found).into(), hidden_seq);
                Err(ChangeRefused::Conflict(Box::new(found.await?)))
            }
            outcome => Err(refusal(outcome).into()),
        }
    }
}

fn changer<A>(permit: &Permit<A>, by: &ChangingUser) -> Changer {
    Changer {
        user: by.user.clone(),
        is_moderator: permit.is_moderator(),
        hidden_seq: permit.hidden_seq(),
    }
}

/// Why the change was not made.
fn refusal(outcome: ChangeOutcome) -> Refusal {
    match outcome {
        ChangeOutcome::Deleted => message_deleted(),
        ChangeOutcome::Forbidden => {
            Refusal::new(Code::Forbidden, "the message belongs to another user")
        }
        ChangeOutcome::Full => Refusal::new(
            Code::TooLarge,
            "the room has the most pins, or the message the most emojis",
        ),
        ChangeOutcome::Refused(refusal) => refusal,
        ChangeOutcome::Conflict(_) => {
            Refusal::new(Code::Conflict, "the message has another version")
        }
        ChangeOutcome::NotFound | ChangeOutcome::Changed(_) | ChangeOutcome::Pending { .. } => {
            no_such_message()
        }
    }
}

#[cfg(test)]
mod tests;
