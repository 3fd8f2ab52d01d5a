//! The members of chats.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{loaded_membership, loaded_role, stored_role};
use crate::domain::{ChatMember, ChatRole, Membership, UserId};
use crate::store::Result;
use crate::store::sql::accounts::{loaded_time, user_id};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::dialect::exact_parts;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Text, args};

/// A member as announcements need it.
pub(super) struct StoredMember {
    pub(super) id: Uuid,
    pub(super) user: UserId,
    pub(super) username: String,
    pub(super) role: ChatRole,
    /// When it became a member, in milliseconds since 1970; 0 before it is stored.
    pub(super) joined_at: i64,
    /// Whether the account can be used: it is neither deleted nor disabled.
    pub(super) is_usable: bool,
}

impl StoredMember {
    pub(super) fn new(id: Uuid, username: String, role: ChatRole) -> Self {
        Self {
            id,
            user: user_id(id),
            username,
            role,
            joined_at: 0,
            is_usable: true,
        }
    }
}

pub(super) async fn membership(db: &Db, chat: Uuid, user: Uuid) -> Result<Option<Membership>> {
    const FIND: &str = "SELECT m.role, m.joined_seq, c.history FROM hubbub_chat_members m \
        JOIN hubbub_chats c ON c.id = m.chat_id JOIN hubbub_users u ON u.id = m.user_id \
        WHERE m.chat_id = ? AND m.user_id = ? \
        AND u.disabled_at IS NULL AND u.deleted_at IS NULL";
    let found: Vec<(i64, i64, i64)> = db.all(FIND, args![chat, user]).await?;
    let membership = |(role, joined_seq, history)| loaded_membership(role, joined_seq, history);
    Ok(found.into_iter().next().map(membership).transpose()?)
}

type MemberRow = (Uuid, Text, Text, i64, i64);

fn loaded_member((id, username, display_name, role, joined_at): MemberRow) -> Outcome<ChatMember> {
    Ok(ChatMember {
        user: user_id(id),
        username: username.0,
        display_name: display_name.0,
        role: loaded_role(role)?,
        joined_at: loaded_time(joined_at),
    })
}

pub(super) async fn page(
    db: &Db,
    chat: Uuid,
    after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<ChatMember>> {
    const PAGE: &str = "SELECT m.user_id, u.username, u.display_name, m.role, m.joined_at \
        FROM hubbub_chat_members m JOIN hubbub_users u ON u.id = m.user_id \
        WHERE m.chat_id = ? AND m.user_id > ? ORDER BY m.user_id LIMIT ?";
    // No account has the id of zeros.
    let after = after.unwrap_or(Uuid::nil());
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found: Vec<MemberRow> = db.all(PAGE, args![chat, after, limit]).await?;
    let members = found.into_iter().map(loaded_member);
    Ok(members.collect::<Outcome<_>>()?)
}

pub(super) async fn one(db: &Db, chat: Uuid, user: Uuid) -> Result<Option<ChatMember>> {
    const ONE: &str = "SELECT m.user_id, u.username, u.display_name, m.role, m.joined_at \
        FROM hubbub_chat_members m JOIN hubbub_users u ON u.id = m.user_id \
        WHERE m.chat_id = ? AND m.user_id = ?";
    let found: Vec<MemberRow> = db.all(ONE, args![chat, user]).await?;
    Ok(found.into_iter().next().map(loaded_member).transpose()?)
}

/// All members of a chat, in the order of their ids.
pub(super) async fn all(conn: &mut Conn, chat: Uuid) -> Outcome<Vec<StoredMember>> {
    const ALL: &str = "SELECT m.user_id, u.username, m.role, m.joined_at, \
        COALESCE(u.deleted_at, u.disabled_at) FROM hubbub_chat_members m \
        JOIN hubbub_users u ON u.id = m.user_id WHERE m.chat_id = ? ORDER BY m.user_id";
    type Row = (Uuid, Text, i64, i64, Option<i64>);
    let found: Vec<Row> = conn.all(ALL, args![chat]).await?;
    let member = |(id, name, role, joined_at, unusable_since): Row| {
        Ok(StoredMember {
            joined_at,
            is_usable: unusable_since.is_none(),
            ..StoredMember::new(id, name.0, loaded_role(role)?)
        })
    };
    found.into_iter().map(member).collect()
}

/// The names of accounts that exist, of a list that is not empty.
pub(super) async fn names(conn: &mut Conn, users: &[Uuid]) -> Outcome<BTreeMap<Uuid, String>> {
    const NAMES: &str = "SELECT id, username FROM hubbub_users \
        WHERE deleted_at IS NULL AND id IN ({list})";
    let users = users.iter().copied();
    let found: Vec<(Uuid, Text)> = conn.all_of_list(NAMES, args![], users).await?;
    Ok(found.into_iter().map(|(id, name)| (id, name.0)).collect())
}

/// Adds members to a chat. `archived` is the last number of its room in the archive.
pub(super) async fn insert(
    conn: &mut Conn,
    chat: Uuid,
    members: &[StoredMember],
    archived: i64,
    now: i64,
) -> Outcome<()> {
    const INSERT: &str = "INSERT INTO hubbub_chat_members \
        (chat_id, user_id, role, joined_at, joined_seq) VALUES {rows:5}";
    let mut members = members.iter();
    for part in exact_parts(members.len()) {
        let mut values = Vec::with_capacity(5 * part);
        for member in members.by_ref().take(part) {
            let role = stored_role(member.role);
            values.extend(args![chat, member.id, role, now, archived]);
        }
        let text = conn.dialect().text_of(INSERT, part);
        conn.run_text(text, values).await?;
    }
    Ok(())
}

pub(super) async fn set_role(
    conn: &mut Conn,
    chat: Uuid,
    user: Uuid,
    role: ChatRole,
) -> Outcome<()> {
    const SET: &str = "UPDATE hubbub_chat_members SET role = ? WHERE chat_id = ? AND user_id = ?";
    let values = args![stored_role(role), chat, user];
    conn.run(SET, values).await.map(drop)
}

pub(super) async fn remove(conn: &mut Conn, chat: Uuid, user: Uuid) -> Outcome<()> {
    const REMOVE: &str = "DELETE FROM hubbub_chat_members WHERE chat_id = ? AND user_id = ?";
    conn.run(REMOVE, args![chat, user]).await.map(drop)
}
