//! `hubbub db copy`: the archive in another database, entry by entry the same.
//!
//! Rooms are copied one after another, each in the order of its numbers, so that a copy that was
//! interrupted continues where each room ends. The changes of its messages, and the positions of users in it,
//! follow each time anew, as do accounts, chats and the outbox. Until
//! it is complete the destination can't be used by a node. At the end both databases are read and their
//! digests compared.

use std::os::unix::fs::MetadataExt as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::digest::{PAGE_BYTES, RoomDigest, digest};
use super::progress::Progress;
use super::summary::Summary;
use super::{Databases, FOUND, Opened, Output, settings};
use crate::config::CommandLine;
use crate::domain::RoomId;
use crate::store::sql::{DatabaseUrl, SqlStore};
use crate::store::{
    ArchiveStore as _, ArchiveTransfer as _, ArchiveWindow, ArchiveWriter, ArchivedEntry,
    BATCH_BYTES, BATCH_ENTRIES, CommitOutcome, DatabaseSettings, DirectoryTransfer as _, RoomState,
};

/// The rooms that are listed at once.
const ROOMS_PER_PAGE: usize = 500;
/// How often a room is copied again that differs from its original. A room that is in use may change during
/// each copy.
const REPEATED_COPIES: usize = 3;
/// The messages that are deleted in one transaction.
const DELETED_PER_STEP: usize = 1000;

#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    /// The database to copy to: sqlite://path, postgres://… or mysql://… [default: the environment
    /// variable COPY_TO, which the list of processes doesn't show]
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(
    options: &Options,
    command_line: &CommandLine,
    databases: &Databases,
) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let from = settings(command_line)?;
    let to = destination(options)?;
    anyhow::ensure!(
        !to.is_in_memory(),
        "a database in memory ends with this command"
    );
    check_other_file(&from.url, &to)?;
    let source = databases.open_existing(&from).await?;
    let id = source
        .store
        .deployment()
        .await
        .context(source.url.to_string())?;
    let destination = databases.open_to_fill(&DatabaseSettings::new(to)).await?;
    check_other_database(&source, &destination).await?;
    check_unused(&source, &destination, id).await?;
    let is_ours = destination.store.begin_copy(id).await;
    let is_ours = is_ours.with_context(|| destination.url.to_string())?;
    anyhow::ensure!(
        is_ours,
        "{} has another archive: copy to an empty database",
        destination.url
    );
    let mut copy = Copy {
        writer: destination.store.writer(0),
        source,
        destination,
        copied: 0,
        findings: Vec::new(),
    };
    let outcome = copy.run(id).await?;
    let is_complete = copy.findings.is_empty() && !outcome.has_moved;
    let mut summary = Summary::default();
    summary.add("rooms", outcome.rooms);
    summary.add("messages", outcome.messages);
    summary.add("copied_now", copy.copied);
    summary.add("findings", copy.findings);
    summary.add("is_complete", is_complete);
    if outcome.has_moved {
        let text = "the database was in use meanwhile: stop its nodes, and run this command again";
        summary.add("next", text);
    }
    summary.add_seconds(began);
    summary.print(options.output);
    Ok(ExitCode::from(if is_complete { 0 } else { FOUND }))
}

/// The database that `--to` or `COPY_TO` names.
fn destination(options: &Options) -> anyhow::Result<DatabaseUrl> {
    if let Some(url) = &options.to {
        return DatabaseUrl::parse(url).map_err(|error| anyhow::anyhow!("--to {error}"));
    }
    let url = std::env::var("COPY_TO").unwrap_or_default();
    anyhow::ensure!(!url.is_empty(), "name the destination with --to or COPY_TO");
    DatabaseUrl::parse(&url).map_err(|error| anyhow::anyhow!("COPY_TO {error}"))
}

