//! How far users have read rooms.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::announcements::{self, Announced};
use super::count;
use crate::domain::{RoomId, Timestamp, UserId};
use crate::store::sql::accounts::{loaded_time, now};
use crate::store::sql::archive;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::dialect::exact_parts;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::store::SqlStore;
use crate::store::sql::value::{Text, args};
use crate::store::{NewPosition, ReadPosition, Result};

/// The positions that one transaction adds.
const POSITIONS_PER_TRANSACTION: usize = 200;

/// How a call may move a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Any,
}

/// A position, as its row has it.
#[derive(Debug, Clone, Copy)]
struct Stored {
    seq: i64,
    announced: Announced,
}

pub(super) async fn move_to(
    store: &SqlStore,
    position: &NewPosition,
    direction: Direction,
) -> Result<ReadPosition> {
    let position = position.clone();
    let moved = store.db().transaction(move |conn| {
        let position = position.clone();
        Box::pin(async move { move_in(conn, &position, direction).await })
    });
    let (read, has_row) = moved.await?;
    if has_row {
        store.announce_rows();
    }
    Ok(read)
}

async fn move_in(
    conn: &mut Conn,
    position: &NewPosition,
    direction: Direction,
) -> Outcome<(ReadPosition, bool)> {
    let user = &position.user;
    let Some(room_no) = room_number(conn, position).await? else {
        return Ok((ReadPosition::default(), false));
    };
    let stored = lock(conn, user, room_no).await?;
    let hidden = bound(position.hidden_seq);
    let present = match stored {
        Some(stored) => stored.seq,
        None => joined_seq(conn, position).await?,
    };
    let present = present.max(hidden);
    let wanted = match direction {
        Direction::Up => bound(position.seq).max(present),
        Direction::Any => bound(position.seq).max(hidden),
    };
    let has_moved = wanted != present;
    let has_row = has_moved && store_moved(conn, position, (room_no, wanted), stored).await?;
    let unread = count::at_position(conn, user, room_no, wanted).await?;
    let read = ReadPosition {
        last_read_seq: u64::try_from(wanted).unwrap_or(0),
        unread,
        has_moved,
    };
    Ok((read, has_row))
}

/// The number of the room. Rooms that the archive does not know are added, except for a user without an
/// account that has read nothing there: both may be made up.
async fn room_number(conn: &mut Conn, position: &NewPosition) -> Outcome<Option<i64>> {
    if position.has_feed || position.seq > 0 {
        return archive::room_number(conn, &position.room).await.map(Some);
    }
    let found = archive::find_numbers(conn, &[&position.room]).await?;
    Ok(found.get(&position.room).copied())
}

/// Stores a position that has moved. Returns whether a row was added to the outbox.
async fn store_moved(
    conn: &mut Conn,
    position: &NewPosition,
    (room_no, wanted): (i64, i64),
    stored: Option<Stored>,
) -> Outcome<bool> {
    const MOVE: &str = "UPDATE hubbub_positions \
        SET read_seq = ?, at = ?, announced_row = ?, announce_after = ? \
        WHERE user_id = ? AND room_no = ?";
    let user = &position.user;
    let now = now(conn).await?;
    if stored.is_none() {
        add(conn, user, room_no, wanted, now).await?;
        // Waits for another call that has added it, whose position counts.
        let added = lock(conn, user, room_no).await?;
        if added.is_none_or(|added| added.seq != wanted) {
            return Err(Fault::Again(
                "another call has moved the position".to_owned(),
            ));
        }
    }
    let announced = stored.map(|stored| stored.announced).unwrap_or_default();
    let new = if position.has_feed {
        announcements::announce(conn, (user, &position.room), announced, now).await?
    } else {
        None
    };
    if stored.is_some() || new.is_some() {
        let Announced { last, next_at } = new.unwrap_or(announced);
        let values = args![wanted, now, last, next_at, user.as_str(), room_no];
        conn.run(MOVE, values).await?;
    }
    Ok(new.is_some())
}

/// A number of a client: a larger one than any that a room can have counts as the largest.
fn bound(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX / 2).min(i64::MAX / 2)
}

async fn lock(conn: &mut Conn, user: &UserId, room_no: i64) -> Outcome<Option<Stored>> {
    const LOCK: &str = "SELECT read_seq, announced_row, announce_after FROM hubbub_positions \
        WHERE user_id = ? AND room_no = ? {for_update}";
    type Row = (i64, Option<i64>, i64);
    let found: Option<Row> = conn.first(LOCK, args![user.as_str(), room_no]).await?;
    Ok(found.map(|(seq, last, next_at)| Stored {
        seq,
        announced: Announced { last, next_at },
    }))
}

