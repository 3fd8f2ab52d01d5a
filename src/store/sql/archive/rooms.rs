//! Rooms: their numbers, and their extent in the archive.

use std::collections::BTreeMap;

use ahash::AHashMap;

use super::entries::check_name;
use super::{epochs, loaded, rows, stored};
use crate::domain::RoomId;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::value::{Arg, Text, args};
use crate::store::{ArchivedRoom, EPOCHS_KEPT, Result, RoomNumber};

/// The ends of a room are found by the keys, however long it is. Losses don't overlap.
const ROOM: &str = "SELECT CAST(r.no AS {bigint}), r.contiguous_seq, r.cut_seq, \
    (SELECT e.seq FROM hubbub_entries e WHERE e.room_no = r.no ORDER BY e.seq LIMIT 1), \
    (SELECT e.seq FROM hubbub_entries e WHERE e.room_no = r.no ORDER BY e.seq DESC LIMIT 1), \
    (SELECT g.last_seq FROM hubbub_gaps g WHERE g.room_no = r.no \
    ORDER BY g.first_seq DESC LIMIT 1) \
    FROM hubbub_rooms r WHERE r.name = ?";

type RoomRow = (i64, i64, i64, Option<i64>, Option<i64>, Option<i64>);

pub(super) async fn room(db: &Db, room: &RoomId) -> Result<Option<ArchivedRoom>> {
    let room = room.clone();
    db.read(move |conn| {
        let room = room.clone();
        Box::pin(async move { room_in(conn, &room).await })
    })
    .await
}

async fn room_in(conn: &mut Conn, room: &RoomId) -> Outcome<Option<ArchivedRoom>> {
    let found: Option<RoomRow> = conn.first(ROOM, args![room.as_str()]).await?;
    let Some(row) = found else { return Ok(None) };
    let epochs = epochs::newest(conn, row.0, EPOCHS_KEPT).await?;
    let begun = stored(epochs::last_begun(&epochs))?;
    Ok(Some(ArchivedRoom {
        epochs,
        ..extent(row, begun)
    }))
}

/// The last number of a room in the archive, in the caller's transaction; 0 for a room without entries.
pub(in crate::store::sql) async fn head(conn: &mut Conn, room: &RoomId) -> Outcome<u64> {
    let room = room_in(conn, room).await?;
    Ok(room.map_or(0, |room| room.head))
}

/// `begun`: the last number before an epoch.
fn extent((_, contiguous, cut, first, last, last_lost): RoomRow, begun: i64) -> ArchivedRoom {
    let last_lost = last_lost.unwrap_or(0);
    let head = last.unwrap_or(0).max(cut).max(last_lost).max(begun);
    let first = first.unwrap_or(head + 1);
    ArchivedRoom {
        first: loaded(first),
        oldest: loaded(first.max(cut + 1).max(last_lost + 1)),
        head: loaded(head),
        contiguous: loaded(contiguous.max(cut).min(head)),
        epochs: Vec::new(),
    }
}

/// A room's row, locked until the end of the transaction.
pub(super) struct LockedRoom {
    pub(super) no: i64,
    pub(super) cut: i64,
}

/// Locks a room. `None` if the archive doesn't know it.
pub(super) async fn lock(conn: &mut Conn, room: &RoomId) -> Outcome<Option<LockedRoom>> {
    const LOCK: &str = "SELECT CAST(no AS {bigint}), cut_seq FROM hubbub_rooms \
        WHERE name = ? {for_update}";
    let found: Option<(i64, i64)> = conn.first(LOCK, args![room.as_str()]).await?;
    Ok(found.map(|(no, cut)| LockedRoom { no, cut }))
}

/// As [`lock`]; false if the archive doesn't know the room.
pub(in crate::store::sql) async fn lock_room(conn: &mut Conn, room: &RoomId) -> Outcome<bool> {
    Ok(lock(conn, room).await?.is_some())
}

/// The last number of each of these rooms that retention has deleted, if there is one.
pub(super) async fn cuts(conn: &mut Conn, room_nos: &[i64]) -> Outcome<AHashMap<i64, i64>> {
    const CUTS: &str = "SELECT CAST(no AS {bigint}), cut_seq FROM hubbub_rooms \
        WHERE no IN ({list}) AND cut_seq > 0";
    if room_nos.is_empty() {
        return Ok(AHashMap::new());
    }
    let (text, args) = epochs::listed(conn, CUTS, room_nos);
    let found: Vec<(i64, i64)> = conn.all_of_text(text, args).await?;
    Ok(found.into_iter().collect())
}

/// Locks rooms by their numbers, in order.
pub(super) async fn lock_numbers(conn: &mut Conn, room_nos: &[i64]) -> Outcome<()> {
    const LOCK: &str = "SELECT CAST(no AS {bigint}) FROM hubbub_rooms WHERE no IN ({list}) \
        ORDER BY no {for_update}";
    let (text, args) = epochs::listed(conn, LOCK, room_nos);
    let _: Vec<(i64,)> = conn.all_of_text(text, args).await?;
    Ok(())
}

/// Locks a room, which is added if the archive doesn't know it.
pub(super) async fn lock_or_add(conn: &mut Conn, room: &RoomId) -> Outcome<LockedRoom> {
    if let Some(locked) = lock(conn, room).await? {
        return Ok(locked);
    }
    add(conn, &[room]).await?;
    let locked = lock(conn, room).await?;
    locked.ok_or_else(|| Fault::Again("a room was removed".to_owned()))
}

