//! Changing chats and their members.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::create::{parse_user, parse_users};
use super::{ChatView, Chats, announce, refused};
use crate::backplane::Window;
use crate::domain::{ChatMember, ChatName, ChatRole, Refusal, RoomId};
use crate::store::{ChatChange, ChatOutcome, ChatRefusal};

/// The announcements of a change of one member, at most: in the room and in the member's feed.
const ANNOUNCED_PER_CHANGE: u64 = 2;
/// The longest wait for the archive to have the newest messages of a chat.
const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(2);
const ARCHIVE_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A chat, and the member that changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    /// The member.
    pub user: Uuid,
    /// The chat.
    pub chat: Uuid,
}

impl Chats {
    /// Sets or, with `None`, removes the name of a group.
    ///
    /// # Errors
    /// `bad_request`, `too_large`, `not_found`, `forbidden`, `rate_limited`, `unavailable`.
    pub async fn rename(&self, actor: Actor, name: Option<&str>) -> Result<ChatView, Refusal> {
        let name = name.map(ChatName::parse).transpose()?;
        let members = self.members_announced_to(actor).await?;
        self.charge(actor.user, 1 + members)?;
        self.change(actor, ChatChange::Rename(name)).await?;
        self.get(actor.user, actor.chat).await
    }

    /// Deletes a group: its room has no members any more, so that nobody can read its messages.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `rate_limited`, `unavailable`.
    pub async fn delete(&self, actor: Actor) -> Result<(), Refusal> {
        let members = self.members_announced_to(actor).await?;
        self.charge(actor.user, ANNOUNCED_PER_CHANGE * members)?;
        self.change(actor, ChatChange::Delete).await
    }

    /// Adds members to a group. Those that are members already stay as they are. Returns all that were
    /// named, without those that are removed again meanwhile.
    ///
    /// # Errors
    /// `bad_request`, `too_large`, `not_found`, `forbidden`, `rate_limited`, `unavailable`.
    pub async fn add_members(
        &self,
        actor: Actor,
        users: &[String],
        role: ChatRole,
    ) -> Result<Vec<ChatMember>, Refusal> {
        // Outsiders are charged nothing.
        self.check_member(actor.user, actor.chat).await?;
        let users = parse_users(users)?;
        if users.is_empty() {
            return Err(Refusal::bad_request("user_id or user_ids is missing"));
        }
        let count = u64::try_from(users.len()).unwrap_or(u64::MAX);
        self.charge(actor.user, ANNOUNCED_PER_CHANGE * count)?;
        self.add_once_archived(actor, &users, role).await?;
        let mut members = Vec::with_capacity(users.len());
        for user in users {
            let found = self.store.chat_member(actor.chat, user).await;
            members.extend(found.map_err(refused)?);
        }
        Ok(members)
    }

    /// Changes the role of a member of a group.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict` for the last owner, `rate_limited`, `unavailable`.
    pub async fn set_role(
        &self,
        actor: Actor,
        user: &str,
        role: ChatRole,
    ) -> Result<ChatMember, Refusal> {
        let user = parse_user(user)?;
        self.charge(actor.user, ANNOUNCED_PER_CHANGE)?;
        self.change(actor, ChatChange::SetRole(user, role)).await?;
        let found = self.store.chat_member(actor.chat, user).await;
        // Removed again meanwhile.
        found
            .map_err(refused)?
            .ok_or_else(|| ChatRefusal::UnknownMember.into())
    }

    /// Removes a member from a group. A member may remove itself.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict` for the last owner, `rate_limited`, `unavailable`.
    pub async fn remove_member(&self, actor: Actor, user: &str) -> Result<(), Refusal> {
        let user = parse_user(user)?;
        self.charge(actor.user, ANNOUNCED_PER_CHANGE)?;
        self.change(actor, ChatChange::Remove(user)).await
    }

    /// The number of members that hear of a change of the whole chat; 0 if the actor may not make it.
    async fn members_announced_to(&self, actor: Actor) -> Result<u64, Refusal> {
        let view = self.get(actor.user, actor.chat).await?;
        Ok(match view.membership.role {
            ChatRole::Owner => view.chat.members,
            ChatRole::Member => 0,
        })
    }

    async fn change(&self, actor: Actor, change: ChatChange) -> Result<(), Refusal> {
        Ok(self.try_change(actor, change).await??)
    }

    /// Adds members. The archive follows the log within milliseconds, so it is waited for. The log is
    /// read only where the chat needs its head, and after the rights of the actor are checked.
    async fn add_once_archived(
        &self,
        actor: Actor,
        users: &[Uuid],
        role: ChatRole,
    ) -> Result<(), Refusal> {
        let deadline = Instant::now() + ARCHIVE_TIMEOUT;
        let mut head = None;
        loop {
            let change = ChatChange::Add {
                users: users.to_vec(),
                role,
                head,
            };
            match self.try_change(actor, change).await? {
                Err(ChatRefusal::NotArchived) if head.is_none() => {
                    head = Some(self.head(actor.chat).await?);
                }
                Err(ChatRefusal::NotArchived) if Instant::now() < deadline => {
                    tokio::time::sleep(ARCHIVE_POLL_INTERVAL).await;
                }
                changed => return Ok(changed?),
            }
        }
    }

    async fn try_change(
        &self,
        actor: Actor,
        change: ChatChange,
    ) -> Result<ChatOutcome<()>, Refusal> {
        let Actor { user, chat } = actor;
        let changed = self.store.change_chat(chat, user, change, announce()).await;
        let concerned = match changed.map_err(refused)? {
            Ok(concerned) => concerned,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let room = RoomId::chat(chat);
        for user in &concerned {
            self.memberships.changed(&room, user);
        }
        Ok(Ok(()))
    }

    /// The last number of a chat's room. Where the history of the chat is limited, members that are added
    /// with it see at most the messages that are sent afterwards.
    async fn head(&self, chat: Uuid) -> Result<u64, Refusal> {
        let room = RoomId::chat(chat);
        let slice = self.log.read(&room, Window::Newest, 1, usize::MAX).await?;
        Ok(slice.span.head.seq)
    }
}
