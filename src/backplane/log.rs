//! The promises of rooms' logs.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::{Commit, Result};
use crate::domain::{
    Amendment, Epoch, Head, LogSpan, MessageForm, NewMessage, RoomId, Timestamp, UserId,
};

/// The kind of a log entry, in one byte.
///
/// To add a kind:
///
/// 1. Add a variant here, and its letter in `redis/entry_kind.rs`.
/// 2. Handle it wherever [`EntryKind::Message`] is matched: fan-out, replay and history.
/// 3. Release that first. Only a later release may append entries of the new kind: until every node
///    knows the letter, the clients of an older node see a gap in `seq` where such an entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A message. The record is the output of [`record::encode`](super::record::encode).
    Message,
    /// A change. The record is the output of [`change_record::encode`](super::change_record::encode).
    Change,
    /// A message in its newest form, as reads return it: the record is that of a message, followed by
    /// `version` and `edited_at`. Never appended.
    Amended,
    /// The announcement of a change of a message. The record is the output of
    /// [`Pointer::encode`](super::Pointer::encode). Reads for delivery return it as a [`Change`](Self::Change).
    Pointer,
    /// A kind that this release doesn't know, appended by a node of a newer release.
    ///
    /// The entry keeps its place: it counts in `seq`, it is read and published like any other, and
    /// it moves the position of feeds and replays. Its record is opaque and never sent to clients.
    Unknown,
}

impl EntryKind {
    /// Whether clients receive an entry of this kind.
    #[must_use]
    pub const fn is_delivered(self) -> bool {
        match self {
            Self::Message | Self::Amended | Self::Change => true,
            Self::Pointer | Self::Unknown => false,
        }
    }
}

/// An entry that has no `seq` yet, apart from its record.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// Unique among all entries.
    pub id: Uuid,
    /// The room.
    pub room: &'a RoomId,
    /// The user whose keys of sends the entry's key is one of.
    pub user: &'a UserId,
    /// Tells how to read the record.
    pub kind: EntryKind,
    /// The form that the entry makes the newest one of its message; for a [`Pointer`](EntryKind::Pointer)
    /// only.
    pub amendment: Option<&'a Amendment>,
    /// Whether it is a reply in a thread.
    pub is_reply: bool,
}

impl<'a> NewEntry<'a> {
    /// A change. `nobody` is [`UserId::nobody`].
    #[must_use]
    pub fn change(room: &'a RoomId, change: &'a NewChange, nobody: &'a UserId) -> Self {
        Self {
            id: change.id,
            room,
            user: nobody,
            kind: change.kind(),
            amendment: change.amendment.as_deref(),
            is_reply: false,
        }
    }
}

impl<'a> From<&'a NewMessage> for NewEntry<'a> {
    fn from(message: &'a NewMessage) -> Self {
        Self {
            id: message.id,
            room: &message.room,
            user: &message.user,
            kind: EntryKind::Message,
            amendment: None,
            is_reply: message.thread.is_some(),
        }
    }
}

/// A change to announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChange {
    /// Unique among all entries, and the key of the append.
    pub id: Uuid,
    /// The record of an [`EntryKind::Change`] or, with an amendment, of an [`EntryKind::Pointer`].
    pub record: Bytes,
    /// The newest form of the message that is changed. It replaces the earlier one in the same atomic step.
    pub amendment: Option<Box<Amendment>>,
}

impl NewChange {
    /// A change with all of its fields in the record.
    #[must_use]
    pub fn complete(id: Uuid, record: Bytes) -> Self {
        Self {
            id,
            record,
            amendment: None,
        }
    }

    /// The kind of the entry that the change becomes.
    #[must_use]
    pub fn kind(&self) -> EntryKind {
        match self.amendment {
            Some(_) => EntryKind::Pointer,
            None => EntryKind::Change,
        }
    }
}

/// A numbered entry of a room's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// 1, 2, 3, … without a hole within an epoch. An epoch that continues another one continues
    /// its numbers.
    pub seq: u64,
    /// The epoch in which `seq` was assigned.
    pub epoch: Epoch,
    /// When the entry was appended, by the backplane's clock.
    pub at: Timestamp,
    /// Tells how to read the record.
    pub kind: EntryKind,
    /// JSON that is made once, by [`record::encode`](super::record::encode), and passed on byte for
    /// byte.
    pub record: Bytes,
}

impl Entry {
    /// The entry's own position.
    #[must_use]
    pub fn position(&self) -> Head {
        Head {
            epoch: self.epoch.clone(),
            seq: self.seq,
        }
    }
}

/// The position that an append assigned, now or at its first call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The message's id; for a duplicate the id of the first message.
    pub id: Uuid,
    /// The message's number.
    pub seq: u64,
    /// The epoch in which `seq` was assigned.
    pub epoch: Epoch,
    /// When the message was appended, by the backplane's clock.
    pub at: Timestamp,
    /// True when the same user had already sent the same key to the room: this call appended
    /// nothing.
    pub duplicate: bool,
}

/// The part of a log to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The first entries with a `seq` greater than this one.
    After(u64),
    /// The last entries with a `seq` lower than this one.
    Before(u64),
    /// The last entries.
    Newest,
}

/// A part of a log, read in one atomic step.
#[derive(Debug, Clone)]
pub struct Slice {
    /// In ascending `seq`, without a hole.
    pub entries: Vec<Entry>,
    /// The extent of the whole log at the same moment.
    pub span: LogSpan,
    /// What else the hot log knew then.
    pub traces: Traces,
}

