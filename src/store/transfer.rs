//! Operations for copying and checking an archive, beside reading and committing.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use uuid::Uuid;

use super::{ArchiveStore, ArchivedEntry, ArchivedEpoch, Result};
use crate::domain::RoomId;

/// The records of a room in the archive, beside its entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomState {
    /// See [`ArchivedRoom::contiguous`](super::ArchivedRoom::contiguous).
    pub contiguous: u64,
    /// The last number that retention has deleted; 0 if none.
    pub cut: u64,
    /// Every epoch, oldest first.
    pub epochs: Vec<ArchivedEpoch>,
    /// The numbers that are recorded as lost, in order.
    pub lost: Vec<RangeInclusive<u64>>,
}

/// A run of a lone node, and whether it ended cleanly.
pub type RunEnd = (u64, bool);

/// What a database says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArchiveIdentity {
    /// The id of the archive, if it has one yet.
    pub id: Option<Uuid>,
    /// The id of the archive of which this database is an incomplete copy.
    pub copy_of: Option<Uuid>,
}

/// Rows of a table whose rooms the archive doesn't know, so that nothing reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphans {
    /// The table.
    pub table: &'static str,
    /// The number of rows.
    pub rows: u64,
    /// The number of their rooms.
    pub rooms: u64,
    /// The lowest number of these rooms, as the database has it.
    pub first: i64,
}

/// The archive's storage, for commands. Every call is safe to repeat, and atomic apart from
/// [`clear_room`](Self::clear_room).
#[async_trait]
pub trait ArchiveTransfer: ArchiveStore {
    /// The state of a room; `None` if the archive doesn't know it.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn room_state(&self, room: &RoomId) -> Result<Option<RoomState>>;

    /// Gives a room that state. Its epochs must begin with those that the room has, in their order.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn set_room_state(&self, room: &RoomId, state: &RoomState) -> Result<()>;

    /// The last run of a lone node, and the last one that did not end cleanly.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn run_ends(&self) -> Result<Vec<RunEnd>>;

    /// Leaves a mark in the database in place of an earlier one, or removes it. Two stores with the same
    /// mark are the same database.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn set_mark(&self, mark: Option<Uuid>) -> Result<()>;

    /// The mark in the database.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn mark(&self) -> Result<Option<Uuid>>;

    /// Begins or continues a copy of the archive with this id. While it is not finished,
    /// [`ArchiveStore::deployment`] fails, so that no node uses the incomplete archive. Returns false,
    /// and does nothing, if this database has an archive that is not a copy of that one.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn begin_copy(&self, of: Uuid) -> Result<bool>;

    /// Finishes a copy: from now on this is the archive with that id.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn finish_copy(&self, of: Uuid, runs: &[RunEnd]) -> Result<()>;

    /// The ids of the archive, without adding one.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn identity(&self) -> Result<ArchiveIdentity>;

    /// The recorded name of the log whose archive this is.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn recorded_log(&self) -> Result<Option<String>>;

    /// Records the name of the log whose archive this is in place of `replaced`. Returns false, and does
    /// nothing, if another name than `replaced` is recorded.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn record_log(&self, name: &str, replaced: Option<&str>) -> Result<bool>;

    /// The rows of rooms that the archive doesn't know, for each table that has some.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn orphans(&self) -> Result<Vec<Orphans>>;

    /// The ids of entries, in order: at most `limit`, from `from` on. An id that is there twice is
    /// returned twice.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn ids(&self, from: Uuid, limit: usize) -> Result<Vec<Uuid>>;

    /// The names of the tables with rows of rooms beside their entries, in the order in which they are copied.
    fn room_tables(&self) -> Vec<&'static str>;

    /// The rows of a room in such a table after this one, in the order of the keys; empty at the end.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn room_page(
        &self,
        room: &RoomId,
        table: usize,
        after: Option<&DirectoryRow>,
    ) -> Result<Vec<DirectoryRow>>;

    /// Deletes the rows of a room in all of these tables, in steps.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn clear_room(&self, room: &RoomId) -> Result<()>;

    /// Adds rows of a room to such a table.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn insert_in_room(
        &self,
        room: &RoomId,
        table: usize,
        rows: Vec<DirectoryRow>,
    ) -> Result<()>;

    /// Gives entries that the archive has these kinds and records: those of messages that were changed.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn amend(&self, room: &RoomId, entries: &[ArchivedEntry]) -> Result<()>;
}

/// A row of a table of accounts, chats or the outbox, or of a room.
#[derive(Debug, Clone)]
pub struct DirectoryRow(pub(super) Vec<super::sql::Value>);

/// The tables beside the archive, for copies of a database: accounts, chats, and the outbox.
#[async_trait]
pub trait DirectoryTransfer: Send + Sync {
    /// The names of the tables, in the order in which they are copied.
    fn directory_tables(&self) -> Vec<&'static str>;

    /// Deletes all rows of these tables, in steps.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn clear_directory(&self) -> Result<()>;

    /// The rows of a table after this one, in the order of the keys; empty at the end.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn directory_page(
        &self,
        table: usize,
        after: Option<&DirectoryRow>,
    ) -> Result<Vec<DirectoryRow>>;

    /// Adds rows to a table, atomically. Rows whose keys it has already are left out.
    ///
    /// # Errors
    /// `Unavailable`, `Broken`.
    async fn insert_directory(&self, table: usize, rows: Vec<DirectoryRow>) -> Result<()>;
}
