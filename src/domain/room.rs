//! The kinds of rooms. A room's kind follows from its id alone, and is decided here and nowhere
//! else.

use super::id::RoomId;

/// The id of the room that broadcasts live in.
const BROADCAST: &str = "broadcast";

/// The purpose of a room. It decides the rights to use the room and how long the room is kept.
///
/// Later kinds (chats with members, events, personal feeds) become variants here; code that depends
/// on the kind matches on it and never compares room ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoomKind {
    /// Any other room: a client may join it if its token is valid for it.
    Open,
    /// The one room of broadcasts. It has listeners but no occupants; only `POST /api/broadcast`
    /// sends to it, and it is never forgotten, so that its numbering lasts while nobody listens.
    Broadcast,
}

impl RoomId {
    /// The kind of the room with this id.
    #[must_use]
    pub fn kind(&self) -> RoomKind {
        if self.as_str() == BROADCAST {
            RoomKind::Broadcast
        } else {
            RoomKind::Open
        }
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
}
