//! The newest form of a message that was changed.

use bytes::Bytes;
use uuid::Uuid;

use super::continuity::Head;
use super::id::{RoomId, UserId};
use super::message_change::Reaction;
use super::time::Timestamp;

/// The newest form of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageForm {
    /// The position of the message: its number, and the epoch in which it was assigned.
    pub position: Head,
    /// When the message was appended.
    pub at: Timestamp,
    /// The `seq` of the announcement of its last edit, or of its deletion; its own `seq` without one.
    pub version: u64,
    /// When that change was announced; `None` without one.
    pub edited_at: Option<Timestamp>,
    /// The content.
    pub content: FormContent,
    /// The reactions; `None` if there never was one.
    pub reactions: Option<Vec<Reaction>>,
}

/// The content of a message in its newest form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormContent {
    /// That of the message's own entry: it was never edited.
    Original,
    /// The record of the last edit.
    Edited(Bytes),
    /// None any more.
    Deleted(Tombstone),
}

/// The remains of a deleted message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The id of the message.
    pub id: Uuid,
    /// The room.
    pub room: RoomId,
    /// The author.
    pub author: UserId,
    /// The user that has deleted it.
    pub deleted_by: UserId,
    /// The root of the thread that it was a reply in.
    pub thread: Option<Uuid>,
}

/// A change of a message that takes its number now, together with the form that it makes newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amendment {
    /// Whether the number of the announcement becomes the form's version, and its time `edited_at`.
    pub raises_version: bool,
    /// The newest form.
    pub form: MessageForm,
}
