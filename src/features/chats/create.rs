//! Creating chats.

use uuid::Uuid;

use super::{ChatView, Chats, announce, refused, unknown_user};
use crate::domain::{ChatHistory, ChatName, Code, Refusal, RoomId, UserId};
use crate::store;

/// The most users that one request names.
const MAX_NAMED: usize = 100;

/// The announcements of a new chat for each of its members: `chat_created` in the feed, and
/// `member_added` in the feed and in the room.
const ANNOUNCED_PER_FIRST_MEMBER: u64 = 3;

/// A group to create, not yet checked.
#[derive(Debug, Clone, Default)]
pub struct NewGroup {
    /// The members besides the user that creates it.
    pub users: Vec<String>,
    /// Its name.
    pub name: Option<String>,
    /// The messages that later members can read.
    pub history: ChatHistory,
}

impl Chats {
    /// The direct chat of the caller and another user, created with this id if there is none; true if it
    /// has this id. With oneself it is a chat with one member.
    ///
    /// # Errors
    /// `not_found` for an unknown user; `rate_limited` for a new chat; `unavailable`.
    pub async fn open_direct(
        &self,
        new: Uuid,
        caller: Uuid,
        other: &str,
    ) -> Result<(ChatView, bool), Refusal> {
        let other = parse_user(other)?;
        // Most calls find a chat that exists.
        let found = self.store.direct_chat([caller, other]).await;
        if let Some(id) = found.map_err(refused)? {
            return Ok((self.get(caller, id).await?, id == new));
        }
        self.charge(caller, 2 * ANNOUNCED_PER_FIRST_MEMBER)?;
        let opened = self.store.open_direct(new, caller, other, announce());
        let (id, is_new) = opened.await.map_err(refused)??;
        if is_new {
            self.changed(id, [caller, other]);
        }
        Ok((self.get(caller, id).await?, id == new))
    }

    /// Creates a group with this id and the caller as its owner. A repeat has no effect.
    ///
    /// # Errors
    /// `bad_request`, `too_large`; `not_found` for an unknown user; `rate_limited`, `unavailable`.
    pub async fn create_group(
        &self,
        id: Uuid,
        caller: Uuid,
        new: NewGroup,
    ) -> Result<ChatView, Refusal> {
        let name = new.name.as_deref().map(ChatName::parse).transpose()?;
        let members = parse_users(&new.users)?;
        let count = u64::try_from(members.len()).unwrap_or(u64::MAX);
        self.charge(caller, (1 + count) * ANNOUNCED_PER_FIRST_MEMBER)?;
        let group = store::NewGroup {
            id,
            name,
            history: new.history,
            owner: caller,
            members: members.clone(),
        };
        let created = self.store.create_group(group, announce()).await;
        created.map_err(refused)??;
        self.changed(id, members.into_iter().chain([caller]));
        self.get(caller, id).await
    }

    /// The rights of these users in the chat have changed.
    fn changed(&self, chat: Uuid, users: impl IntoIterator<Item = Uuid>) {
        let room = RoomId::chat(chat);
        for user in users {
            let user = UserId::trusted(&user.to_string());
            self.memberships.changed(&room, &user);
        }
    }
}

/// The id of an account.
pub(super) fn parse_user(user: &str) -> Result<Uuid, Refusal> {
    Uuid::try_parse(user).map_err(|_| unknown_user())
}

/// The ids of accounts.
pub(super) fn parse_users(users: &[String]) -> Result<Vec<Uuid>, Refusal> {
    if users.len() > MAX_NAMED {
        let text = format!("user_ids must have at most {MAX_NAMED} elements");
        return Err(Refusal::new(Code::TooLarge, text));
    }
    users.iter().map(|user| parse_user(user)).collect()
}
