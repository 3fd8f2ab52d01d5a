//! The interface between an archive and the log that it follows, in both directions.
//!
//! Behind an archive a log is called *hot*: it assigns the numbers and publishes, but may lose its
//! data. Whenever a hot log doesn't know a room, or may have lost the end of one, it asks its
//! [`RestoreSource`] before it numbers the room's next entry.

use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Appended, BackplaneError, Entry, NewChange, NewEntry, Result, RoomLog};
use crate::domain::{Epoch, Head, RoomId, UserId};

/// Entries of a room that the archive has: ranges of `seq`.
pub type ArchivedRanges = Vec<RangeInclusive<u64>>;

/// A room of the hot log with entries that may not be archived yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unarchived {
    /// The room.
    pub room: RoomId,
    /// The room's watermark: the archive has every entry up to this `seq`.
    pub watermark: u64,
    /// The room's last `seq`.
    pub head: u64,
    /// Entries above the watermark that the archive has, as far as the log remembers reports of them.
    pub archived: ArchivedRanges,
}

/// A log that an archive follows.
///
/// Each room has a *watermark*: the archive has every entry up to it. An entry above the watermark is
/// kept regardless of `history_size`, `history_ttl` and `room_ttl`.
#[async_trait]
pub trait HotLog: RoomLog {
    /// As [`RoomLog::append`], for an entry of any kind with its record.
    ///
    /// # Errors
    /// `Unavailable`, `Full`.
    async fn append_record(
        &self,
        entry: NewEntry<'_>,
        key: Option<&str>,
        record: Bytes,
    ) -> Result<Appended>;

    /// Appends changes to a room, in their order, with their amendments: see [`RoomLog::announce_all`]. Returns
    /// the outcomes up to the first error. The changes behind it are not appended, or, if its outcome is
    /// unknown, only behind it.
    async fn append_changes(&self, room: &RoomId, changes: &[NewChange]) -> Vec<Result<Appended>>;

    /// Reads entries above a `seq` without restoring the room: also those of a room whose end may be
    /// lost. `None` if the room isn't known.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn read_unarchived(
        &self,
        room: &RoomId,
        after: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Option<Vec<Entry>>>;

    /// Reports entries that the archive has, with the epoch in which their numbers were assigned, so
    /// that the rooms' watermarks advance over them. A watermark advances only as far as the reported
    /// ranges, in any order, leave no number out. Ranges count only as far as the numbers of that
    /// epoch are those of the room: all of the current epoch, and those of an earlier one up to its
    /// end. Repeats have no effect. Returns the watermark of each of the rooms then; 0 for a room that
    /// the log does not know.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn advance_watermarks(
        &self,
        archived: &[(RoomId, Epoch, ArchivedRanges)],
    ) -> Result<Vec<u64>>;

    /// Rooms whose oldest unarchived entry is older than that, at most about `limit`; also those that
    /// have diverged that long ago and are not restored yet. A room that was returned is not returned
    /// again for the same time, to no node.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn unarchived(&self, older_than: Duration, limit: usize) -> Result<Vec<Unarchived>>;

    /// The archive has other entries than this log after `shared`, in this epoch. The room is restored
    /// before its next use; its entries after `shared` count as lost, except those that the archive
    /// has or takes then. Does nothing if the room has no numbers of that epoch after `shared`: if the
    /// epoch ended there, or if it is the current one and the head is not greater.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn diverged(&self, room: &RoomId, epoch: &Epoch, shared: u64) -> Result<()>;

    /// Removes entries up to `cut`, at most the watermark, because retention has deleted them from the
    /// archive.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn trim(&self, room: &RoomId, cut: u64) -> Result<()>;
}

/// The state of a room in the hot log at the moment of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotState {
    /// The room's numbering.
    pub head: Head,
    /// Where earlier epochs ended, newest first.
    pub past: Vec<Head>,
    /// The lowest `seq` that the log has; `head.seq + 1` if none.
    pub oldest: u64,
    /// The room's watermark; `None` if the room was never archived.
    pub watermark: Option<u64>,
    /// Whether entries at the end may be lost: a new epoch has to begin.
    pub is_stale: bool,
    /// The last `seq` that log and archive share, after [`HotLog::diverged`].
    pub shared: Option<u64>,
    /// Entries after the watermark that the archive has, as far as the log remembers reports of them.
    pub archived: ArchivedRanges,
}

/// The entries of a room's log that its archive may lack, during a restore of the room. A restore holds
/// no more than one page of them at a time.
#[async_trait]
pub trait UnarchivedEntries: Send {
    /// The next entries above the watermark, ascending, without those of [`HotState::archived`]: a page
    /// that is limited in entries and bytes. Without a watermark: all entries that the log has. Empty at
    /// the end of the log.
    ///
    /// The time that a restore may take begins anew with each page.
    ///
    /// # Errors
    /// `Unavailable`: also if another restore of the room has begun. Then this one must end.
    async fn next_page(&mut self) -> Result<Vec<Entry>>;
}

/// A send with a key, to restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredSend {
    /// The sender.
    pub user: UserId,
    /// The key.
    pub key: Box<str>,
    /// The position of the send.
    pub position: Appended,
}

/// How a room continues in the hot log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// The numbering. A new epoch is known to the archive already. `None`: the room is new, or (if the
    /// hot log knows it and it is not stale) continues in its own epoch.
    pub head: Option<Head>,
    /// Where earlier epochs ended, newest first, at most eight.
    pub past: Vec<Head>,
    /// The watermark.
    pub watermark: u64,
    /// Whether the log's entries stay: only if the numbering continues at the log's own head. If not, the
    /// log is empty and ends at the head.
    pub keep_entries: bool,
    /// The sends with keys within `dedupe_ttl`, newest first.
    pub sends: Vec<RestoredSend>,
}

impl RestorePoint {
    /// Checks that no number gets a second meaning, and that the log gets no hole.
    ///
    /// # Errors
    /// `Broken`.
    pub(super) fn check(&self, hot: Option<&HotState>) -> Result<()> {
        let broken = |text: &str| {
            let text = format!("a restore point {text}");
            Err(BackplaneError::Broken(text))
        };
        let Some(hot) = hot else { return Ok(()) };
        let own_epoch = self
            .head
            .as_ref()
            .is_none_or(|head| head.epoch == hot.head.epoch);
        if hot.is_stale && own_epoch {
            return broken("continues an epoch that may have lost its end");
        }
        let own_head = self
            .head
            .as_ref()
            .is_none_or(|head| head.seq == hot.head.seq);
        if self.keep_entries && !own_head {
            return broken("keeps the entries of a log that ends elsewhere");
        }
        Ok(())
    }
}

/// The archive, as a hot log sees it.
#[async_trait]
pub trait RestoreSource: Send + Sync {
    /// The id of the archive: the same for all nodes of a cluster, and never empty. Redis remembers it,
    /// and refuses nodes with another archive or without one.
    fn archive_id(&self) -> String;

    /// How the room continues. `hot` is the room's state in the log, and `entries` are the log's entries
    /// that may have to be archived first; `None` and none if the log doesn't know the room.
    ///
    /// Called for one room at a time only, in the whole cluster: a room without a watermark, a stale
    /// one, one that has diverged, and one that the log doesn't know.
    ///
    /// # Errors
    /// `Unavailable`: the room can't be used now.
    async fn restore_point(
        &self,
        room: &RoomId,
        hot: Option<&HotState>,
        entries: &mut dyn UnarchivedEntries,
    ) -> Result<RestorePoint>;
}
