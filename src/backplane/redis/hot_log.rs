//! Rooms' logs in Redis as the archive behind them uses them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::Value;
use futures_util::stream::{self, StreamExt};

use super::Node;
use super::fault::Fault;
use super::keys::{Partition, decode_name, encode_name};
use super::link::millis;
use super::log::{limit_arg, parse_entries};
use super::script::{ARCHIVED, DIVERGED, READ_UNARCHIVED, ScriptReply, TRIM, UNARCHIVED};
use crate::backplane::{
    Appended, ArchivedRanges, Entry, HotLog, NewChange, NewEntry, Result, Unarchived, is_permanent,
};
use crate::domain::{Epoch, RoomId};

/// Rooms whose watermarks one call advances, so that no call occupies Redis for long.
const ROOMS_PER_CALL: usize = 256;
/// Partitions of a cluster that are called concurrently.
const CONCURRENT_PARTITIONS: usize = 32;
/// Partitions of a cluster that one call of [`HotLog::unarchived`] visits: a quarter of those with
/// rooms.
const PARTITIONS_PER_ROUND: usize = 64;

/// The next partition of the round over a cluster that finds rooms with unarchived entries.
#[derive(Default)]
pub(super) struct UnarchivedRound(AtomicUsize);

#[async_trait]
impl HotLog for Node {
    async fn append_record(
        &self,
        entry: NewEntry<'_>,
        key: Option<&str>,
        record: Bytes,
    ) -> Result<Appended> {
        self.appends.append(entry, key, record).await
    }

    async fn append_changes(&self, room: &RoomId, changes: &[NewChange]) -> Vec<Result<Appended>> {
        self.appends.append_changes(room, changes).await
    }

    async fn read_unarchived(
        &self,
        room: &RoomId,
        after: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Option<Vec<Entry>>> {
        let args = vec![
            encode_name(room.as_str()).into(),
            after.to_string().into(),
            limit_arg(limit),
            limit_arg(max_bytes),
        ];
        let partition = Partition::of_room(room);
        let mut reply = self.link.run(&READ_UNARCHIVED, partition, args).await?;
        if reply.number()? == 0 {
            return Ok(None);
        }
        Ok(Some(parse_entries(reply)?))
    }

    async fn advance_watermarks(
        &self,
        archived: &[(RoomId, Epoch, ArchivedRanges)],
    ) -> Result<Vec<u64>> {
        let calls: Vec<_> = self
            .group_by_call(archived)
            .into_iter()
            .map(|rooms| self.advance(archived, rooms))
            .collect();
        let mut calls = stream::iter(calls).buffer_unordered(CONCURRENT_PARTITIONS);
        let mut watermarks = vec![0; archived.len()];
        let mut fault = None;
        while let Some(ended) = calls.next().await {
            match ended {
                Ok(rooms) => {
                    for (index, watermark) in rooms {
                        watermarks[index] = watermark;
                    }
                }
                Err(error) => fault = Some(error),
            }
        }
        match fault {
            Some(fault) => Err(fault.into()),
            None => Ok(watermarks),
        }
    }

    async fn unarchived(&self, older_than: Duration, limit: usize) -> Result<Vec<Unarchived>> {
        let rooms = Partition::all().filter(|partition| partition.holds_rooms());
        if !self.link.is_cluster {
            return Ok(self
                .take_unarchived(rooms.collect(), older_than, limit)
                .await?);
        }
        let rooms: Vec<_> = rooms.collect();
        let from = self.unarchived_round.0.fetch_add(1, Ordering::Relaxed) * PARTITIONS_PER_ROUND;
        let share = limit.div_ceil(PARTITIONS_PER_ROUND / 4);
        let visits: Vec<_> = (from..from + PARTITIONS_PER_ROUND)
            .map(|n| self.take_unarchived(vec![rooms[n % rooms.len()]], older_than, share))
            .collect();
        let mut visits = stream::iter(visits).buffer_unordered(CONCURRENT_PARTITIONS);
        let (mut found, mut fault) = (Vec::new(), None);
        while let Some(visit) = visits.next().await {
            match visit {
                Ok(rooms) => found.extend(rooms),
                Err(error) => fault = Some(error),
            }
        }
        match fault {
            // One server that is away must not hide the rooms of the others.
            Some(fault) if found.is_empty() => Err(fault.into()),
            _ => Ok(found),
        }
    }

    async fn diverged(&self, room: &RoomId, epoch: &Epoch, shared: u64) -> Result<()> {
        let args = vec![
            encode_name(room.as_str()).into(),
            epoch.as_str().into(),
            shared.to_string().into(),
        ];
        let partition = Partition::of_room(room);
        self.link.run(&DIVERGED, partition, args).await?;
        Ok(())
    }

    async fn trim(&self, room: &RoomId, cut: u64) -> Result<()> {
        let args = vec![encode_name(room.as_str()).into(), cut.to_string().into()];
        let partition = Partition::of_room(room);
        self.link.run(&TRIM, partition, args).await?;
        Ok(())
    }
}

/// A room of a call that advances watermarks.
type Archived = (RoomId, Epoch, ArchivedRanges);

impl Node {
    /// The rooms of each call, by their index: in a cluster those of one partition, else any.
    fn group_by_call(&self, archived: &[Archived]) -> Vec<Vec<usize>> {
        let mut queues: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, (room, ..)) in archived.iter().enumerate() {
            let queue = self.link.append_queue(Partition::of_room(room));
            queues.entry(queue).or_default().push(index);
        }
        let calls = queues
            .values()
            .flat_map(|rooms| rooms.chunks(ROOMS_PER_CALL));
        calls.map(<[usize]>::to_vec).collect()
    }

