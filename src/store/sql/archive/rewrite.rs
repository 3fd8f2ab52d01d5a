//! Rewriting records that have the name of a user.

use uuid::Uuid;

use super::entries::key_text;
use super::form::{self, Columns};
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::value::{Text, args};
use crate::store::{Rewrite, Rewritten, StoredKind};

/// Entries that one step examines, and rooms that it looks into.
const ENTRIES_PER_STEP: i64 = 1000;
const ROOMS_PER_STEP: usize = 50;

/// A position in all entries: the last one that was examined.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::sql) struct Position {
    pub room_no: i64,
    pub seq: i64,
}

impl Position {
    /// Whether nothing was examined yet.
    pub fn is_start(self) -> bool {
        self.room_no == 0 && self.seq == 0
    }
}

/// The end of a step.
pub(in crate::store::sql) struct Step {
    /// The new position; `None` after the last entry.
    pub position: Option<Position>,
    /// The entries that were rewritten.
    pub rewritten: i64,
    /// The entries that can't be read.
    pub skipped: i64,
}

/// Counts of a range of entries.
#[derive(Default)]
struct Counts {
    rewritten: i64,
    skipped: i64,
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
    let mut counts = Counts::default();
    let mut left = ENTRIES_PER_STEP;
    for _ in 0..ROOMS_PER_STEP {
        let window = args![position.room_no, position.seq, left];
        let found: Option<(Option<i64>, i64)> = conn.first(WINDOW, window).await?;
        if let Some((Some(last), count)) = found {
            rewrite_range(conn, position, last, (user, rewrite), &mut counts).await?;
            position.seq = last;
            left -= count;
            if left <= 0 {
                break;
            }
        }
        let room: Option<(Option<i64>,)> = conn.first(NEXT_ROOM, args![position.room_no]).await?;
        let Some((Some(room_no),)) = room else {
            // The next step finds nothing, and this one's counts are recorded.
            let is_done = counts.rewritten == 0 && counts.skipped == 0;
            return Ok(counts.step((!is_done).then_some(position)));
        };
        position = Position { room_no, seq: 0 };
    }
    Ok(counts.step(Some(position)))
}

impl Counts {
    fn step(&self, position: Option<Position>) -> Step {
        Step {
            position,
            rewritten: self.rewritten,
            skipped: self.skipped,
        }
    }
}

/// `seq, form, id, user_id, send_key, record`.
type StoredRecord = (i64, i64, Uuid, Text, Vec<u8>, Vec<u8>);

async fn rewrite_range(
    conn: &mut Conn,
    after: Position,
    last: i64,
    (user, rewrite): (&str, &Rewrite),
    counts: &mut Counts,
) -> Outcome<()> {
    const ROOM: &str = "SELECT name FROM hubbub_rooms WHERE no = ?";
    const WRITE: &str =
        "UPDATE hubbub_entries SET form = ?, record = ? WHERE room_no = ? AND seq = ?";
    let room: Option<(Text,)> = conn.first(ROOM, args![after.room_no]).await?;
    let Some((Text(room),)) = room else {
        return Ok(());
    };
    for (seq, stored_form, id, Text(sender), key, record) in
        read_range(conn, after, last, user, counts).await?
    {
        let Ok(send_key) = key_text(key) else {
            counts.skipped += 1;
            continue;
        };
        let columns = Columns {
            id,
            room: &room,
            user: &sender,
            send_key: send_key.as_deref(),
        };
        let record = match rewrite(&form::restore(stored_form, record, &columns)) {
            Rewritten::Changed(record) => record,
            Rewritten::Unchanged => continue,
            Rewritten::Unreadable => {
                counts.skipped += 1;
                continue;
            }
        };
        let (form, record) = form::shorten(&record, &columns);
        conn.run(WRITE, args![form, record, after.room_no, seq])
            .await?;
        counts.rewritten += 1;
    }
    rewrite_versions(conn, (&room, after), last, (user, rewrite), counts).await
}

/// Reads the user's entries, and changes, of a range. Where a row can't be decoded, halves of the range
/// are read, until only that row is left out.
async fn read_range(
    conn: &mut Conn,
    after: Position,
    last: i64,
    user: &str,
    counts: &mut Counts,
) -> Outcome<Vec<StoredRecord>> {
    const READ: &str = "SELECT e.seq, CAST(e.form AS {bigint}), e.id, e.user_id, e.send_key, e.record \
        FROM hubbub_entries e WHERE e.room_no = ? AND e.seq > ? AND e.seq <= ? \
        AND ((e.user_id = ? AND e.kind <> ?) OR e.kind = ?) ORDER BY e.seq";
    let mut records = Vec::new();
    let mut ranges = vec![(after.seq, last)];
    while let Some((after_seq, last)) = ranges.pop() {
        let (deleted, change) = (StoredKind::DELETED.0, StoredKind::CHANGE.0);
        let values = args![after.room_no, after_seq, last, user, deleted, change];
        match conn.all::<StoredRecord>(READ, values).await {
            Ok(read) => records.extend(read),
            Err(Fault::Broken(_)) if last - after_seq == 1 => counts.skipped += 1,
            Err(Fault::Broken(_)) => {
                let middle = after_seq + (last - after_seq) / 2;
                ranges.extend([(middle, last), (after_seq, middle)]);
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(records)
}

/// Rewrites what the user's messages were before their edits.
async fn rewrite_versions(
    conn: &mut Conn,
    (room, after): (&str, Position),
    last: i64,
    (user, rewrite): (&str, &Rewrite),
    counts: &mut Counts,
) -> Outcome<()> {
    const READ: &str = "SELECT c.seq, c.revision, CAST(c.form AS {bigint}), c.record, e.id, \
        e.send_key FROM hubbub_message_changes c \
        JOIN hubbub_entries e ON e.room_no = c.room_no AND e.seq = c.seq \
        WHERE c.room_no = ? AND c.seq > ? AND c.seq <= ? AND e.user_id = ? AND c.kind = 1 \
        ORDER BY c.seq, c.revision";
    const WRITE: &str = "UPDATE hubbub_message_changes SET form = ?, record = ? \
        WHERE room_no = ? AND seq = ? AND revision = ?";
    type Row = (i64, i64, i64, Vec<u8>, Uuid, Vec<u8>);
    let values = args![after.room_no, after.seq, last, user];
    let rows: Vec<Row> = conn.all(READ, values).await?;
    for (seq, revision, form, record, id, send_key) in rows {
        let send_key = String::from_utf8_lossy(&send_key);
        let columns = Columns {
            id,
            room,
            user,
            send_key: (!send_key.is_empty()).then_some(&send_key),
        };
        let record = match rewrite(&form::restore(form, record, &columns)) {
            Rewritten::Changed(record) => record,
            Rewritten::Unchanged => continue,
            Rewritten::Unreadable => {
                counts.skipped += 1;
                continue;
            }
        };
        let (form, record) = form::shorten(&record, &columns);
        let values = args![form, record, after.room_no, seq, revision];
        conn.run(WRITE, values).await?;
    }
    Ok(())
}
