//! Changes of entries that are projected already. Each is a part of the transaction that makes it.

use std::collections::BTreeMap;

use super::block::block_of;
use super::rooms::{self, LockedRoom, NOT_CAPPED};
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::value::args;

/// The most rooms that one statement locks.
const MAX_LIST: usize = 500;

async fn lock_one(conn: &mut Conn, room_no: i64) -> Outcome<LockedRoom> {
    let locked = rooms::lock(conn, &[room_no]).await?;
    let room = locked.first().copied();
    room.ok_or_else(|| Fault::Again("a room was removed".to_owned()))
}

/// A message was deleted. If it is not projected yet, the lock lets the projection wait for the deletion.
pub(in crate::store::sql) async fn message_deleted(
    conn: &mut Conn,
    room_no: i64,
    seq: i64,
) -> Outcome<()> {
    let mut room = lock_one(conn, room_no).await?;
    if room.capped != NOT_CAPPED && seq > room.capped {
        // One message less after that number: the next projection finds another number.
        room.capped = NOT_CAPPED;
        room.store(conn).await?;
    }
    if seq > room.projected {
        return Ok(());
    }
    let number = block_of(seq);
    if let Some(mut block) = room.block(conn, number).await?
        && block.remove(seq)
    {
        room.store_block(conn, number, &block, false).await?;
    }
    Ok(())
}

/// Retention has deleted the entries up to `cut`.
pub(in crate::store::sql) async fn entries_cut(
    conn: &mut Conn,
    room_no: i64,
    cut: i64,
) -> Outcome<()> {
    const FORGET: &str = "DELETE FROM hubbub_unread_blocks WHERE room_no = ? AND block < ?";
    let mut room = lock_one(conn, room_no).await?;
    let number = block_of(cut);
    conn.run(FORGET, args![room_no, number]).await?;
    if let Some(mut block) = room.block(conn, number).await? {
        block.retain(number, cut, i64::MAX);
        room.store_block(conn, number, &block, false).await?;
    }
    room.projected = room.projected.max(cut);
    if cut > room.capped {
        room.capped = NOT_CAPPED;
    }
    room.store(conn).await
}

/// Messages were added that may have lower numbers than others that are projected. Called before the
/// transaction that adds them ends: no room is projected past one of them meanwhile.
pub(in crate::store::sql) async fn entries_added(
    conn: &mut Conn,
    keys: impl IntoIterator<Item = (i64, i64)>,
) -> Outcome<()> {
    let mut first: BTreeMap<i64, i64> = BTreeMap::new();
    for (room_no, seq) in keys {
        let known = first.entry(room_no).or_insert(seq);
        *known = seq.min(*known);
    }
    let room_nos: Vec<i64> = first.keys().copied().collect();
    for part in room_nos.chunks(MAX_LIST) {
        for mut room in rooms::lock(conn, part).await? {
            if let Some(seq) = first.get(&room.no)
                && *seq <= room.projected
            {
                room.go_back(conn, seq - 1).await?;
            }
        }
    }
    Ok(())
}