/// Fails if both are one file of SQLite, by any of its names.
fn check_other_file(from: &DatabaseUrl, to: &DatabaseUrl) -> anyhow::Result<()> {
    let id = |url: &DatabaseUrl| {
        let metadata = std::fs::metadata(url.file()?).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    let is_same_file = id(from).is_some() && id(from) == id(to);
    let is_same = is_same_file || from.to_string() == to.to_string();
    anyhow::ensure!(!is_same, "{to} is the database itself: copy to another one");
    Ok(())
}

/// Fails if both are one database of a server, which may have several names: then the source has the
/// mark that is left in the destination.
async fn check_other_database(source: &Opened, destination: &Opened) -> anyhow::Result<()> {
    let mark = Uuid::new_v4();
    destination.store.set_mark(Some(mark)).await?;
    let seen = source.store.mark().await;
    destination.store.set_mark(None).await?;
    anyhow::ensure!(
        seen? != Some(mark),
        "{} is the database itself: copy to another one",
        destination.url
    );
    Ok(())
}

/// A copy that was used since it was finished has messages that its original lacks: copying would mix
/// the two.
async fn check_unused(source: &Opened, destination: &Opened, id: Uuid) -> anyhow::Result<()> {
    if destination.store.deployment().await.ok() != Some(id) {
        return Ok(());
    }
    let mut after = 0;
    loop {
        let rooms = destination.store.rooms(after, ROOMS_PER_PAGE).await?;
        let Some((number, _)) = rooms.last() else {
            return Ok(());
        };
        after = *number;
        for (_, room) in &rooms {
            let window = ArchiveWindow::Before(u64::MAX);
            let last = destination.store.read(room, window, 1, PAGE_BYTES).await?;
            let Some(last) = last.last() else { continue };
            let window = ArchiveWindow::After(last.seq - 1);
            let original = source.store.read(room, window, 1, PAGE_BYTES).await?;
            let is_same = original.first().is_some_and(|entry| entry.id == last.id);
            let is_deleted = state(&source.store, room).await?.cut >= last.seq;
            anyhow::ensure!(
                is_same || is_deleted,
                "{}: room {room} has another message {}, so the copy was used since it was made. Copy \
                 to an empty database",
                destination.url,
                last.seq
            );
        }
    }
}

/// The end of a copy.
struct Outcome {
    rooms: u64,
    messages: u64,
    /// Whether the source changed meanwhile.
    has_moved: bool,
}

/// Sums over all rooms, none of which falls: equal sums mean that nothing has changed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Extent {
    rooms: usize,
    heads: u64,
    cuts: u64,
}

struct Copy {
    source: Opened,
    destination: Opened,
    writer: Box<dyn ArchiveWriter>,
    /// Messages that the destination did not have before.
    copied: u64,
    findings: Vec<Value>,
}

impl Copy {
    async fn run(&mut self, id: Uuid) -> anyhow::Result<Outcome> {
        let runs = self.source.store.run_ends().await?;
        let total = self.count().await?;
        let mut progress = Progress::new("copying", Some(total));
        let mut after = 0;
        while let Some(room) = self.next_room(&mut after).await? {
            self.copy_room(&room, &mut progress).await?;
        }
        drop(progress);
        let before = self.extent().await?;
        let mut outcome = self.compare(total).await?;
        outcome.has_moved |= !self.copy_directory().await?;
        outcome.has_moved |= self.extent().await? != before;
        outcome.has_moved |= self.source.store.run_ends().await? != runs;
        if self.findings.is_empty() && !outcome.has_moved {
            self.destination.store.finish_copy(id, &runs).await?;
        }
        Ok(outcome)
    }

    /// Copies accounts, chats and the outbox. Returns whether the source had not changed at the end.
    async fn copy_directory(&self) -> anyhow::Result<bool> {
        let (from, to) = (&self.source.store, &self.destination.store);
        to.clear_directory().await?;
        let mut copied = Sha256::new();
        for table in 0..from.directory_tables().len() {
            let mut last = None;
            loop {
                let page = from.directory_page(table, last.as_ref()).await?;
                let Some(row) = page.last() else { break };
                last = Some(row.clone());
                page.iter().for_each(|row| row.add_to(&mut copied));
                to.insert_directory(table, page).await?;
            }
        }
        let copied: [u8; 32] = copied.finalize().into();
        let written = directory_digest(to).await?;
        let has_moved = directory_digest(from).await? != copied;
        // Rows that were read at different times may exclude each other, so that one was left out.
        anyhow::ensure!(
            written == copied || has_moved,
            "{}: accounts or chats differ from those that were written",
            self.destination.url
        );
        Ok(!has_moved)
    }

    /// The next room of the source.
    async fn next_room(&self, after: &mut u64) -> anyhow::Result<Option<RoomId>> {
        let page = self.source.store.rooms(*after, 1).await?;
        let Some((number, room)) = page.into_iter().next() else {
            return Ok(None);
        };
        *after = number;
        Ok(Some(room))
    }

    /// About how many messages there are.
    async fn count(&self) -> anyhow::Result<u64> {
        let extent = self.extent().await?;
        Ok(extent.heads.saturating_sub(extent.cuts))
    }

