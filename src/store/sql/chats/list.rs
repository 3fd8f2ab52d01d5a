//! Chats as their members see them.

use std::collections::HashMap;

use uuid::Uuid;

use super::{ChatRow, loaded_chat, loaded_membership};
use crate::domain::{Chat, FormContent, Head, MessageForm};
use crate::store::sql::accounts::{loaded_time, user_id};
use crate::store::sql::archive::entries::{self, EntryRow};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Arg, Text, args, loaded};
use crate::store::{
    ChatOfMember, ChatPeer, ChatPosition, MessageState, Result, StoredMessage, Unrecorded,
};

/// A statement that selects chats of a member as [`ListedRow`]: first the memberships of `$memberships`,
/// with the newest message that the member can read; then a page of these, by `$page`; then, for each chat of
/// the page, the number of members, and of a direct chat the other user. The last value is the member.
macro_rules! select_chats {
    ($memberships:literal, $page:literal) => {
        concat!(
            "SELECT p.id, p.kind, p.name, p.history, p.created_by, p.created_at, p.updated_at, \
             p.role, p.joined_seq, p.active_at, p.last_id, \
             (SELECT COUNT(*) FROM hubbub_chat_members n WHERE n.chat_id = p.id), \
             u.id, u.username, u.display_name \
             FROM (SELECT t.id, t.kind, t.name, t.history, t.created_by, t.created_at, \
                 t.updated_at, t.role, t.joined_seq, l.id AS last_id, \
                 COALESCE(l.at, t.joined_at) AS active_at \
                 FROM (SELECT c.id, c.kind, c.name, c.history, c.created_by, c.created_at, \
                     c.updated_at, m.role, m.joined_at, m.joined_seq, r.no AS room_no, \
                     (SELECT e.seq FROM hubbub_entries e WHERE e.room_no = r.no AND e.kind = 1 \
                      AND e.seq > CASE WHEN c.history = 1 THEN m.joined_seq ELSE 0 END \
                      ORDER BY e.seq DESC LIMIT 1) AS last_seq \
                     FROM hubbub_chat_members m JOIN hubbub_chats c ON c.id = m.chat_id \
                     LEFT JOIN hubbub_rooms r ON r.name = c.room_id WHERE ",
            $memberships,
            ") t LEFT JOIN hubbub_entries l ON l.room_no = t.room_no AND l.seq = t.last_seq",
            $page,
            ") p LEFT JOIN hubbub_chat_members o ON p.kind = 0 AND o.chat_id = p.id AND o.user_id <> ? \
             LEFT JOIN hubbub_users u ON u.id = o.user_id AND u.deleted_at IS NULL \
             ORDER BY p.active_at DESC, p.id DESC"
        )
    };
}

/// The columns of [`select_chats`].
type ListedRow = (
    Uuid,
    i64,
    Option<Text>,
    i64,
    Uuid,
    i64,
    i64,
    i64,
    i64,
    i64,
    Option<Uuid>,
    i64,
    Option<Uuid>,
    Option<Text>,
    Option<Text>,
);