async fn add(conn: &mut Conn, rooms: &[&RoomId]) -> Outcome<()> {
    const ADD: &str = "INSERT INTO hubbub_rooms (name) VALUES {rows:1} {if_absent:name}";
    for room in rooms {
        check_name(room.as_str())?;
    }
    let (text, args) = listed(conn, ADD, rooms);
    conn.run_text(text, args).await?;
    Ok(())
}

/// The number of a room, which is added if the archive doesn't know it.
pub(in crate::store::sql) async fn number(conn: &mut Conn, room: &RoomId) -> Outcome<i64> {
    let numbers = numbers(conn, &[room]).await?;
    let number = numbers.get(room).copied();
    number.ok_or_else(|| Fault::Again("a room was removed".to_owned()))
}

/// The numbers of rooms, in the order of their names. Rooms that the archive doesn't know are added.
pub(in crate::store::sql) async fn numbers(
    conn: &mut Conn,
    rooms: &[&RoomId],
) -> Outcome<BTreeMap<RoomId, i64>> {
    let found = find(conn, rooms).await?;
    let absent: Vec<&RoomId> = rooms
        .iter()
        .copied()
        .filter(|room| !found.contains_key(*room))
        .collect();
    if absent.is_empty() {
        return Ok(found);
    }
    add(conn, &absent).await?;
    let found = find(conn, rooms).await?;
    if found.len() < rooms.len() {
        return Err(Fault::Again("a room was removed".to_owned()));
    }
    Ok(found)
}

/// The number of a room; `None` if the archive doesn't know it.
pub(in crate::store::sql) async fn find_number(
    conn: &mut Conn,
    room: &RoomId,
) -> Outcome<Option<i64>> {
    const FIND: &str = "SELECT CAST(no AS {bigint}) FROM hubbub_rooms WHERE name = ?";
    let found: Option<(i64,)> = conn.first(FIND, args![room.as_str()]).await?;
    Ok(found.map(|(number,)| number))
}

/// The numbers of the rooms that the archive knows.
pub(in crate::store::sql) async fn find(
    conn: &mut Conn,
    rooms: &[&RoomId],
) -> Outcome<BTreeMap<RoomId, i64>> {
    const FIND: &str = "SELECT CAST(no AS {bigint}), name FROM hubbub_rooms WHERE name IN ({list})";
    let (text, args) = listed(conn, FIND, rooms);
    let found: Vec<(i64, Text)> = conn.all_of_text(text, args).await?;
    let named: AHashMap<&str, &RoomId> = rooms.iter().map(|room| (room.as_str(), *room)).collect();
    let mut numbers = BTreeMap::new();
    for (number, name) in found {
        let room = named.get(name.0.as_str());
        let room = room.ok_or_else(|| Fault::Broken("another room was found".to_owned()))?;
        numbers.insert((*room).clone(), number);
    }
    Ok(numbers)
}

/// The text and values of a statement with a list of rooms.
fn listed(conn: &Conn, template: &'static str, rooms: &[&RoomId]) -> (&'static str, Vec<Arg>) {
    let names = rooms.iter().map(|room| Arg::from(room.as_str()));
    conn.dialect().with_list(template, names)
}

/// Pages are in the order of the numbers, so a room that is added meanwhile may be left out.
pub(super) async fn page(db: &Db, after: u64, limit: usize) -> Result<Vec<(u64, RoomId)>> {
    const ROOMS_AFTER: &str =
        "SELECT CAST(no AS {bigint}), name FROM hubbub_rooms WHERE no > ? ORDER BY no LIMIT ?";
    let found: Vec<(i64, Text)> = db
        .all(ROOMS_AFTER, args![stored(after)?, rows(limit)])
        .await?;
    let room = |(no, name): (i64, Text)| (loaded(no), RoomId::trusted(&name.0));
    Ok(found.into_iter().map(room).collect())
}

pub(super) async fn mark_contiguous(db: &Db, rooms: &[RoomNumber]) -> Result<()> {
    const MARK: &str =
        "UPDATE hubbub_rooms SET contiguous_seq = ? WHERE name = ? AND contiguous_seq < ?";
    if rooms.is_empty() {
        return Ok(());
    }
    // In one order everywhere, so that two nodes don't form a deadlock.
    let mut marks = Vec::with_capacity(rooms.len());
    for (room, seq) in rooms {
        marks.push((room.clone(), stored(*seq)?));
    }
    marks.sort();
    db.transaction(move |conn| {
        let marks = marks.clone();
        Box::pin(async move {
            for (room, seq) in marks {
                conn.run(MARK, args![seq, room.as_str(), seq]).await?;
            }
            Ok(())
        })
    })
    .await
}

pub(super) async fn begin_at(db: &Db, room: &RoomId, first: u64) -> Result<()> {
    const BEGIN: &str = "UPDATE hubbub_rooms SET cut_seq = ? WHERE no = ? AND cut_seq < ? \
        AND NOT EXISTS (SELECT 1 FROM hubbub_entries e WHERE e.room_no = ? AND e.seq <= ?)";
    let (room, cut) = (room.clone(), stored(first.saturating_sub(1))?);
    db.transaction(move |conn| {
        let room = room.clone();
        Box::pin(async move {
            let room_no = lock_or_add(conn, &room).await?.no;
            let args = args![cut, room_no, cut, room_no, cut];
            conn.run(BEGIN, args).await?;
            Ok(())
        })
    })
    .await
}
