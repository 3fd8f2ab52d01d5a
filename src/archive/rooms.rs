//! A cache of the archive's states of rooms: most reads of a log need one.

use std::sync::Arc;
use std::time::Duration;

use ahash::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::{Head, LogSpan, RoomId};
use crate::store::{ArchiveStore, ArchivedRoom, Result};

/// How long a room that was read is remembered. Only retention and a restore on another node change it.
const MAX_AGE: Duration = Duration::from_secs(10);
/// The most rooms that are remembered.
const MAX_ROOMS: usize = 10_000;

struct Known {
    room: Option<Arc<ArchivedRoom>>,
    at: Instant,
    /// The oldest `seq` that the hot log had when it was read last.
    hot_oldest: u64,
}

/// The archived rooms that were read lately.
#[derive(Default)]
pub(super) struct Rooms(Mutex<KnownRooms>);

#[derive(Default)]
struct KnownRooms {
    rooms: HashMap<RoomId, Known>,
    /// How often a room was forgotten.
    forgotten: u64,
}

impl Rooms {
    /// The state of the room in the archive, at most 10 seconds old.
    pub async fn get(
        &self,
        store: &dyn ArchiveStore,
        room: &RoomId,
        hot_oldest: u64,
    ) -> Result<Option<Arc<ArchivedRoom>>> {
        let forgotten = {
            let KnownRooms { rooms, forgotten } = &mut *self.0.lock();
            if let Some(known) = rooms.get_mut(room) {
                known.hot_oldest = hot_oldest;
                if known.at.elapsed() < MAX_AGE {
                    return Ok(known.room.clone());
                }
            }
            *forgotten
        };
        let read = store.room(room).await?.map(Arc::new);
        let mut known_rooms = self.0.lock();
        if known_rooms.forgotten != forgotten {
            // Perhaps this room, and before it was read.
            return Ok(read);
        }
        let rooms = &mut known_rooms.rooms;
        if rooms.len() >= MAX_ROOMS {
            rooms.clear();
        }
        let known = Known {
            room: read.clone(),
            at: Instant::now(),
            hot_oldest,
        };
        rooms.insert(room.clone(), known);
        Ok(read)
    }

    /// The last known state of the room, however old it is.
    pub fn remembered(&self, room: &RoomId) -> Option<Arc<ArchivedRoom>> {
        let known = self.0.lock();
        known.rooms.get(room)?.room.clone()
    }

    /// Whether the hot log had nothing as old as that `seq` when it was read last. It may have been
    /// restored since then.
    pub fn is_likely_archived(&self, room: &RoomId, seq: u64) -> bool {
        let rooms = &self.0.lock().rooms;
        rooms.get(room).is_some_and(|known| seq < known.hot_oldest)
    }

    /// Forgets the room: it has changed.
    pub fn forget(&self, room: &RoomId) {
        let mut known = self.0.lock();
        known.rooms.remove(room);
        known.forgotten += 1;
    }
}

/// Where the room's earlier epochs ended, newest first, as archive and hot log know them.
pub(super) fn past_epochs(room: &ArchivedRoom, current: &Head, hot: &[Head]) -> Vec<Head> {
    let mut past = hot.to_vec();
    for archived in &room.epochs {
        if archived.epoch == current.epoch {
            continue;
        }
        let Some(ended) = archived.ended else {
            continue;
        };
        match past.iter_mut().find(|head| head.epoch == archived.epoch) {
            Some(known) => known.seq = known.seq.min(ended),
            None => past.push(Head {
                epoch: archived.epoch.clone(),
                seq: ended,
            }),
        }
    }
    past
}

/// The span of a hot log, extended by the archive's entries.
pub(super) fn extend(mut span: LogSpan, room: &ArchivedRoom, history_size: usize) -> LogSpan {
    // Up to its watermark the hot log may be trimmed, and up to there the archive has everything.
    // So a number below that is missing only if it is recorded as lost. Numbers above it may be missing
    // in the archive for a while: other nodes commit them.
    span.oldest = span.oldest.min(room.oldest);
    let history_size = u64::try_from(history_size).unwrap_or(u64::MAX);
    let newest = (span.head.seq + 1).saturating_sub(history_size);
    span.recent = newest.max(span.oldest);
    span.first = span.first.min(room.first).min(span.oldest);
    span.past = past_epochs(room, &span.head, &span.past);
    span
}

/// The span of a hot log while the archive can't be read. Of the last known state of the room only
/// facts are used that time does not change: where epochs ended, and that the archive has nothing before
/// some number.
pub(super) fn cut_off(mut span: LogSpan, remembered: Option<&ArchivedRoom>) -> LogSpan {
    if let Some(room) = remembered {
        span.past = past_epochs(room, &span.head, &span.past);
        if room.first >= span.oldest {
            return span;
        }
    }
    span.is_cut_off = true;
    span.first = 1;
    span
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Epoch;
    use crate::store::ArchivedEpoch;

    fn head(epoch: &str, seq: u64) -> Head {
        Head {
            epoch: Epoch::trusted(epoch),
            seq,
        }
    }

    fn room(first: u64, oldest: u64, epochs: &[(&str, Option<u64>)]) -> ArchivedRoom {
        ArchivedRoom {
            first,
            oldest,
            head: 5000,
            contiguous: 0,
            epochs: epochs
                .iter()
                .map(|(epoch, ended)| ArchivedEpoch {
                    epoch: Epoch::trusted(epoch),
                    after: 0,
                    ended: *ended,
                    run: 0,
                })
                .collect(),
        }
    }

    #[test]
    fn a_span_reaches_back_as_far_as_the_archive_without_a_hole() {
        let hot = LogSpan::of_log(head("e3", 5000), 4500, vec![head("e2", 4000)]);
        let epochs = [("e3", None), ("e2", Some(3900)), ("e1", Some(10))];
        let span = extend(hot.clone(), &room(1, 1, &epochs), 1000);
        assert_eq!((span.first, span.oldest, span.recent), (1, 1, 4001));
        let past = vec![head("e2", 3900), head("e1", 10)];
        assert_eq!(span.past, past, "the lower end of an epoch counts");
        let span = extend(hot.clone(), &room(1, 4200, &epochs), 1000);
        assert_eq!((span.first, span.oldest, span.recent), (1, 4200, 4200));
        let span = extend(hot, &room(1, 4700, &epochs), 1000);
        assert_eq!((span.first, span.oldest), (1, 4500), "lost numbers");
    }

    #[test]
    fn a_span_without_the_archive_ends_at_the_log_if_older_messages_may_exist() {
        let hot = LogSpan::of_log(head("e3", 5000), 4500, vec![]);
        let epochs = [("e3", None), ("e1", Some(4600))];
        for (first, is_cut_off) in [(1, true), (4499, true), (4500, false), (5001, false)] {
            let span = cut_off(hot.clone(), Some(&room(first, first, &epochs)));
            assert_eq!(span.is_cut_off, is_cut_off, "{first}");
            assert_eq!(span.oldest, 4500);
            assert_eq!(span.past, vec![head("e1", 4600)]);
        }
        assert!(cut_off(hot, None).is_cut_off);
    }
}
