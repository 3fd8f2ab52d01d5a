//! The numbers of rooms and epochs that a writer has used lately.

use ahash::AHashMap;

use crate::domain::{Epoch, RoomId};

/// Rooms in each of the two halves. A full half replaces the other, so that rooms in use stay known.
const HALF: usize = 32_768;
/// Epochs kept for one room.
const EPOCHS: usize = 4;

/// The number of a room, and of an epoch in it.
pub(super) type Numbers = (i64, i64);

/// A bounded cache. Its numbers never change in the database, unless an operator replaces the database:
/// so it is cleared with each connection.
#[derive(Default)]
pub(super) struct KnownNumbers {
    young: AHashMap<RoomId, KnownRoom>,
    old: AHashMap<RoomId, KnownRoom>,
}

#[derive(Debug, Clone)]
struct KnownRoom {
    number: i64,
    epochs: Vec<(Epoch, i64)>,
}

impl KnownNumbers {
    pub(super) fn get(&mut self, room: &RoomId, epoch: &Epoch) -> Option<Numbers> {
        if !self.young.contains_key(room) {
            let known = self.old.remove(room)?;
            self.insert(room.clone(), known);
        }
        let known = self.young.get(room)?;
        let found = known.epochs.iter().find(|(name, _)| name == epoch);
        found.map(|(_, epoch)| (known.number, *epoch))
    }

    pub(super) fn add(&mut self, room: &RoomId, epoch: &Epoch, (number, epoch_no): Numbers) {
        let known = self.young.remove(room).or_else(|| self.old.remove(room));
        let mut known = known.unwrap_or(KnownRoom {
            number,
            epochs: Vec::new(),
        });
        known.number = number;
        known.epochs.retain(|(name, _)| name != epoch);
        known.epochs.push((epoch.clone(), epoch_no));
        if known.epochs.len() > EPOCHS {
            known.epochs.remove(0);
        }
        self.insert(room.clone(), known);
    }

    fn insert(&mut self, room: RoomId, known: KnownRoom) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(room, known);
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_in_use_stay_known_and_the_cache_is_bounded() {
        let mut known = KnownNumbers::default();
        let (used, epoch) = (RoomId::trusted("used"), Epoch::trusted("e"));
        known.add(&used, &epoch, (7, 1));
        for number in 0..i64::try_from(3 * HALF).unwrap() {
            let room = RoomId::trusted(&number.to_string());
            known.add(&room, &epoch, (number, 1));
            assert_eq!(known.get(&used, &epoch), Some((7, 1)));
        }
        assert!(known.young.len() + known.old.len() <= 2 * HALF);
        assert_eq!(known.get(&RoomId::trusted("0"), &epoch), None);
    }

    #[test]
    fn a_room_keeps_its_last_epochs() {
        let mut known = KnownNumbers::default();
        let room = RoomId::trusted("r");
        for number in 0..6 {
            known.add(&room, &Epoch::trusted(&number.to_string()), (1, number));
        }
        assert_eq!(known.get(&room, &Epoch::trusted("0")), None);
        assert_eq!(known.get(&room, &Epoch::trusted("5")), Some((1, 5)));
        assert_eq!(known.get(&room, &Epoch::trusted("2")), Some((1, 2)));
    }
}
