//! `hubbub db seed`: demo data, the same for the same seed.

mod text;
mod world;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use time::macros::date;
use time::{Date, Month};

use super::progress::Progress;
use super::summary::Summary;
use super::{Databases, Output, settings};
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
    /// The day at whose beginning the messages end, as YYYY-MM-DD in UTC [default: today]
    #[arg(long, value_name = "DATE", hide = true, value_parser = parse_date)]
    until: Option<Timestamp>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(
    options: &Options,
    command_line: &CommandLine,
    databases: &Databases,
) -> anyhow::Result<ExitCode> {
    let settings = settings(command_line)?;
    let enough = options.messages >= options.rooms;
    anyhow::ensure!(enough, "--messages must be at least --rooms");
    let began = Instant::now();
    let opened = databases.open_to_fill(&settings).await?;
    let world = World {
        seed: options.seed,
        rooms: options.rooms,
        messages: options.messages,
        users: options.users,
        end: options.until.unwrap_or_else(today),
        span: options.days * DAY,
    };
    // An archive with rooms has an id.
    let id = opened.store.deployment().await;
    id.with_context(|| opened.url.to_string())?;
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

/// The beginning of today, in UTC.
fn today() -> Timestamp {
    Timestamp(Timestamp::now().0 / DAY * DAY)
}

/// Parses a full-date of RFC 3339, `2026-01-31`, that lies long enough after 1970 for any `--days`.
fn parse_date(text: &str) -> Result<Timestamp, String> {
    parse_days(text)
        .filter(|days| *days >= 3650)
        .map(|days| Timestamp(days * DAY))
        .ok_or_else(|| "must be a date such as 2026-01-31, from 1980 to 9999".to_owned())
}

/// The days from 1970 to a date.
fn parse_days(text: &str) -> Option<u64> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    if (year.len(), month.len(), day.len()) != (4, 2, 2) {
        return None;
    }
    let month: u8 = month.parse().ok()?;
    let month = Month::try_from(month).ok()?;
    let date = Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
    let days = date.to_julian_day() - date!(1970 - 01 - 01).to_julian_day();
    u64::try_from(days).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_the_beginning_of_its_day() {
        for date in ["1980-01-01", "2024-02-29", "2026-11-30", "9999-12-31"] {
            let parsed = parse_date(date).unwrap().to_string();
            assert_eq!(parsed, format!("{date}T00:00:00.000Z"));
        }
        for wrong in [
            "",
            "today",
            "1970-01-01",
            "2026-02-29",
            "2026-13-01",
            "2026-1-001",
            "2026-01-31T00",
            "2026-01",
            "-026-01-31",
        ] {
            assert!(parse_date(wrong).is_err(), "{wrong}");
        }
    }
}
