//! The kinds of rooms. A room's kind follows from its id alone, and is decided here and nowhere
//! else.

use uuid::Uuid;

use super::id::{RoomId, UserId};

/// The id of the room that broadcasts live in.
const BROADCAST: &str = "broadcast";
/// The beginning of the ids of personal feeds. The id of an account, a UUID, follows.
const PERSONAL: &str = "user:";
/// The beginning of the ids of chats' rooms. The id of the chat, a UUID, follows.
const CHAT: &str = "chat:";

/// The purpose of a room. It decides the rights to use the room and how long the room is kept.
///
/// Later kinds (events) become variants here; code that depends on the kind matches on it and never
/// compares room ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoomKind {
    /// Any other room: a client may join it if its token is valid for it.
    Open,
    /// The feed of a user with an account: `user:<id>`. The user's connections hear it without joining
    /// it, and nobody sends to it.
    Personal,
    /// The room of a chat: `chat:<id>`. Only its members may use it.
    Chat,
    /// The one room of broadcasts. It has listeners but no occupants; only `POST /api/broadcast`
    /// sends to it, and it is never forgotten, so that its numbering lasts while nobody listens.
    Broadcast,
}

impl RoomId {
    /// The kind of the room with this id.
    #[must_use]
    pub fn kind(&self) -> RoomKind {
        let id = self.as_str();
        if id == BROADCAST {
            return RoomKind::Broadcast;
        }
        let is_prefixed = |prefix| id.strip_prefix(prefix).map(Uuid::try_parse);
        match (is_prefixed(PERSONAL), is_prefixed(CHAT)) {
            (Some(Ok(_)), _) => RoomKind::Personal,
            (_, Some(Ok(_))) => RoomKind::Chat,
            _ => RoomKind::Open,
        }
    }

    /// The room of a chat.
    #[must_use]
    pub fn chat(chat: Uuid) -> Self {
        let chat = chat.hyphenated();
        Self::trusted(&format!("{CHAT}{chat}"))
    }

    /// The chat of this room. `None` for other rooms, and for an id that is not written as
    /// [`chat`](Self::chat) writes it: so a chat has one room.
    #[must_use]
    pub fn chat_id(&self) -> Option<Uuid> {
        let chat = Uuid::try_parse(self.as_str().strip_prefix(CHAT)?).ok()?;
        if Self::chat(chat) == *self {
            Some(chat)
        } else {
            None
        }
    }

    /// The feed of a user with an account.
    #[must_use]
    pub fn personal(user: &UserId) -> Self {
        Self::trusted(&format!("{PERSONAL}{user}"))
    }

    /// The user of this personal feed.
    #[must_use]
    pub fn personal_of(&self) -> Option<UserId> {
        if self.kind() != RoomKind::Personal {
            return None;
        }
        let user = self.as_str().strip_prefix(PERSONAL)?;
        Some(UserId::trusted(user))
    }

    /// The room that broadcasts live in.
    #[must_use]
    pub fn broadcast() -> Self {
        Self::trusted(BROADCAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_name_is_the_broadcast_room() {
        assert_eq!(RoomId::broadcast().kind(), RoomKind::Broadcast);
        for name in ["broadcasts", "Broadcast", "broadcas", "lobby"] {
            assert_eq!(RoomId::trusted(name).kind(), RoomKind::Open, "{name}");
        }
    }

    #[test]
    fn a_personal_feed_is_that_of_a_uuid() {
        let user = UserId::trusted("01890000-0000-7000-8000-000000000000");
        assert_eq!(RoomId::personal(&user).kind(), RoomKind::Personal);
        for name in [
            "user:",
            "user:ann",
            "users:01890000-0000-7000-8000-000000000000",
        ] {
            assert_eq!(RoomId::trusted(name).kind(), RoomKind::Open, "{name}");
        }
    }

    #[test]
    fn a_chat_has_one_room() {
        let chat = Uuid::from_u128(0xab << 64);
        let room = RoomId::chat(chat);
        assert_eq!((room.kind(), room.chat_id()), (RoomKind::Chat, Some(chat)));
        for other in [
            room.as_str().to_uppercase().replace("CHAT", "chat"),
            format!("chat:{}", chat.simple()),
            format!("chat:{}", chat.braced()),
        ] {
            let other = RoomId::trusted(&other);
            let expected = (RoomKind::Chat, None);
            assert_eq!((other.kind(), other.chat_id()), expected, "{other}");
        }
        for open in ["chat:", "chat:lobby", "chats:x"] {
            let open = RoomId::trusted(open);
            assert_eq!((open.kind(), open.chat_id()), (RoomKind::Open, None));
        }
    }
}
