//! Entries that the database refuses although it responds: a fault of the data or of this server.
//!
//! Such an entry must not hold up the others. It stays in the hot log, above its room's watermark, and
//! the sweeper offers it again after a pause.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ahash::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::RoomId;

/// After so many entries of which the database has taken none, the fault is not with single entries: the
/// rest is not tried one by one.
pub(super) const MAX_REFUSED_IN_ROW: usize = 8;
/// The pause before a room's refused entries are offered again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// A room that was not refused again for so long is forgotten: it went on elsewhere.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// The time between two lines in the log.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// The entries of this node that the database has refused.
#[derive(Default)]
pub(super) struct Refused {
    rooms: Mutex<Rooms>,
    /// The number of entries, so that a commit need not lock while there are none.
    count: AtomicUsize,
}

#[derive(Default)]
struct Rooms {
    rooms: HashMap<RoomId, RefusedRoom>,
    logged_at: Option<Instant>,
}

struct RefusedRoom {
    seqs: BTreeSet<u64>,
    refused_at: Instant,
    offered_at: Instant,
    pause: Duration,
}

impl Refused {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether the database has refused this entry, and has not taken it since.
    pub fn has(&self, room: &RoomId, seq: u64) -> bool {
        if self.len() == 0 {
            return false;
        }
        let rooms = self.rooms.lock();
        let known = rooms.rooms.get(room);
        known.is_some_and(|known| known.seqs.contains(&seq))
    }

    /// Notes that the database has refused an entry. Returns whether it is the first time.
    pub fn add(&self, room: &RoomId, seq: u64, error: &str) -> bool {
        let now = Instant::now();
        let mut rooms = self.rooms.lock();
        let known = rooms
            .rooms
            .entry(room.clone())
            .or_insert_with(|| RefusedRoom {
                seqs: BTreeSet::new(),
                refused_at: now,
                offered_at: now,
                pause: FIRST_PAUSE,
            });
        known.refused_at = now;
        let is_new = known.seqs.insert(seq);
        let is_due = rooms.logged_at.is_none_or(|at| now - at >= LOG_INTERVAL);
        if is_due {
            rooms.logged_at = Some(now);
        }
        let count = self.count.load(Ordering::Relaxed) + usize::from(is_new);
        self.count.store(count, Ordering::Relaxed);
        drop(rooms);
        if is_due {
            tracing::error!(
                %room,
                seq,
                error,
                refused = count,
                "archive: the database refuses a message: it is offered again later, and its room's \
                 log keeps everything from it on"
            );
        }
        is_new
    }

    /// The archive has answered for an entry: it has this one or another one.
    pub fn remove(&self, room: &RoomId, seq: u64) {
        if self.len() == 0 {
            return;
        }
        let mut rooms = self.rooms.lock();
        let Some(known) = rooms.rooms.get_mut(room) else {
            return;
        };
        if known.seqs.remove(&seq) {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        if known.seqs.is_empty() {
            rooms.rooms.remove(room);
        }
    }

    /// Whether the sweeper may offer the room's entries now.
    pub fn may_offer(&self, room: &RoomId) -> bool {
        if self.len() == 0 {
            return true;
        }
        let mut rooms = self.rooms.lock();
        let Some(known) = rooms.rooms.get_mut(room) else {
            return true;
        };
        if known.offered_at.elapsed() < known.pause {
            return false;
        }
        known.offered_at = Instant::now();
        known.pause = (known.pause * 2).min(LAST_PAUSE);
        true
    }

    /// Forgets rooms that went on elsewhere.
    pub fn forget_old(&self) {
        if self.len() == 0 {
            return;
        }
        let mut rooms = self.rooms.lock();
        rooms
            .rooms
            .retain(|_, room| room.refused_at.elapsed() < FORGET_AFTER);
        let count = rooms.rooms.values().map(|room| room.seqs.len()).sum();
        self.count.store(count, Ordering::Relaxed);
    }
}
