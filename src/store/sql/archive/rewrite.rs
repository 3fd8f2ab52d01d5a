//! Rewriting records that have the name of a user.

use super::entries::{EntryRow, decoded};
use super::form::{self, Columns};
use crate::domain::RoomId;
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Text, args};
use crate::store::{Rewrite, StoredKind};

/// Entries that one step examines, and rooms that it looks into.
const ENTRIES_PER_STEP: i64 = 1000;
const ROOMS_PER_STEP: usize = 50;

/// A position in all entries: the last one that was examined.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::sql) struct Position {
    pub room_no: i64,
    pub seq: i64,
}

/// The end of a step.
pub(in crate::store::sql) struct Step {
    /// The new position; `None` after the last entry.
    pub position: Option<Position>,
    /// The entries that were rewritten.
    pub rewritten: i64,
}

/// Rewrites the user's entries after a position, and changes, which may have names of several users.
pub(in crate::store::sql) async fn next(
    conn: &mut Conn,
    mut position: Position,
    user: &str,
    rewrite: &Rewrite,
) -> Outcome<Step> {
    const NEXT_ROOM: &str = "SELECT CAST(MIN(no) AS {bigint}) FROM hubbub_rooms WHERE no > ?";
    const WINDOW: &str = "SELECT MAX(t.seq), COUNT(*) FROM (SELECT seq FROM hubbub_entries \
        WHERE room_no = ? AND seq > ? ORDER BY seq LIMIT ?) t";
    let mut rewritten = 0;
    let mut left = ENTRIES_PER_STEP;
    for _ in 0..ROOMS_PER_STEP {
        let window = args![position.room_no, position.seq, left];
        let found: Option<(Option<i64>, i64)> = conn.first(WINDOW, window).await?;
        if let Some((Some(last), count)) = found {
            rewritten += rewrite_range(conn, position, last, user, rewrite).await?;
            position.seq = last;
            left -= count;
            if left <= 0 {
                break;
            }
        }
        let room: Option<(Option<i64>,)> = conn.first(NEXT_ROOM, args![position.room_no]).await?;
        let Some((Some(room_no),)) = room else {
            // The next step counts the rewritten rows, and finds nothing.
            let is_done = rewritten == 0;
            return Ok(Step {
                position: if is_done { None } else { Some(position) },
                rewritten,
            });
        };
        position = Position { room_no, seq: 0 };
    }
    Ok(Step {
        position: Some(position),
        rewritten,
    })
}

async fn rewrite_range(
    conn: &mut Conn,
    after: Position,
    last: i64,
    user: &str,
    rewrite: &Rewrite,
) -> Outcome<i64> {
    const ROOM: &str = "SELECT name FROM hubbub_rooms WHERE no = ?";
    const READ: &str = "SELECT e.seq, e.at, CAST(e.kind AS {bigint}), CAST(e.form AS {bigint}), \
        e.id, e.user_id, e.send_key, e.record, \
        (SELECT p.name FROM hubbub_epochs p \
         WHERE p.room_no = e.room_no AND p.epoch_no = e.epoch_no) \
        FROM hubbub_entries e WHERE e.room_no = ? AND e.seq > ? AND e.seq <= ? \
        AND (e.user_id = ? OR e.kind = ?) ORDER BY e.seq";
    const WRITE: &str =
        "UPDATE hubbub_entries SET form = ?, record = ? WHERE room_no = ? AND seq = ?";
    let room: Option<(Text,)> = conn.first(ROOM, args![after.room_no]).await?;
    let Some((room,)) = room else { return Ok(0) };
    let room = RoomId::trusted(&room.0);
    let values = args![after.room_no, after.seq, last, user, StoredKind::CHANGE.0];
    let rows: Vec<EntryRow> = conn.all(READ, values).await?;
    let mut rewritten = 0;
    for row in rows {
        let seq = row.0;
        let entry = decoded(&room, row)?;
        let Some(record) = rewrite(&entry.record) else {
            continue;
        };
        let columns = Columns {
            id: entry.id,
            room: room.as_str(),
            user: entry.user.as_str(),
            send_key: entry.send_key.as_deref(),
        };
        let (form, record) = form::shorten(&record, &columns);
        conn.run(WRITE, args![form, record, after.room_no, seq])
            .await?;
        rewritten += 1;
    }
    Ok(rewritten)
}
