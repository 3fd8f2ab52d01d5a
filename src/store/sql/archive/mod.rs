//! The archive's storage in a database.
//!
//! | table | contents |
//! | --- | --- |
//! | `hubbub_rooms` | a room's number, and up to where its numbers are complete |
//! | `hubbub_epochs` | the epochs of a room, numbered in their order |
//! | `hubbub_gaps` | ranges of numbers that are lost |
//! | `hubbub_entries` | the entries, by room number and `seq`; those of messages with their newest content |

mod checks;
pub(in crate::store::sql) mod entries;
mod epochs;
mod form;
mod gaps;
mod numbers;
mod orphans;
pub(in crate::store::sql) mod projection;
mod retention;
mod retention_runs;
pub(in crate::store::sql) mod rewrite;
mod rooms;
mod runs;
pub(in crate::store::sql) mod tables;
mod transfer;
mod writer;

use std::ops::RangeInclusive;

use async_trait::async_trait;
use uuid::Uuid;

pub(super) use rooms::{
    find as find_numbers, find_number, head, lock_room, number as room_number,
    numbers as room_numbers,
};

use super::fault::{Fault, Outcome};
use super::messages;
use super::store::SqlStore;
use super::unread;
use super::value::loaded;
use crate::domain::{Epoch, MessageForm, RoomId, Timestamp};
use crate::store::{
    ArchiveStore, ArchiveWindow, ArchiveWriter, ArchivedEntry, ArchivedEpoch, ArchivedRoom,
    ArchivedSend, BeginOutcome, DeletedPart, MissingPage, NewEpoch, Result, RetentionClaim,
    RetentionRun, RoomAudit, RoomNumber, Run,
};

/// Every table with data of messages, by the columns `room_no` and `seq`. Retention deletes from all.
pub const MESSAGE_TABLES: &[&str] = &[
    "hubbub_entries",
    "hubbub_messages",
    "hubbub_message_changes",
    "hubbub_reactions",
    "hubbub_pins",
    "hubbub_replies",
    "hubbub_mentions",
];

#[async_trait]
impl ArchiveStore for SqlStore {
    fn writer(&self, run: u64) -> Box<dyn ArchiveWriter> {
        Box::new(writer::SqlWriter::new(self.db(), run))
    }

    async fn ping(&self) -> Result<()> {
        self.db().read(|conn| Box::pin(conn.ping())).await
    }

    async fn room(&self, room: &RoomId) -> Result<Option<ArchivedRoom>> {
        rooms::room(self.db(), room).await
    }

    async fn epoch(&self, room: &RoomId, epoch: &Epoch) -> Result<Option<ArchivedEpoch>> {
        epochs::named(self.db(), room, epoch).await
    }

    async fn read(
        &self,
        room: &RoomId,
        window: ArchiveWindow,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<ArchivedEntry>> {
        entries::read(self.db(), room, window, limit, max_bytes).await
    }

    async fn forms(
        &self,
        room: &RoomId,
        range: RangeInclusive<u64>,
        others: &[u64],
    ) -> Result<Vec<MessageForm>> {
        messages::forms(self.db(), room, range, others).await
    }

    async fn recent_sends(
        &self,
        room: &RoomId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<ArchivedSend>> {
        entries::recent_sends(self.db(), room, since, limit).await
    }

    async fn close_holes(&self, room: &RoomId) -> Result<Vec<RangeInclusive<u64>>> {
        gaps::close_holes(self.db(), room).await
    }

    async fn begin_at(&self, room: &RoomId, first: u64) -> Result<()> {
        rooms::begin_at(self.db(), room, first).await
    }

    async fn record_loss(&self, room: &RoomId, lost: RangeInclusive<u64>) -> Result<()> {
        gaps::record_loss(self.db(), room, lost).await
    }

    async fn mark_contiguous(&self, rooms: &[RoomNumber]) -> Result<()> {
        rooms::mark_contiguous(self.db(), rooms).await
    }

    async fn begin_epoch(&self, room: &RoomId, new: &NewEpoch) -> Result<BeginOutcome> {
        epochs::begin(self.db(), room, new).await
    }

    async fn begin_run(&self) -> Result<Run> {
        runs::begin(self.db()).await
    }

    async fn end_run(&self, run: u64) -> Result<()> {
        runs::end(self.db(), run).await
    }

    async fn deployment(&self) -> Result<Uuid> {
        runs::deployment(self.db()).await
    }

    async fn rooms(&self, after: u64, limit: usize) -> Result<Vec<(u64, RoomId)>> {
        rooms::page(self.db(), after, limit).await
    }

    async fn expired(&self, room: &RoomId, cutoff: Timestamp) -> Result<Option<u64>> {
        retention::expired(self.db(), room, cutoff).await
    }

    async fn delete_up_to(&self, room: &RoomId, cut: u64, limit: usize) -> Result<DeletedPart> {
        retention::delete_up_to(self.db(), room, cut, limit).await
    }

    async fn count_up_to(&self, room: &RoomId, cut: u64) -> Result<(u64, u64)> {
        retention::count_up_to(self.db(), room, cut).await
    }

    async fn project_unread(&self, rooms: &[RoomId]) -> Result<bool> {
        unread::project(self, rooms).await
    }

    async fn project_unread_after(&self, after: u64) -> Result<Option<u64>> {
        unread::project_next(self, after).await
    }

    async fn begin_retention(&self, run: &RetentionRun, claim: &RetentionClaim) -> Result<bool> {
        retention_runs::begin(self.db(), run, claim).await
    }

    async fn report_retention(&self, run: &RetentionRun) -> Result<()> {
        retention_runs::report(self.db(), run).await
    }

    async fn last_retention(&self) -> Result<Option<RetentionRun>> {
        retention_runs::last(self.db()).await
    }

    async fn claim_check(&self, now: Timestamp, since: Timestamp) -> Result<bool> {
        checks::claim(self.db(), now, since).await
    }

    async fn find_missing(&self, room: &RoomId, after: u64) -> Result<MissingPage> {
        checks::find_missing(self.db(), room, after).await
    }

    async fn audit(&self, room: &RoomId) -> Result<RoomAudit> {
        gaps::audit(self.db(), room).await
    }
}

/// A number as the database has it. Numbers of entries and milliseconds stay far below the limit.
fn stored(number: u64) -> Outcome<i64> {
    i64::try_from(number).map_err(|_| Fault::Broken(format!("the number {number} is too large")))
}

/// A limit of rows as the database has it.
fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
