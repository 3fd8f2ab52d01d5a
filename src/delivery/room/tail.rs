//! The end of a room's log, kept in memory while occupants come back to the room: their replays are
//! served from it instead of the log.
//!
//! A tail begins with the first replay that has to be read, grows with what the feed delivers, and
//! is dropped when no replay has used it for [`IDLE_TIME`]. A room to which nobody comes back keeps
//! nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::{Event, SharedEvent};
use crate::backplane::{AppliedChange, Entry};
use crate::domain::Head;

/// The most messages in the tail of one room.
pub(super) const MAX_MESSAGES: usize = 1024;
/// The most memory of one room's tail, in bytes.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
/// How long an unused tail is kept.
pub(super) const IDLE_TIME: Duration = Duration::from_secs(10);
/// About how many bytes an entry takes besides its record and its encoded form.
const ENTRY_OVERHEAD: usize = 256;

/// The memory that all tails of a node share.
#[derive(Debug)]
pub(crate) struct TailBudget {
    limit: usize,
    used: AtomicUsize,
}

impl TailBudget {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
        })
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn available(&self) -> usize {
        self.limit.saturating_sub(self.used())
    }

    /// Returns false, and reserves nothing, when less than that is available.
    fn reserve(&self, bytes: usize) -> bool {
        let reserved = |used: usize| {
            used.checked_add(bytes)
                .filter(|reserved| *reserved <= self.limit)
        };
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserved)
            .is_ok()
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// About how many bytes a message takes: its record, its encoded form, which is a little longer,
/// and their containers.
fn weight(record: &Bytes) -> usize {
    2 * record.len() + ENTRY_OVERHEAD
}

/// The entry with a copy of its record. The original record may be a small part of a buffer that
/// was read from a socket, and would keep all of that buffer in memory.
pub(super) fn with_own_record(entry: Entry) -> Entry {
    Entry {
        record: Bytes::copy_from_slice(&entry.record),
        ..entry
    }
}

/// An event with the newest form of its message. `None` if it stays as it is.
pub(super) fn apply(change: &AppliedChange<'_>, shared: &SharedEvent) -> Option<SharedEvent> {
    let Event::Message(entry) = shared.event() else {
        return None;
    };
    Some(SharedEvent::new(Event::Message(change.apply(entry)?)))
}

/// The last messages of a room, without a hole.
pub(super) struct Tail {
    /// The position of the last message. Only a feed at exactly this position is served.
    head: Head,
    /// Each message with its weight.
    entries: VecDeque<(usize, SharedEvent)>,
    /// The message that each announcement of a change in the tail is about.
    targets: BTreeMap<u64, u64>,
    bytes: usize,
    /// No message may be added before the first one any more.
    front_closed: bool,
    last_used: Instant,
    /// When the feed has to check whether the tail is still in use.
    pub check_at: Instant,
    budget: Arc<TailBudget>,
}

/// How much can be added before the first message of a tail.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    pub messages: usize,
    /// Bytes of records.
    pub bytes: usize,
}

impl Tail {
    /// An empty tail for a feed at that position.
    pub fn new(head: Head, budget: Arc<TailBudget>) -> Self {
        let last_used = Instant::now();
        Self {
            head,
            entries: VecDeque::new(),
            targets: BTreeMap::new(),
            bytes: 0,
            front_closed: false,
            last_used,
            check_at: last_used + IDLE_TIME,
            budget,
        }
    }

