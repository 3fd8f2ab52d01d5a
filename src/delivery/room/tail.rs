//! The end of a room's log, kept for a while by whom many come back to: replays are taken from it instead of the log.
//!
//! A tail begins with the first replay that has to be read, grows with what the feed hands on, and ends when nobody has
//! used it for [`KEEP`]: so a room to which nobody comes back keeps nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::{Event, SharedEvent};
use crate::backplane::Entry;
use crate::domain::Head;

/// The most messages of one room.
pub(super) const MESSAGES: usize = 1024;
/// The most memory of one room, in bytes.
pub(super) const BYTES: usize = 1024 * 1024;
/// How long a tail is kept that nobody uses.
pub(super) const KEEP: Duration = Duration::from_secs(10);
/// What an entry takes besides its texts, about.
const OVERHEAD: usize = 256;

/// What all tails of a node may take together, and do.
#[derive(Debug)]
pub(crate) struct Budget {
    most: usize,
    taken: AtomicUsize,
}

impl Budget {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: AtomicUsize::new(0),
        })
    }

    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn left(&self) -> usize {
        self.most.saturating_sub(self.taken())
    }

    /// False, and nothing taken, when there isn't so much left.
    fn take(&self, bytes: usize) -> bool {
        let more = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= self.most);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What a message takes: its record, its encoded form, which is a little longer, and what holds them.
fn weight(record: &Bytes) -> usize {
    2 * record.len() + OVERHEAD
}

/// A message to keep. The record is copied: it may be a small part of what was read from a socket, and hold all of it.
pub(super) fn keepable(entry: Entry) -> Entry {
    Entry {
        record: Bytes::copy_from_slice(&entry.record),
        ..entry
    }
}

/// The last messages of a room, without a hole.
pub(super) struct Tail {
    /// The last one's place. Only a feed that stands exactly there is served.
    head: Head,
    /// Each with its weight.
    entries: VecDeque<(usize, SharedEvent)>,
    bytes: usize,
    /// It can't be made to reach further back.
    full: bool,
    used: Instant,
    /// When the feed is to look whether it is still used.
    pub due: Instant,
    budget: Arc<Budget>,
}

impl Tail {
    /// An empty one, for a feed that stands at `head`.
    pub fn begin(head: Head, budget: Arc<Budget>) -> Self {
        let used = Instant::now();
        Self {
            head,
            entries: VecDeque::new(),
            bytes: 0,
            full: false,
            used,
            due: used + KEEP,
            budget,
        }
    }

    /// The first number it has; one behind its end while it is empty.
    pub fn first(&self) -> u64 {
        self.head.seq + 1 - self.entries.len() as u64
    }

    /// How many it has.
    pub fn kept(&self) -> usize {
        self.entries.len()
    }

    /// Whether a feed that stands there may use it.
    pub fn ends_at(&self, head: &Head) -> bool {
        self.head == *head
    }

    /// False when nobody has used it for a while; otherwise the next time to look is set.
    pub fn is_used(&mut self, now: Instant) -> bool {
        self.due = self.used + KEEP;
        self.due > now
    }

    /// How many messages, and how many bytes of records, can be put before its first. `None`: no more.
    pub fn spare(&self) -> Option<(usize, usize)> {
        let bytes = (BYTES.saturating_sub(self.bytes)).min(self.budget.left());
        let messages = (MESSAGES - self.entries.len()).min(bytes / OVERHEAD);
        (!self.full && messages > 0).then_some((messages, bytes / 2))
    }

    /// Nothing more is to be put before its first message.
    pub fn close_front(&mut self) {
        self.full = true;
    }

    /// The feed goes on by this message. False when it doesn't follow, or there is no memory for it: the tail is of no
    /// more use then.
    #[must_use]
    pub fn push(&mut self, head: &Head, shared: &SharedEvent) -> bool {
        let Event::Message(entry) = shared.event() else {
            return false;
        };
        let weight = weight(&entry.record);
        if head.epoch != self.head.epoch
            || head.seq != self.head.seq + 1
            || !self.budget.take(weight)
        {
            return false;
        }
        self.head.seq = head.seq;
        self.bytes += weight;
        self.entries.push_back((weight, shared.clone()));
        while self.entries.len() > MESSAGES || self.bytes > BYTES {
            let Some((weight, _)) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= weight;
            self.budget.give_back(weight);
        }
        true
    }

    /// Puts what was read before its first message, as much as it may hold. What doesn't lie right before it is left.
    pub fn prepend(&mut self, entries: Vec<Entry>) {
        for entry in entries.into_iter().rev() {
            if entry.seq + 1 != self.first() {
                continue;
            }
            let weight = weight(&entry.record);
            let fits = self.entries.len() < MESSAGES && self.bytes + weight <= BYTES;
            if !fits || !self.budget.take(weight) {
                self.full = true;
                return;
            }
            self.bytes += weight;
            self.entries
                .push_front((weight, SharedEvent::new(Event::Message(keepable(entry)))));
        }
    }