    /// The sums over all rooms of the source.
    async fn extent(&self) -> anyhow::Result<Extent> {
        let mut extent = Extent::default();
        let mut after = 0;
        loop {
            let rooms = self.source.store.rooms(after, ROOMS_PER_PAGE).await?;
            let Some((last, _)) = rooms.last() else {
                return Ok(extent);
            };
            after = *last;
            extent.rooms += rooms.len();
            for (_, room) in &rooms {
                if let Some(known) = self.source.store.room(room).await? {
                    extent.heads += known.head;
                    extent.cuts += known.first - 1;
                }
            }
        }
    }

    async fn copy_room(&mut self, room: &RoomId, progress: &mut Progress) -> anyhow::Result<()> {
        let state = state(&self.source.store, room).await?;
        // Epochs first, because entries refer to them; the mark of a complete room last.
        let incomplete = RoomState {
            contiguous: 0,
            cut: 0,
            lost: Vec::new(),
            ..state.clone()
        };
        let store = &self.destination.store;
        store.set_room_state(room, &incomplete).await?;
        let last = last_seq(store, room).await?;
        progress.add(last.saturating_sub(state.cut));
        self.copy_entries(room, last.max(state.cut), progress)
            .await?;
        self.finish_room(room, &state).await
    }

    /// Copies the entries after this number.
    async fn copy_entries(
        &mut self,
        room: &RoomId,
        mut after: u64,
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        loop {
            let window = ArchiveWindow::After(after);
            let source = &self.source.store;
            let page = source
                .read(room, window, BATCH_ENTRIES, BATCH_BYTES)
                .await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.seq;
            progress.add(page.len() as u64);
            self.commit(room, page).await?;
        }
    }

    async fn commit(&mut self, room: &RoomId, page: Vec<ArchivedEntry>) -> anyhow::Result<()> {
        let rows: Vec<_> = page
            .into_iter()
            .map(|entry| (room.clone(), entry))
            .collect();
        let outcomes = self.writer.commit(&rows).await;
        let outcomes = outcomes.with_context(|| self.destination.url.to_string())?;
        for ((room, entry), outcome) in rows.iter().zip(outcomes) {
            match outcome {
                CommitOutcome::Stored => self.copied += 1,
                CommitOutcome::Conflict => anyhow::bail!(
                    "room {room}: the destination has another message {}: it was used since it was \
                     copied. Copy to an empty database",
                    entry.seq
                ),
            }
        }
        Ok(())
    }

    /// Gives the room of the destination the state of the source's, and deletes entries deleted there.
    async fn finish_room(&self, room: &RoomId, state: &RoomState) -> anyhow::Result<()> {
        let store = &self.destination.store;
        while store
            .delete_up_to(room, state.cut, DELETED_PER_STEP)
            .await?
            .has_more
        {}
        self.copy_tables(room).await?;
        store.set_room_state(room, state).await?;
        Ok(())
    }

    /// Copies what a room has beside its entries.
    async fn copy_tables(&self, room: &RoomId) -> anyhow::Result<()> {
        let (from, to) = (&self.source.store, &self.destination.store);
        to.clear_room(room).await?;
        for table in 0..from.room_tables().len() {
            let mut last = None;
            loop {
                let page = from.room_page(room, table, last.as_ref()).await?;
                let Some(row) = page.last() else { break };
                last = Some(row.clone());
                to.insert_in_room(room, table, page).await?;
            }
        }
        Ok(())
    }

    /// Gives messages that were copied, and have changed since then, their newest contents.
    async fn amend(&self, room: &RoomId) -> anyhow::Result<()> {
        let mut after = 0;
        loop {
            let window = ArchiveWindow::After(after);
            let page = self
                .source
                .store
                .read(room, window, BATCH_ENTRIES, BATCH_BYTES)
                .await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.seq;
            self.destination.store.amend(room, &page).await?;
        }
    }

    /// Compares all rooms of both databases.
    async fn compare(&mut self, total: u64) -> anyhow::Result<Outcome> {
        let mut progress = Progress::new("comparing", Some(total));
        let mut outcome = Outcome {
            rooms: 0,
            messages: 0,
            has_moved: false,
        };
        let mut after = 0;
        while let Some(room) = self.next_room(&mut after).await? {
            let mut compared = self.compare_room(&room).await?;
            for _ in 0..REPEATED_COPIES {
                if compared.is_equal {
                    break;
                }
                compared = self.copy_again(&room, &compared, &mut progress).await?;
            }
            progress.add(compared.copied.entries);
            outcome.rooms += 1;
            outcome.messages += compared.copied.entries;
            outcome.has_moved |= compared.has_moved;
            if !compared.is_equal && !compared.has_moved {
                self.findings.push(json!({
                    "room": room.as_str(),
                    "kind": "differs",
                    "detail": "the copy differs from the original",
                }));
            }
        }
        self.check_foreign_rooms(outcome.rooms).await?;
        Ok(outcome)
    }

