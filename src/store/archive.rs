//! The promises of the archive's storage: every numbered entry of every room, kept for good.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::{Result, RetentionClaim, RetentionRun};
use crate::domain::{Epoch, FormContent, Head, MessageForm, RoomId, Timestamp, Tombstone, UserId};

/// The kind of an archived entry, as stored. A number must never be reused for another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredKind(pub i64);

impl StoredKind {
    /// A message.
    pub const MESSAGE: Self = Self(1);
    /// A change that is announced to the room.
    pub const CHANGE: Self = Self(2);
    /// The announcement of a change of a message.
    pub const POINTER: Self = Self(3);
    /// A message that was deleted. The record is empty.
    pub const DELETED: Self = Self(4);
}

/// An entry of a room's log, in its archived form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedEntry {
    /// The entry's number in its room.
    pub seq: u64,
    /// The epoch in which the number was assigned.
    pub epoch: Epoch,
    /// When the entry was appended, by the log's clock.
    pub at: Timestamp,
    /// The kind of the entry, which determines the format of the record.
    pub kind: StoredKind,
    /// Unique among all entries of all rooms: distinguishes a repeated commit from a second entry
    /// with the same number.
    pub id: Uuid,
    /// The sender.
    pub user: UserId,
    /// The key of the send, if it had one.
    pub send_key: Option<Box<str>>,
    /// The record of the log, byte for byte.
    pub record: Bytes,
}

impl ArchivedEntry {
    /// The form of a deleted message without a record of its deletion, which reverting the migration of
    /// these records removes: the author stands for the user that has deleted it. `None` for every other
    /// entry.
    #[must_use]
    pub fn unrecorded_deletion(&self, room: &RoomId) -> Option<MessageForm> {
        if self.kind != StoredKind::DELETED {
            return None;
        }
        let tombstone = Tombstone {
            id: self.id,
            room: room.clone(),
            author: self.user.clone(),
            deleted_by: self.user.clone(),
            thread: None,
        };
        Some(MessageForm {
            position: Head {
                epoch: self.epoch.clone(),
                seq: self.seq,
            },
            at: self.at,
            version: self.seq,
            edited_at: None,
            content: FormContent::Deleted(tombstone),
            reactions: None,
        })
    }
}

/// The outcome of a commit for one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The entry is in the archive: since this commit, or since an earlier one of the same entry. Or it
    /// is late, and retention has deleted the entries up to its number: then it isn't added any more.
    Stored,
    /// This entry was refused: the archive has another one with its number, or the [`Fence`] of the
    /// commit excludes it.
    Conflict,
}

/// The check of a commit for entries that come too late: the room may have continued without them, and
/// their senders may have sent the messages again, under other numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// No check, however often the commit is repeated: for entries that no log has any more, as of a
    /// copy.
    None,
    /// For sends that were appended just now. The first attempt is not checked. If the call has to
    /// repeat it, because of another transaction or a lost connection, the entries count as late:
    /// [`KnownEpochs`](Self::KnownEpochs).
    Fresh,
    /// For entries that the room's present log has. An entry whose `seq` is greater than the recorded
    /// end of its epoch is refused, unless the archive has it already. Epochs of the entries do not end
    /// before the transaction does. Numbers of the entries that were recorded as lost are not any more.
    EpochEnds,
    /// For entries that were appended some time ago, to a log that may be gone. As
    /// [`EpochEnds`](Self::EpochEnds); besides, an entry of an unknown epoch is refused if the archive
    /// knows another epoch of the room. The unknown one is then not added: no restore has recorded its
    /// end, so the room has continued without it. If the archive knows no epoch of the room, and the
    /// commit has entries of several, only those of the newest are accepted: the epoch of the room's
    /// last entry in the commit.
    KnownEpochs,
}

impl Fence {
    /// The fence of the next attempt within one call.
    pub(crate) fn of_repeat(self) -> Self {
        match self {
            Self::Fresh => Self::KnownEpochs,
            other => other,
        }
    }
}

/// The part of an archived room to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveWindow {
    /// The first entries with a `seq` greater than this one.
    After(u64),
    /// The last entries with a `seq` lower than this one.
    Before(u64),
}

