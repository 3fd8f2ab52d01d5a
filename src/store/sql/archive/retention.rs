//! Deleting old entries.

use super::rooms::{self, LockedRoom};
use super::{MESSAGE_TABLES, loaded, rows, stored};
use crate::domain::{RoomId, Timestamp};
use crate::store::Result;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::unread;
use crate::store::sql::value::args;

/// Entries that are read by one statement. [`expired`] reads the first one alone: in most
/// rooms nothing has expired.
const ENTRIES_PER_PAGE: usize = 10_000;

pub(super) async fn expired(db: &Db, room: &RoomId, cutoff: Timestamp) -> Result<Option<u64>> {
    const FIND_EXPIRED: &str = "SELECT COUNT(*), MAX(t.seq), MIN(CASE WHEN t.at >= ? THEN t.seq END) FROM \
        (SELECT seq, at FROM hubbub_entries \
        WHERE room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) AND seq > ? \
        ORDER BY seq LIMIT ?) t";
    let cutoff = stored(cutoff.0)?;
    let (mut lower, mut limit) = (0, 1);
    loop {
        let args = args![cutoff, room.as_str(), lower, rows(limit)];
        let page: Vec<(i64, Option<i64>, Option<i64>)> = db.all(FIND_EXPIRED, args).await?;
        let (count, last, young) = page.first().copied().unwrap_or((0, None, None));
        if let Some(young) = young {
            return before(db, room, young).await;
        }
        lower = last.unwrap_or(lower);
        if count < rows(limit) {
            return Ok((lower > 0).then_some(loaded(lower)));
        }
        limit = ENTRIES_PER_PAGE;
    }
}

/// The last entry before a number.
async fn before(db: &Db, room: &RoomId, seq: i64) -> Result<Option<u64>> {
    const BEFORE: &str = "SELECT seq FROM hubbub_entries \
        WHERE room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) AND seq < ? \
        ORDER BY seq DESC LIMIT 1";
    let found: Vec<(i64,)> = db.all(BEFORE, args![room.as_str(), seq]).await?;
    Ok(found.first().map(|(seq,)| loaded(*seq)))
}

pub(super) async fn delete_up_to(
    db: &Db,
    room: &RoomId,
    cut: u64,
    limit: usize,
) -> Result<(u64, u64)> {
    let (room, cut) = (room.clone(), stored(cut)?);
    db.transaction(move |conn| {
        let room = room.clone();
        Box::pin(async move {
            match rooms::lock(conn, &room).await? {
                Some(room) => delete_step(conn, &room, cut, limit).await,
                None => Ok((0, 0)),
            }
        })
    })
    .await
}

async fn delete_step(
    conn: &mut Conn,
    room: &LockedRoom,
    cut: i64,
    limit: usize,
) -> Outcome<(u64, u64)> {
    const OLDEST: &str = "SELECT COUNT(*), MAX(t.seq), \
        CAST(COALESCE(SUM(t.bytes), 0) AS {bigint}) FROM \
        (SELECT seq, LENGTH(record) AS bytes FROM hubbub_entries \
        WHERE room_no = ? AND seq <= ? ORDER BY seq LIMIT ?) t";
    const CUT: &str = "UPDATE hubbub_rooms SET cut_seq = ? WHERE no = ? AND cut_seq < ?";
    const FORGET_LOSSES: &str = "DELETE FROM hubbub_gaps WHERE room_no = ? AND last_seq <= ?";
    const FORGET_THREADS: &str =
        "DELETE FROM hubbub_thread_positions WHERE room_no = ? AND root_seq <= ?";
    let args = args![room.no, cut, rows(limit)];
    let oldest: Option<(i64, Option<i64>, i64)> = conn.first(OLDEST, args).await?;
    let Some((entries, Some(last), bytes)) = oldest else {
        return Ok((0, 0));
    };
    for table in MESSAGE_TABLES {
        let no = room.no;
        let delete = format!("DELETE FROM {table} WHERE room_no = {no} AND seq <= {last}");
        conn.raw(&delete).await?;
    }
    conn.run(CUT, args![last, room.no, last]).await?;
    let cut = last.max(room.cut);
    conn.run(FORGET_LOSSES, args![room.no, cut]).await?;
    conn.run(FORGET_THREADS, args![room.no, cut]).await?;
    unread::entries_cut(conn, room.no, cut).await?;
    Ok((loaded(entries), loaded(bytes)))
}

pub(super) async fn count_up_to(db: &Db, room: &RoomId, cut: u64) -> Result<(u64, u64)> {
    const COUNT_EXPIRED: &str = "SELECT COUNT(*), MAX(t.seq), \
        CAST(COALESCE(SUM(t.bytes), 0) AS {bigint}) FROM \
        (SELECT seq, LENGTH(record) AS bytes FROM hubbub_entries \
        WHERE room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) AND seq > ? AND seq <= ? \
        ORDER BY seq LIMIT ?) t";
    let cut = stored(cut)?;
    let (mut lower, mut entries, mut bytes) = (0, 0, 0);
    loop {
        let args = args![room.as_str(), lower, cut, rows(ENTRIES_PER_PAGE)];
        let page: Vec<(i64, Option<i64>, i64)> = db.all(COUNT_EXPIRED, args).await?;
        let Some((count, Some(last), size)) = page.first().copied() else {
            return Ok((loaded(entries), loaded(bytes)));
        };
        entries += count;
        bytes += size;
        lower = last;
    }
}
