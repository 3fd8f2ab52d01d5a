//! The rooms, users and messages of the demo data: each a function of the seed and its number, so that
//! filling can continue anywhere.

use uuid::Uuid;

use super::text::{Random, text};
use crate::archive::archived_message;
use crate::domain::{
    ClientMsgId, Epoch, Limits, MessageFields, NewMessage, RoomId, Timestamp, UserId, Username,
};
use crate::store::ArchivedEntry;

/// The skew of the rooms' sizes: the size of the n-th room is proportional to n to the power of minus
/// this.
const SKEW: f64 = 0.9;

pub(super) struct World {
    pub seed: u64,
    pub rooms: u64,
    pub messages: u64,
    pub users: u64,
    /// The time of the last messages.
    pub end: Timestamp,
    /// The milliseconds before it in which all messages lie.
    pub span: u64,
}

impl World {
    /// The sizes of the rooms, whose sum is the number of messages. Each room has a message.
    pub fn sizes(&self) -> impl Iterator<Item = u64> + use<> {
        let weight = |room: u64| ((room + 1) as f64).powf(-SKEW);
        let (rooms, messages) = (self.rooms, self.messages);
        let total: f64 = (0..rooms).map(weight).sum();
        let shared = (messages - rooms) as f64;
        // Each room ends where the sum up to it, rounded, ends: so the errors don't add up.
        let (mut sum, mut used) = (0.0, 0);
        (0..rooms).map(move |room| {
            sum += weight(room);
            let end = if room + 1 == rooms {
                messages - rooms
            } else {
                (shared * (sum / total)) as u64
            };
            let size = 1 + end - used;
            used = end;
            size
        })
    }

    pub fn room(&self, number: u64) -> RoomId {
        RoomId::trusted(&format!("demo-{}", number + 1))
    }

    /// The message with that number of a room of that size.
    pub fn message(&self, room: u64, seq: u64, size: u64) -> ArchivedEntry {
        let mut random = Random::new(&[self.seed, room, seq]);
        let at = self.time(seq, size);
        let user = self.user(room, &mut random);
        let id = id_at(at, &mut random);
        let key = random.below(2) == 0;
        let key = key.then(|| ClientMsgId::trusted(&random.uuid().to_string()));
        let fields = MessageFields {
            content: text(&mut random),
            client_msg_id: key,
            ..MessageFields::default()
        };
        let name = Username::from(&user);
        let message = NewMessage::new(self.room(room), user, name, fields, &Limits::default());
        let mut message = message.expect("demo messages are within the limits");
        message.id = id;
        archived_message(&message, seq, self.epoch(room), at)
    }

    /// Messages of a room are spread evenly.
    fn time(&self, seq: u64, size: u64) -> Timestamp {
        let left = (size - seq) as f64 / size as f64;
        let before = (self.span as f64 * left) as u64;
        Timestamp(self.end.0.saturating_sub(before))
    }

    /// A few users send most messages of a room.
    fn user(&self, room: u64, random: &mut Random) -> UserId {
        let skewed = random.below(self.users).min(random.below(self.users));
        let number = (skewed + room * 7) % self.users;
        UserId::trusted(&format!("demo-user-{}", number + 1))
    }

    fn epoch(&self, room: u64) -> Epoch {
        let id = Random::new(&[self.seed, room]).uuid().simple().to_string();
        Epoch::trusted(&id[..12])
    }
}

/// An id of version 7, which begins with its time.
fn id_at(at: Timestamp, random: &mut Random) -> Uuid {
    let bytes = random.uuid().into_bytes();
    let tail: [u8; 10] = std::array::from_fn(|index| bytes[index]);
    uuid::Builder::from_unix_timestamp_millis(at.0, &tail).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(rooms: u64, messages: u64) -> World {
        World {
            seed: 1,
            rooms,
            messages,
            users: 20,
            end: Timestamp(1_700_000_000_000),
            span: 86_400_000,
        }
    }

    #[test]
    fn every_room_has_a_message_and_the_sum_is_exact() {
        for (rooms, messages) in [(1, 1), (3, 3), (50, 100_000), (5000, 5_000_000), (7, 8)] {
            let sizes: Vec<u64> = world(rooms, messages).sizes().collect();
            assert_eq!(sizes.iter().sum::<u64>(), messages);
            assert!(sizes.iter().all(|size| *size > 0));
            assert_eq!(sizes.len() as u64, rooms);
        }
        let sizes: Vec<u64> = world(50, 100_000).sizes().collect();
        assert!(sizes[0] > 5 * sizes[9], "few rooms have most messages");
    }

    #[test]
    fn a_message_is_the_same_each_time_and_another_for_another_seed() {
        let message = world(3, 100).message(2, 7, 50);
        assert_eq!(message, world(3, 100).message(2, 7, 50));
        let other = World {
            seed: 2,
            ..world(3, 100)
        };
        assert_ne!(message.id, other.message(2, 7, 50).id);
        let next = world(3, 100).message(2, 8, 50);
        assert!(next.at > message.at && next.id > message.id);
        assert_eq!(next.epoch, message.epoch);
        assert_eq!(message.id.get_version_num(), 7);
    }

    #[test]
    fn texts_have_about_three_hundred_bytes() {
        let world = world(1, 1000);
        let records = (1..=1000).map(|seq| world.message(0, seq, 1000).record.len());
        let mean = records.sum::<usize>() / 1000;
        assert!((380..620).contains(&mean), "{mean}");
    }
}
