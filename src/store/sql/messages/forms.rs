//! The newest forms of messages that were changed.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use uuid::Uuid;

use super::{loaded, reactions, stored};
use crate::domain::{
    FormContent, Head, MessageForm, Reaction, RoomId, Timestamp, Tombstone, UserId,
};
use crate::store::sql::archive;
use crate::store::sql::archive::entries::{self, WithEntry, entry_columns};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::value::{Text, args};
use crate::store::{ArchivedEntry, Result, StoredKind};

/// A message with `version`, `edited_at`, `deleted_by`, `deleted_thread`, `reactions`, `reactions_row`, and
/// whether there are edits.
type Row = WithEntry<(
    Option<i64>,
    Option<i64>,
    Option<Text>,
    Option<Text>,
    Option<Text>,
    Option<i64>,
    i64,
)>;

macro_rules! select_forms {
    ($which:literal) => {
        concat!(
            "SELECT ",
            entry_columns!(),
            ", m.version, m.edited_at, m.deleted_by, m.deleted_thread, m.reactions, \
             m.reactions_row, CAST(CASE WHEN EXISTS (SELECT 1 FROM hubbub_message_changes c \
             WHERE c.room_no = m.room_no AND c.seq = m.seq AND c.kind = 1) THEN 1 ELSE 0 END \
             AS {bigint}) FROM hubbub_messages m \
             JOIN hubbub_entries e ON e.room_no = m.room_no AND e.seq = m.seq \
             WHERE m.room_no = ? AND ",
            $which
        )
    };
}

/// See [`ArchiveStore::forms`](crate::store::ArchiveStore::forms).
pub(in crate::store::sql) async fn of_room(
    db: &Db,
    room: &RoomId,
    range: RangeInclusive<u64>,
    others: &[u64],
) -> Result<Vec<MessageForm>> {
    let (room, others) = (room.clone(), others.to_vec());
    db.read(move |conn| {
        let (room, range, others) = (room.clone(), range.clone(), others.clone());
        Box::pin(async move {
            let Some(room_no) = archive::find_number(conn, &room).await? else {
                return Ok(Vec::new());
            };
            let mut forms = in_range(conn, (room_no, &room), &range).await?;
            let others: Vec<i64> = others
                .iter()
                .filter(|seq| !range.contains(seq))
                .map(|seq| stored(*seq))
                .collect();
            forms.extend(of_seqs(conn, (room_no, &room), &others).await?);
            Ok(forms.into_values().collect())
        })
    })
    .await
}

type Forms = BTreeMap<i64, MessageForm>;

async fn in_range(
    conn: &mut Conn,
    (room_no, room): (i64, &RoomId),
    range: &RangeInclusive<u64>,
) -> Outcome<Forms> {
    const RANGE: &str = select_forms!("m.seq >= ? AND m.seq <= ?");
    if range.is_empty() {
        return Ok(Forms::new());
    }
    let values = args![room_no, stored(*range.start()), stored(*range.end())];
    let rows: Vec<Row> = conn.all(RANGE, values).await?;
    load(conn, (room_no, room), rows).await
}

/// The forms of the messages with these numbers that were changed.
pub(super) async fn of_seqs(
    conn: &mut Conn,
    (room_no, room): (i64, &RoomId),
    seqs: &[i64],
) -> Outcome<Forms> {
    const LIST: &str = select_forms!("m.seq IN ({list})");
    let seqs = seqs.iter().copied();
    let rows: Vec<Row> = conn.all_of_list(LIST, args![room_no], seqs).await?;
    load(conn, (room_no, room), rows).await
}

async fn load(conn: &mut Conn, (room_no, room): (i64, &RoomId), rows: Vec<Row>) -> Outcome<Forms> {
    // Of a message whose reactions are not announced yet, or are announced but not recorded, the stored
    // summary may be older than the one that was announced last.
    let is_stale = |row: &&Row| row.others.5.is_some();
    let stale_summaries: Vec<i64> = rows
        .iter()
        .filter(is_stale)
        .map(|row| row.entry.0)
        .collect();
    let mut current = reactions::current(conn, room_no, &stale_summaries).await?;
    let mut forms = Forms::new();
    for row in rows {
        let seq = row.entry.0;
        forms.insert(seq, form(room, row, current.remove(&seq))?);
    }
    Ok(forms)
}

fn form(room: &RoomId, row: Row, current: Option<Vec<Reaction>>) -> Outcome<MessageForm> {
    let (version, edited_at, deleted_by, thread, reactions, reactions_row, edits) = row.others;
    let entry = entries::decoded(room, row.entry)?;
    let reactions = match reactions_row {
        Some(_) => Some(current.unwrap_or_default()),
        None => reactions
            .map(|text| reactions::decode(&text.0))
            .transpose()?,
    };
    let content = if entry.kind == StoredKind::DELETED {
        let thread = thread.and_then(|thread| Uuid::parse_str(&thread.0).ok());
        FormContent::Deleted(tombstone(room, &entry, deleted_by, thread)?)
    } else if edits > 0 {
        FormContent::Edited(entry.record.clone())
    } else {
        FormContent::Original
    };
    Ok(MessageForm {
        version: version.map_or(entry.seq, loaded),
        edited_at: edited_at.map(|at| Timestamp(loaded(at))),
        content,
        reactions,
        at: entry.at,
        position: position(&entry),
    })
}

fn tombstone(
    room: &RoomId,
    entry: &ArchivedEntry,
    deleted_by: Option<Text>,
    thread: Option<Uuid>,
) -> Outcome<Tombstone> {
    let missing = || {
        Fault::Broken(format!(
            "the user that has deleted message {} is not recorded",
            entry.seq
        ))
    };
    let deleted_by = deleted_by.ok_or_else(missing)?;
    Ok(Tombstone {
        id: entry.id,
        room: room.clone(),
        author: entry.user.clone(),
        deleted_by: UserId::trusted(&deleted_by.0),
        thread,
    })
}

pub(super) fn position(entry: &ArchivedEntry) -> Head {
    Head {
        epoch: entry.epoch.clone(),
        seq: entry.seq,
    }
}

/// The form of a message without a recorded change.
pub(super) fn unrecorded(room: &RoomId, entry: &ArchivedEntry) -> MessageForm {
    if let Some(form) = entry.unrecorded_deletion(room) {
        return form;
    }
    MessageForm {
        position: position(entry),
        at: entry.at,
        version: entry.seq,
        edited_at: None,
        content: FormContent::Original,
        reactions: None,
    }
}
