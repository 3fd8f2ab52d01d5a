//! Where things lie in Redis: 256 partitions for rooms and 256 for users, and names that no client can bend.
//!
//! The hash tag comes first in every key, so that nothing a client chose moves a key to another slot, and one script may
//! serve many rooms of a partition. What a client chose is written in base64url.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fred::util::redis_keyslot;

use crate::backplane::BusTopic;
use crate::domain::{RoomId, UserId};

/// Partitions for rooms, and as many for users: a part of the layout, never to be changed.
const PARTITIONS: usize = 256;

/// One slot's worth of rooms or users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Partition(u16);

struct KeyLocation {
    tag: String,
    slot: u16,
}

static PLACES: LazyLock<Vec<KeyLocation>> = LazyLock::new(|| {
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
    /// How many there are, rooms' and users' together.
    pub(super) const COUNT: usize = 2 * PARTITIONS;
    /// Where the leases of all nodes lie: one script has to see them together.
    pub(super) const LEASES: Self = Self(PARTITIONS as u16);

    /// Where everything about the room lies.
    pub(super) fn of_room(room: &RoomId) -> Self {
        Self(hash(room.as_str()))
    }

    /// Where everything about the user lies.
    pub(super) fn of_user(user: &UserId) -> Self {
        Self(PARTITIONS as u16 + hash(user.as_str()))
    }

    /// Where the topic's channel lies.
    pub(super) fn of_topic(topic: &BusTopic) -> Self {
        match topic {
            BusTopic::Room(room) => Self::of_room(room),
            BusTopic::User(user) => Self::of_user(user),
            BusTopic::Nodes => Self::LEASES,
        }
    }

    /// Every partition, rooms' first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(|n| Self(n as u16))
    }

    /// Whether rooms lie in it, or else users.
    pub(super) fn holds_rooms(self) -> bool {
        usize::from(self.0) < PARTITIONS
    }

    /// Its number among all.
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Its hash tag, with the braces.
    pub(super) fn tag(self) -> &'static str {
        &PLACES[self.index()].tag
    }

    /// Its slot in a cluster.
    pub(super) fn slot(self) -> u16 {
        PLACES[self.index()].slot
    }
}

/// FNV-1a, folded to the number of partitions: every node of every version must agree on it.
fn hash(name: &str) -> u16 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    ((hash ^ (hash >> 32)) % PARTITIONS as u64) as u16
}

/// A part of a key that a client chose.
pub(super) fn part(name: &str) -> String {
    URL_SAFE_NO_PAD.encode(name)
}

/// What the client chose.
pub(super) fn name(part: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// The channel of a topic.
pub(super) fn channel(topic: &BusTopic) -> String {
    let name = match topic {
        BusTopic::Room(room) => room.as_str(),
        BusTopic::User(user) => user.as_str(),
        BusTopic::Nodes => return format!("{}nodes", Partition::LEASES.tag()),
    };
    format!("{}r:{}", Partition::of_topic(topic).tag(), part(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_move_a_key() {
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
