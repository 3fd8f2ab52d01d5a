//! Changes chats and their members.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::members::{self, StoredMember};
use super::{ChatRow, announcements, loaded_chat};
use crate::domain::{
    Announcement, Chat, ChatHistory, ChatKind, ChatName, ChatRole, MAX_CHAT_MEMBERS, Timestamp,
    UserId,
};
use crate::store::sql::accounts::now;
use crate::store::sql::archive;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::args;
use crate::store::{Announce, ChatChange, ChatOutcome, ChatRefusal, Result};

pub(super) async fn change(
    db: &Db,
    chat: Uuid,
    actor: Uuid,
    change: ChatChange,
    announce: Announce,
) -> Result<ChatOutcome<Vec<UserId>>> {
    db.transaction(move |conn| {
        let (change, announce) = (change.clone(), announce.clone());
        Box::pin(async move {
            let locked = match lock(conn, chat, actor, &change).await? {
                Ok(locked) => locked,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let effect = match locked.apply(conn, change).await? {
                Ok(effect) => effect,
                Err(refusal) => return Ok(Err(refusal)),
            };
            announcements::add(conn, effect.announcements, &announce).await?;
            Ok(Ok(effect.concerned))
        })
    })
    .await
}

/// A chat that is locked until the end of the transaction.
pub(super) struct LockedChat {
    pub(super) chat: Chat,
    pub(super) members: Vec<StoredMember>,
    now: i64,
}

/// The effect of a change.
#[derive(Default)]
struct Effect {
    /// The users whose membership or role has changed.
    concerned: Vec<UserId>,
    announcements: Vec<Announcement>,
}

impl Effect {
    fn on(members: &[StoredMember], announcements: Vec<Announcement>) -> Self {
        let concerned = members.iter().map(|member| member.user.clone());
        Self {
            concerned: concerned.collect(),
            announcements,
        }
    }
}

/// Locks a chat, if the actor may change it so.
async fn lock(
    conn: &mut Conn,
    chat: Uuid,
    actor: Uuid,
    change: &ChatChange,
) -> Outcome<ChatOutcome<LockedChat>> {
    let Some(locked) = LockedChat::find(conn, chat).await? else {
        return Ok(Err(ChatRefusal::NotMember));
    };
    let Some(member) = locked.member(actor) else {
        return Ok(Err(ChatRefusal::NotMember));
    };
    let is_leaving = matches!(change, ChatChange::Remove(user) if *user == actor);
    let is_allowed = is_leaving || member.role == ChatRole::Owner;
    if locked.chat.kind == ChatKind::Direct {
        return Ok(Err(ChatRefusal::IsDirect));
    }
    if !is_allowed {
        return Ok(Err(ChatRefusal::NotOwner));
    }
    Ok(Ok(locked))
}

impl LockedChat {
    /// Locks a chat; `None` if there is none of this id.
    pub(super) async fn find(conn: &mut Conn, chat: Uuid) -> Outcome<Option<Self>> {
        const LOCK: &str = "SELECT id, kind, name, history, created_by, created_at, updated_at \
            FROM hubbub_chats WHERE id = ? {for_update}";
        let found: Option<ChatRow> = conn.first(LOCK, args![chat]).await?;
        let Some(row) = found else {
            return Ok(None);
        };
        let members = members::all(conn, chat).await?;
        let count = i64::try_from(members.len()).unwrap_or(i64::MAX);
        let chat = loaded_chat(row, count)?;
        let now = now(conn).await?;
        Ok(Some(Self { chat, members, now }))
    }

    async fn apply(self, conn: &mut Conn, change: ChatChange) -> Outcome<ChatOutcome<Effect>> {
        match change {
            ChatChange::Rename(name) => self.rename(conn, name).await.map(Ok),
            ChatChange::Add { users, role, head } => self.add(conn, users, role, head).await,
            ChatChange::SetRole(user, role) => self.set_role(conn, user, role).await,
            ChatChange::Remove(user) => self.remove(conn, user).await,
            ChatChange::Delete => self.delete(conn).await.map(Ok),
        }
    }

    async fn rename(mut self, conn: &mut Conn, name: Option<ChatName>) -> Outcome<Effect> {
        const RENAME: &str = "UPDATE hubbub_chats SET name = ?, updated_at = ? WHERE id = ?";
        let name = name.map(|name| name.as_str().to_owned());
        if name == self.chat.name {
            return Ok(Effect::default());
        }
        conn.run(RENAME, args![name.clone(), self.now, self.chat.id])
            .await?;
        self.chat.name = name;
        self.chat.updated_at = Timestamp(u64::try_from(self.now).unwrap_or(0));
        let members = self
            .members
            .iter()
            .map(|member| (&member.user, member.role));
        Ok(Effect {
            concerned: Vec::new(),
            announcements: announcements::updated(&self.chat, members),
        })
    }

    async fn add(
        self,
        conn: &mut Conn,
        users: Vec<Uuid>,
        role: ChatRole,
        head: Option<u64>,
    ) -> Outcome<ChatOutcome<Effect>> {
        let present: BTreeSet<Uuid> = self.members.iter().map(|member| member.id).collect();
        let absent: BTreeSet<Uuid> = users.into_iter().collect();
        let absent: Vec<Uuid> = absent.difference(&present).copied().collect();
        if absent.is_empty() {
            return Ok(Ok(Effect::default()));
        }
        if present.len() + absent.len() > MAX_CHAT_MEMBERS {
            return Ok(Err(ChatRefusal::TooManyMembers));
        }
        let mut names = members::names(conn, &absent).await?;
        let mut added = Vec::new();
        for user in absent {
            match names.remove(&user) {
                Some(name) => added.push(StoredMember::new(user, name, role)),
                None => return Ok(Err(ChatRefusal::UnknownUser(user))),
            }
        }
        // Read under the lock: it includes messages that came while this transaction waited for it.
        let archived = archive::head(conn, &self.chat.room()).await?;
        if self.chat.history == ChatHistory::Joined && head.is_none_or(|head| archived < head) {
            return Ok(Err(ChatRefusal::NotArchived));
        }
        let archived = i64::try_from(archived).unwrap_or(i64::MAX);
        members::insert(conn, self.chat.id, &added, archived, self.now).await?;
        let announcements = announcements::added(&self.chat, &added);
        Ok(Ok(Effect::on(&added, announcements)))
    }

    async fn set_role(
        self,
        conn: &mut Conn,
        user: Uuid,
        role: ChatRole,
    ) -> Outcome<ChatOutcome<Effect>> {
        let Some(member) = self.member(user) else {
            return Ok(Err(ChatRefusal::UnknownMember));
        };
        if member.role == role {
            return Ok(Ok(Effect::default()));
        }
        if self.is_last_owner(member) {
            return Ok(Err(ChatRefusal::LastOwner));
        }
        members::set_role(conn, self.chat.id, user, role).await?;
        let announcements = announcements::updated(&self.chat, [(&member.user, role)]);
        Ok(Ok(Effect {
            concerned: vec![member.user.clone()],
            announcements,
        }))
    }

    async fn remove(mut self, conn: &mut Conn, user: Uuid) -> Outcome<ChatOutcome<Effect>> {
        let position = self.members.iter().position(|member| member.id == user);
        let Some(position) = position else {
            return Ok(Err(ChatRefusal::UnknownMember));
        };
        if self.is_last_owner(&self.members[position]) {
            return Ok(Err(ChatRefusal::LastOwner));
        }
        members::remove(conn, self.chat.id, user).await?;
        let removed = [self.members.remove(position)];
        let announcements = announcements::removed(&self.chat, &removed);
        Ok(Ok(Effect::on(&removed, announcements)))
    }

    async fn delete(self, conn: &mut Conn) -> Outcome<Effect> {
        const MEMBERS: &str = "DELETE FROM hubbub_chat_members WHERE chat_id = ?";
        const CHAT: &str = "DELETE FROM hubbub_chats WHERE id = ?";
        conn.run(MEMBERS, args![self.chat.id]).await?;
        conn.run(CHAT, args![self.chat.id]).await?;
        let announcements = announcements::removed(&self.chat, &self.members);
        Ok(Effect::on(&self.members, announcements))
    }

    fn member(&self, user: Uuid) -> Option<&StoredMember> {
        self.members.iter().find(|member| member.id == user)
    }

    fn is_last_owner(&self, member: &StoredMember) -> bool {
        let is_other_owner = |other: &StoredMember| {
            other.id != member.id && other.role == ChatRole::Owner && other.is_usable
        };
        member.role == ChatRole::Owner && !self.members.iter().any(is_other_owner)
    }
}