async fn add(conn: &mut Conn, user: &UserId, room_no: i64, seq: i64, now: i64) -> Outcome<()> {
    const ADD: &str = "INSERT INTO hubbub_positions (user_id, room_no, read_seq, at) \
        VALUES (?, ?, ?, ?) {if_absent:user_id}";
    let values = args![user.as_str(), room_no, seq, now];
    conn.run(ADD, values).await.map(drop)
}

/// The position of a user without a row: in a chat the last number before it became a member, else 0.
async fn joined_seq(conn: &mut Conn, position: &NewPosition) -> Outcome<i64> {
    const FIND: &str = "SELECT joined_seq FROM hubbub_chat_members \
        WHERE chat_id = ? AND user_id = ?";
    let user = Uuid::try_parse(position.user.as_str());
    let (Some(chat), Ok(user)) = (position.room.chat_id(), user) else {
        return Ok(0);
    };
    let found: Option<(i64,)> = conn.first(FIND, args![chat, user]).await?;
    Ok(found.map_or(0, |(seq,)| seq))
}

pub(super) async fn joined(db: &Db, users: &[(UserId, RoomId, u64)]) -> Result<()> {
    let mut users = users.to_vec();
    // In one order everywhere, so that two nodes don't form a deadlock.
    users.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
    users.dedup_by(|one, other| (&one.0, &one.1) == (&other.0, &other.1));
    for part in users.chunks(POSITIONS_PER_TRANSACTION) {
        let part = part.to_vec();
        db.transaction(move |conn| {
            let part = part.clone();
            Box::pin(async move { joined_in(conn, &part).await })
        })
        .await?;
    }
    Ok(())
}

async fn joined_in(conn: &mut Conn, users: &[(UserId, RoomId, u64)]) -> Outcome<()> {
    const ADD: &str = "INSERT INTO hubbub_positions (user_id, room_no, read_seq, at) \
        VALUES {rows:4} {if_absent:user_id}";
    let now = now(conn).await?;
    let rooms: BTreeSet<&RoomId> = users.iter().map(|(_, room, _)| room).collect();
    let rooms: Vec<&RoomId> = rooms.into_iter().collect();
    let numbers = archive::room_numbers(conn, &rooms).await?;
    let mut rows = users.iter();
    for part in exact_parts(users.len()) {
        let mut values = Vec::with_capacity(4 * part);
        for (user, room, seq) in rows.by_ref().take(part) {
            let room_no = numbers.get(room).copied();
            let room_no = room_no.ok_or_else(|| Fault::Again("a room was removed".to_owned()))?;
            values.extend(args![user.as_str(), room_no, bound(*seq), now]);
        }
        let text = conn.dialect().text_of(ADD, part);
        conn.run_text(text, values).await?;
    }
    Ok(())
}

/// In the order of an index, so that all pages together read each position of the room once.
const READERS: &str = "SELECT user_id, read_seq, at FROM hubbub_positions \
    WHERE room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) AND read_seq >= ? \
    AND user_id > ? ORDER BY user_id LIMIT ?";

pub(super) async fn readers(
    db: &Db,
    room: &RoomId,
    seq: u64,
    after: Option<&UserId>,
    limit: usize,
) -> Result<Vec<(UserId, u64, Timestamp)>> {
    let after = after.map_or("", |user| user.as_str());
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let values = args![room.as_str(), bound(seq), after, limit];
    let found: Vec<(Text, i64, i64)> = db.all(READERS, values).await?;
    let reader = |(user, seq, at): (Text, i64, i64)| {
        let seq = u64::try_from(seq).unwrap_or(0);
        (UserId::trusted(&user.0), seq, loaded_time(at))
    };
    Ok(found.into_iter().map(reader).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql::{DatabaseUrl, Settings};

    #[tokio::test]
    async fn a_page_of_readers_sorts_nothing() {
        let url = DatabaseUrl::parse("sqlite::memory:").unwrap();
        let store = SqlStore::open(&Settings::new(url)).await.unwrap();
        let plan: &'static str = format!("EXPLAIN QUERY PLAN {READERS}").leak();
        let values = args!["r", 1_i64, "ann", 10_i64];
        type Step = (i64, i64, i64, Text);
        let steps: Vec<Step> = store.db().all(plan, values).await.unwrap();
        let steps: Vec<String> = steps.into_iter().map(|step| step.3.0).collect();
        let plan = steps.join("\n");
        assert!(plan.contains("(room_no=? AND user_id>?)"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}
