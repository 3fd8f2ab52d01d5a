//! Keeps every room's log in a database for good, so that log and archive read as one.
//!
//! [`ArchivedLog`](archived_log) is the log that the rest of the server uses. An append goes to the
//! hot log, which numbers and publishes it; then the entry waits in the [`queue`] for the
//! [`committer`]; [`refused`] keeps those that the database refuses. [`watermarks`] reports to the hot
//! log how far rooms are archived, because it must keep everything else; the [`sweeper`] archives
//! entries that other nodes left behind; [`restore`] decides how a room continues that the hot log does
//! not know. [`health`] knows whether the database responds. [`retention`] deletes expired entries.
//! [`checker`] looks for messages that are missing. [`unread`] projects unread messages.
//!
//! The key (room, seq) is the fence: if two histories ever number a room differently, the archive
//! refuses the second entry of a number, and its sender gets no acknowledgement.

mod archive_now;
mod archived_log;
mod archived_page;
mod broken_rooms;
mod checker;
mod committer;
mod counters;
mod entry;
mod health;
mod log_epochs;
mod queue;
mod refused;
mod restore;
mod restore_commits;
pub mod retention;
mod rooms;
mod settings;
mod sweeper;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod unread;
pub mod verify;
mod watermarks;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::backplane::{
    Appended, BackplaneError, BackplaneLimits, Commit, HotLog, NewChange, Result, RoomLog, Window,
};
use crate::domain::{Epoch, RoomId, Timestamp};
use crate::store::{ArchiveStore, ArchiveWindow, Run};
use crate::telemetry::sample::Sample;
use archived_log::ArchivedLog;
use broken_rooms::BrokenRooms;
use counters::{ArchiveCounters, Status};
use health::Health;
use queue::Queue;
use refused::Refused;
use retention::RetentionStatus;
use rooms::Rooms;
use unread::Unprojected;
use watermarks::{REPORT_INTERVAL, Watermarks};

pub use entry::of_record as archived_message;
pub use restore::Restorer;
pub use settings::ArchiveSettings;

/// A hot log that a command reads or trims without being a node.
pub type ObservedLog = Arc<dyn HotLog>;

/// How long a stopping node waits until everything that it appended is committed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it writes the marks of rooms after that.
const MARK_TIMEOUT: Duration = Duration::from_secs(3);
/// How much longer it waits when that was in vain.
const LAST_BATCH_TIMEOUT: Duration = Duration::from_secs(1);

/// The state that the parts of the archive share.
struct Shared {
    hot: Arc<dyn HotLog>,
    store: Arc<dyn ArchiveStore>,
    settings: ArchiveSettings,
    history_size: usize,
    queue: Queue,
    archive_now: archive_now::Runs,
    refused: Refused,
    watermarks: Watermarks,
    unprojected: Unprojected,
    rooms: Rooms,
    broken: BrokenRooms,
    health: Health,
    retention: RetentionStatus,
    counters: Arc<ArchiveCounters>,
    run: Option<Run>,
    /// Nothing is appended any more: the archive is being completed.
    is_stopping: AtomicBool,
}

impl Shared {
    /// Refuses an append that could not be archived in time.
    fn check_capacity(&self) -> Result<()> {
        let reason = if self.is_stopping.load(Ordering::Acquire) {
            "the node is stopping"
        } else if self.settings.acknowledge_commits && !self.health.is_up() {
            "the archive's database is away"
        } else if self.queue.is_full() || self.refused.len() >= self.settings.backlog {
            "too many messages wait for their commit to the archive"
        } else {
            return Ok(());
        };
        self.counters.refused.add(1);
        Err(BackplaneError::Unavailable(reason.to_owned()))
    }

