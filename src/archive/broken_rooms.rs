//! Logs rooms whose stored data can't be decoded, at a bounded rate.

use std::time::Duration;

use ahash::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::RoomId;
use crate::store::StoreError;

/// A room is logged again after this time.
const REPEAT_AFTER: Duration = Duration::from_secs(600);
/// The most rooms that are remembered as logged. While there are so many, further ones are not logged.
const MAX_ROOMS: usize = 1000;

/// The rooms that were logged lately.
#[derive(Default)]
pub(super) struct BrokenRooms(Mutex<HashMap<RoomId, Instant>>);

impl BrokenRooms {
    /// Logs the error if it shows broken data, once per room in ten minutes.
    pub fn report(&self, room: &RoomId, error: &StoreError) {
        if let StoreError::Broken(reason) = error
            && self.is_due(room)
        {
            tracing::error!(%room, reason, "archive: messages of a room cannot be read");
        }
    }

    fn is_due(&self, room: &RoomId) -> bool {
        let now = Instant::now();
        let mut logged = self.0.lock();
        if logged.get(room).is_some_and(|at| now - *at < REPEAT_AFTER) {
            return false;
        }
        if logged.len() >= MAX_ROOMS {
            logged.retain(|_, at| now - *at < REPEAT_AFTER);
        }
        if logged.len() >= MAX_ROOMS {
            return false;
        }
        logged.insert(room.clone(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_broken_room_is_logged_once_in_a_while() {
        let rooms = BrokenRooms::default();
        let (one, two) = (RoomId::trusted("one"), RoomId::trusted("two"));
        assert!(rooms.is_due(&one));
        assert!(!rooms.is_due(&one));
        assert!(rooms.is_due(&two));
        tokio::time::advance(REPEAT_AFTER).await;
        assert!(rooms.is_due(&one));
        for number in 0..2 * MAX_ROOMS {
            rooms.is_due(&RoomId::trusted(&number.to_string()));
        }
        assert!(rooms.0.lock().len() <= MAX_ROOMS);
    }
}
