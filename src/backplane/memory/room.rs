//! One room of the embedded backplane: its log, send keys and occupants. Locking and publishing are
//! done by the caller.

mod archiving;
mod forms;

use std::collections::VecDeque;
use std::time::Duration;

use ahash::HashMap;
use bytes::Bytes;
use tokio::time::Instant;

use super::occupants::Occupants;
use crate::backplane::{
    AnnouncedForms, Appended, BackplaneLimits, Entry, EntryKind, NewEntry, Traces, Window,
};
use crate::domain::{Amendment, Epoch, FormContent, Head, LogSpan, Timestamp, UserId};
use archiving::Archiving;
use forms::Forms;

/// Identifies a send: its user and the user's key.
type SendKey = (UserId, Box<str>);

#[derive(Debug)]
pub(super) struct Room {
    epoch: Epoch,
    seq: u64,
    /// The last entries, without a hole, ending at `seq`.
    log: VecDeque<Entry>,
    forms: Forms,
    /// See [`Traces`].
    has_changes: bool,
    last_reply: u64,
    last_message: Instant,
    last_use: Instant,
    sends: HashMap<SendKey, Appended>,
    /// The keys of `sends` in the order in which they expire.
    send_order: VecDeque<(Instant, SendKey)>,
    pub(super) occupants: Occupants,
    /// The archive has every entry up to this `seq`, and only those may be removed. Without an
    /// archive it is above every `seq`.
    watermark: u64,
    /// Whether the archive must restore the log before its next use.
    must_restore: bool,
    archiving: Option<Box<Archiving>>,
}