pub(super) async fn page(
    db: &Db,
    user: Uuid,
    after: Option<ChatPosition>,
    limit: usize,
) -> Result<Vec<ChatOfMember>> {
    const PAGE: &str = select_chats!(
        "m.user_id = ?",
        " WHERE COALESCE(l.at, t.joined_at) < ? \
         OR (COALESCE(l.at, t.joined_at) = ? AND t.id < ?) \
         ORDER BY COALESCE(l.at, t.joined_at) DESC, t.id DESC LIMIT ?"
    );
    let (active_at, chat) = match after {
        Some(after) => (
            i64::try_from(after.active_at.0).unwrap_or(i64::MAX),
            after.chat,
        ),
        None => (i64::MAX, Uuid::max()),
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    db.read(move |conn| {
        Box::pin(async move {
            let values = args![user, active_at, active_at, chat, limit, user];
            let rows: Vec<ListedRow> = conn.all(PAGE, values).await?;
            complete(conn, rows).await
        })
    })
    .await
}

pub(super) async fn one(db: &Db, chat: Uuid, user: Uuid) -> Result<Option<ChatOfMember>> {
    const ONE: &str = select_chats!("m.chat_id = ? AND m.user_id = ?", "");
    let found = db
        .read(move |conn| {
            Box::pin(async move {
                let rows: Vec<ListedRow> = conn.all(ONE, args![chat, user, user]).await?;
                complete(conn, rows).await
            })
        })
        .await?;
    Ok(found.into_iter().next())
}

/// Adds the newest messages.
async fn complete(conn: &mut Conn, rows: Vec<ListedRow>) -> Outcome<Vec<ChatOfMember>> {
    let mut messages = newest_messages(conn, &rows).await?;
    let mut chats = Vec::with_capacity(rows.len());
    for row in rows {
        let (id, kind, name, history, created_by, created_at, updated_at, ..) = row;
        let (.., role, joined_seq, active_at, last_id, members, peer_id, username, display_name) =
            row;
        let columns: ChatRow = (id, kind, name, history, created_by, created_at, updated_at);
        let chat = loaded_chat(columns, members)?;
        let newest = last_id.and_then(|id| messages.remove(&id));
        let last_message = newest.map(|row| last_message(&chat, row)).transpose()?;
        let names = username.zip(display_name);
        let peer = peer_id
            .zip(names)
            .map(|(id, (username, display_name))| ChatPeer {
                user: user_id(id),
                username: username.0,
                display_name: display_name.0,
            });
        chats.push(ChatOfMember {
            membership: loaded_membership(role, joined_seq, history)?,
            peer,
            last_message,
            active_at: loaded_time(active_at),
            chat,
        });
    }
    Ok(chats)
}

fn last_message(chat: &Chat, row: NewestRow) -> Outcome<StoredMessage> {
    let (seq, at, kind, form, id, user, send_key, record, epoch, version, edited_at, unrecorded) =
        row;
    let entry: EntryRow = (seq, at, kind, form, id, user, send_key, record, epoch);
    let entry = entries::decoded(&chat.room(), entry)?;
    let edit = version.zip(edited_at);
    let form = MessageForm {
        position: Head {
            epoch: entry.epoch,
            seq: entry.seq,
        },
        at: entry.at,
        version: edit.map_or(entry.seq, |(version, _)| loaded(version)),
        edited_at: edit.map(|(_, at)| loaded_time(at)),
        content: match edit {
            Some(_) => FormContent::Edited(entry.record.clone()),
            None => FormContent::Original,
        },
        reactions: None,
    };
    Ok(StoredMessage {
        form,
        record: entry.record,
        state: MessageState {
            unrecorded: Unrecorded {
                revision: unrecorded != 0,
                reactions: false,
            },
            ..MessageState::default()
        },
    })
}

/// An entry with the version and the time of its last edit, and whether its last revision is not recorded as
/// announced.
type NewestRow = (
    i64,
    i64,
    i64,
    i64,
    Uuid,
    Text,
    Vec<u8>,
    Vec<u8>,
    Option<Text>,
    Option<i64>,
    Option<i64>,
    i64,
);

async fn newest_messages(conn: &mut Conn, rows: &[ListedRow]) -> Outcome<HashMap<Uuid, NewestRow>> {
    const FIND: &str = "SELECT e.seq, e.at, CAST(e.kind AS {bigint}), CAST(e.form AS {bigint}), \
        e.id, e.user_id, e.send_key, e.record, \
        (SELECT p.name FROM hubbub_epochs p \
         WHERE p.room_no = e.room_no AND p.epoch_no = e.epoch_no), c.version, c.edited_at, \
        CAST(CASE WHEN EXISTS (SELECT 1 FROM hubbub_message_changes h \
         WHERE h.room_no = c.room_no AND h.seq = c.seq AND h.revision = c.revision \
         AND h.change_seq IS NULL) THEN 1 ELSE 0 END AS {bigint}) \
        FROM hubbub_entries e \
        LEFT JOIN hubbub_messages c ON c.room_no = e.room_no AND c.seq = e.seq \
        WHERE e.id IN ({list})";
    let ids: Vec<Arg> = rows
        .iter()
        .filter_map(|row| row.10)
        .map(Arg::from)
        .collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let (text, ids) = conn.dialect().with_list(FIND, ids);
    let found: Vec<NewestRow> = conn.all_of_text(text, ids).await?;
    Ok(found.into_iter().map(|row| (row.4, row)).collect())
}
