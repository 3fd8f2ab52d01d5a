//! Chats and their members in a database.
//!
//! | table | contents |
//! | --- | --- |
//! | `hubbub_chats` | chats, direct ones by the unique key of their pair |
//! | `hubbub_chat_members` | their members |

mod announcements;
mod change;
mod create;
mod departure;
mod list;
mod members;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use uuid::Uuid;

pub(super) use departure::{count_groups, leave_groups};

use super::accounts::{loaded_time, user_id};
use super::fault::{Fault, Outcome};
use super::store::SqlStore;
use super::value::Text;
use crate::domain::{Chat, ChatHistory, ChatKind, ChatMember, ChatRole, Membership, UserId};
use crate::store::{
    Announce, ChatChange, ChatOfMember, ChatOutcome, ChatPosition, ChatStore, NewGroup, Result,
};

#[async_trait]
impl ChatStore for SqlStore {
    async fn direct_chat(&self, pair: [Uuid; 2]) -> Result<Option<Uuid>> {
        create::direct_chat(self.db(), pair).await
    }

    async fn open_direct(
        &self,
        id: Uuid,
        opener: Uuid,
        other: Uuid,
        announce: Announce,
    ) -> Result<ChatOutcome<(Uuid, bool)>> {
        let opened = create::open_direct(self.db(), id, [opener, other], announce).await?;
        if matches!(opened, Ok((_, true))) {
            self.announce_rows();
        }
        Ok(opened)
    }

    async fn create_group(&self, group: NewGroup, announce: Announce) -> Result<ChatOutcome<()>> {
        let created = create::create_group(self.db(), group, announce).await?;
        self.announce_rows();
        Ok(created)
    }

    async fn chats(
        &self,
        user: Uuid,
        after: Option<ChatPosition>,
        limit: usize,
    ) -> Result<Vec<ChatOfMember>> {
        list::page(self.db(), user, after, limit).await
    }

    async fn chat(&self, chat: Uuid, user: Uuid) -> Result<Option<ChatOfMember>> {
        list::one(self.db(), chat, user).await
    }

    async fn membership(&self, chat: Uuid, user: Uuid) -> Result<Option<Membership>> {
        members::membership(self.db(), chat, user).await
    }

    async fn chat_members(
        &self,
        chat: Uuid,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<ChatMember>> {
        members::page(self.db(), chat, after, limit).await
    }

    async fn chat_member(&self, chat: Uuid, user: Uuid) -> Result<Option<ChatMember>> {
        members::one(self.db(), chat, user).await
    }

    async fn change_chat(
        &self,
        chat: Uuid,
        actor: Uuid,
        change: ChatChange,
        announce: Announce,
    ) -> Result<ChatOutcome<Vec<UserId>>> {
        let changed = change::change(self.db(), chat, actor, change, announce).await?;
        self.announce_rows();
        Ok(changed)
    }
}

/// The columns of a chat: `id`, `kind`, `name`, `history`, `created_by`, `created_at`, `updated_at`.
type ChatRow = (Uuid, i64, Option<Text>, i64, Uuid, i64, i64);

fn loaded_chat(row: ChatRow, members: i64) -> Outcome<Chat> {
    let (id, kind, name, history, created_by, created_at, updated_at) = row;
    Ok(Chat {
        id,
        kind: match kind {
            0 => ChatKind::Direct,
            1 => ChatKind::Group,
            _ => return Err(Fault::Broken(format!("{kind} is not a kind of a chat"))),
        },
        name: name.map(|name| name.0),
        history: loaded_history(history)?,
        members: u64::try_from(members).unwrap_or(0),
        created_by: user_id(created_by),
        created_at: loaded_time(created_at),
        updated_at: loaded_time(updated_at),
    })
}

fn stored_kind(kind: ChatKind) -> i64 {
    match kind {
        ChatKind::Direct => 0,
        ChatKind::Group => 1,
    }
}

fn stored_history(history: ChatHistory) -> i64 {
    match history {
        ChatHistory::All => 0,
        ChatHistory::Joined => 1,
    }
}

fn loaded_history(history: i64) -> Outcome<ChatHistory> {
    match history {
        0 => Ok(ChatHistory::All),
        1 => Ok(ChatHistory::Joined),
        _ => Err(Fault::Broken(format!(
            "{history} is not a history of a chat"
        ))),
    }
}

fn stored_role(role: ChatRole) -> i64 {
    match role {
        ChatRole::Member => 0,
        ChatRole::Owner => 1,
    }
}

fn loaded_role(role: i64) -> Outcome<ChatRole> {
    match role {
        0 => Ok(ChatRole::Member),
        1 => Ok(ChatRole::Owner),
        _ => Err(Fault::Broken(format!("{role} is not a role in a chat"))),
    }
}

fn loaded_membership(role: i64, joined_seq: i64, history: i64) -> Outcome<Membership> {
    let hidden_seq = match loaded_history(history)? {
        ChatHistory::All => 0,
        ChatHistory::Joined => u64::try_from(joined_seq).unwrap_or(0),
    };
    Ok(Membership {
        role: loaded_role(role)?,
        hidden_seq,
    })
}
