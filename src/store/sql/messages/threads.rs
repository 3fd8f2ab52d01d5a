//! Threads: the replies to a message.

use super::{loaded, state, stored, target, user};
use crate::store::sql::archive::entries::{self, EntryRow, entry_columns};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Text, args};
use crate::store::{MessageRef, Result, StoredMessage, ThreadState};

/// The threads whose roots have these numbers, by the numbers of the roots.
pub(super) async fn in_range(
    conn: &mut Conn,
    room_no: i64,
    first: i64,
    last: i64,
) -> Outcome<Vec<(i64, ThreadState)>> {
    // Replies without a known root have the number 0 as that of their root.
    const THREADS: &str = "SELECT t.root_seq, CAST(t.replies AS {bigint}), t.last_seq, t.user_id \
        FROM (SELECT a.root_seq, a.user_id, \
         SUM(a.replies) OVER (PARTITION BY a.root_seq) AS replies, \
         MAX(a.last_seq) OVER (PARTITION BY a.root_seq) AS last_seq, \
         ROW_NUMBER() OVER (PARTITION BY a.root_seq ORDER BY a.first_seq) AS place FROM \
         (SELECT root_seq, user_id, COUNT(*) AS replies, MIN(seq) AS first_seq, \
          MAX(seq) AS last_seq FROM hubbub_replies \
          WHERE room_no = ? AND root_seq >= ? AND root_seq <= ? AND root_seq > 0 \
          GROUP BY root_seq, user_id) a) t \
        WHERE t.place <= 5 ORDER BY t.root_seq, t.place";
    let values = args![room_no, first, last];
    let rows: Vec<(i64, i64, i64, Text)> = conn.all(THREADS, values).await?;
    let mut threads: Vec<(i64, ThreadState)> = Vec::new();
    for (root, replies, last, name) in rows {
        match threads.last_mut() {
            Some((of, thread)) if *of == root => thread.participants.push(user(name)),
            _ => {
                let thread = ThreadState {
                    replies: loaded(replies),
                    last_seq: loaded(last),
                    participants: vec![user(name)],
                };
                threads.push((root, thread));
            }
        }
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
