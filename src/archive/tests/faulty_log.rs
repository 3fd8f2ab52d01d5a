//! A hot log that loses entries, or is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

use crate::backplane::{
    Appended, ArchivedRanges, BackplaneError, Entry, HotLog, NewChange, NewEntry, Result, RoomLog,
    Slice, Unarchived, Window,
};
use crate::domain::{Epoch, Head, NewMessage, RoomId};

pub struct FaultyLog {
    inner: RwLock<Arc<dyn HotLog>>,
    /// Unarchived entries up to this one are lost.
    pub lost_up_to: AtomicU64,
    /// While set, reports fail.
    pub refuses_reports: AtomicBool,
    /// While set, reports wait.
    pub holds_reports: AtomicBool,
    /// So many numbers are missing at the head of every room.
    pub behind: AtomicU64,
    /// The reply to an append takes so many milliseconds.
    pub reply_delay: AtomicU64,
}

impl FaultyLog {
    pub fn new(inner: Arc<dyn HotLog>) -> Arc<Self> {
        Arc::new(Self {
            inner: RwLock::new(inner),
            lost_up_to: AtomicU64::new(0),
            refuses_reports: AtomicBool::new(false),
            holds_reports: AtomicBool::new(false),
            behind: AtomicU64::new(0),
            reply_delay: AtomicU64::new(0),
        })
    }

    /// From now on this is another log, as after Redis has lost all data.
    pub fn replace(&self, other: Arc<dyn HotLog>) {
        *self.inner.write() = other;
    }

    fn inner(&self) -> Arc<dyn HotLog> {
        self.inner.read().clone()
    }
}

#[async_trait]
impl RoomLog for FaultyLog {
    async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
        self.inner().append(message, key).await
    }

    async fn announce_all(
        &self,
        room: &RoomId,
        changes: &[NewChange],
    ) -> (Vec<Appended>, Result<()>) {
        self.inner().announce_all(room, changes).await
    }
    async fn read(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Slice> {
        self.inner().read(room, window, limit, max_bytes).await
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        let mut heads = self.inner().heads(rooms).await?;
        for head in heads.iter_mut().flatten() {
            head.seq -= self.behind.load(Ordering::Relaxed);
        }
        Ok(heads)
    }
}

#[async_trait]
impl HotLog for FaultyLog {
    async fn append_record(
        &self,
        entry: NewEntry<'_>,
        key: Option<&str>,
        record: Bytes,
    ) -> Result<Appended> {
        let appended = self.inner().append_record(entry, key, record).await;
        let delay = self.reply_delay.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        appended
    }

    async fn append_changes(&self, room: &RoomId, changes: &[NewChange]) -> Vec<Result<Appended>> {
        self.inner().append_changes(room, changes).await
    }

    async fn read_unarchived(
        &self,
        room: &RoomId,
        after: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Option<Vec<Entry>>> {
        let after = after.max(self.lost_up_to.load(Ordering::Relaxed));
        let inner = self.inner();
        inner.read_unarchived(room, after, limit, max_bytes).await
    }

    async fn advance_watermarks(
        &self,
        archived: &[(RoomId, Epoch, ArchivedRanges)],
    ) -> Result<Vec<u64>> {
        if self.refuses_reports.load(Ordering::Relaxed) {
            return Err(BackplaneError::Unavailable("away".to_owned()));
        }
        if self.holds_reports.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.inner().advance_watermarks(archived).await
    }

    async fn unarchived(&self, older_than: Duration, limit: usize) -> Result<Vec<Unarchived>> {
        self.inner().unarchived(older_than, limit).await
    }

    async fn diverged(&self, room: &RoomId, epoch: &Epoch, shared: u64) -> Result<()> {
        self.inner().diverged(room, epoch, shared).await
    }

    async fn trim(&self, room: &RoomId, cut: u64) -> Result<()> {
        self.inner().trim(room, cut).await
    }
}