    /// Advances the watermarks of some of the rooms, given by their index. Returns them, each with its
    /// index.
    async fn advance(
        &self,
        archived: &[Archived],
        indices: Vec<usize>,
    ) -> std::result::Result<Vec<(usize, u64)>, Fault> {
        let Some(first) = indices.first() else {
            return Ok(Vec::new());
        };
        let partition = Partition::of_room(&archived[*first].0);
        let rooms = indices.iter().map(|index| &archived[*index]);
        let mut permanent_rooms = String::new();
        for (room, _, _) in rooms.clone() {
            if is_permanent(room) {
                permanent_rooms.extend([" ", &encode_name(room.as_str()), " "]);
            }
        }
        let mut args: Vec<Value> = vec![
            self.link.archive.name(),
            millis(self.limits.history_ttl).into(),
            permanent_rooms.into(),
        ];
        for (room, epoch, ranges) in rooms {
            args.extend([
                Value::String(self.link.keys.tag(Partition::of_room(room)).clone()),
                encode_name(room.as_str()).into(),
                epoch.as_str().into(),
                ranges_text(ranges).into(),
            ]);
        }
        let mut reply = self.link.run(&ARCHIVED, partition, args).await?;
        let numbered = indices
            .into_iter()
            .map(|index| Ok((index, reply.number()?)));
        numbered.collect()
    }

    /// Takes rooms with unarchived entries out of these partitions, which share a server.
    async fn take_unarchived(
        &self,
        partitions: Vec<Partition>,
        older_than: Duration,
        limit: usize,
    ) -> std::result::Result<Vec<Unarchived>, Fault> {
        let age = i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX / 4);
        let mut args = vec![age.into(), limit_arg(limit)];
        let tags = partitions
            .iter()
            .map(|&partition| self.link.keys.tag(partition));
        args.extend(tags.map(|tag| Value::String(tag.clone())));
        let reply = self.link.run(&UNARCHIVED, partitions[0], args).await?;
        parse_unarchived(reply)
    }
}

fn ranges_text(ranges: &[RangeInclusive<u64>]) -> String {
    let ranges: Vec<_> = ranges
        .iter()
        .map(|range| format!("{} {}", range.start(), range.end()))
        .collect();
    ranges.join(" ")
}

/// Parses ranges: `<first> <last> <first> <last> …`.
pub(super) fn parse_ranges(ranges: &str) -> std::result::Result<ArchivedRanges, Fault> {
    let words: Vec<_> = ranges.split_ascii_whitespace().collect();
    let number = |word: &str| {
        word.parse::<u64>()
            .map_err(|_| Fault::broken("the bound of a range isn't a number"))
    };
    let ranges = words.chunks_exact(2);
    ranges
        .map(|pair| Ok(number(pair[0])?..=number(pair[1])?))
        .collect()
}

/// Parses the reply of `unarchived.lua`.
pub(super) fn parse_unarchived(
    mut reply: ScriptReply,
) -> std::result::Result<Vec<Unarchived>, Fault> {
    let mut rooms = Vec::new();
    while !reply.is_empty() {
        let name = decode_name(&reply.text()?);
        rooms.push(Unarchived {
            room: RoomId::trusted(&name.ok_or(Fault::broken("a room's name is malformed"))?),
            watermark: reply.number()?,
            head: reply.number()?,
            archived: parse_ranges(&reply.text()?)?,
        });
    }
    Ok(rooms)
}