    /// The commit of a message that was appended earlier, perhaps by another node.
    ///
    /// The id distinguishes it from another message that has its number: in the archive after a split
    /// of the log, or in the log after a restore.
    async fn commit_of(&self, room: &RoomId, first: &Appended) -> Result<Commit> {
        let seq = first.seq;
        let window = ArchiveWindow::After(seq - 1);
        let archived = self.store.read(room, window, 1, usize::MAX).await?;
        if let Some(archived) = archived.first().filter(|entry| entry.seq == seq) {
            if archived.id == first.id {
                return Ok(Commit::done());
            }
            self.report_divergence(room.clone(), first.epoch.clone(), seq - 1);
            return Err(lost_send());
        }
        let begun = Instant::now();
        // This restores the room, if that is necessary. Then the entry is read as it was appended.
        self.hot.read(room, Window::Newest, 0, 0).await?;
        let read = self.hot.read_unarchived(room, seq - 1, 1, usize::MAX);
        let entries = read.await?.unwrap_or_default();
        let mut entries = entries.into_iter().filter(|entry| entry.seq == seq);
        let entry = entries.next().and_then(entry::of_entry);
        let Some(archived) = entry.filter(|entry| entry.id == first.id) else {
            return Err(lost_send());
        };
        let (commit, pending) = Commit::pending();
        self.queue
            .push(room.clone(), archived, begun, Some(pending));
        Ok(commit)
    }

    /// The commit of a change that the hot log has appended, now or at an earlier attempt.
    async fn commit_of_change(
        &self,
        room: &RoomId,
        appended: &Appended,
        change: &NewChange,
        begun: Instant,
    ) -> Result<Commit> {
        if appended.duplicate {
            return self.commit_of(room, appended).await;
        }
        let (commit, pending) = Commit::pending();
        let archived = entry::of_change(change.kind(), appended, change.record.clone());
        self.queue
            .push(room.clone(), archived, begun, Some(pending));
        Ok(commit)
    }

    /// Reports to the hot log, in a task of its own, that the archive has other entries.
    fn report_divergence(&self, room: RoomId, epoch: Epoch, shared: u64) {
        self.rooms.forget(&room);
        let hot = self.hot.clone();
        tokio::spawn(async move {
            // If this fails, the next entry of the room is refused, too, and reports again.
            if hot.diverged(&room, &epoch, shared).await.is_ok() {
                // A use of the room: it is restored now, also if it has no users any more.
                let _ = hot.read(&room, Window::Newest, 0, 0).await;
            }
        });
    }

    /// Records that numbers are lost: the hot log has trimmed them before they were archived.
    async fn record_loss(
        &self,
        room: &RoomId,
        epoch: &Epoch,
        lost: RangeInclusive<u64>,
    ) -> Result<()> {
        tracing::error!(%room, from = lost.start(), to = lost.end(), "messages are lost: the log has no longer what the archive lacks");
        self.store.record_loss(room, lost.clone()).await?;
        self.counters.add_lost(&lost);
        self.rooms.forget(room);
        self.watermarks.add_lost(room, epoch, lost);
        Ok(())
    }
}

/// The error of a repeat whose first send has no place any more: its sender may repeat it again.
fn lost_send() -> BackplaneError {
    BackplaneError::Unavailable("the first send of this message is lost".to_owned())
}

/// The archive of a node.
pub struct Archive {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Archive {
    /// Starts the archive behind a hot log that restores its rooms by `restorer`. Must be called within
    /// a tokio runtime.
    #[must_use]
    pub fn start(
        hot: Arc<dyn HotLog>,
        store: Arc<dyn ArchiveStore>,
        restorer: &Restorer,
        settings: ArchiveSettings,
        limits: &BackplaneLimits,
    ) -> Self {
        let shared = Arc::new(Shared {
            hot,
            store,
            queue: Queue::new(settings.backlog),
            archive_now: archive_now::Runs::default(),
            refused: Refused::default(),
            retention: RetentionStatus::new(settings.retention),
            settings,
            history_size: limits.history_size,
            watermarks: Watermarks::default(),
            unprojected: Unprojected::default(),
            rooms: Rooms::default(),
            broken: BrokenRooms::default(),
            health: Health::new(),
            counters: restorer.counters.clone(),
            run: restorer.run(),
            is_stopping: AtomicBool::new(false),
        });
        let committer = tokio::spawn(committer::run(shared.clone()));
        let tasks = vec![
            tokio::spawn(health::check(shared.clone())),
            tokio::spawn(sweeper::run(shared.clone())),
            tokio::spawn(report_watermarks(shared.clone())),
            tokio::spawn(retention::run(shared.clone())),
            tokio::spawn(checker::run(shared.clone())),
            tokio::spawn(unread::run(shared.clone())),
        ];
        Self {
            shared,
            committer: Mutex::new(Some(committer)),
            tasks,
        }
    }

