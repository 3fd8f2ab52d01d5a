//! Reading chats and their members.

use std::collections::HashMap;

use uuid::Uuid;

use super::{ChatPosition, ChatView, Chats, RoomUnread, refused, unknown_chat};
use crate::domain::{ChatMember, Refusal, RoomId, UserId};
use crate::features::messages::{CurrentMessage, reconcile};
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
        let next = found.last().map(position).filter(|_| has_more);
        let mut chats = Vec::with_capacity(found.len());
        for chat in found {
            chats.push(self.view(chat).await?);
        }
        self.add_unread(caller, &mut chats).await?;
        Ok(ChatPage { chats, next })
    }

    /// A chat of the caller.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn get(&self, caller: Uuid, chat: Uuid) -> Result<ChatView, Refusal> {
        let found = self.store.chat(chat, caller).await.map_err(refused)?;
        let mut view = self.view(found.ok_or_else(unknown_chat)?).await?;
        self.add_unread(caller, std::slice::from_mut(&mut view))
            .await?;
        Ok(view)
    }

    /// A chat without what the member has not read. The log is asked where the newest message has a change whose
    /// announcement is not recorded yet.
    async fn view(&self, found: ChatOfMember) -> Result<ChatView, Refusal> {
        let mut last_message = found.last_message.map(CurrentMessage::from);
        if let Some(CurrentMessage { entry, state }) = &mut last_message {
            let (room, position) = (found.chat.room(), entry.position());
            reconcile(&*self.log, &room, &position, vec![(entry, state)]).await?;
        }
        Ok(ChatView {
            chat: found.chat,
            membership: found.membership,
            peer: found.peer,
            last_message: last_message.map(|message| message.entry),
            unread: None,
        })
    }

    /// Adds what the member has not read in the chats, by one call for all of them.
    async fn add_unread(&self, member: Uuid, chats: &mut [ChatView]) -> Result<(), Refusal> {
        let Some(positions) = self.positions.as_ref().filter(|_| !chats.is_empty()) else {
            return Ok(());
        };
        let user = UserId::trusted(&member.to_string());
        let rooms: Vec<RoomId> = chats.iter().map(|view| view.chat.room()).collect();
        let found = positions.unread_in(&user, &rooms).await.map_err(refused)?;
        let mut found: HashMap<RoomId, RoomUnread> = found
            .into_iter()
            .map(|unread| (unread.room.clone(), unread))
            .collect();
        for view in chats {
            view.unread = found.remove(&view.chat.room());
        }
        Ok(())
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
