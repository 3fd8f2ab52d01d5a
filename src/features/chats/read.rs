//! Reading chats and their members.

use uuid::Uuid;

use super::{ChatPosition, ChatView, Chats, refused, unknown_chat};
use crate::backplane::{Entry, EntryKind};
use crate::domain::{ChatMember, Refusal};
use crate::store::ChatOfMember;

/// A page of a user's chats.
#[derive(Debug, Clone)]
pub struct ChatPage {
    /// The chats, the one with the newest activity first.
    pub chats: Vec<ChatView>,
    /// Where the next page begins, if there is one.
    pub next: Option<ChatPosition>,
}

/// A page of a chat's members.
#[derive(Debug, Clone)]
pub struct MemberPage {
    /// The members, in the order of their ids.
    pub members: Vec<ChatMember>,
    /// The last member of this page, if another page follows.
    pub next: Option<Uuid>,
}

impl From<ChatOfMember> for ChatView {
    fn from(found: ChatOfMember) -> Self {
        let last_message = found.last_message.map(|entry| Entry {
            seq: entry.seq,
            epoch: entry.epoch,
            at: entry.at,
            kind: EntryKind::Message,
            record: entry.record,
        });
        Self {
            chat: found.chat,
            membership: found.membership,
            peer: found.peer,
            last_message,
        }
    }
}

impl Chats {
    /// A page of the caller's chats: at most `limit`.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn list(
        &self,
        caller: Uuid,
        after: Option<ChatPosition>,
        limit: usize,
    ) -> Result<ChatPage, Refusal> {
        let found = self.store.chats(caller, after, limit + 1).await;
        let mut found = found.map_err(refused)?;
        let has_more = found.len() > limit;
        found.truncate(limit);
        let position = |last: &ChatOfMember| ChatPosition {
            active_at: last.active_at,
            chat: last.chat.id,
        };
        Ok(ChatPage {
            next: found.last().map(position).filter(|_| has_more),
            chats: found.into_iter().map(ChatView::from).collect(),
        })
    }

    /// A chat of the caller.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn get(&self, caller: Uuid, chat: Uuid) -> Result<ChatView, Refusal> {
        let found = self.store.chat(chat, caller).await.map_err(refused)?;
        found.map(ChatView::from).ok_or_else(unknown_chat)
    }

    /// A page of a chat's members: at most `limit`, with ids greater than `after`.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn members(
        &self,
        caller: Uuid,
        chat: Uuid,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<MemberPage, Refusal> {
        self.check_member(caller, chat).await?;
        let found = self.store.chat_members(chat, after, limit + 1).await;
        let mut members = found.map_err(refused)?;
        let has_more = members.len() > limit;
        members.truncate(limit);
        let last = members.last().filter(|_| has_more);
        Ok(MemberPage {
            next: last.and_then(|last| Uuid::try_parse(last.user.as_str()).ok()),
            members,
        })
    }

    pub(super) async fn check_member(&self, caller: Uuid, chat: Uuid) -> Result<(), Refusal> {
        let membership = self.store.membership(chat, caller).await;
        match membership.map_err(refused)? {
            Some(_) => Ok(()),
            None => Err(unknown_chat()),
        }
    }
}
