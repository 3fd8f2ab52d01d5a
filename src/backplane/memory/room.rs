//! One room of the embedded backplane: its log, send keys and occupants. Locking and publishing are
//! done by the caller.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::HashMap;
use bytes::Bytes;
use tokio::time::Instant;

use super::occupants::Occupants;
use crate::backplane::{Appended, BackplaneLimits, Entry, EntryKind, Slice, Window};
use crate::domain::{Epoch, Head, LogSpan, NewMessage, Timestamp, UserId};

/// Identifies a send: its user and the user's key.
type SendKey = (UserId, Box<str>);

#[derive(Debug)]
pub(super) struct Room {
    epoch: Epoch,
    seq: u64,
    /// The last entries, without a hole, ending at `seq`.
    log: VecDeque<Entry>,
    last_message: Instant,
    last_use: Instant,
    sends: HashMap<SendKey, Appended>,
    /// The keys of `sends` in the order in which they expire.
    send_order: VecDeque<(Instant, SendKey)>,
    pub(super) occupants: Occupants,
}

impl Room {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            epoch: Epoch::fresh(),
            seq: 0,
            log: VecDeque::new(),
            last_message: now,
            last_use: now,
            sends: HashMap::default(),
            send_order: VecDeque::new(),
            occupants: Occupants::default(),
        }
    }

    /// Records that the room is used now, and removes entries and send keys whose retention is over.
    /// Called before every use, so that no caller sees expired data.
    pub(super) fn forget_expired(&mut self, limits: &BackplaneLimits) {
        let now = Instant::now();
        self.last_use = now;
        if !self.log.is_empty() && now.duration_since(self.last_message) >= limits.history_ttl {
            self.log.clear();
        }
        while self
            .send_order
            .front()
            .is_some_and(|(expires, _)| *expires <= now)
        {
            if let Some((_, key)) = self.send_order.pop_front() {
                self.sends.remove(&key);
            }
        }
    }

    pub(super) fn is_expired(&self, now: Instant, ttl: Duration) -> bool {
        self.occupants.is_empty() && now.duration_since(self.last_use) >= ttl
    }

    /// Appends the message, or finds the send that it repeats. Returns its position, and the new
    /// entry unless it is a repeat.
    pub(super) fn append(
        &mut self,
        message: &NewMessage,
        key: Option<&str>,
        record: Bytes,
        limits: &BackplaneLimits,
    ) -> (Appended, Option<Entry>) {
        let key: Option<SendKey> = key.map(|key| (message.user.clone(), key.into()));
        if let Some(first) = key.as_ref().and_then(|key| self.sends.get(key)) {
            return (
                Appended {
                    duplicate: true,
                    ..first.clone()
                },
                None,
            );
        }
        self.seq += 1;
        let entry = Entry {
            seq: self.seq,
            epoch: self.epoch.clone(),
            at: Timestamp::now(),
            kind: EntryKind::Message,
            record,
        };
        let appended = Appended {
            id: message.id,
            seq: entry.seq,
            epoch: entry.epoch.clone(),
            at: entry.at,
            duplicate: false,
        };
        self.log.push_back(entry.clone());
        while self.log.len() > limits.history_size {
            self.log.pop_front();
        }
        self.last_message = self.last_use;
        if let Some(key) = key {
            self.sends.insert(key.clone(), appended.clone());
            self.send_order
                .push_back((self.last_message + limits.dedupe_ttl, key));
        }
        (appended, Some(entry))
    }

    pub(super) fn span(&self) -> LogSpan {
        let oldest = self.log.front().map_or(self.seq + 1, |entry| entry.seq);
        let head = Head {
            epoch: self.epoch.clone(),
            seq: self.seq,
        };
        LogSpan::of_log(head, oldest, Vec::new())
    }

    pub(super) fn read(&self, window: Window, limit: usize, max_bytes: usize) -> Slice {
        let oldest = self.span().oldest;
        // The log has no hole, so the index of a seq is its distance from the oldest.
        let index_of = |seq: u64| {
            usize::try_from(seq.saturating_sub(oldest))
                .unwrap_or(usize::MAX)
                .min(self.log.len())
        };
        let before = |end: usize| {
            let mut entries = take_within(self.log.range(..end).rev(), limit, max_bytes);
            entries.reverse();
            entries
        };
        let entries = match window {
            Window::After(seq) => {
                let start = index_of(seq.saturating_add(1));
                take_within(self.log.range(start..), limit, max_bytes)
            }
            Window::Before(seq) => before(index_of(seq)),
            Window::Newest => before(self.log.len()),
        };
        Slice {
            entries,
            span: self.span(),
        }
    }
}

/// The first entries: at most `limit`, with at most `max_bytes` bytes of records, but always one.
fn take_within<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    limit: usize,
    max_bytes: usize,
) -> Vec<Entry> {
    let mut taken = Vec::new();
    let mut bytes = 0;
    for entry in entries.take(limit) {
        bytes += entry.record.len();
        if !taken.is_empty() && bytes > max_bytes {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}
