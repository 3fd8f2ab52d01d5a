//! Rooms whose blocks a reader found far behind their entries.

use std::collections::BTreeSet;

use parking_lot::Mutex;

/// The most rooms that are noted. Further ones are noted by a later reader.
const MAX_ROOMS: usize = 10_000;

/// The numbers of such rooms, until the next projection.
#[derive(Default)]
pub(in crate::store::sql) struct Behind(Mutex<BTreeSet<i64>>);

impl Behind {
    pub(super) fn note(&self, rooms: impl IntoIterator<Item = i64>) {
        let mut noted = self.0.lock();
        for room_no in rooms {
            if noted.len() >= MAX_ROOMS {
                return;
            }
            noted.insert(room_no);
        }
    }

    /// Takes at most so many rooms, those with the lowest numbers.
    pub(super) fn take(&self, limit: usize) -> Vec<i64> {
        let mut noted = self.0.lock();
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some(room_no) = noted.pop_first()
        {
            taken.push(room_no);
        }
        taken
    }
}
