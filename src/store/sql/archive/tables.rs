//! The rows of a room beside its entries, for copies of an archive: what was changed, replies, mentions and
//! positions. Unread messages are counted anew.

use super::entries::Row as EntryRow;
use super::rooms;
use crate::domain::RoomId;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::value::{Arg, Text, args};
use crate::store::{ArchivedEntry, DirectoryRow, Result};

/// Rows of one page.
const PAGE_ROWS: i64 = 500;

/// A table: its statements, and how its rows are read. Rows lack the number of the room, which differs
/// between databases.
struct Table {
    name: &'static str,
    delete: &'static str,
    first: &'static str,
    next: &'static str,
    insert: &'static str,
    /// The number of columns of the key within a room, which are the first ones.
    keys: usize,
    load: for<'c> fn(&'c mut Conn, &'static str, Vec<Arg>) -> Loading<'c>,
}

type Loading<'c> = std::pin::Pin<Box<dyn Future<Output = Outcome<Vec<Vec<Arg>>>> + Send + 'c>>;

/// `table!(name, "key columns" = marks * count, "columns", "the same as they are read", "values": types)`.
macro_rules! table {
    ($name:literal, $keys:literal = $marks:literal * $count:literal,
     $columns:literal, $selected:literal, $values:literal: $($column:ident $kind:ty),+) => {
        Table {
            name: $name,
            delete: concat!("DELETE FROM ", $name, " WHERE room_no = ?"),
            first: concat!(
                "SELECT ", $selected, " FROM ", $name,
                " WHERE room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) ORDER BY ", $keys,
                " LIMIT ?"
            ),
            next: concat!(
                "SELECT ", $selected, " FROM ", $name,
                " WHERE room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) AND (", $keys, ") > (",
                $marks, ") ORDER BY ", $keys, " LIMIT ?"
            ),
            insert: concat!(
                "INSERT INTO ", $name, " (room_no, ", $columns, ") VALUES (?, ", $values, ")"
            ),
            keys: $count,
            load: |conn, template, args| Box::pin(async move {
                let rows: Vec<($($kind,)+)> = conn.all(template, args).await?;
                let values = |($($column,)+): ($($kind,)+)| vec![$(Arg::from($column)),+];
                Ok(rows.into_iter().map(values).collect())
            }),
        }
    };
}

const TABLES: &[Table] = &[
    table!("hubbub_messages", "seq" = "?" * 1,
        "seq, revision, version, edited_at, deleted_by, deleted_thread, reactions, reactions_seq, \
         reactions_due_at, reactions_row, pinned_seq",
        "seq, revision, version, edited_at, deleted_by, deleted_thread, reactions, reactions_seq, \
         reactions_due_at, reactions_row, pinned_seq",
        "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?":
        a i64, b i64, c Option<i64>, d Option<i64>, e Option<Text>, f Option<Text>, g Option<Text>,
        h Option<i64>, i i64, j Option<i64>, k Option<i64>),
    table!("hubbub_message_changes", "seq, revision" = "?, ?" * 2,
        "seq, revision, kind, form, at, change_seq, outbox_id, user_id, record",
        "seq, revision, CAST(kind AS {bigint}), CAST(form AS {bigint}), at, change_seq, outbox_id, \
         user_id, record",
        "?, ?, ?, ?, ?, ?, ?, ?, ?":
        a i64, b i64, c i64, d i64, e i64, f Option<i64>, g i64, h Text, i Vec<u8>),
    table!("hubbub_reactions", "seq, emoji, user_id" = "?, ?, ?" * 3,
        "seq, emoji, user_id, at", "seq, emoji, user_id, at", "?, ?, ?, ?":
        a i64, b Text, c Text, d i64),
    table!("hubbub_pins", "seq" = "?" * 1,
        "seq, user_id, at", "seq, user_id, at", "?, ?, ?": a i64, b Text, c i64),
    table!("hubbub_replies", "root_seq, seq" = "?, ?" * 2,
        "root_seq, seq, user_id, root_user_id", "root_seq, seq, user_id, root_user_id", "?, ?, ?, ?":
        a i64, b i64, c Text, d Text),
    table!("hubbub_mentions", "seq, user_id" = "?, ?" * 2,
        "seq, user_id, author_id", "seq, user_id, author_id", "?, ?, ?": a i64, b Text, c Text),
    table!("hubbub_positions", "user_id" = "?" * 1,
        "user_id, read_seq, at", "user_id, read_seq, at", "?, ?, ?": a Text, b i64, c i64),
    table!("hubbub_thread_positions", "user_id, root_seq" = "?, ?" * 2,
        "user_id, root_seq, read_seq", "user_id, root_seq, read_seq", "?, ?, ?":
        a Text, b i64, c i64),
];

/// The names of the tables, in the order in which they are copied.
pub(in crate::store::sql) fn names() -> Vec<&'static str> {
    TABLES.iter().map(|table| table.name).collect()
}

pub(super) async fn page(
    db: &Db,
    room: &RoomId,
    table: usize,
    after: Option<&DirectoryRow>,
) -> Result<Vec<DirectoryRow>> {
    let Some(table) = TABLES.get(table) else {
        return Ok(Vec::new());
    };
    let mut values = args![room.as_str()];
    let template = match after {
        None => table.first,
        Some(row) => {
            values.extend_from_slice(&row.0[..table.keys]);
            table.next
        }
    };
    values.push(Arg::from(PAGE_ROWS));
    let rows = db.read(move |conn| (table.load)(conn, template, values.clone()));
    Ok(rows.await?.into_iter().map(DirectoryRow).collect())
}

pub(super) async fn clear(db: &Db, room: &RoomId) -> Result<()> {
    let room = room.clone();
    db.transaction(move |conn| {
        let room = room.clone();
        Box::pin(async move {
            let room_no = rooms::lock_or_add(conn, &room).await?.no;
            for table in TABLES {
                conn.run(table.delete, args![room_no]).await?;
            }
            Ok(())
        })
    })
    .await
}

pub(super) async fn insert(
    db: &Db,
    room: &RoomId,
    table: usize,
    rows: Vec<DirectoryRow>,
) -> Result<()> {
    let Some(table) = TABLES.get(table) else {
        return Ok(());
    };
    let room = room.clone();
    db.transaction(move |conn| {
        let (room, rows) = (room.clone(), rows.clone());
        Box::pin(async move {
            let room_no = rooms::lock_or_add(conn, &room).await?.no;
            for DirectoryRow(row) in rows {
                conn.run(table.insert, [args![room_no], row].concat())
                    .await?;
            }
            Ok(())
        })
    })
    .await
}

/// Gives entries that the archive has these contents.
pub(super) async fn amend(db: &Db, room: &RoomId, entries: &[ArchivedEntry]) -> Result<()> {
    const AMEND: &str = "UPDATE hubbub_entries SET kind = ?, form = ?, record = ? \
        WHERE room_no = ? AND seq = ? AND id = ?";
    let (room, entries) = (room.clone(), entries.to_vec());
    db.transaction(move |conn| {
        let (room, entries) = (room.clone(), entries.clone());
        Box::pin(async move {
            let locked = rooms::lock(conn, &room).await?;
            let unknown = || Fault::Broken(format!("the archive doesn't know the room {room}"));
            let room_no = locked.ok_or_else(unknown)?.no;
            for entry in &entries {
                let row = EntryRow::new(&room, entry, (room_no, 0))?;
                let values = args![row.kind, row.form, row.record, room_no, row.seq, row.id];
                conn.run(AMEND, values).await?;
            }
            Ok(())
        })
    })
    .await
}
