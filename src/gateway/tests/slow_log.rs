//! A log with an archive that commits when the test wants it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::backplane::{
    Appended, ArchiveStatus, Backplane, BackplaneError, BackplaneLimits, Commit, NewChange,
    PendingCommit, Result, RoomLog, Slice, Window, memory,
};
use crate::domain::{Head, NewMessage, RoomId};

/// The embedded log, whose commits the test completes. Repeats count as committed.
pub struct SlowLog {
    inner: Arc<dyn RoomLog>,
    commits: Mutex<VecDeque<PendingCommit>>,
    placed: AtomicUsize,
    /// The state that the log reports.
    pub status: Mutex<Option<ArchiveStatus>>,
}

impl SlowLog {
    /// An embedded backplane with such a log.
    pub fn backplane() -> (Arc<Self>, Backplane) {
        let embedded = memory::embedded(BackplaneLimits::default());
        let log = Arc::new(Self {
            inner: embedded.log.clone(),
            commits: Mutex::default(),
            placed: AtomicUsize::new(0),
            status: Mutex::default(),
        });
        let backplane = Backplane {
            log: log.clone(),
            ..embedded
        };
        (log, backplane)
    }

    /// Completes the oldest commits.
    pub fn commit(&self, count: usize) {
        for _ in 0..count {
            // A statement of its own, so that the lock is released before the callback runs.
            let next = self.commits.lock().pop_front();
            next.unwrap().complete(Ok(()));
        }
    }

    /// Completes the newest commit.
    pub fn commit_last(&self) {
        let next = self.commits.lock().pop_back();
        next.unwrap().complete(Ok(()));
    }

    /// Drops the oldest commit, as an archive that stops does.
    pub fn drop_commit(&self) {
        let next = self.commits.lock().pop_front();
        drop(next.unwrap());
    }

    /// The number of messages that are placed and not committed.
    pub fn pending(&self) -> usize {
        self.commits.lock().len()
    }

    /// Fails the oldest commit.
    pub fn fail(&self) {
        let next = self.commits.lock().pop_front();
        let error = BackplaneError::Unavailable("on purpose".to_owned());
        next.unwrap().complete(Err(error));
    }

    /// The number of messages that were placed, without repeats.
    pub fn placed(&self) -> usize {
        self.placed.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl RoomLog for SlowLog {
    async fn append(&self, _: &NewMessage, _: Option<&str>) -> Result<Appended> {
        panic!("connections place messages");
    }

    async fn place(&self, message: &NewMessage, key: Option<&str>) -> Result<(Appended, Commit)> {
        let appended = self.inner.append(message, key).await?;
        if appended.duplicate {
            return Ok((appended, Commit::done()));
        }
        self.placed.fetch_add(1, Ordering::SeqCst);
        let (commit, pending) = Commit::pending();
        self.commits.lock().push_back(pending);
        Ok((appended, commit))
    }

    async fn announce_all(
        &self,
        room: &RoomId,
        changes: &[NewChange],
    ) -> (Vec<Appended>, Result<()>) {
        self.inner.announce_all(room, changes).await
    }

    async fn read(&self, room: &RoomId, window: Window, limit: usize, max: usize) -> Result<Slice> {
        self.inner.read(room, window, limit, max).await
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        self.inner.heads(rooms).await
    }

    fn archive_status(&self) -> Option<ArchiveStatus> {
        *self.status.lock()
    }
}
