//! Deleting old entries.

use super::rooms::{self, LockedRoom};
use super::{loaded, rows, stored};
use crate::domain::{RoomId, Timestamp};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::limited_delete::{LimitedDelete, limited_delete};
use crate::store::sql::unread;
use crate::store::sql::value::args;
use crate::store::{DeletedPart, Result};

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

/// The rows of another table that a step deletes for each of its entries, on average and at most.
const ROWS_PER_ENTRY: i64 = 5;

/// A table with data of messages, beside the entries.
struct MessageTable {
    /// The number of the message of the first row that a step can't delete.
    first_excess: &'static str,
    delete: &'static str,
    delete_some: LimitedDelete,
}

/// `message_table!(name, column of the message's number, "columns of the key")`.
macro_rules! message_table {
    ($name:literal, $seq:literal, $keys:literal) => {
        MessageTable {
            first_excess: concat!(
                "SELECT ",
                $seq,
                " FROM ",
                $name,
                " WHERE room_no = ? AND ",
                $seq,
                " <= ? ORDER BY ",
                $seq,
                " LIMIT 1 OFFSET ?"
            ),
            delete: concat!(
                "DELETE FROM ",
                $name,
                " WHERE room_no = ? AND ",
                $seq,
                " <= ?"
            ),
            delete_some: limited_delete!($name, $keys, concat!("room_no = ? AND ", $seq, " <= ?")),
        }
    };
}

const TABLES: [MessageTable; 8] = [
    message_table!("hubbub_messages", "seq", "room_no, seq"),
    message_table!("hubbub_message_changes", "seq", "room_no, seq, revision"),
    message_table!("hubbub_reactions", "seq", "room_no, seq, emoji, user_id"),
    message_table!("hubbub_pins", "seq", "room_no, seq"),
    message_table!("hubbub_replies", "seq", "room_no, root_seq, seq"),
    message_table!("hubbub_mentions", "seq", "user_id, room_no, seq"),
    message_table!("hubbub_threads", "root_seq", "room_no, root_seq"),
    message_table!(
        "hubbub_thread_positions",
        "root_seq",
        "user_id, room_no, root_seq"
    ),
];

pub(super) async fn delete_up_to(
    db: &Db,
    room: &RoomId,
    cut: u64,
    limit: usize,
) -> Result<DeletedPart> {
    let (room, cut) = (room.clone(), stored(cut)?);
    db.transaction(move |conn| {
        let room = room.clone();
        Box::pin(async move {
            match rooms::lock(conn, &room).await? {
                Some(room) => delete_step(conn, &room, cut, rows(limit)).await,
                None => Ok(DeletedPart::default()),
            }
        })
    })
    .await
}

async fn delete_step(
    conn: &mut Conn,
    room: &LockedRoom,
    cut: i64,
    limit: i64,
) -> Outcome<DeletedPart> {
    const OLDEST: &str = "SELECT COUNT(*), MIN(t.seq), MAX(t.seq), \
        CAST(COALESCE(SUM(t.bytes), 0) AS {bigint}) FROM \
        (SELECT seq, LENGTH(record) AS bytes FROM hubbub_entries \
        WHERE room_no = ? AND seq <= ? ORDER BY seq LIMIT ?) t";
    const ENTRIES: &str = "DELETE FROM hubbub_entries WHERE room_no = ? AND seq <= ?";
    const CUT: &str = "UPDATE hubbub_rooms SET cut_seq = ? WHERE no = ? AND cut_seq < ?";
    const FORGET_LOSSES: &str = "DELETE FROM hubbub_gaps WHERE room_no = ? AND last_seq <= ?";
    type Oldest = (i64, Option<i64>, Option<i64>, i64);
    let oldest: Option<Oldest> = conn.first(OLDEST, args![room.no, cut, limit]).await?;
    let Some((found, Some(first), Some(last), _)) = oldest else {
        return Ok(DeletedPart::default());
    };
    let end = whole_messages(conn, room.no, last, limit).await?;
    if end < first {
        delete_some_of(conn, room.no, first, limit).await?;
        return Ok(DeletedPart {
            has_more: true,
            ..DeletedPart::default()
        });
    }
    let oldest: Option<Oldest> = conn.first(OLDEST, args![room.no, end, limit]).await?;
    let (entries, _, _, bytes) = oldest.unwrap_or_default();
    // Entries first: that is the order of locks.
    conn.run(ENTRIES, args![room.no, end]).await?;
    for table in TABLES {
        conn.run(table.delete, args![room.no, end]).await?;
    }
    conn.run(CUT, args![end, room.no, end]).await?;
    let cut = end.max(room.cut);
    conn.run(FORGET_LOSSES, args![room.no, cut]).await?;
    unread::entries_cut(conn, room.no, cut).await?;
    Ok(DeletedPart {
        entries: loaded(entries),
        bytes: loaded(bytes),
        has_more: end < last || found >= limit,
    })
}

/// The last number up to which a step can delete whole messages.
async fn whole_messages(conn: &mut Conn, room_no: i64, last: i64, limit: i64) -> Outcome<i64> {
    let mut end = last;
    for table in TABLES {
        let first = first_excess(conn, &table, (room_no, end), limit).await?;
        end = first.map_or(end, |first| first - 1);
    }
    Ok(end)
}

/// The number of the message of the first row that is one too many for a step, up to a number.
async fn first_excess(
    conn: &mut Conn,
    table: &MessageTable,
    (room_no, end): (i64, i64),
    limit: i64,
) -> Outcome<Option<i64>> {
    let most = limit.saturating_mul(ROWS_PER_ENTRY);
    let found: Option<(i64,)> = conn
        .first(table.first_excess, args![room_no, end, most])
        .await?;
    Ok(found.map(|(seq,)| seq))
}

/// Deletes a part of the rows of a message that has more than a step deletes.
async fn delete_some_of(conn: &mut Conn, room_no: i64, seq: i64, limit: i64) -> Outcome<()> {
    let most = limit.saturating_mul(ROWS_PER_ENTRY);
    for table in TABLES {
        let excess = first_excess(conn, &table, (room_no, seq), limit).await?;
        if excess.is_some() {
            table
                .delete_some
                .run(conn, args![room_no, seq], most)
                .await?;
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::super::MESSAGE_TABLES;
    use super::*;

    #[test]
    fn a_step_deletes_from_every_table_with_data_of_messages() {
        let name = |table: &MessageTable| table.delete.split(' ').nth(2);
        let names = TABLES.iter().filter_map(name);
        let names: Vec<&str> = ["hubbub_entries"].into_iter().chain(names).collect();
        let known = [
            MESSAGE_TABLES,
            &["hubbub_threads", "hubbub_thread_positions"],
        ]
        .concat();
        assert_eq!(names, known);
    }
}