    /// The log that the rest of the server uses.
    #[must_use]
    pub fn log(&self) -> Arc<dyn RoomLog> {
        Arc::new(ArchivedLog(self.shared.clone()))
    }

    /// The current metrics of the archive.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let shared = &self.shared;
        let status = Status {
            is_up: shared.health.is_up(),
            is_retention_overdue: shared.retention.is_overdue(Timestamp::now()),
            backlog: shared.queue.backlog(),
            refused: shared.refused.len(),
        };
        shared.counters.samples(&status)
    }

    /// Commits everything that was appended, for at most 10 seconds, and ends the archive's tasks. A
    /// lone node can then continue in the same epochs at its next start. Called when nothing is appended
    /// any more, and before the hot log is stopped.
    pub async fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        let mut is_complete = true;
        if self.shared.run.is_some() {
            let swept = tokio::time::timeout(STOP_TIMEOUT, self.sweep_all()).await;
            is_complete = matches!(swept, Ok(Ok(())));
        }
        self.shared.queue.close();
        let committer = self.committer.lock().take();
        if let Some(mut committer) = committer {
            // After a sweep in vain, one more batch may still succeed.
            let limit = if is_complete {
                STOP_TIMEOUT
            } else {
                LAST_BATCH_TIMEOUT
            };
            let ended = tokio::time::timeout(limit, &mut committer).await;
            committer.abort();
            is_complete &= ended.is_ok();
        }
        for task in &self.tasks {
            task.abort();
        }
        if !is_complete {
            let left = self.shared.queue.len();
            tracing::error!(
                left,
                "archive: the database did not take all messages in time"
            );
            return;
        }
        let Shared {
            hot,
            store,
            watermarks,
            run,
            ..
        } = &*self.shared;
        watermarks.report(hot, &**store).await;
        if let Some(run) = run {
            self.end_run(run.number).await;
        }
        let marked = tokio::time::timeout(MARK_TIMEOUT, watermarks.mark_all(&**store)).await;
        if !matches!(marked, Ok(Ok(()))) {
            tracing::warn!("archive: how far some rooms are complete is not recorded");
        }
    }

    /// Records that the run of a lone node ends cleanly, if nothing was appended meanwhile.
    async fn end_run(&self, run: u64) {
        let Shared { hot, store, .. } = &*self.shared;
        // An append that was under way when the stop began may have got its number since.
        let left = hot.unarchived(Duration::ZERO, 1).await;
        if left.is_ok_and(|left| !left.is_empty()) {
            tracing::warn!("archive: a message came during the stop: rooms begin new epochs");
            return;
        }
        if let Err(error) = store.end_run(run).await {
            tracing::warn!(%error, "archive: the clean end of this run is not recorded");
        }
    }

    /// Archives messages that a sender left unqueued, because its connection ended while they got
    /// their numbers.
    async fn sweep_all(&self) -> Result<()> {
        let Shared {
            hot,
            store,
            queue,
            watermarks,
            ..
        } = &*self.shared;
        queue.emptied().await;
        watermarks.report(hot, &**store).await;
        for room in hot.unarchived(Duration::ZERO, usize::MAX).await? {
            sweeper::sweep(&self.shared, &room).await?;
        }
        Ok(())
    }
}

async fn report_watermarks(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        shared.watermarks.report(&shared.hot, &*shared.store).await;
    }
}
