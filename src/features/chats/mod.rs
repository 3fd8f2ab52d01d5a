//! Chats: creating them, reading and changing them, and the rights of their members.

mod change;
mod create;
mod memberships;
mod read;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use uuid::Uuid;

use crate::backplane::{RoomLog, change_record};
use crate::domain::{Announcement, Chat, Code, Cost, Membership, Refusal, UserId};
use crate::features::messaging::UserRateLimiter;
use crate::store::{Announce, ChatRefusal, ChatStore, NewRow, PositionStore, StoreError};

pub use crate::backplane::Entry;
pub use crate::store::{ChatPeer, ChatPosition, RoomUnread};
pub use change::Actor;
pub use create::NewGroup;
pub use memberships::Memberships;
pub use read::{ChatPage, MemberPage};

/// A chat as one of its members sees it.
#[derive(Debug, Clone)]
pub struct ChatView {
    /// The chat.
    pub chat: Chat,
    /// The rights of the member.
    pub membership: Membership,
    /// The other user of a direct chat.
    pub peer: Option<ChatPeer>,
    /// The newest message that the member can read, once it is archived.
    pub last_message: Option<Entry>,
    /// What the member has not read; `None` without a store of positions.
    pub unread: Option<RoomUnread>,
}

/// The use cases of chats.
pub struct Chats {
    store: Arc<dyn ChatStore>,
    log: Arc<dyn RoomLog>,
    memberships: Arc<Memberships>,
    rates: Arc<UserRateLimiter>,
    positions: Option<Arc<dyn PositionStore>>,
}

impl Chats {
    /// The use cases on this store. `log` has the rooms of the chats. What a user's changes announce is
    /// charged to `rates`.
    #[must_use]
    pub fn new(
        store: Arc<dyn ChatStore>,
        log: Arc<dyn RoomLog>,
        memberships: Arc<Memberships>,
        rates: Arc<UserRateLimiter>,
    ) -> Self {
        Self {
            store,
            log,
            memberships,
            rates,
            positions: None,
        }
    }

    /// The same with what members have not read.
    #[must_use]
    pub fn with_positions(mut self, positions: Arc<dyn PositionStore>) -> Self {
        self.positions = Some(positions);
        self
    }

    /// Charges announcements to the rate of the user that causes them, before the change: requests that
    /// run at the same time must not announce more than the burst. A change with more announcements than
    /// the burst is possible once the whole burst is available, and is charged in full.
    fn charge(&self, user: Uuid, announcements: u64) -> Result<(), Refusal> {
        let user = UserId::trusted(&user.to_string());
        let charged = self.rates.spend(&user, Cost::events(announcements));
        charged.map_err(|exceeded| Refusal::rate_limited(exceeded, " of this user"))
    }
}

/// Makes the rows of the outbox.
pub(super) fn announce() -> Announce {
    Arc::new(|announcement: &Announcement| NewRow {
        room: Some(announcement.room.clone()),
        kind: announcement.change.event().to_owned(),
        payload: change_record::fields(&announcement.change),
    })
}

/// The same for a chat that doesn't exist and for one of other users.
fn unknown_chat() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such chat")
}

fn unknown_user() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such user")
}

impl From<ChatRefusal> for Refusal {
    fn from(refusal: ChatRefusal) -> Self {
        let (code, text) = match refusal {
            ChatRefusal::NotMember => return unknown_chat(),
            ChatRefusal::UnknownUser(_) => return unknown_user(),
            ChatRefusal::UnknownMember => (Code::NotFound, "the user is not a member of the chat"),
            ChatRefusal::NotOwner => (Code::Forbidden, "only owners of the chat may do this"),
            ChatRefusal::IsDirect => (Code::Forbidden, "a direct chat can't be changed or left"),
            ChatRefusal::LastOwner => (
                Code::Conflict,
                "a group keeps an owner: make another member one first, or delete the chat",
            ),
            ChatRefusal::NotArchived => (
                Code::Unavailable,
                "the newest messages of the chat are not in the database yet: try again",
            ),
            ChatRefusal::TooManyMembers => (Code::TooLarge, "the chat has too many members"),
        };
        Self::new(code, text)
    }
}

/// The refusal of a request for which the store failed.
fn refused(error: StoreError) -> Refusal {
    match error {
        StoreError::Unavailable(_) => {
            Refusal::new(Code::Unavailable, "the database can't be reached")
        }
        StoreError::Broken(_) | StoreError::Refused(_) => {
            tracing::error!(%error, "chats: the database refused a request");
            Refusal::new(Code::Internal, "the database refused the request")
        }
    }
}
