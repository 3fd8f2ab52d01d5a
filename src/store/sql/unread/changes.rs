//! Changes of entries that are projected already. Each is a part of the transaction that makes it.

use std::collections::BTreeMap;

use ahash::AHashMap;

use super::block::block_of;
use super::project::{HOLE_AGE, OLD_AGE};
use super::rooms::{self, LockedRoom, NOT_CAPPED, Seen};
use crate::store::sql::accounts::now;
use crate::store::sql::conn::Conn;
use crate::store::sql::dialect::MAX_LIST;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::value::{Arg, args};

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

/// Messages were added, at these times, that may have lower numbers than others that are projected. Called
/// before the transaction that adds them ends: no room is projected past one of them meanwhile.
///
/// A room is locked only if it is projected so far already, or may be before the transaction ends. New
/// messages need no lock.
pub(in crate::store::sql) async fn entries_added(
    conn: &mut Conn,
    messages: impl IntoIterator<Item = ((i64, i64), u64)>,
) -> Outcome<()> {
    let mut first: BTreeMap<i64, Added> = BTreeMap::new();
    for ((room_no, seq), at) in messages {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        let added = first.entry(room_no).or_insert(Added { seq, at });
        added.seq = seq.min(added.seq);
        added.at = at.min(added.at);
    }
    if first.is_empty() {
        return Ok(());
    }
    let now = now(conn).await?;
    let room_nos: Vec<i64> = first.keys().copied().collect();
    for part in room_nos.chunks(MAX_LIST) {
        let states = states(conn, part).await?;
        let mut late = part.to_vec();
        late.retain(|no| first[no].is_late(states.get(no), now));
        if late.is_empty() {
            continue;
        }
        for mut room in rooms::lock(conn, &late).await? {
            let seq = first[&room.no].seq;
            if seq <= room.projected {
                room.go_back(conn, seq - 1).await?;
            }
        }
    }
    Ok(())
}

/// The lowest number and the earliest time of the messages that were added to a room.
struct Added {
    seq: i64,
    at: i64,
}

impl Added {
    /// Whether the room may be projected past the messages before the transaction ends, which takes much
    /// less than half of either age.
    fn is_late(&self, state: Option<&State>, now: i64) -> bool {
        if now - self.at >= OLD_AGE / 2 {
            return true;
        }
        state.is_some_and(|state| {
            let is_long = self.seq < state.seen.seq && now - state.seen.at >= HOLE_AGE / 2;
            self.seq <= state.projected || is_long
        })
    }
}

/// The state of a room that is not locked.
struct State {
    projected: i64,
    seen: Seen,
}

async fn states(conn: &mut Conn, room_nos: &[i64]) -> Outcome<AHashMap<i64, State>> {
    const STATES: &str = "SELECT CAST(room_no AS {bigint}), projected_seq, seen_seq, seen_at \
        FROM hubbub_unread_rooms WHERE room_no IN ({list})";
    let numbers = room_nos.iter().map(|no| Arg::from(*no));
    let (text, values) = conn.dialect().with_list(STATES, numbers);
    let found: Vec<(i64, i64, i64, i64)> = conn.all_of_text(text, values).await?;
    let state = |(no, projected, seq, at)| {
        let seen = Seen { seq, at };
        (no, State { projected, seen })
    };
    Ok(found.into_iter().map(state).collect())
}