    /// Copies a room again that differs, and compares it again: numbers that were missing at the first copy
    /// may have been committed since then, and messages may have changed.
    async fn copy_again(
        &mut self,
        room: &RoomId,
        before: &Compared,
        progress: &mut Progress,
    ) -> anyhow::Result<Compared> {
        self.copy_entries(room, 0, progress).await?;
        self.amend(room).await?;
        let state = state(&self.source.store, room).await?;
        self.finish_room(room, &state).await?;
        let mut compared = self.compare_room(room).await?;
        // The copy was made between these two reads of the source.
        let has_changed = compared.original != before.original;
        compared.has_moved |= has_changed && !compared.is_equal;
        Ok(compared)
    }

    async fn compare_room(&self, room: &RoomId) -> anyhow::Result<Compared> {
        let (source, destination) = (&self.source.store, &self.destination.store);
        let before = state(source, room).await?;
        let last = last_seq(destination, room).await?;
        let (original, copied) = tokio::join!(
            digest(source, room, before.cut, last),
            digest(destination, room, 0, u64::MAX)
        );
        let copied = copied?;
        let original = RoomContents {
            state: before,
            entries: original?,
            tables: tables_digest(source, room).await?,
        };
        let is_equal = original.entries == copied
            && original.state == state(destination, room).await?
            && original.tables == tables_digest(destination, room).await?;
        let has_moved =
            state(source, room).await? != original.state || last_seq(source, room).await? > last;
        Ok(Compared {
            is_equal,
            has_moved,
            original,
            copied,
        })
    }

    /// A destination that was used since it was copied may have rooms that the source lacks.
    async fn check_foreign_rooms(&mut self, expected: u64) -> anyhow::Result<()> {
        let (mut after, mut rooms) = (0, 0);
        loop {
            let page = self.destination.store.rooms(after, ROOMS_PER_PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            rooms += page.len() as u64;
        }
        if rooms > expected {
            let detail = format!("the destination has {} more rooms", rooms - expected);
            self.findings
                .push(json!({"kind": "foreign_rooms", "detail": detail}));
        }
        Ok(())
    }
}

/// The contents of a room of the source, as they were read.
#[derive(PartialEq, Eq)]
struct RoomContents {
    state: RoomState,
    /// Of the entries that the destination can have.
    entries: RoomDigest,
    /// Of everything beside the entries.
    tables: [u8; 32],
}

/// The comparison of a room.
struct Compared {
    is_equal: bool,
    /// Whether the room of the source has changed since it was copied.
    has_moved: bool,
    original: RoomContents,
    copied: RoomDigest,
}

async fn state(store: &SqlStore, room: &RoomId) -> anyhow::Result<RoomState> {
    Ok(store.room_state(room).await?.unwrap_or_default())
}

/// The last entry's number; 0 without entries.
async fn last_seq(store: &SqlStore, room: &RoomId) -> anyhow::Result<u64> {
    let window = ArchiveWindow::Before(u64::MAX);
    let last = store.read(room, window, 1, PAGE_BYTES).await?;
    Ok(last.last().map_or(0, |entry| entry.seq))
}

/// The digest of what a room has beside its entries.
async fn tables_digest(store: &SqlStore, room: &RoomId) -> anyhow::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    for table in 0..store.room_tables().len() {
        let mut last = None;
        loop {
            let page = store.room_page(room, table, last.as_ref()).await?;
            let Some(row) = page.last() else { break };
            last = Some(row.clone());
            page.iter().for_each(|row| row.add_to(&mut digest));
        }
    }
    Ok(digest.finalize().into())
}

/// The digest of accounts, chats and the outbox.
async fn directory_digest(store: &SqlStore) -> anyhow::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    for table in 0..store.directory_tables().len() {
        let mut last = None;
        loop {
            let page = store.directory_page(table, last.as_ref()).await?;
            let Some(row) = page.last() else { break };
            last = Some(row.clone());
            page.iter().for_each(|row| row.add_to(&mut digest));
        }
    }
    Ok(digest.finalize().into())
}
