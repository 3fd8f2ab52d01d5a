//! A store in memory that keeps the promises of [`ArchiveStore`](crate::store::ArchiveStore), with
//! failures that a test can switch on.

mod data;
mod store;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::{Epoch, FormContent, MessageForm, RoomId, Timestamp};
use crate::store::{ArchivedEntry, Result, RetentionRun, StoreError, StoredKind};
use data::Data;

/// The store. Clones share their data, as nodes share a database.
#[derive(Clone)]
pub struct FakeStore(Arc<Inner>);

struct Inner {
    data: Mutex<Data>,
    faults: watch::Sender<Faults>,
}

/// Faults to inject into calls.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    /// Every call fails without an effect.
    is_away: bool,
    /// Every call waits until this is over.
    is_stopped: bool,
    /// Every call takes so long.
    delay: Duration,
    /// So many of the next commits take effect, but fail.
    lost_replies: usize,
    /// Commits with an entry whose record has this text are refused.
    refused: Option<&'static str>,
    /// So many of the next commits panic.
    panics: usize,
    begin: Begin,
}

/// The treatment of calls that begin an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Begin {
    #[default]
    Free,
    HoldNext,
    Held,
}

impl FakeStore {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            data: Mutex::default(),
            faults: watch::Sender::default(),
        }))
    }

    /// While away, every call fails without an effect.
    pub fn set_away(&self, is_away: bool) {
        self.0.faults.send_modify(|faults| faults.is_away = is_away);
    }

    /// While stopped, every call waits.
    pub fn set_stopped(&self, is_stopped: bool) {
        self.0
            .faults
            .send_modify(|faults| faults.is_stopped = is_stopped);
    }

    /// The next call that begins an epoch waits until it is released. Later ones don't wait.
    pub fn hold_next_begin(&self) {
        self.0
            .faults
            .send_modify(|faults| faults.begin = Begin::HoldNext);
    }

    /// Waits until a call that begins an epoch is held.
    pub async fn begin_is_held(&self) {
        let mut faults = self.0.faults.subscribe();
        let held = faults.wait_for(|faults| faults.begin == Begin::Held).await;
        held.expect("the store exists");
    }

    /// Releases the call that is held.
    pub fn release_begin(&self) {
        self.0
            .faults
            .send_modify(|faults| faults.begin = Begin::Free);
    }

    async fn arrive_to_begin(&self) {
        let mut is_held = false;
        self.0.faults.send_if_modified(|faults| {
            is_held = faults.begin == Begin::HoldNext;
            if is_held {
                faults.begin = Begin::Held;
            }
            is_held
        });
        if is_held {
            let mut faults = self.0.faults.subscribe();
            let released = faults.wait_for(|faults| faults.begin == Begin::Free).await;
            released.expect("the store exists");
        }
    }

    /// From now on every call takes so long.
    pub fn set_delay(&self, delay: Duration) {
        self.0.faults.send_modify(|faults| faults.delay = delay);
    }

    /// The next commits take effect, but fail with `Unavailable`.
    pub fn lose_replies(&self, commits: usize) {
        self.0
            .faults
            .send_modify(|faults| faults.lost_replies = commits);
    }

    /// From now on commits with an entry are refused whose record has this text.
    pub fn refuse(&self, text: Option<&'static str>) {
        self.0.faults.send_modify(|faults| faults.refused = text);
    }

    /// The next commit panics.
    pub fn panic_once(&self) {
        self.0.faults.send_modify(|faults| faults.panics = 1);
    }

    /// Loses an entry just before the search for missing ones with this number, counted from now.
    pub fn lose_before_search(&self, search: usize, room: &RoomId, seq: u64) {
        self.0.data.lock().lost_later = Some((search, room.clone(), seq));
    }

    /// The numbers of the room's entries.
    pub fn seqs(&self, room: &RoomId) -> Vec<u64> {
        self.entries(room).iter().map(|entry| entry.seq).collect()
    }

    /// The room's entries.
    pub fn entries(&self, room: &RoomId) -> Vec<ArchivedEntry> {
        let data = self.0.data.lock();
        let room = data.rooms.get(room);
        room.map(|room| room.entries.values().cloned().collect())
            .unwrap_or_default()
    }

    /// The newest epoch of the room.
    pub fn newest_epoch(&self, room: &RoomId) -> Option<Epoch> {
        let data = self.0.data.lock();
        let newest = data.rooms.get(room)?.epochs.last()?;
        Some(newest.epoch.clone())
    }

    /// Changes when the room's entries were appended.
    pub fn set_times(&self, room: &RoomId, at: impl Fn(u64) -> Timestamp) {
        let mut data = self.0.data.lock();
        if let Some(room) = data.rooms.get_mut(room) {
            for (seq, entry) in &mut room.entries {
                entry.at = at(*seq);
            }
        }
    }

    /// Replaces the record of an entry.
    pub fn set_record(&self, room: &RoomId, seq: u64, record: &'static str) {
        let mut data = self.0.data.lock();
        let entry = data.room(room).entries.get_mut(&seq);
        entry.expect("the entry is there").record = record.into();
    }

    /// Gives a message this form.
    pub fn set_form(&self, room: &RoomId, form: MessageForm) {
        let mut data = self.0.data.lock();
        let room = data.room(room);
        let entry = room.entries.get_mut(&form.position.seq);
        let entry = entry.expect("the message is archived");
        match &form.content {
            FormContent::Original => {}
            FormContent::Edited(record) => entry.record = record.clone(),
            FormContent::Deleted(_) => {
                entry.kind = StoredKind::DELETED;
                entry.record = bytes::Bytes::new();
            }
        }
        room.forms.insert(form.position.seq, form);
    }

    /// Removes the forms of all messages, as retention does with the messages.
    pub fn remove_forms(&self, room: &RoomId) {
        self.0.data.lock().room(room).forms.clear();
    }

    /// The runs of retention, in order.
    pub fn retention(&self) -> Vec<RetentionRun> {
        self.0.data.lock().retention.clone()
    }

    /// The number of entries of each commit so far.
    pub fn commits(&self) -> Vec<usize> {
        self.0.data.lock().commits.clone()
    }

    /// Loses an entry, as no store should.
    pub fn lose(&self, room: &RoomId, seq: u64) {
        let mut data = self.0.data.lock();
        let lost = data
            .rooms
            .get_mut(room)
            .and_then(|room| room.entries.remove(&seq));
        assert!(lost.is_some());
    }

    /// The number of commits that were refused so far.
    pub fn refusals(&self) -> usize {
        self.0.data.lock().refusals
    }

    /// Refuses a commit with an entry that the test refuses.
    fn check(&self, entries: &[(RoomId, ArchivedEntry)]) -> Result<()> {
        let Some(text) = self.0.faults.borrow().refused else {
            return Ok(());
        };
        let has_text = |entry: &ArchivedEntry| {
            let mut windows = entry.record.windows(text.len());
            windows.any(|window| window == text.as_bytes())
        };
        if !entries.iter().any(|(_, entry)| has_text(entry)) {
            return Ok(());
        }
        self.0.data.lock().refusals += 1;
        Err(StoreError::Broken("refused by the test".to_owned()))
    }

    /// Injects the faults that the test has set.
    async fn arrive(&self) -> Result<()> {
        let mut faults = self.0.faults.subscribe();
        let delay = faults.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let arrived = faults.wait_for(|faults| !faults.is_stopped).await;
        if arrived.is_ok_and(|faults| faults.is_away) {
            return Err(StoreError::Unavailable("switched off".to_owned()));
        }
        Ok(())
    }
}
