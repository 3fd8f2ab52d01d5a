//! Changes of messages, durably: edits, deletions, pins and reactions.
//!
//! Each change is one transaction: it locks the message, checks the rights, changes the message's row, and
//! adds the row of the outbox that announces it. That row only points to the message
//! ([`ChangeRow`]): the worker reads the newest form when it publishes the row
//! ([`MessageStore::to_publish`]), so no content waits in the outbox. The announcement's `seq` is recorded
//! when the row is done ([`MessageStore::done`]).
//!
//! A change needs its message in the archive.

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::{Claim, Result};
use crate::domain::{Emoji, MessageChangeKind, MessageForm, Reaction, RoomId, Timestamp, UserId};

/// A message of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRef {
    /// The room.
    pub room: RoomId,
    /// The message's id.
    pub id: Uuid,
}

/// The user that changes a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changer {
    /// The user.
    pub user: UserId,
    /// Whether the user may delete messages of others: an owner of the room, or an admin.
    pub is_moderator: bool,
    /// Entries with this `seq` and lower ones are hidden from the user; 0 where none are.
    pub hidden_seq: u64,
}

/// The new form of an edited message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditedRecord {
    /// The record.
    pub record: Bytes,
    /// The users that the record mentions; `None` if they are the same as before.
    pub mentions: Option<Vec<UserId>>,
}

/// Makes the new form of an edited message from its present record, inside the transaction. The error is
/// returned to the caller.
pub type EditRecord = std::sync::Arc<
    dyn Fn(&[u8]) -> std::result::Result<EditedRecord, crate::domain::Refusal> + Send + Sync,
>;

/// An edit of a message.
#[derive(Clone)]
pub struct MessageEdit {
    /// The message.
    pub message: MessageRef,
    /// The user.
    pub by: Changer,
    /// The version that the user has seen; `None` edits any.
    pub version: Option<u64>,
    /// Makes the new record.
    pub record: EditRecord,
}

/// A change that was made, or had been made before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The number of the message.
    pub target_seq: u64,
    /// The announcement.
    pub announcement: Announced,
}

/// The state of the announcement of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// It was published before, at this `seq`: the call has changed nothing.
    At(u64),
    /// It will be published: see [`MessageStore::published`].
    ByRow {
        /// The revision of the message that it announces.
        revision: u64,
    },
}

/// The outcome of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// The change is made.
    Changed(Changed),
    /// There is no such message, as far as the user may know. It may be one that is not archived yet.
    NotFound,
    /// The message is deleted.
    Deleted,
    /// The user has no right to change the message.
    Forbidden,
    /// The message has another version than the user has seen. The newest form, with its record as it would
    /// be sent.
    Conflict(Box<StoredMessage>),
    /// The message has a change that is not published yet, so its version is not known: the call must be
    /// repeated once this revision is published.
    Pending {
        /// The number of the message.
        target_seq: u64,
        /// The revision.
        revision: u64,
    },
    /// The record could not be edited, for this reason.
    Refused(crate::domain::Refusal),
    /// A limit is reached: pins of the room, or emojis of the message.
    Full,
}

/// A message with its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Position, version and content. The content of a message that was never edited is
    /// [`FormContent::Original`](crate::domain::FormContent::Original), and `record` has it.
    pub form: MessageForm,
    /// The newest record, without version and time of the edit; empty if the message is deleted.
    pub record: Bytes,
    /// Reactions, thread and pin.
    pub state: MessageState,
}

/// The state of a message beside its content and version, as histories show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageState {
    /// The reactions as they were last announced, and the `seq` of that announcement.
    pub reactions: Option<(Vec<Reaction>, u64)>,
    /// The thread that the message is the root of.
    pub thread: Option<ThreadState>,
    /// Whether the message is pinned, and the `seq` of the announcement that has said so last.
    pub pinned: Option<(bool, u64)>,
    /// Changes whose announcements may be in the log already, though they are not recorded.
    pub unrecorded: Unrecorded,
    /// The deletion of the message, which its log may not show yet. It has no other state then.
    pub deletion: Option<Deletion>,
}

/// Changes of a message that are made, and not recorded as announced. The state has them: so it is never
/// older than what the log announces, but its numbers may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unrecorded {
    /// Reactions.
    pub reactions: bool,
    /// An edit, the deletion, a pin, or the removal of one.
    pub revision: bool,
}

impl Unrecorded {
    /// Whether there is any.
    #[must_use]
    pub const fn is_any(self) -> bool {
        self.reactions || self.revision
    }
}

/// The deletion of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// The user that has deleted it.
    pub by: UserId,
    /// The root of the thread that it was a reply in.
    pub thread: Option<Uuid>,
    /// The version of the message, as far as it is recorded.
    pub version: u64,
}

/// A thread, as far as it is archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadState {
    /// The number of replies that are not deleted.
    pub replies: u64,
    /// The number of the last of them.
    pub last_seq: u64,
    /// The authors of the first replies, each once, at most [`ThreadState::PARTICIPANTS`].
    pub participants: Vec<UserId>,
}

impl ThreadState {
    /// The most participants that are listed.
    pub const PARTICIPANTS: usize = 5;
}

/// One form that a message had, or has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageVersion {
    /// The version; 0 for one that is not published yet.
    pub version: u64,
    /// When it was made.
    pub at: Timestamp,
    /// The record of it.
    pub record: Bytes,
}