impl Room {
    /// An empty room without an archive.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            epoch: Epoch::fresh(),
            seq: 0,
            log: VecDeque::new(),
            forms: Forms::default(),
            has_changes: false,
            last_reply: 0,
            last_message: now,
            last_use: now,
            sends: HashMap::default(),
            send_order: VecDeque::new(),
            occupants: Occupants::default(),
            watermark: u64::MAX,
            must_restore: false,
            archiving: None,
        }
    }

    /// Records that the room is used now, and removes entries and send keys whose retention is over.
    /// Called before every use, so that no caller sees expired data.
    pub(super) fn forget_expired(&mut self, limits: &BackplaneLimits) {
        let now = Instant::now();
        self.last_use = now;
        if !self.log.is_empty() && now.duration_since(self.last_message) >= limits.history_ttl {
            self.trim(self.seq);
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
        self.is_removable() && now.duration_since(self.last_use) >= ttl
    }

    /// Whether the room is empty, and everything that it knows of its log is archived. Without an
    /// archive an empty room is removable.
    pub(super) fn is_removable(&self) -> bool {
        self.occupants.is_empty() && self.is_archived()
    }

    pub(super) fn last_use(&self) -> Instant {
        self.last_use
    }

    /// Appends the entry, or finds the send that it repeats. Returns its position, and the new
    /// entry as readers get it unless it is a repeat. A repeat amends nothing.
    pub(super) fn append(
        &mut self,
        entry: NewEntry<'_>,
        key: Option<&str>,
        record: Bytes,
        limits: &BackplaneLimits,
    ) -> (Appended, Option<Entry>) {
        let key: Option<SendKey> = key.map(|key| (entry.user.clone(), key.into()));
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
        let mut numbered = Entry {
            seq: self.seq,
            epoch: self.epoch.clone(),
            at: Timestamp::now(),
            kind: entry.kind,
            record,
        };
        let appended = Appended {
            id: entry.id,
            seq: numbered.seq,
            epoch: numbered.epoch.clone(),
            at: numbered.at,
            duplicate: false,
        };
        self.log.push_back(numbered.clone());
        if let Some(amendment) = entry.amendment {
            self.has_changes = true;
            self.amend(amendment, &mut numbered);
        }
        if entry.is_reply {
            self.last_reply = self.seq;
        }
        self.trim_to_size(limits);
        self.last_message = self.last_use;
        self.note_appended();
        if let Some(key) = key {
            self.sends.insert(key.clone(), appended.clone());
            self.send_order
                .push_back((self.last_message + limits.dedupe_ttl, key));
        }
        (appended, Some(numbered))
    }

    /// Removes the oldest entries beyond the size of the history, as far as they are archived.
    fn trim_to_size(&mut self, limits: &BackplaneLimits) {
        while self.log.len() > limits.history_size
            && self
                .log
                .front()
                .is_some_and(|entry| entry.seq <= self.watermark)
        {
            self.log.pop_front();
        }
        self.forms.trim(self.oldest());
    }

    /// Makes the form of an announcement the newest one, and gives it to the announcement. The message's own
    /// entry loses the content that it had: it is archived, and readers get the newest form.
    fn amend(&mut self, amendment: &Amendment, announcement: &mut Entry) {
        let (seq, at) = (announcement.seq, announcement.at);
        let form = self.forms.amend(amendment, seq, at);
        let (target, has_content) = (form.position.seq, form.content != FormContent::Original);
        self.forms.resolve(announcement);
        let Some(index) = target.checked_sub(self.oldest()) else {
            return;
        };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if let Some(original) = self.log.get_mut(index)
            && has_content
            && original.kind == EntryKind::Message
        {
            original.record = Bytes::new();
        }
    }

    pub(super) fn head(&self) -> Head {
        Head {
            epoch: self.epoch.clone(),
            seq: self.seq,
        }
    }

    /// The lowest `seq` in the log; one more than the last `seq` if the log is empty.
    fn oldest(&self) -> u64 {
        self.log.front().map_or(self.seq + 1, |entry| entry.seq)
    }

    pub(super) fn span(&self, limits: &BackplaneLimits) -> LogSpan {
        let span = LogSpan::of_log(self.head(), self.oldest(), self.past());
        // Entries that wait for the archive may be more than the history has otherwise.
        let beyond = self.log.len().saturating_sub(limits.history_size);
        LogSpan {
            recent: span.oldest + beyond as u64,
            ..span
        }
    }

    pub(super) fn traces(&self) -> Traces {
        Traces {
            oldest: self.oldest(),
            has_changes: self.has_changes,
            last_reply: self.last_reply,
            watermark: self.watermark,
        }
    }

    pub(super) fn expect_changes(&mut self) {
        self.has_changes = true;
    }

    pub(super) fn announced_forms(&self, seqs: &[u64]) -> AnnouncedForms {
        let form = |seq: &u64| Some((*seq, self.forms.get(*seq)?.clone()));
        AnnouncedForms {
            forms: seqs.iter().filter_map(form).collect(),
            oldest: self.oldest(),
        }
    }

    /// Entries as readers get them: each in the newest form of its message.
    pub(super) fn read(&self, window: Window, limit: usize, max_bytes: usize) -> Vec<Entry> {
        self.select(window, limit, max_bytes, |entry| self.forms.resolve(entry))
    }

    /// Entries as they are stored.
    pub(super) fn read_stored(&self, window: Window, limit: usize, max_bytes: usize) -> Vec<Entry> {
        self.select(window, limit, max_bytes, |_| {})
    }

    fn select(
        &self,
        window: Window,
        limit: usize,
        max_bytes: usize,
        resolve: impl Fn(&mut Entry),
    ) -> Vec<Entry> {
        let oldest = self.oldest();
        // The log has no hole, so the index of a seq is its distance from the oldest.
        let index_of = |seq: u64| {
            usize::try_from(seq.saturating_sub(oldest))
                .unwrap_or(usize::MAX)
                .min(self.log.len())
        };
        let before = |end: usize| {
            let newest = self.log.range(..end).rev();
            let mut entries = take_within(newest, limit, max_bytes, &resolve);
            entries.reverse();
            entries
        };
        match window {
            Window::After(seq) => {
                let start = index_of(seq.saturating_add(1));
                take_within(self.log.range(start..), limit, max_bytes, &resolve)
            }
            Window::Before(seq) => before(index_of(seq)),
            Window::Newest => before(self.log.len()),
        }
    }
}

/// The first entries: at most `limit`, with at most `max_bytes` bytes of records, but always one.
fn take_within<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    limit: usize,
    max_bytes: usize,
    resolve: &impl Fn(&mut Entry),
) -> Vec<Entry> {
    let mut taken = Vec::new();
    let mut bytes = 0;
    for entry in entries.take(limit) {
        let mut entry = entry.clone();
        resolve(&mut entry);
        bytes += entry.record.len();
        if !taken.is_empty() && bytes > max_bytes {
            break;
        }
        taken.push(entry);
    }
    taken
}