/// The state of a room in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedRoom {
    /// The lowest `seq` that the archive has, `head + 1` if retention has deleted everything.
    pub first: u64,
    /// The lowest `seq` from which on no number is recorded as lost; at least `first`, and `head + 1` if
    /// the newest entries are known to be lost. A number from there on may still be missing: its commit
    /// is not done yet, or its loss was not recorded yet (see [`ArchiveStore::close_holes`]). A log may
    /// forget a number only once the archive has it or has recorded its loss, so everything between
    /// `oldest` and the oldest entry of the log is there.
    pub oldest: u64,
    /// The highest `seq` that the archive has, had before retention, knows to be lost, or knows to have
    /// been assigned before one of `epochs`.
    pub head: u64,
    /// The number up to which no number is missing without being recorded as lost, as of the last
    /// [`ArchiveStore::close_holes`] or [`ArchiveStore::mark_contiguous`]. At most `head`.
    pub contiguous: u64,
    /// The newest epochs, newest first, at most [`EPOCHS_KEPT`]. See [`ArchiveStore::epoch`] for others.
    pub epochs: Vec<ArchivedEpoch>,
}

/// The most epochs that [`ArchivedRoom`] lists.
pub const EPOCHS_KEPT: usize = 64;

/// A period of a room's numbering, as the archive knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// The last `seq` before it.
    pub after: u64,
    /// The last `seq` up to which its numbers mean the same messages as the archive's; `None` while
    /// the epoch is open.
    pub ended: Option<u64>,
    /// The run of a lone node that began it (see [`ArchiveStore::begin_run`]); 0 in a cluster.
    pub run: u64,
}

/// An epoch to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// The last `seq` before it.
    pub after: u64,
    /// See [`ArchivedEpoch::run`].
    pub run: u64,
    /// Earlier epochs of one log with the `seq` at which each ended, newest first. None ends later than
    /// the next newer one. An epoch that the archive doesn't know is added with its end. A recorded end
    /// that is lower counts; but if the epoch has gone on since then, as where two primaries share the
    /// archive, it ends after its last entry before one of another epoch, or a missing one.
    pub ends: Vec<Head>,
    /// The newest epoch of the room when the caller read it; `None` if the archive knew none.
    pub newest: Option<Epoch>,
}

impl NewEpoch {
    /// Whether the caller has taken this epoch into account.
    pub(crate) fn follows(&self, epoch: &Epoch) -> bool {
        self.newest.as_ref() == Some(epoch) || self.ends.iter().any(|end| end.epoch == *epoch)
    }
}

/// The outcome of [`ArchiveStore::begin_epoch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BeginOutcome {
    /// The epoch is the newest one of the room: since this call, or since an earlier one. These are
    /// [`NewEpoch::ends`] as they are recorded now.
    Begun(Vec<Head>),
    /// Nothing has changed: another epoch has begun since the caller read the room.
    Superseded,
    /// Nothing has changed: the archive has an entry after [`NewEpoch::after`].
    Behind,
}

/// A send with a key, as the archive knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedSend {
    /// The sender.
    pub user: UserId,
    /// The key.
    pub key: Box<str>,
    /// The message's id.
    pub id: Uuid,
    /// The message's number.
    pub seq: u64,
    /// The epoch of the number.
    pub epoch: Epoch,
    /// When the message was appended.
    pub at: Timestamp,
}

/// The run of a lone node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// 1, 2, 3, …, in order of the starts on this database.
    pub number: u64,
    /// The last earlier run that did not end cleanly; 0 if there was none. Epochs of later runs lost
    /// no entry.
    pub last_crashed: u64,
}

/// A room and a number in it.
pub type RoomNumber = (RoomId, u64);

/// The work of one call of [`ArchiveStore::delete_up_to`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeletedPart {
    /// The entries that were deleted.
    pub entries: u64,
    /// The bytes of their records, as stored.
    pub bytes: u64,
    /// Whether there may be more to delete.
    pub has_more: bool,
}

/// The archive's storage, for reading and for rare changes. Every call is atomic, and safe to
/// repeat. Safe to cancel: a call whose future is dropped is either done or not.
#[async_trait]
pub trait ArchiveStore: Send + Sync {
    /// Opens a writer with a connection of its own, for this run of a lone node (0 in a cluster): see
    /// [`ArchivedEpoch::run`]. The call doesn't connect yet.
    fn writer(&self, run: u64) -> Box<dyn ArchiveWriter>;

