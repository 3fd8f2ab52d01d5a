//! The rows of a room beside its entries, for copies of an archive: what was changed, replies, mentions and
//! positions. Unread messages are counted anew.

use super::entries::Row as EntryRow;
use super::rooms;
use crate::domain::RoomId;
use crate::store::sql::copied_tables::{Table, mark, selected, table_of_room};
use crate::store::sql::db::Db;
use crate::store::sql::fault::Fault;
use crate::store::sql::limited_delete::limited_delete;
use crate::store::sql::value::{Arg, Text, args};
use crate::store::{ArchivedEntry, DirectoryRow, Result};

const TABLES: &[Table] = &[
    table_of_room!("hubbub_messages" {"seq": i64} {
        "revision": i64, "version": Option<i64>, "edited_at": Option<i64>, "deleted_by": Option<Text>,
        "deleted_thread": Option<Text>, "reactions": Option<Text>, "reactions_seq": Option<i64>,
        "reactions_due_at": i64, "reactions_row": Option<i64>, "pinned_seq": Option<i64>,
    }),
    table_of_room!("hubbub_message_changes" {"seq": i64, "revision": i64} {
        "kind" as "CAST(kind AS {bigint})": i64, "form" as "CAST(form AS {bigint})": i64, "at": i64,
        "change_seq": Option<i64>, "outbox_id": i64, "user_id": Text, "record": Vec<u8>,
    }),
    table_of_room!("hubbub_reactions" {"seq": i64, "emoji": Text, "user_id": Text} {"at": i64}),
    table_of_room!("hubbub_pins" {"seq": i64} {"user_id": Text, "at": i64}),
    table_of_room!("hubbub_replies" {"root_seq": i64, "seq": i64} {"user_id": Text}),
    table_of_room!("hubbub_threads" {"root_seq": i64} {
        "replies": i64, "last_seq": i64, "last_at": i64, "root_user_id": Text, "participants": Text,
    }),
    table_of_room!("hubbub_mentions" {"seq": i64, "user_id": Text} {"author_id": Text}),
    table_of_room!("hubbub_positions" {"user_id": Text} {"read_seq": i64, "at": i64}),
    table_of_room!("hubbub_thread_positions" {"user_id": Text, "root_seq": i64} {"read_seq": i64}),
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
    table.page(db, args![room.as_str()], after).await
}

pub(super) async fn clear(db: &Db, room: &RoomId) -> Result<()> {
    let room = room.clone();
    let room_no = db
        .transaction(move |conn| {
            let room = room.clone();
            Box::pin(async move { Ok(rooms::lock_or_add(conn, &room).await?.no) })
        })
        .await?;
    for table in TABLES {
        table.clear(db, args![room_no]).await?;
    }
    Ok(())
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
            table.insert(conn, &[Arg::from(room_no)], rows).await
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
