//! The kinds of rooms. A room's kind follows from its id alone, and is decided here and nowhere
//! else.

use uuid::Uuid;

use super::id::{RoomId, UserId};

/// The id of the room that broadcasts live in.
const BROADCAST: &str = "broadcast";
/// The beginning of the ids of personal feeds. The id of an account, a UUID, follows.
const PERSONAL: &str = "user:";

/// The purpose of a room. It decides the rights to use the room and how long the room is kept.
///
/// Later kinds (chats with members, events, personal feeds) become variants here; code that depends
/// on the kind matches on it and never compares room ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoomKind {
    /// Any other room: a client may join it if its token is valid for it.
    Open,
    /// The feed of a user with an account: `user:<id>`. The user's connections hear it without joining
    /// it, and nobody sends to it.
    Personal,
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
        match id.strip_prefix(PERSONAL).map(Uuid::try_parse) {
            Some(Ok(_)) => RoomKind::Personal,
            _ => RoomKind::Open,
        }
    }

    /// The feed of a user with an account.
    #[must_use]
    pub fn personal(user: &UserId) -> Self {
        Self::trusted(&format!("{PERSONAL}{user}"))
    }

    /// The user whose personal feed this room is.
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
}