    /// At most `most` messages after `seq`. `None` when it doesn't have the next one.
    pub fn after(&mut self, seq: u64, most: usize) -> Option<Vec<SharedEvent>> {
        let place = usize::try_from((seq + 1).checked_sub(self.first())?).ok()?;
        if place >= self.entries.len() {
            return None;
        }
        self.used = Instant::now();
        Some(
            self.entries
                .range(place..)
                .take(most)
                .map(|(_, shared)| shared.clone())
                .collect(),
        )
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Epoch, Timestamp};

    fn entry(seq: u64, bytes: usize) -> Entry {
        Entry {
            seq,
            epoch: Epoch::trusted("e1"),
            at: Timestamp(0),
            record: vec![b'x'; bytes].into(),
        }
    }

    fn tail(at: u64, most: usize) -> (Tail, Arc<Budget>) {
        let budget = Budget::new(most);
        (
            Tail::begin(
                Head {
                    epoch: Epoch::trusted("e1"),
                    seq: at,
                },
                budget.clone(),
            ),
            budget,
        )
    }

    fn push(tail: &mut Tail, entry: Entry) -> bool {
        let head = Head {
            epoch: entry.epoch.clone(),
            seq: entry.seq,
        };
        tail.push(&head, &SharedEvent::new(Event::Message(entry)))
    }

    fn seqs(tail: &mut Tail, after: u64) -> Option<Vec<u64>> {
        let seq = |shared: &SharedEvent| {
            if let Event::Message(entry) = shared.event() {
                entry.seq
            } else {
                0
            }
        };
        Some(tail.after(after, MESSAGES)?.iter().map(seq).collect())
    }

    #[test]
    fn it_grows_at_both_ends_and_has_no_hole() {
        let (mut tail, _) = tail(10, usize::MAX);
        assert_eq!(seqs(&mut tail, 10), None);
        assert!(push(&mut tail, entry(11, 1)));
        tail.prepend(vec![entry(7, 1), entry(8, 1)]);
        assert_eq!(tail.first(), 11, "9 and 10 are missing");
        tail.prepend((8..=10).map(|seq| entry(seq, 1)).collect());
        assert!(push(&mut tail, entry(12, 1)));
        assert_eq!(seqs(&mut tail, 7), Some(vec![8, 9, 10, 11, 12]));
        assert_eq!(seqs(&mut tail, 11), Some(vec![12]));
        assert_eq!(seqs(&mut tail, 6), None, "it doesn't reach back to 7");
        assert_eq!(seqs(&mut tail, 12), None);
        assert!(!push(&mut tail, entry(14, 1)), "13 is missing");
        assert!(!push(
            &mut tail,
            Entry {
                epoch: Epoch::trusted("e2"),
                ..entry(13, 1)
            }
        ));
    }

    #[test]
    fn it_keeps_within_its_messages_and_bytes() {
        let (mut full, budget) = tail(0, usize::MAX);
        for seq in 1..=5000 {
            assert!(push(&mut full, entry(seq, 1)));
        }
        assert_eq!(
            (full.entries.len(), full.first(), full.spare()),
            (MESSAGES, 5001 - MESSAGES as u64, None)
        );
        for seq in 5001..=5100 {
            assert!(push(&mut full, entry(seq, 32 * 1024)));
            assert!(full.bytes <= BYTES);
        }
        assert_eq!(full.entries.len(), BYTES / (64 * 1024 + OVERHEAD));
        assert_eq!(budget.taken(), full.bytes);
        drop(full);
        assert_eq!(budget.taken(), 0);
        let (mut read, _) = tail(100, usize::MAX);
        read.prepend((1..=100).map(|seq| entry(seq, 32 * 1024)).collect());
        assert!(read.bytes <= BYTES && read.entries.len() == 15 && read.spare().is_none());
        assert_eq!(seqs(&mut read, 98), Some(vec![99, 100]));
    }

    #[test]
    fn all_of_them_keep_within_the_budget() {
        let (mut one, budget) = tail(0, 10_000);
        let mut other = Tail::begin(
            Head {
                epoch: Epoch::trusted("e1"),
                seq: 9,
            },
            budget.clone(),
        );
        assert!((1..=15).all(|seq| push(&mut one, entry(seq, 100))));
        other.prepend((1..=9).map(|seq| entry(seq, 100)).collect());
        assert_eq!(
            (other.first(), budget.taken()),
            (4, 21 * 456),
            "as many as still fit"
        );
        assert!(other.spare().is_none() && !push(&mut one, entry(16, 100)));
        drop(one);
        assert_eq!(budget.taken(), 6 * 456);
    }
}