    /// The `seq` of the first message; that of the next message while the tail is empty.
    pub fn first_seq(&self) -> u64 {
        self.head.seq + 1 - self.entries.len() as u64
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True when a feed at that position may use the tail.
    pub fn ends_at(&self, head: &Head) -> bool {
        self.head == *head
    }

    /// False when no replay has used the tail for [`IDLE_TIME`]. Otherwise sets the next time to
    /// check.
    pub fn is_in_use(&mut self, now: Instant) -> bool {
        self.check_at = self.last_used + IDLE_TIME;
        self.check_at > now
    }

    /// How much can be added before the first message; `None` for nothing.
    pub fn capacity_before(&self) -> Option<Capacity> {
        if self.front_closed {
            return None;
        }
        let bytes = MAX_BYTES
            .saturating_sub(self.bytes)
            .min(self.budget.available());
        let messages = (MAX_MESSAGES - self.entries.len()).min(bytes / ENTRY_OVERHEAD);
        if messages == 0 {
            return None;
        }
        Some(Capacity {
            messages,
            bytes: bytes / 2,
        })
    }

    /// Allows no further message before the first one.
    pub fn close_front(&mut self) {
        self.front_closed = true;
    }

    /// Adds the feed's next message. Returns false when the message doesn't follow the last one, or
    /// there is no memory for it: the tail is of no further use then.
    #[must_use]
    pub fn push(&mut self, head: &Head, shared: &SharedEvent) -> bool {
        let Event::Message(entry) = shared.event() else {
            return false;
        };
        let weight = weight(&entry.record);
        if head.epoch != self.head.epoch
            || head.seq != self.head.seq + 1
            || !self.budget.reserve(weight)
        {
            return false;
        }
        self.head.seq = head.seq;
        self.bytes += weight;
        if let Some(change) = AppliedChange::of(entry) {
            self.targets.insert(entry.seq, change.target());
        }
        self.entries.push_back((weight, shared.clone()));
        while self.entries.len() > MAX_MESSAGES || self.bytes > MAX_BYTES {
            let Some((weight, _)) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= weight;
            self.budget.release(weight);
        }
        if !self.targets.is_empty() {
            self.targets = self.targets.split_off(&self.first_seq());
        }
        true
    }

    /// Gives the message of a change, and earlier announcements about it, their newest form. Returns false
    /// when there is no memory for it: the tail is of no further use then.
    #[must_use]
    pub fn apply(&mut self, change: &AppliedChange<'_>) -> bool {
        let target = change.target();
        let announcements = self.targets.iter().filter(|(_, about)| **about == target);
        let mut seqs: Vec<u64> = announcements.map(|(seq, _)| *seq).collect();
        seqs.push(target);
        let first = self.first_seq();
        for seq in seqs {
            let index = seq.checked_sub(first);
            let index = index.and_then(|index| usize::try_from(index).ok());
            let Some((old_weight, shared)) = index.and_then(|index| self.entries.get_mut(index))
            else {
                continue;
            };
            let Some(changed) = apply(change, shared) else {
                continue;
            };
            let Event::Message(entry) = changed.event() else {
                continue;
            };
            let new_weight = weight(&entry.record);
            if !self.budget.reserve(new_weight) {
                return false;
            }
            self.budget.release(*old_weight);
            self.bytes = self.bytes + new_weight - *old_weight;
            (*old_weight, *shared) = (new_weight, changed);
        }
        true
    }

    /// Adds entries before the first message, the newest first, as many as the tail may hold. Skips
    /// an entry that doesn't lie directly before the first message.
    pub fn prepend(&mut self, entries: Vec<Entry>) {
        for entry in entries.into_iter().rev() {
            if entry.seq + 1 != self.first_seq() {
                continue;
            }
            let weight = weight(&entry.record);
            let fits = self.entries.len() < MAX_MESSAGES && self.bytes + weight <= MAX_BYTES;
            if !fits || !self.budget.reserve(weight) {
                self.close_front();
                return;
            }
            self.bytes += weight;
            if let Some(change) = AppliedChange::of(&entry) {
                self.targets.insert(entry.seq, change.target());
            }
            let shared = SharedEvent::new(Event::Message(with_own_record(entry)));
            self.entries.push_front((weight, shared));
        }
    }

    /// At most `limit` messages after `seq`. `None` when the tail doesn't have the next one.
    pub fn after(&mut self, seq: u64, limit: usize) -> Option<Vec<SharedEvent>> {
        let index = usize::try_from((seq + 1).checked_sub(self.first_seq())?).ok()?;
        if index >= self.entries.len() {
            return None;
        }
        self.last_used = Instant::now();
        let following = self.entries.range(index..).take(limit);
        Some(following.map(|(_, shared)| shared.clone()).collect())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::EntryKind;
    use crate::domain::{Epoch, Timestamp};

    fn entry(seq: u64, bytes: usize) -> Entry {
        Entry {
            seq,
            epoch: Epoch::trusted("e1"),
            at: Timestamp(0),
            kind: EntryKind::Message,
            record: vec![b'x'; bytes].into(),
        }
    }

    fn tail(at: u64, limit: usize) -> (Tail, Arc<TailBudget>) {
        let budget = TailBudget::new(limit);
        (
            Tail::new(
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
        Some(tail.after(after, MAX_MESSAGES)?.iter().map(seq).collect())
    }

    #[test]
    fn a_tail_grows_at_both_ends_and_has_no_hole() {
        let (mut tail, _) = tail(10, usize::MAX);
        assert_eq!(seqs(&mut tail, 10), None);
        assert!(push(&mut tail, entry(11, 1)));
        tail.prepend(vec![entry(7, 1), entry(8, 1)]);
        assert_eq!(tail.first_seq(), 11, "9 and 10 are missing");
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
    fn a_tail_keeps_within_its_limits_of_messages_and_bytes() {
        let (mut full, budget) = tail(0, usize::MAX);
        for seq in 1..=5000 {
            assert!(push(&mut full, entry(seq, 1)));
        }
        assert_eq!(
            (full.entries.len(), full.first_seq(), full.capacity_before()),
            (MAX_MESSAGES, 5001 - MAX_MESSAGES as u64, None)
        );
        for seq in 5001..=5100 {
            assert!(push(&mut full, entry(seq, 32 * 1024)));
            assert!(full.bytes <= MAX_BYTES);
        }
        assert_eq!(full.entries.len(), MAX_BYTES / (64 * 1024 + ENTRY_OVERHEAD));
        assert_eq!(budget.used(), full.bytes);
        drop(full);
        assert_eq!(budget.used(), 0);
        let (mut read, _) = tail(100, usize::MAX);
        read.prepend((1..=100).map(|seq| entry(seq, 32 * 1024)).collect());
        assert!(
            read.bytes <= MAX_BYTES && read.entries.len() == 15 && read.capacity_before().is_none()
        );
        assert_eq!(seqs(&mut read, 98), Some(vec![99, 100]));
    }

    #[test]
    fn a_change_replaces_the_forms_in_the_tail() {
        let (mut tail, budget) = tail(2, usize::MAX);
        let id = uuid::Uuid::nil();
        let announcement = |seq: u64, content: &str| {
            Entry {
            kind: EntryKind::Change,
            record: format!(
                "{{\"event\":\"message_edited\",\"entry_id\":\"{id}\",\"room_id\":\"r\",\"message\":\
                 {{\"seq\":2,\"epoch\":\"e1\",\"timestamp\":\"t\",\"id\":\"x\",\
                 \"content\":\"{content}\",\"version\":{seq}}}}}"
            )
            .into(),
            ..entry(seq, 0)
        }
        };
        tail.prepend(vec![entry(1, 10), entry(2, 10)]);
        for (seq, content) in [(3, "new"), (4, "longer and newest")] {
            let change = announcement(seq, content);
            assert!(push(&mut tail, change.clone()));
            assert!(tail.apply(&AppliedChange::of(&change).unwrap()));
        }
        let records: Vec<String> = tail
            .after(0, 10)
            .unwrap()
            .iter()
            .map(|shared| match shared.event() {
                Event::Message(entry) => String::from_utf8(entry.record.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        let newest = r#"{"id":"x","content":"longer and newest","version":4}"#;
        assert_eq!(
            (records[0].as_str(), records[1].as_str()),
            ("xxxxxxxxxx", newest)
        );
        assert!(records[2].contains("longer and newest") && !records[2].contains("\"new\""));
        let weights: usize = tail.entries.iter().map(|(weight, _)| weight).sum();
        assert_eq!((tail.bytes, budget.used()), (weights, weights));
        let (mut full, _) = self::tail(0, 600);
        assert!(push(&mut full, entry(1, 10)));
        let change = announcement(2, &"x".repeat(1000));
        let about_first = Entry {
            record: String::from_utf8(change.record.to_vec())
                .unwrap()
                .replace("\"seq\":2", "\"seq\":1")
                .into(),
            ..change
        };
        assert!(
            !full.apply(&AppliedChange::of(&about_first).unwrap()),
            "no memory"
        );
    }

    #[test]
    fn all_tails_together_keep_within_the_budget() {
        let (mut one, budget) = tail(0, 10_000);
        let mut other = Tail::new(
            Head {
                epoch: Epoch::trusted("e1"),
                seq: 9,
            },
            budget.clone(),
        );
        assert!((1..=15).all(|seq| push(&mut one, entry(seq, 100))));
        other.prepend((1..=9).map(|seq| entry(seq, 100)).collect());
        assert_eq!(
            (other.first_seq(), budget.used()),
            (4, 21 * 456),
            "as many as still fit"
        );
        assert!(other.capacity_before().is_none() && !push(&mut one, entry(16, 100)));
        drop(one);
        assert_eq!(budget.used(), 6 * 456);
    }
}
