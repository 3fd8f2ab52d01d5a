//! The names of keys and channels in Redis, and the partitions that they lie in: 256 for rooms and
//! 256 for users.
//!
//! Every name begins with the deployment's prefix and the hash tag of its partition: so no name that
//! a client chooses can move a key to another slot, and one script may serve many rooms of a
//! partition. The prefix contains no brace, so the slot follows from the hash tag alone. Names that
//! clients choose are encoded in base64url. ARCHITECTURE.md lists all keys.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fred::bytes_utils::Str;
use fred::util::redis_keyslot;

use super::settings::KeyPrefix;
use crate::backplane::BusTopic;
use crate::domain::{RoomId, UserId};

/// The number of partitions for rooms, and of those for users. It is part of the layout and must
/// never change.
const PARTITIONS: usize = 256;

/// The version of the layout: of the names of keys and channels, and of the formats behind them. A
/// node works only with data of its own version. Raise it when nodes of the releases before and
/// after a change can't work side by side on the same data. Version 1 had no prefix.
pub(super) const LAYOUT_VERSION: &str = "2";

/// The key with the time of the last heartbeat in layout 1, which had no prefix. It never expires.
const LAST_BEAT_OF_LAYOUT_1: &str = "{p00}B";

/// A part of the rooms or users, whose keys lie in one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Partition(u16);

/// The hash tag of each partition, with the braces.
fn hash_tags() -> impl Iterator<Item = String> {
    ["c", "p"]
        .into_iter()
        .flat_map(|family| (0..PARTITIONS).map(move |n| format!("{{{family}{n:02x}}}")))
}

static SLOTS: LazyLock<Vec<u16>> = LazyLock::new(|| {
    hash_tags()
        .map(|tag| redis_keyslot(tag.as_bytes()))
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

    /// Its slot in a cluster.
    pub(super) fn slot(self) -> u16 {
        SLOTS[self.index()]
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

/// The names in Redis of one deployment: those that nodes with the same prefix and database share,
/// and no others.
pub(super) struct Keys {
    /// By partition: the prefix and the hash tag, with which all its keys begin.
    tags: Vec<Str>,
    /// By partition: the beginning of the channels of its rooms or users.
    channels: Vec<Str>,
    /// The channel of all nodes.
    nodes: Str,
    /// Whether data of layout 1 in the same database counts as data of this deployment.
    succeeds_layout_1: bool,
}

impl Keys {
    /// The names with this prefix in this database. Keys are separate in each database by
    /// themselves. Channels are not, so they contain its number; keys do not, so that a copy of the
    /// data can be used in another database.
    pub(super) fn new(prefix: &KeyPrefix, database: u8) -> Self {
        let tags: Vec<Str> = hash_tags()
            .map(|tag| format!("{}{tag}", prefix.as_str()).into())
            .collect();
        let leases = &tags[Partition::LEASES.index()];
        Self {
            nodes: format!("{leases}nodes{database}").into(),
            channels: tags
                .iter()
                .map(|tag| format!("{tag}r{database}:").into())
                .collect(),
            tags,
            succeeds_layout_1: *prefix == KeyPrefix::default(),
        }
    }

    /// The prefix and the hash tag of the partition, with which all its keys begin.
    pub(super) fn tag(&self, partition: Partition) -> &Str {
        &self.tags[partition.index()]
    }

    /// The beginning of the channels of the partition's rooms or users.
    pub(super) fn channels(&self, partition: Partition) -> &Str {
        &self.channels[partition.index()]
    }

    /// A key of the partition. The kind is one of those that the scripts use, as `u:`.
    fn key(&self, partition: Partition, kind: &str, name: &str) -> String {
        format!("{}{kind}{}", self.tag(partition), encode_name(name))
    }

    /// The hash of a room's numbering and of the version of its membership.
    pub(super) fn numbering(&self, room: &RoomId) -> String {
        self.key(Partition::of_room(room), "m:", room.as_str())
    }

    /// The sorted set of a room's members.
    pub(super) fn members(&self, room: &RoomId) -> String {
        self.key(Partition::of_room(room), "u:", room.as_str())
    }

    /// The hash of a user's status.
    pub(super) fn status(&self, user: &UserId) -> String {
        self.key(Partition::of_user(user), "s:", user.as_str())
    }

    /// The hash of a user's live connections.
    pub(super) fn connections(&self, user: &UserId) -> String {
        self.key(Partition::of_user(user), "c:", user.as_str())
    }

    /// The version of the layout of all data with this prefix.
    pub(super) fn layout(&self) -> String {
        format!("{}V", self.tag(Partition::LEASES))
    }

    /// The id of the archive behind all logs with this prefix.
    pub(super) fn archive(&self) -> String {
        format!("{}A", self.tag(Partition::LEASES))
    }

    /// The key that shows data of layout 1. `None` with another prefix than the default one: such a
    /// deployment begins anew beside that data.
    pub(super) fn last_beat_of_layout_1(&self) -> Option<&'static str> {
        if self.succeeds_layout_1 {
            Some(LAST_BEAT_OF_LAYOUT_1)
        } else {
            None
        }
    }

    /// The channel of a topic.
    pub(super) fn channel(&self, topic: &BusTopic) -> String {
        let channels = self.channels(Partition::of_topic(topic));
        match topic {
            BusTopic::Room(room) => format!("{channels}{}", encode_name(room.as_str())),
            BusTopic::User(user) => format!("{channels}{}", encode_name(user.as_str())),
            BusTopic::Nodes => self.nodes.to_string(),
        }
    }

    /// A channel of the partition that is used only to try the right to subscribe.
    pub(super) fn rights_channel(&self, partition: Partition) -> String {
        format!("{}=rights", self.channels(partition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(prefix: &str, database: u8) -> Keys {
        Keys::new(&KeyPrefix::parse(prefix).unwrap(), database)
    }

    #[test]
    fn a_name_with_braces_cannot_move_a_key_to_another_slot() {
        let room = RoomId::trusted("{p00}:*\u{1F980}");
        let channel = keys("hubbub:", 0).channel(&BusTopic::Room(room.clone()));
        assert_eq!(
            redis_keyslot(channel.as_bytes()),
            Partition::of_room(&room).slot()
        );
        assert!(channel.starts_with("hubbub:{c") && channel.matches('{').count() == 1);
    }

    #[test]
    fn the_layout_never_changes() {
        let keys = keys("hubbub:", 7);
        let (lobby, ann) = (RoomId::trusted("lobby"), UserId::trusted("ann"));
        assert_eq!(keys.numbering(&lobby), "hubbub:{c85}m:bG9iYnk");
        assert_eq!(keys.status(&ann), "hubbub:{pa1}s:YW5u");
        assert_eq!(keys.layout(), "hubbub:{p00}V");
        assert_eq!(keys.archive(), "hubbub:{p00}A");
        let channels = [BusTopic::Room(lobby), BusTopic::User(ann), BusTopic::Nodes];
        assert_eq!(
            channels.map(|topic| keys.channel(&topic)),
            [
                "hubbub:{c85}r7:bG9iYnk",
                "hubbub:{pa1}r7:YW5u",
                "hubbub:{p00}nodes7"
            ]
        );
        assert_eq!(Partition::all().count(), Partition::COUNT);
    }

    #[test]
    fn a_prefix_changes_no_slot() {
        let keys = keys("eu-west/chat_2.", 0);
        for partition in Partition::all() {
            for name in [keys.tag(partition), keys.channels(partition)] {
                assert_eq!(redis_keyslot(name.as_bytes()), partition.slot(), "{name}");
            }
        }
    }
}
