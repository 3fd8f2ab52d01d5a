//! Creates chats.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::members::{self, StoredMember};
use super::{announcements, loaded_chat, stored_history, stored_kind};
use crate::domain::{Chat, ChatHistory, ChatKind, ChatRole, MAX_CHAT_MEMBERS, RoomId};
use crate::store::sql::accounts::now;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Text, args};
use crate::store::{Announce, ChatOutcome, ChatRefusal, NewGroup, Result};

const FIND_DIRECT: &str = "SELECT id FROM hubbub_chats WHERE direct_key = ?";

/// The key of a pair, in whichever order its users are given.
fn direct_key([one, other]: [Uuid; 2]) -> String {
    let (first, second) = (one.min(other), one.max(other));
    format!("{first}:{second}")
}

pub(super) async fn direct_chat(db: &Db, pair: [Uuid; 2]) -> Result<Option<Uuid>> {
    let found: Vec<(Uuid,)> = db.all(FIND_DIRECT, args![direct_key(pair)]).await?;
    Ok(found.first().map(|(id,)| *id))
}

pub(super) async fn open_direct(
    db: &Db,
    id: Uuid,
    pair: [Uuid; 2],
    announce: Announce,
) -> Result<ChatOutcome<(Uuid, bool)>> {
    db.transaction(move |conn| Box::pin(open_direct_in(conn, id, pair, announce.clone())))
        .await
}

async fn open_direct_in(
    conn: &mut Conn,
    id: Uuid,
    pair: [Uuid; 2],
    announce: Announce,
) -> Outcome<ChatOutcome<(Uuid, bool)>> {
    let key = direct_key(pair);
    // For a chat that another call has created, and for the repeat of a transaction whose commit was not seen.
    let found: Option<(Uuid,)> = conn.first(FIND_DIRECT, args![key.as_str()]).await?;
    if let Some((existing,)) = found {
        return Ok(Ok((existing, false)));
    }
    let users = match accounts(conn, &pair, |_| ChatRole::Member).await? {
        Ok(users) => users,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let new = NewChat {
        id,
        kind: ChatKind::Direct,
        name: None,
        history: ChatHistory::All,
        direct_key: Some(key.clone()),
        created_by: pair[0],
    };
    let now = now(conn).await?;
    // Waits for another transaction that creates the chat.
    insert(conn, &new, now).await?;
    let found: Option<(Uuid,)> = conn.first(FIND_DIRECT, args![key]).await?;
    match found {
        Some((found,)) if found == id => {
            add_first_members(conn, new, users, now, &announce).await?;
            Ok(Ok((id, true)))
        }
        Some((existing,)) => Ok(Ok((existing, false))),
        None => Ok(Err(ChatRefusal::NotMember)),
    }
}

pub(super) async fn create_group(
    db: &Db,
    group: NewGroup,
    announce: Announce,
) -> Result<ChatOutcome<()>> {
    db.transaction(move |conn| Box::pin(create_group_in(conn, group.clone(), announce.clone())))
        .await
}

async fn create_group_in(
    conn: &mut Conn,
    group: NewGroup,
    announce: Announce,
) -> Outcome<ChatOutcome<()>> {
    const FIND: &str = "SELECT id FROM hubbub_chats WHERE id = ?";
    let found: Option<(Uuid,)> = conn.first(FIND, args![group.id]).await?;
    if found.is_some() {
        return Ok(Ok(()));
    }
    let owner = group.owner;
    let users = [vec![owner], group.members].concat();
    let role = |user| {
        if user == owner {
            ChatRole::Owner
        } else {
            ChatRole::Member
        }
    };
    let users = match accounts(conn, &users, role).await? {
        Ok(users) => users,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if users.len() > MAX_CHAT_MEMBERS {
        return Ok(Err(ChatRefusal::TooManyMembers));
    }
    let new = NewChat {
        id: group.id,
        kind: ChatKind::Group,
        name: group.name.map(|name| name.as_str().to_owned()),
        history: group.history,
        direct_key: None,
        created_by: owner,
    };
    let now = now(conn).await?;
    insert(conn, &new, now).await?;
    add_first_members(conn, new, users, now, &announce).await?;
    Ok(Ok(()))
}

/// These users as members, each once, in the order in which they are given.
async fn accounts(
    conn: &mut Conn,
    users: &[Uuid],
    role: impl Fn(Uuid) -> ChatRole,
) -> Outcome<ChatOutcome<Vec<StoredMember>>> {
    let mut names = members::names(conn, users).await?;
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for user in users {
        if !seen.insert(*user) {
            continue;
        }
        match names.remove(user) {
            Some(name) => found.push(StoredMember::new(*user, name, role(*user))),
            None => return Ok(Err(ChatRefusal::UnknownUser(*user))),
        }
    }
    Ok(Ok(found))
}

struct NewChat {
    id: Uuid,
    kind: ChatKind,
    name: Option<String>,
    history: ChatHistory,
    direct_key: Option<String>,
    created_by: Uuid,
}

impl NewChat {
    fn created(self, members: usize, now: i64) -> Outcome<Chat> {
        let row = (
            self.id,
            stored_kind(self.kind),
            self.name.map(Text),
            stored_history(self.history),
            self.created_by,
            now,
            now,
        );
        loaded_chat(row, i64::try_from(members).unwrap_or(i64::MAX))
    }
}

/// Has no effect on a chat with the same key.
async fn insert(conn: &mut Conn, new: &NewChat, now: i64) -> Outcome<()> {
    const INSERT: &str = "INSERT INTO hubbub_chats (id, room_id, kind, name, history, direct_key, \
        created_by, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) {if_absent:id}";
    let values = args![
        new.id,
        RoomId::chat(new.id).as_str(),
        stored_kind(new.kind),
        new.name.clone(),
        stored_history(new.history),
        new.direct_key.clone(),
        new.created_by,
        now,
        now,
    ];
    conn.run(INSERT, values).await.map(drop)
}

async fn add_first_members(
    conn: &mut Conn,
    new: NewChat,
    users: Vec<StoredMember>,
    now: i64,
    announce: &Announce,
) -> Outcome<()> {
    members::insert(conn, new.id, &users, 0, now).await?;
    let chat = new.created(users.len(), now)?;
    announcements::add(conn, announcements::created(&chat, &users), announce).await
}