    /// Checks that the database responds.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn ping(&self) -> Result<()>;

    /// The state of the room; `None` if the archive doesn't know it.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn room(&self, room: &RoomId) -> Result<Option<ArchivedRoom>>;

    /// An epoch of the room, however old it is; `None` if the archive doesn't know it.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn epoch(&self, room: &RoomId, epoch: &Epoch) -> Result<Option<ArchivedEpoch>>;

    /// Reads at most `limit` entries of a room, in ascending `seq`, whose records have at most
    /// `max_bytes` bytes in total; one entry is returned even if it is larger. They are as they are stored: see
    /// [`forms`](Self::forms). Numbers may be missing
    /// between two of them (see [`ArchivedRoom::oldest`]).
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn read(
        &self,
        room: &RoomId,
        window: ArchiveWindow,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<ArchivedEntry>>;

    /// The newest forms of messages that were changed: of all in the range, and of those with the other
    /// numbers. An edited message has its record here, too.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn forms(
        &self,
        _room: &RoomId,
        _range: RangeInclusive<u64>,
        _others: &[u64],
    ) -> Result<Vec<MessageForm>> {
        Ok(Vec::new())
    }

    /// The sends with a key that were appended at `since` or later, newest first, at most `limit`.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn recent_sends(
        &self,
        room: &RoomId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<ArchivedSend>>;

    /// Records that the numbers which are missing up to the room's head are lost, and returns them.
    /// Called when the log that may have had them is gone. The numbers up to
    /// [`ArchivedRoom::contiguous`] are not looked at; `contiguous` may advance although the call fails.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn close_holes(&self, room: &RoomId) -> Result<Vec<RangeInclusive<u64>>>;

    /// Records that the archive of a room begins with the number `first`: earlier ones count neither
    /// as missing nor as lost. Does nothing if the archive has an earlier entry.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn begin_at(&self, room: &RoomId, first: u64) -> Result<()>;

    /// Records numbers as lost that no log has any more.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn record_loss(&self, room: &RoomId, lost: RangeInclusive<u64>) -> Result<()>;

    /// Records that no number of these rooms is missing up to the given one: so `close_holes` need
    /// not search there. Recorded numbers never fall.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn mark_contiguous(&self, rooms: &[RoomNumber]) -> Result<()>;

    /// Begins an epoch, unless the room has moved on since the caller read it: its newest epoch is
    /// neither [`NewEpoch::newest`] nor one of [`NewEpoch::ends`], or the archive has an entry after
    /// [`NewEpoch::after`]. All epochs of the room that have no end yet end at `after`. If the newest
    /// epoch has this name already, nothing but the recorded ends changes.
    ///
    /// A call whose future is dropped begins no epoch any more, unless its transaction is being
    /// committed at that moment.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn begin_epoch(&self, room: &RoomId, new: &NewEpoch) -> Result<BeginOutcome>;

    /// Begins a run of a lone node.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn begin_run(&self) -> Result<Run>;

    /// Records that the run ended cleanly: every entry that was appended in it is in the archive.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn end_run(&self, run: u64) -> Result<()>;

    /// The id of this database, made with its first migration: nodes of a cluster compare it.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn deployment(&self) -> Result<Uuid>;

    /// Rooms in the order of their numbers: at most `limit`, after the room with number `after` (0:
    /// from the first one). Each with its number.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn rooms(&self, after: u64, limit: usize) -> Result<Vec<(u64, RoomId)>>;

    /// The last `seq` of a room such that it and everything before it was appended before `cutoff`;
    /// `None` if there is nothing to delete.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn expired(&self, room: &RoomId, cutoff: Timestamp) -> Result<Option<u64>>;

    /// Deletes the oldest entries up to `cut`, at most `limit` of them, from every table that has data
    /// of messages. It deletes fewer, or a part of the rows of one message, where more rows belong to them
    /// than one transaction should delete.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn delete_up_to(&self, room: &RoomId, cut: u64, limit: usize) -> Result<DeletedPart>;

    /// The number and the bytes of the entries that [`delete_up_to`](Self::delete_up_to) would delete
    /// without a limit.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn count_up_to(&self, room: &RoomId, cut: u64) -> Result<(u64, u64)>;

