//! Rewriting records that have the name of a user.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::entries::key_text;
use super::form::{self, Columns};
use crate::store::sql::conn::Conn;
use crate::store::sql::dialect::MAX_LIST;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::value::{Arg, Text, args};
use crate::store::{Rewrite, Rewritten, StoredKind};

/// Entries that one step examines, and rooms that it looks into.
const ENTRIES_PER_STEP: i64 = 1000;
const ROOMS_PER_STEP: usize = 50;
/// Versions that one step examines. A message has no more ([`MAX_VERSIONS`](crate::store::MAX_VERSIONS)).
const VERSIONS_PER_STEP: i64 = 1000;

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
///
/// The entries are locked in the order of their ids, as for changes of messages, and those of one room at
/// most: a message can't be edited or deleted between its reading and its writing.
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
            let end = with_few_versions(conn, position, last, user).await?;
            let has_locked =
                rewrite_range(conn, position, end, (user, rewrite), &mut counts).await?;
            position.seq = end;
            left -= count;
            if left <= 0 || has_locked || end < last {
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

/// The end of the range of entries up to `last` that one step rewrites: with at most [`VERSIONS_PER_STEP`]
/// versions of the user's messages, or those of one message.
async fn with_few_versions(
    conn: &mut Conn,
    after: Position,
    last: i64,
    user: &str,
) -> Outcome<i64> {
    const FIRST_EXCESS: &str = "SELECT c.seq FROM hubbub_message_changes c \
        JOIN hubbub_entries e ON e.room_no = c.room_no AND e.seq = c.seq \
        WHERE c.room_no = ? AND c.seq > ? AND c.seq <= ? AND c.kind = 1 AND e.user_id = ? \
        ORDER BY c.seq LIMIT 1 OFFSET ?";
    let values = args![after.room_no, after.seq, last, user, VERSIONS_PER_STEP];
    let excess: Option<(i64,)> = conn.first(FIRST_EXCESS, values).await?;
    Ok(excess.map_or(last, |(seq,)| (seq - 1).max(after.seq + 1)))
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

/// `seq, kind, form, id, user_id, send_key, record`.
type StoredRecord = (i64, i64, i64, Uuid, Text, Vec<u8>, Vec<u8>);

/// An entry that is locked.
struct LockedEntry {
    id: Uuid,
    send_key: Option<Box<str>>,
}

/// Rewrites a range of entries, and returns whether it has locked any.
async fn rewrite_range(
    conn: &mut Conn,
    after: Position,
    last: i64,
    (user, rewrite): (&str, &Rewrite),
    counts: &mut Counts,
) -> Outcome<bool> {
    const ROOM: &str = "SELECT name FROM hubbub_rooms WHERE no = ?";
    const WRITE: &str = "UPDATE hubbub_entries SET form = ?, record = ? \
        WHERE room_no = ? AND seq = ? AND kind = ?";
    let ids = find_range(conn, after, last, user, counts).await?;
    if ids.is_empty() {
        return Ok(false);
    }
    let room: Option<(Text,)> = conn.first(ROOM, args![after.room_no]).await?;
    let Some((Text(room),)) = room else {
        return Ok(false);
    };
    let mut messages = BTreeMap::new();
    for (seq, kind, stored_form, id, Text(sender), key, record) in
        lock(conn, ids, user, counts).await?
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
        match rewrite(&form::restore(stored_form, record, &columns)) {
            Rewritten::Changed(record) => {
                let (form, record) = form::shorten(&record, &columns);
                conn.run(WRITE, args![form, record, after.room_no, seq, kind])
                    .await?;
                counts.rewritten += 1;
            }
            Rewritten::Unchanged => {}
            Rewritten::Unreadable => counts.skipped += 1,
        }
        if kind == StoredKind::MESSAGE.0 {
            messages.insert(seq, LockedEntry { id, send_key });
        }
    }
    rewrite_versions(conn, (&room, after), messages, (user, rewrite), counts).await?;
    Ok(true)
}

/// The ids of the user's entries, and of changes, of a range. Where a row can't be decoded, halves of the
/// range are read, until only that row is left out.
async fn find_range(
    conn: &mut Conn,
    after: Position,
    last: i64,
    user: &str,
    counts: &mut Counts,
) -> Outcome<Vec<Uuid>> {
    const FIND: &str = "SELECT e.id FROM hubbub_entries e \
        WHERE e.room_no = ? AND e.seq > ? AND e.seq <= ? \
        AND ((e.user_id = ? AND e.kind <> ?) OR e.kind = ?)";
    let mut ids = Vec::new();
    let mut ranges = vec![(after.seq, last)];
    while let Some((after_seq, last)) = ranges.pop() {
        let (deleted, change) = (StoredKind::DELETED.0, StoredKind::CHANGE.0);
        let values = args![after.room_no, after_seq, last, user, deleted, change];
        match conn.all::<(Uuid,)>(FIND, values).await {
            Ok(found) => ids.extend(found.into_iter().map(|(id,)| id)),
            Err(Fault::Broken(_)) if last - after_seq == 1 => counts.skipped += 1,
            Err(Fault::Broken(_)) => {
                let middle = after_seq + (last - after_seq) / 2;
                ranges.extend([(middle, last), (after_seq, middle)]);
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(ids)
}

/// Locks entries in the order of their ids, without those that were deleted meanwhile. Where a row can't
/// be decoded, halves of the list are read, until only that row is left out.
async fn lock(
    conn: &mut Conn,
    mut ids: Vec<Uuid>,
    user: &str,
    counts: &mut Counts,
) -> Outcome<Vec<StoredRecord>> {
    const LOCK: &str = "SELECT e.seq, CAST(e.kind AS {bigint}), CAST(e.form AS {bigint}), e.id, \
        e.user_id, e.send_key, e.record FROM hubbub_entries e WHERE e.id IN ({list}) \
        AND ((e.user_id = ? AND e.kind <> ?) OR e.kind = ?) ORDER BY e.id {for_update}";
    ids.sort_unstable();
    let mut records = Vec::new();
    let mut parts: Vec<&[Uuid]> = ids.chunks(MAX_LIST).rev().collect();
    while let Some(part) = parts.pop() {
        let list = part.iter().map(|id| Arg::from(*id));
        let (text, list) = conn.dialect().with_list(LOCK, list);
        let (deleted, change) = (StoredKind::DELETED.0, StoredKind::CHANGE.0);
        let values = [list, args![user, deleted, change]].concat();
        match conn.all_of_text::<StoredRecord>(text, values).await {
            Ok(read) => records.extend(read),
            Err(Fault::Broken(_)) if part.len() == 1 => counts.skipped += 1,
            Err(Fault::Broken(_)) => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(records)
}

/// Rewrites what the locked messages were before their edits, one version after another: each may be large,
/// and one that can't be decoded is skipped.
async fn rewrite_versions(
    conn: &mut Conn,
    (room, after): (&str, Position),
    messages: BTreeMap<i64, LockedEntry>,
    (user, rewrite): (&str, &Rewrite),
    counts: &mut Counts,
) -> Outcome<()> {
    const FIND: &str = "SELECT seq, revision FROM hubbub_message_changes \
        WHERE room_no = ? AND kind = 1 AND seq IN ({list}) ORDER BY seq, revision";
    const READ: &str = "SELECT CAST(form AS {bigint}), record FROM hubbub_message_changes \
        WHERE room_no = ? AND seq = ? AND revision = ?";
    const WRITE: &str = "UPDATE hubbub_message_changes SET form = ?, record = ? \
        WHERE room_no = ? AND seq = ? AND revision = ?";
    let seqs = messages.keys().copied();
    let versions: Vec<(i64, i64)> = conn.all_of_list(FIND, args![after.room_no], seqs).await?;
    for (seq, revision) in versions {
        let Some(entry) = messages.get(&seq) else {
            continue;
        };
        let columns = Columns {
            id: entry.id,
            room,
            user,
            send_key: entry.send_key.as_deref(),
        };
        let key = args![after.room_no, seq, revision];
        let read: Outcome<Option<(i64, Vec<u8>)>> = conn.first(READ, key).await;
        let rewritten = match read {
            Ok(Some((form, record))) => rewrite(&form::restore(form, record, &columns)),
            Ok(None) => continue,
            Err(Fault::Broken(_)) => Rewritten::Unreadable,
            Err(fault) => return Err(fault),
        };
        match rewritten {
            Rewritten::Changed(record) => {
                let (form, record) = form::shorten(&record, &columns);
                let values = args![form, record, after.room_no, seq, revision];
                conn.run(WRITE, values).await?;
            }
            Rewritten::Unchanged => {}
            Rewritten::Unreadable => counts.skipped += 1,
        }
    }
    Ok(())
}
