//! Threads: the replies to a message.

use super::{loaded, state, stored, target};
use crate::domain::UserId;
use crate::store::sql::archive::entries::{self, EntryRow, entry_columns};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::unread;
use crate::store::sql::value::{Text, args};
use crate::store::{MessageRef, Result, StoredMessage, ThreadState};

/// The threads whose roots have these numbers, by the numbers of the roots.
pub(super) async fn in_range(
    conn: &mut Conn,
    room_no: i64,
    first: i64,
    last: i64,
) -> Outcome<Vec<(i64, ThreadState)>> {
    const THREADS: &str = "SELECT root_seq, replies, last_seq, participants FROM hubbub_threads \
        WHERE room_no = ? AND root_seq >= ? AND root_seq <= ? ORDER BY root_seq";
    let values = args![room_no, first, last];
    let rows: Vec<(i64, i64, i64, Text)> = conn.all(THREADS, values).await?;
    let mut threads = Vec::with_capacity(rows.len());
    for (root, replies, last, participants) in rows {
        // Damaged ones are counted again with the next reply.
        let participants = unread::decode_participants(&participants.0).unwrap_or_default();
        let users = participants.iter().map(|user| UserId::trusted(user));
        let thread = ThreadState {
            replies: loaded(replies),
            last_seq: loaded(last),
            participants: users.collect(),
        };
        threads.push((root, thread));
    }
    Ok(threads)
}

pub(super) async fn replies(
    db: &Db,
    root: &MessageRef,
    after: u64,
    limit: usize,
) -> Result<Option<Vec<StoredMessage>>> {
    const REPLIES: &str = concat!(
        "SELECT ",
        entry_columns!(),
        " FROM hubbub_replies t \
         JOIN hubbub_entries e ON e.room_no = t.room_no AND e.seq = t.seq \
         WHERE t.room_no = ? AND t.root_seq = ? AND t.seq > ? ORDER BY t.seq LIMIT ?"
    );
    let root = root.clone();
    db.read(move |conn| {
        let root = root.clone();
        Box::pin(async move {
            let Some(target) = target::find(conn, &root).await? else {
                return Ok(None);
            };
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let values = args![target.room_no, target.seq, stored(after), limit];
            let rows: Vec<EntryRow> = conn.all(REPLIES, values).await?;
            let mut found = Vec::with_capacity(rows.len());
            for row in rows {
                found.push(entries::decoded(&target.room, row)?);
            }
            let room = (target.room_no, &target.room);
            state::of_entries(conn, room, found).await.map(Some)
        })
    })
    .await
}
