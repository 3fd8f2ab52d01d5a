//! How far users have read rooms.

use std::collections::BTreeSet;

use serde::Serialize;
use uuid::Uuid;

use super::count;
use crate::domain::{RoomId, Timestamp, UserId};
use crate::store::sql::accounts::{loaded_time, now};
use crate::store::sql::archive;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::dialect::exact_parts;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::outbox;
use crate::store::sql::store::SqlStore;
use crate::store::sql::value::{Text, args};
use crate::store::{NewPosition, NewRow, ReadPosition, Result};

/// The positions that one transaction adds.
const POSITIONS_PER_TRANSACTION: usize = 200;

/// How a call may move a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Any,
}

/// The payload of a row that announces a position to the user's feed.
#[derive(Serialize)]
struct ReadRow<'a> {
    target_room_id: &'a str,
    last_read_seq: i64,
    unread: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    capped: bool,
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
    moved.await
}

async fn move_in(
    conn: &mut Conn,
    position: &NewPosition,
    direction: Direction,
) -> Outcome<ReadPosition> {
    const MOVE: &str = "UPDATE hubbub_positions SET read_seq = ?, at = ? \
        WHERE user_id = ? AND room_no = ?";
    let user = &position.user;
    let room_no = archive::room_number(conn, &position.room).await?;
    let stored = lock(conn, user, room_no).await?;
    let hidden = bound(position.hidden_seq);
    let present = match stored {
        Some(seq) => seq,
        None => joined_seq(conn, position).await?,
    };
    let present = present.max(hidden);
    let wanted = match direction {
        Direction::Up => bound(position.seq).max(present),
        Direction::Any => bound(position.seq).max(hidden),
    };
    let has_moved = wanted != present;
    if has_moved {
        let now = now(conn).await?;
        if stored.is_none() {
            add(conn, user, room_no, wanted, now).await?;
            // Waits for another call that has added it, whose position counts.
            let added = lock(conn, user, room_no).await?;
            if added != Some(wanted) {
                return Err(Fault::Again(
                    "another call has moved the position".to_owned(),
                ));
            }
        } else {
            let values = args![wanted, now, user.as_str(), room_no];
            conn.run(MOVE, values).await?;
        }
    }
    let unread = count::at_position(conn, user, room_no, wanted).await?;
    if has_moved && position.has_feed {
        let payload = ReadRow {
            target_room_id: position.room.as_str(),
            last_read_seq: wanted,
            unread: unread.count,
            capped: unread.is_capped,
        };
        let row = NewRow {
            room: Some(RoomId::personal(user)),
            kind: "read".to_owned(),
            payload: serde_json::to_string(&payload).expect("a payload always serialises"),
        };
        outbox::add(conn, vec![row]).await?;
    }
    Ok(ReadPosition {
        last_read_seq: u64::try_from(wanted).unwrap_or(0),
        unread,
        has_moved,
    })
}

/// A number of a client: a larger one than any that a room can have counts as the largest.
fn bound(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX / 2).min(i64::MAX / 2)
}

async fn lock(conn: &mut Conn, user: &UserId, room_no: i64) -> Outcome<Option<i64>> {
    const LOCK: &str = "SELECT read_seq FROM hubbub_positions \
        WHERE user_id = ? AND room_no = ? {for_update}";
    let found: Option<(i64,)> = conn.first(LOCK, args![user.as_str(), room_no]).await?;
    Ok(found.map(|(seq,)| seq))
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

pub(super) async fn readers(
    db: &Db,
    room: &RoomId,
    seq: u64,
    after: Option<&UserId>,
    limit: usize,
) -> Result<Vec<(UserId, u64, Timestamp)>> {
    const READERS: &str = "SELECT user_id, read_seq, at FROM hubbub_positions \
        WHERE room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) AND read_seq >= ? \
        AND user_id > ? ORDER BY user_id LIMIT ?";
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
