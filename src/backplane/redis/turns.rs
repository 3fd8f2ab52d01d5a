//! How many calls about presence are under way at a time.
//!
//! Redis takes its connections in turn, and from each whatever it has sent at once: so an append, which comes by another
//! connection, waits for the calls that have their turn, and for no more. The turns belong to parts of the slots, those
//! of one server more or less, so that one that hangs doesn't hold the others up.

use std::pin::pin;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::keys::Partition;
use super::link::Fault;

/// Parts of the slots.
const PARTS: usize = 16;
const SLOTS_OF_A_PART: usize = 16_384 / PARTS;
/// Turns at a time in one part.
const TURNS: usize = 8;
/// The longest that a call waits for its turn, while others of its part are answered.
const PATIENCE: Duration = Duration::from_secs(15);

/// The turns of all parts.
pub(super) struct Turns {
    parts: [Part; PARTS],
    /// A part that gave no answer for so long hangs.
    silence: Duration,
}

struct Part {
    turns: Semaphore,
    answered_at: Mutex<Instant>,
}

impl Turns {
    pub(super) fn new(silence: Duration) -> Self {
        let part = || Part {
            turns: Semaphore::new(TURNS),
            answered_at: Mutex::new(Instant::now()),
        };
        Self {
            parts: std::array::from_fn(|_| part()),
            silence,
        }
    }

    fn part(&self, partition: Partition) -> &Part {
        &self.parts[usize::from(partition.slot()) / SLOTS_OF_A_PART]
    }

    /// Waits until a call to the partition may be under way, first come, first served; the permit's end is the call's.
    ///
    /// # Errors
    /// Too many wait, or the server doesn't answer.
    pub(super) async fn take(&self, partition: Partition) -> Result<SemaphorePermit<'_>, Fault> {
        let (part, begun) = (self.part(partition), Instant::now());
        let mut turn = pin!(part.turns.acquire());
        loop {
            if let Ok(turn) = tokio::time::timeout(self.silence, &mut turn).await {
                return turn.map_err(|_| Fault::unavailable("the node stops"));
            }
            if begun.elapsed() > PATIENCE || part.answered_at.lock().elapsed() > self.silence {
                return Err(Fault::unavailable("too much waits for Redis"));
            }
        }
    }

    /// The partition's server has answered, whatever it said.
    pub(super) fn answered(&self, partition: Partition) {
        *self.part(partition).answered_at.lock() = Instant::now();
    }
}
