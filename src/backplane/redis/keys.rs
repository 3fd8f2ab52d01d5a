//! The names of keys and channels in Redis, and the partitions that they lie in: 256 for rooms and
//! 256 for users.
//!
//! The hash tag of the partition comes first in every key: so no name that a client chooses can move
//! a key to another slot, and one script may serve many rooms of a partition. Names that clients
//! choose are encoded in base64url. ARCHITECTURE.md lists all keys.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fred::util::redis_keyslot;

use crate::backplane::BusTopic;
use crate::domain::{RoomId, UserId};

/// The number of partitions for rooms, and of those for users. It is part of the layout and must
/// never change.
const PARTITIONS: usize = 256;

/// A part of the rooms or users, whose keys lie in one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Partition(u16);

struct KeyLocation {
    /// The hash tag, with the braces.
    tag: String,
    slot: u16,
}

static LOCATIONS: LazyLock<Vec<KeyLocation>> = LazyLock::new(|| {
    let tags = ["c", "p"]
        .into_iter()
        .flat_map(|family| (0..PARTITIONS).map(move |n| format!("{{{family}{n:02x}}}")));
    tags.map(|tag| KeyLocation {
        slot: redis_keyslot(tag.as_bytes()),
        tag,
    })
    .collect()
});

impl Partition {
    /// The number of all partitions, for rooms and for users.
    pub(super) const COUNT: usize = 2 * PARTITIONS;
    /// The partition of the leases of all nodes: a script must see them together.
    pub(super) const LEASES: Self = Self(PARTITIONS as u16);

    /// The partition of everything about the room.
    pub(super) fn of_room(room: &RoomId) -> Self {
        Self(hash(room.as_str()))
    }

    /// The partition of everything about the user.
    pub(super) fn of_user(user: &UserId) -> Self {
        Self(PARTITIONS as u16 + hash(user.as_str()))
    }

    /// The partition of the topic's channel.
    pub(super) fn of_topic(topic: &BusTopic) -> Self {
        match topic {
            BusTopic::Room(room) => Self::of_room(room),
            BusTopic::User(user) => Self::of_user(user),
            BusTopic::Nodes => Self::LEASES,
        }
    }

    /// All partitions, those of rooms first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(|n| Self(n as u16))
    }

    /// True if rooms lie in it, false if users do.
    pub(super) fn holds_rooms(self) -> bool {
        usize::from(self.0) < PARTITIONS
    }

    /// Its index among all partitions.
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Its hash tag, with the braces.
    pub(super) fn tag(self) -> &'static str {
        &LOCATIONS[self.index()].tag
    }

    /// Its slot in a cluster.
    pub(super) fn slot(self) -> u16 {
        LOCATIONS[self.index()].slot
    }

    /// A key of the partition. The prefix is one of those that the scripts use, as `u:`.
    fn key(self, prefix: &str, name: &str) -> String {
        format!("{}{prefix}{}", self.tag(), encode_name(name))
    }
}

/// FNV-1a, folded to the number of partitions. Nodes of all releases must agree on it.
fn hash(name: &str) -> u16 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    ((hash ^ (hash >> 32)) % PARTITIONS as u64) as u16
}

/// A name that a client chose, as a part of a key.
pub(super) fn encode_name(name: &str) -> String {
    URL_SAFE_NO_PAD.encode(name)
}

/// The name that a client chose, from a part of a key.
pub(super) fn decode_name(encoded: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

/// The hash of a room's numbering and of the version of its membership.
pub(super) fn numbering_key(room: &RoomId) -> String {
    Partition::of_room(room).key("m:", room.as_str())
}

/// The sorted set of a room's members.
pub(super) fn members_key(room: &RoomId) -> String {
    Partition::of_room(room).key("u:", room.as_str())
}

/// The hash of a user's status.
pub(super) fn status_key(user: &UserId) -> String {
    Partition::of_user(user).key("s:", user.as_str())
}

/// The hash of a user's live connections.
pub(super) fn connections_key(user: &UserId) -> String {
    Partition::of_user(user).key("c:", user.as_str())
}

/// The channel of a topic.
pub(super) fn channel(topic: &BusTopic) -> String {
    let partition = Partition::of_topic(topic);
    match topic {
        BusTopic::Room(room) => partition.key("r:", room.as_str()),
        BusTopic::User(user) => partition.key("r:", user.as_str()),
        BusTopic::Nodes => format!("{}nodes", partition.tag()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_braces_cannot_move_a_key_to_another_slot() {
        let room = RoomId::trusted("{p00}:*\u{1F980}");
        let channel = channel(&BusTopic::Room(room.clone()));
        assert_eq!(
            redis_keyslot(channel.as_bytes()),
            Partition::of_room(&room).slot()
        );
        assert!(channel.starts_with("{c") && channel.matches('{').count() == 1);
    }

    #[test]
    fn the_layout_never_changes() {
        assert_eq!(Partition::of_room(&RoomId::trusted("lobby")).tag(), "{c85}");
        assert_eq!(Partition::of_user(&UserId::trusted("ann")).tag(), "{pa1}");
        assert_eq!(Partition::LEASES.tag(), "{p00}");
        assert_eq!(Partition::all().count(), Partition::COUNT);
    }
}