    /// Brings the projection of unread messages (see [`PositionStore`](super::PositionStore)) up to date: of
    /// these rooms, and of those that a reader has found far behind. True if there is more to do.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn project_unread(&self, _rooms: &[RoomId]) -> Result<bool> {
        Ok(false)
    }

    /// The same for some rooms with numbers greater than `after`, whichever node has added their entries. The
    /// number of the last one, from which the next call goes on; `None` if there are no further rooms.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn project_unread_after(&self, _after: u64) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Records that a run of retention begins, unless the claim forbids it. Of several nodes that
    /// call this at once only one begins. Forgets runs that began 90 days before.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn begin_retention(&self, run: &RetentionRun, claim: &RetentionClaim) -> Result<bool>;

    /// Records the progress of a run of retention, or its end.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn report_retention(&self, run: &RetentionRun) -> Result<()>;

    /// Of the runs of retention that have finished, the one with the latest cutoff.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn last_retention(&self) -> Result<Option<RetentionRun>>;

    /// Claims the check of the whole archive at this time, unless it was claimed at `since` or later. Of
    /// several nodes that call this at once only one succeeds.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn claim_check(&self, now: Timestamp, since: Timestamp) -> Result<bool>;

    /// Looks for missing numbers in a limited part of a room, after `after`: see [`MissingPage`].
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn find_missing(&self, room: &RoomId, after: u64) -> Result<MissingPage>;

    /// Checks a room: see [`RoomAudit`].
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn audit(&self, room: &RoomId) -> Result<RoomAudit>;
}

/// The result of a search for missing numbers in a part of a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MissingPage {
    /// Numbers after what retention has deleted that are neither present nor recorded as lost, although
    /// a later one is present.
    pub missing: Vec<RangeInclusive<u64>>,
    /// Where the next part begins; `None` at the end of the room.
    pub next: Option<u64>,
}

/// The result of a check of one room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomAudit {
    /// Entries that the archive has.
    pub entries: u64,
    /// The bytes of their records, as stored.
    pub bytes: u64,
    /// The lowest and the highest `seq` of an entry; 0 and 0 without entries.
    pub first: u64,
    /// See `first`.
    pub last: u64,
    /// Numbers after `cut` and below `last` that are neither present nor recorded as lost.
    pub missing: Vec<RangeInclusive<u64>>,
    /// Numbers recorded as lost.
    pub lost: u64,
    /// The last number that retention has deleted, or the last one before the archive began; 0 if none.
    pub cut: u64,
    /// Entries with a number below 1.
    pub below_one: u64,
    /// Entries with a number from 1 to `cut`, where none should be.
    pub below_cut: u64,
}

/// Commits entries, over a connection that nothing else uses. After `Unavailable` the next call
/// connects anew.
#[async_trait]
pub trait ArchiveWriter: Send {
    /// Commits entries of any rooms in one transaction, and returns the outcome of each. Rooms and
    /// epochs that the archive doesn't know are added, unless the fence excludes an epoch; such an epoch
    /// is of the writer's run, and began before its first entry here.
    ///
    /// Safe to repeat. After `Unavailable` the outcome is unknown: repeat the same call. After `Broken`
    /// nothing is stored, and the same call most likely fails again: for a single entry that the
    /// database refuses, all are refused. At most [`BATCH_ENTRIES`] entries with at most
    /// [`BATCH_BYTES`], or one entry.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn commit_with(
        &mut self,
        entries: &[(RoomId, ArchivedEntry)],
        fence: Fence,
    ) -> Result<Vec<CommitOutcome>>;

    /// [`commit_with`](Self::commit_with) without a fence.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn commit(&mut self, entries: &[(RoomId, ArchivedEntry)]) -> Result<Vec<CommitOutcome>> {
        self.commit_with(entries, Fence::None).await
    }
}

/// The most entries of one commit.
pub const BATCH_ENTRIES: usize = 500;
/// The most bytes of records of one commit; one larger entry is committed alone.
pub const BATCH_BYTES: usize = 1024 * 1024;
/// The most bytes of one record. A larger one is refused before it gets a number: no database could
/// ever take it.
pub const MAX_RECORD_BYTES: usize = 8 * 1024 * 1024;
