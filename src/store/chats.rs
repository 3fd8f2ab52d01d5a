//! Chats and their members, durably.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::{NewRow, Result, StoredMessage};
use crate::domain::{
    Announcement, Chat, ChatHistory, ChatMember, ChatName, ChatRole, Membership, Timestamp, UserId,
};

/// Makes the row of the outbox that publishes an announcement.
pub type Announce = Arc<dyn Fn(&Announcement) -> NewRow + Send + Sync>;

/// A group to create.
#[derive(Debug, Clone)]
pub struct NewGroup {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: Option<ChatName>,
    /// The messages that later members can read.
    pub history: ChatHistory,
    /// The user that creates it: its owner.
    pub owner: Uuid,
    /// The other members.
    pub members: Vec<Uuid>,
}

/// A chat as one of its members sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatOfMember {
    /// The chat.
    pub chat: Chat,
    /// The rights of the member.
    pub membership: Membership,
    /// The other user of a direct chat; `None` in a chat with oneself, and once the account is deleted.
    pub peer: Option<ChatPeer>,
    /// The newest message in the archive that the member can read, without its state.
    pub last_message: Option<StoredMessage>,
    /// When the newest message was sent or, without one, when the member was added. Lists are in this
    /// order.
    pub active_at: Timestamp,
}

/// The other user of a direct chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatPeer {
    /// The user.
    pub user: UserId,
    /// The unique name.
    pub username: String,
    /// The name for people.
    pub display_name: String,
}

/// A position in a list of chats: that of the last chat of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatPosition {
    /// See [`ChatOfMember::active_at`].
    pub active_at: Timestamp,
    /// The chat.
    pub chat: Uuid,
}

/// A change of a chat by one of its members.
#[derive(Debug, Clone)]
pub enum ChatChange {
    /// Sets or, with `None`, removes the name.
    Rename(Option<ChatName>),
    /// Adds members. Those that are members already stay as they are. In a chat with
    /// [`ChatHistory::Joined`] they can read the entries that come after the newest one in the archive.
    Add {
        /// The users.
        users: Vec<Uuid>,
        /// Their role.
        role: ChatRole,
        /// The last number of the chat's room, read before. In a chat with [`ChatHistory::Joined`] it
        /// must be given, and be in the archive. Otherwise new members would see entries from before they
        /// were added or, after a loss of the log, no new ones until the numbers exceed it. Other chats
        /// don't need it.
        head: Option<u64>,
    },
    /// Changes the role of a member.
    SetRole(Uuid, ChatRole),
    /// Removes a member. A member may always remove itself.
    Remove(Uuid),
    /// Deletes the chat, and with it the rights of all members.
    Delete,
}

/// Why a chat was not created or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatRefusal {
    /// There is no such chat, or the actor is not a member of it.
    NotMember,
    /// Only owners may do it.
    NotOwner,
    /// A direct chat can't be changed.
    IsDirect,
    /// A group keeps at least one owner.
    LastOwner,
    /// There is no account of this id.
    UnknownUser(Uuid),
    /// The user that the change is about is not a member.
    UnknownMember,
    /// The archive does not have the head yet, or none is given.
    NotArchived,
    /// A chat has at most [`MAX_CHAT_MEMBERS`](crate::domain::MAX_CHAT_MEMBERS) members.
    TooManyMembers,
}

/// The outcome of a change that the state of the chat may forbid.
pub type ChatOutcome<T> = std::result::Result<T, ChatRefusal>;

/// Chats and their members. Times come from the database's clock.
///
/// A change and its announcements are one transaction, which locks the chat: so the announcements of a
/// chat's room are in the order of the changes. `chat_created` goes to the feed of every member,
/// `chat_updated` to the chat's room and to the feed of every member, `member_added` and
/// `member_removed` to the chat's room and to the feed of the member concerned.
#[async_trait]
pub trait ChatStore: Send + Sync {
    /// The direct chat of two users, which may be the same one.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn direct_chat(&self, pair: [Uuid; 2]) -> Result<Option<Uuid>>;

    /// The direct chat of two users, which is created with this id if there is none. True if it was
    /// created by this call. Of any number of concurrent calls, from both sides, one creates it. The two
    /// may be the same user, for a chat with oneself.
    ///
    /// # Errors
    /// `Unavailable`: the chat may have been created. `UnknownUser`.
    async fn open_direct(
        &self,
        id: Uuid,
        opener: Uuid,
        other: Uuid,
        announce: Announce,
    ) -> Result<ChatOutcome<(Uuid, bool)>>;

    /// Creates a group. A repeat with the same id has no effect.
    ///
    /// # Errors
    /// `Unavailable`: the group may have been created. `UnknownUser`, `TooManyMembers`.
    async fn create_group(&self, group: NewGroup, announce: Announce) -> Result<ChatOutcome<()>>;

    /// Chats of a user after a position, the one with the newest activity first. Takes at most three
    /// statements.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn chats(
        &self,
        user: Uuid,
        after: Option<ChatPosition>,
        limit: usize,
    ) -> Result<Vec<ChatOfMember>>;

    /// A chat as a member sees it. `None` if there is no such chat, or the user is not a member.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn chat(&self, chat: Uuid, user: Uuid) -> Result<Option<ChatOfMember>>;

    /// The rights of a user in a chat. `None` without any: the user is not a member, or the account is
    /// disabled.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn membership(&self, chat: Uuid, user: Uuid) -> Result<Option<Membership>>;

    /// Members with ids greater than `after`, in the order of their ids.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn chat_members(
        &self,
        chat: Uuid,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<ChatMember>>;

    /// A member of a chat.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn chat_member(&self, chat: Uuid, user: Uuid) -> Result<Option<ChatMember>>;

    /// Changes a chat for `actor`, after a check of its rights in the same transaction. Returns
    /// the users whose membership or role it has changed. A change that changes nothing is announced to
    /// nobody.
    ///
    /// # Errors
    /// `Unavailable`: the chat may have been changed. Every [`ChatRefusal`].
    async fn change_chat(
        &self,
        chat: Uuid,
        actor: Uuid,
        change: ChatChange,
        announce: Announce,
    ) -> Result<ChatOutcome<Vec<UserId>>>;
}