/// A page of the forms of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionPage {
    /// The forms, oldest first.
    pub versions: Vec<MessageVersion>,
    /// The position behind the page; `None` behind the newest form.
    pub next: Option<u64>,
    /// The last edit on the page that waits for its announcement, by the numbers of the message and of the
    /// revision: see [`MessageStore::published`].
    pub pending: Option<(u64, u64)>,
}

/// A pinned message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The message.
    pub message: StoredMessage,
    /// The user that has pinned it.
    pub user: UserId,
    /// When.
    pub at: Timestamp,
}

/// A row of the outbox that announces a change of a message: the JSON object of its payload.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChangeRow {
    /// The message.
    pub id: Uuid,
    /// Its number.
    pub target_seq: u64,
    /// The revision that the change has made. 0 for reactions, which have none.
    pub revision: u64,
    /// The user that has pinned the message or removed its pin; for other kinds `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// A row that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedChange {
    /// The claim of the row.
    pub claim: Claim,
    /// The room.
    pub room: RoomId,
    /// The kind of the change.
    pub kind: MessageChangeKind,
    /// The row.
    pub row: ChangeRow,
    /// The number of the announcement.
    pub seq: u64,
    /// The time of the announcement.
    pub at: Timestamp,
    /// The reactions of the form that was published; `None` if another attempt has published the row, so
    /// that they are not known.
    pub reactions: Option<Vec<Reaction>>,
}

/// A reaction to set or to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReactionChange {
    /// The message.
    pub message: MessageRef,
    /// The user.
    pub by: Changer,
    /// The emoji.
    pub emoji: Emoji,
    /// Whether the reaction is set.
    pub on: bool,
}

/// The changes of messages. All calls address archived messages.
#[async_trait]
pub trait MessageStore: Send + Sync {
    /// Edits a message. Only its author may. An edit that changes nothing is not announced.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn edit(&self, edit: &MessageEdit) -> Result<ChangeOutcome>;

    /// Deletes a message, with all versions, reactions, mentions and its pin. Its author and moderators may.
    /// Deleting it again changes nothing, except that an announcement that was given up is made after all: as
    /// with every repeat of a change.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn delete(&self, message: &MessageRef, by: &Changer) -> Result<ChangeOutcome>;

    /// Pins a message (`on`), or removes its pin. Repeats change nothing. A room has at most
    /// [`MAX_PINS`].
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn pin(&self, message: &MessageRef, by: &Changer, on: bool) -> Result<ChangeOutcome>;

    /// Sets and removes reactions in one transaction, in their order, for any messages. Repeats change
    /// nothing. The reactions of a message are announced by one row, due at once or half a second after the
    /// one before; as long as no worker has claimed it, it serves all that come. Outcomes in the order of the
    /// changes; those of reactions have no announcement of their own, so `Changed` has `At(0)`.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`: none is made, or the outcome is unknown; repeats are safe.
    async fn react(&self, changes: &[ReactionChange]) -> Result<Vec<ChangeOutcome>>;

    /// The newest form of the message of a row that is about to be published.
    /// `None` if retention has deleted the message: the row has nothing to announce.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn to_publish(&self, room: &RoomId, row: &ChangeRow) -> Result<Option<MessageForm>>;

    /// Removes rows that are published, and records with their messages the numbers that they got: of edits
    /// and deletions as the version. One transaction. A claim that has ended has no effect; a repeat neither.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn done(&self, published: &[PublishedChange]) -> Result<()>;

    /// The `seq` that the announcement of this revision got; `None` while it is not published.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn published(&self, room: &RoomId, target_seq: u64, revision: u64)
    -> Result<Option<u64>>;

    /// A message with its state. `None` if there is none with this id in the room.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn message(&self, message: &MessageRef) -> Result<Option<StoredMessage>>;

    /// The state of the messages of a room in this range that have any, by their numbers. Without
    /// `has_threads` no threads are searched.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn states(
        &self,
        room: &RoomId,
        seqs: std::ops::RangeInclusive<u64>,
        has_threads: bool,
    ) -> Result<Vec<(u64, MessageState)>>;

    /// The forms of a message behind a position (`None`: from the oldest), at most `limit` and fewer if they
    /// are large: oldest first, the newest included; empty for one that is deleted. At most [`MAX_VERSIONS`]
    /// are kept. `None` without such a message.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn versions(
        &self,
        message: &MessageRef,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Option<VersionPage>>;

    /// The reactions to a message as they are now. `None` without such a message.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn reactions(&self, message: &MessageRef) -> Result<Option<Vec<Reaction>>>;

    /// The pins of a room, the newest first.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn pins(&self, room: &RoomId) -> Result<Vec<Pin>>;

    /// Messages of a thread after a number, in ascending order: replies only.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn replies(
        &self,
        root: &MessageRef,
        after: u64,
        limit: usize,
    ) -> Result<Option<Vec<StoredMessage>>>;
}

/// The most forms of a message that are kept: the newest ones.
pub const MAX_VERSIONS: usize = 1000;

/// The most pins of a room.
pub const MAX_PINS: u64 = 100;

/// The least time between two announcements of the reactions to one message, in milliseconds.
pub const REACTIONS_INTERVAL_MS: u64 = 500;

impl ChangeRow {
    /// The kind of the change that a row of this type announces, and the row. `None` for rows of other types.
    ///
    /// # Errors
    /// The reason for which the payload can't be read.
    pub fn decode(
        kind: &str,
        payload: &str,
    ) -> Option<std::result::Result<(MessageChangeKind, Self), String>> {
        let kind = MessageChangeKind::of_event(kind)?;
        let row = serde_json::from_str(payload).map_err(|error| error.to_string());
        Some(row.map(|row| (kind, row)))
    }
}
