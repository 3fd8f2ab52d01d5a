//! `hubbub db seed`: demo data, the same for the same seed.

mod text;
mod world;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Args;

use super::progress::Progress;
use super::summary::Summary;
use super::{Output, open_to_fill, settings};
use crate::config::CommandLine;
use crate::domain::{RoomId, Timestamp};
use crate::store::sql::SqlStore;
use crate::store::{ArchiveStore as _, ArchivedEntry, BATCH_ENTRIES, CommitOutcome};
use world::World;

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;
/// Rooms that are marked as complete at once.
const ROOMS_PER_MARK: usize = 200;

#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    /// Rooms, named demo-1, demo-2, …; the first has the most messages
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rooms: u64,
    /// Messages in all rooms together
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Users who send them
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    users: u64,
    /// Days up to the beginning of today over which the messages are spread
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    /// The same seed makes the same messages on the same day
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(options: &Options, command_line: &CommandLine) -> anyhow::Result<ExitCode> {
    let settings = settings(command_line)?;
    let enough = options.messages >= options.rooms;
    anyhow::ensure!(enough, "--messages must be at least --rooms");
    let began = Instant::now();
    let opened = open_to_fill(&settings).await?;
    let world = World {
        seed: options.seed,
        rooms: options.rooms,
        messages: options.messages,
        users: options.users,
        end: Timestamp(Timestamp::now().0 / DAY * DAY),
        span: options.days * DAY,
    };
    let added = fill(&opened.store, &world).await;
    let added = added.with_context(|| opened.url.to_string())?;
    let mut summary = Summary::default();
    summary.add("rooms", world.rooms);
    summary.add("messages", world.messages);
    summary.add("added_now", added);
    summary.add_seconds(began);
    summary.print(options.output);
    Ok(ExitCode::SUCCESS)
}

/// Adds the messages that the rooms lack. Returns their number.
async fn fill(store: &SqlStore, world: &World) -> anyhow::Result<u64> {
    let mut progress = Progress::new("seeding", Some(world.messages));
    let mut writer = Batches::new(store);
    let mut sizes = world.sizes();
    for number in 0..world.rooms {
        let size = sizes.next().context("every room has a size")?;
        let room = world.room(number);
        let known = store.room(&room).await?;
        let head = known.map_or(0, |known| known.head);
        anyhow::ensure!(
            head <= size,
            "the room {room} has {head} messages already, and would get {size}: was it filled with \
             other options?"
        );
        progress.add(head);
        for seq in head + 1..=size {
            writer.add(&room, world.message(number, seq, size)).await?;
            progress.add(1);
        }
        writer.end_room(room, size).await?;
    }
    writer.finish().await
}

/// Commits messages in large batches, and marks rooms as complete.
struct Batches<'a> {
    store: &'a SqlStore,
    writer: Box<dyn crate::store::ArchiveWriter>,
    batch: Vec<(RoomId, ArchivedEntry)>,
    complete: Vec<(RoomId, u64)>,
    added: u64,
}

impl<'a> Batches<'a> {
    fn new(store: &'a SqlStore) -> Self {
        Self {
            store,
            writer: store.writer(0),
            batch: Vec::new(),
            complete: Vec::new(),
            added: 0,
        }
    }

    async fn add(&mut self, room: &RoomId, entry: ArchivedEntry) -> anyhow::Result<()> {
        self.batch.push((room.clone(), entry));
        if self.batch.len() >= BATCH_ENTRIES {
            self.commit().await?;
        }
        Ok(())
    }

    async fn commit(&mut self) -> anyhow::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let outcomes = self.writer.commit(&self.batch).await?;
        for ((room, entry), outcome) in self.batch.drain(..).zip(outcomes) {
            anyhow::ensure!(
                outcome == CommitOutcome::Stored,
                "room {room}: there is another message {}",
                entry.seq
            );
            self.added += 1;
        }
        Ok(())
    }

    async fn end_room(&mut self, room: RoomId, size: u64) -> anyhow::Result<()> {
        self.complete.push((room, size));
        if self.complete.len() >= ROOMS_PER_MARK {
            self.mark().await?;
        }
        Ok(())
    }

    async fn mark(&mut self) -> anyhow::Result<()> {
        self.commit().await?;
        self.store.mark_contiguous(&self.complete).await?;
        self.complete.clear();
        Ok(())
    }

    async fn finish(mut self) -> anyhow::Result<u64> {
        self.mark().await?;
        Ok(self.added)
    }
}