/// What a log that keeps the last entries of a room knows of changes of messages, and of replies to them. Of
/// entries before `oldest` it knows nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traces {
    /// The first `seq` that the log has; the next one if it has none.
    pub oldest: u64,
    /// Whether there may have been changes of messages that the log has: see
    /// [`RoomLog::expect_changes`].
    pub has_changes: bool,
    /// A `seq` behind which there is no reply; 0 if there is none to messages that the log has.
    pub last_reply: u64,
    /// The archive has every entry up to this `seq`.
    pub watermark: u64,
}

impl Traces {
    /// What holds for the entries of two reads together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            oldest: self.oldest.max(other.oldest),
            has_changes: self.has_changes || other.has_changes,
            last_reply: self.last_reply.max(other.last_reply),
            watermark: self.watermark.min(other.watermark),
        }
    }
}

/// The newest forms of messages, as far as a log has announcements that point to them.
#[derive(Debug, Clone, Default)]
pub struct AnnouncedForms {
    /// The forms, by the numbers of their messages.
    pub forms: BTreeMap<u64, MessageForm>,
    /// The log has every announcement from this `seq` on.
    pub oldest: u64,
}

/// Every room's log: ordered, bounded and free of duplicates.
#[async_trait]
pub trait RoomLog: Send + Sync {
    /// Assigns the room's next `seq` to `message`, stores it, and publishes it to the room's topic, in
    /// one atomic step.
    ///
    /// The log keeps the last `history_size` entries, for `history_ttl` after the last one.
    ///
    /// `key` identifies the send among those of its user and room. Within `dedupe_ttl` a repeat with
    /// the same key appends nothing and returns the position of the first call with
    /// `duplicate: true`. So a call that failed with `Unavailable` is safe to repeat with the same
    /// key. Without a key, a repeat appends another message.
    ///
    /// Calls of one caller that are begun one after another for one room are appended in that order.
    /// A call whose future is dropped may still append.
    ///
    /// # Errors
    /// `Unavailable`, `Full`.
    async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended>;

    /// Reads at most `limit` entries whose records have at most `max_bytes` bytes in total. One
    /// entry is returned even if it is larger, as long as `limit` is at least 1.
    ///
    /// Atomic: entries and span are of the same moment. Reading a room that doesn't exist yet
    /// begins its numbering: the span has `seq` 0 and an epoch that the first append will use.
    ///
    /// # Errors
    /// `Unavailable`, `Full`, `Unreadable`.
    async fn read(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Slice>;

    /// The heads of several rooms, in the order of `rooms`; `None` for a room that isn't known.
    ///
    /// Not atomic: each head is read on its own.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>>;

    /// As [`append`](Self::append), but returns as soon as the message has its position, with the
    /// promise of its commit. Only a log with an archive behind it has commits to wait for.
    ///
    /// # Errors
    /// As `append`.
    async fn place(&self, message: &NewMessage, key: Option<&str>) -> Result<(Appended, Commit)> {
        Ok((self.append(message, key).await?, Commit::done()))
    }

    /// Appends changes to a room's log in their order, as [`append`](Self::append) does messages. The id of
    /// a change is its key: within `dedupe_ttl` a repeat appends nothing, and amends nothing. None is
    /// appended before an earlier one. Where the log can, one call carries all of them, and one commit. With
    /// an archive behind the log the call returns once the changes are committed.
    ///
    /// Returns the positions of the first ones, and the error of the next one. Later ones may be in the log
    /// as well, but only behind it.
    ///
    /// # Errors
    /// As `append`.
    async fn announce_all(
        &self,
        room: &RoomId,
        changes: &[NewChange],
    ) -> (Vec<Appended>, Result<()>);

    /// Makes [`Traces::has_changes`] true, because the archive is about to have a change that is not announced
    /// yet.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn expect_changes(&self, _room: &RoomId) -> Result<()> {
        Ok(())
    }

    /// The newest forms of these messages, as they are announced. Atomic.
    ///
    /// # Errors
    /// As `read`.
    async fn announced_forms(&self, _room: &RoomId, _seqs: &[u64]) -> Result<AnnouncedForms> {
        Ok(AnnouncedForms::default())
    }

    /// Archives the entries of a room that were numbered before the call, and returns once they are, or the
    /// database has refused single ones of them. Concurrent calls share their work. Without an archive it
    /// does nothing.
    ///
    /// # Errors
    /// `Unavailable`, also while the queue of the archive is full.
    async fn archive_now(&self, _room: &RoomId) -> Result<()> {
        Ok(())
    }

    /// The number up to which the archive is known to have a room, without a call of the database. 0 without
    /// an archive, and for a room that the hot log does not know.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn archived_up_to(&self, _room: &RoomId) -> Result<u64> {
        Ok(0)
    }

    /// Extends the span of a room, which another call has returned, to everything that this log can
    /// read: that of an archive included. If the reader's epoch, `seen`, is known, however old it is, the
    /// span has its end.
    ///
    /// Never fails: while the archive can't be read, the span is marked as cut off.
    async fn reach(&self, _room: &RoomId, span: LogSpan, _seen: Option<&Epoch>) -> LogSpan {
        span
    }

    /// The state of the archive behind this log; `None` without one.
    fn archive_status(&self) -> Option<ArchiveStatus> {
        None
    }
}

/// The state of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveStatus {
    /// Whether its database responds.
    pub is_up: bool,
    /// Whether messages are acknowledged only after their commit (`ACK_AFTER=archive`).
    pub acknowledges_commits: bool,
}
