//! Restores: how rooms continue that the hot log doesn't know, or may have lost the end of.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use uuid::Uuid;

use super::counters::ArchiveCounters;
use super::log_epochs::{PAST_EPOCHS, end_before_the_archive, ends_of, with_past};
use super::restore_commits::{SharedWriter, commit_all};
use super::rooms;
use crate::backplane::{
    self, Appended, BackplaneError, HotState, RestorePoint, RestoreSource, RestoredSend,
    UnarchivedEntries,
};
use crate::domain::{Epoch, Head, RoomId, Timestamp};
use crate::store::{
    ArchiveStore, ArchiveWindow, ArchivedRoom, BeginOutcome, NewEpoch, Run, StoreError,
};

/// A room whose newest entry is younger than that may still get entries of a log that was lost.
const RECENT_MS: u64 = 30_000;
/// The pause between two reads of such a room, and their number at most.
const LATE_COMMIT_PAUSE: Duration = Duration::from_millis(100);
const LATE_COMMIT_READS: usize = 10;
/// The most send keys of a room that are restored.
const MAX_SENDS: usize = 10_000;
/// How often a restore decides anew, because entries were committed meanwhile.
const DECISIONS: usize = 4;

/// Why a room is not restored.
enum RestoreError {
    /// The archive has got entries that the decision did not take into account.
    Behind,
    Failed(BackplaneError),
}

impl From<BackplaneError> for RestoreError {
    fn from(error: BackplaneError) -> Self {
        Self::Failed(error)
    }
}

impl From<StoreError> for RestoreError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

type Result<T> = std::result::Result<T, RestoreError>;

/// Restores rooms from the archive.
pub struct Restorer {
    store: Arc<dyn ArchiveStore>,
    deployment: Uuid,
    /// The run of a lone node.
    run: Option<Run>,
    dedupe_ttl: Duration,
    /// The writer of the restores that commit entries now.
    writer: Mutex<Weak<SharedWriter>>,
    pub(super) counters: Arc<ArchiveCounters>,
}

/// How the numbering continues in a new epoch.
struct NewNumbering {
    /// The last `seq` before the new epoch.
    after: u64,
    /// Earlier epochs of the hot log, with the last `seq` that each shares with the archive.
    ended: Vec<Head>,
    /// The newest epoch of the archive, as far as the decision knows it.
    newest: Option<Epoch>,
}

/// The entries of the log during a restore.
struct LogEntries<'a> {
    entries: &'a mut dyn UnarchivedEntries,
    /// The outcome of their commits, as soon as all are read.
    committed: Option<CommittedLog>,
}

/// The state of a log whose entries are committed.
#[derive(Clone)]
struct CommittedLog {
    /// The archive has every entry of the log up to this one.
    reached: u64,
    /// If log and archive have other messages with the same number: the log's epochs, newest first, with
    /// the last `seq` that each shares with the archive.
    ends: Option<Vec<Head>>,
}

impl Restorer {
    /// A restorer for the hot log of this node, which is alone if `run` is given.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn new(
        store: Arc<dyn ArchiveStore>,
        run: Option<Run>,
        dedupe_ttl: Duration,
    ) -> crate::store::Result<Arc<Self>> {
        let deployment = store.deployment().await?;
        Ok(Arc::new(Self {
            store,
            deployment,
            run,
            dedupe_ttl,
            writer: Mutex::default(),
            counters: Arc::default(),
        }))
    }

    /// The run of a lone node.
    pub(super) fn run(&self) -> Option<Run> {
        self.run
    }

    /// A writer, and so a connection, for all restores at a time. It ends with the last of them.
    pub(super) fn writer(&self) -> Arc<SharedWriter> {
        let mut shared = self.writer.lock();
        if let Some(writer) = shared.upgrade() {
            return writer;
        }
        let writer = Arc::new(SharedWriter::new(self.store.writer(self.run_number())));
        *shared = Arc::downgrade(&writer);
        writer
    }

    fn run_number(&self) -> u64 {
        self.run.map_or(0, |run| run.number)
    }

    /// Waits until no other node commits entries of the room any more that the lost log had numbered,
    /// as far as that can be seen: a room with recent entries is read until its head no longer moves.
    async fn wait_for_late_commits(
        &self,
        room: &RoomId,
        mut archived: ArchivedRoom,
    ) -> Result<ArchivedRoom> {
        if self.run.is_some() {
            return Ok(archived);
        }
        for _ in 0..LATE_COMMIT_READS {
            let window = ArchiveWindow::Before(u64::MAX);
            let newest = self.store.read(room, window, 1, usize::MAX).await?;
            let recent = Timestamp::now().0.saturating_sub(RECENT_MS);
            if newest.first().is_none_or(|newest| newest.at.0 < recent) {
                break;
            }
            tokio::time::sleep(LATE_COMMIT_PAUSE).await;
            let before = archived.head;
            archived = self.store.room(room).await?.unwrap_or(archived);
            if archived.head == before {
                break;
            }
        }
        Ok(archived)
    }

    /// Decides how the room continues, as log and archive are now.
    async fn decide(
        &self,
        room: &RoomId,
        hot: Option<&HotState>,
        log: &mut LogEntries<'_>,
    ) -> Result<RestorePoint> {
        let archived = self.store.room(room).await?;
        match (archived, hot) {
            (None, hot) => self.adopt(room, hot).await,
            (Some(archived), None) => self.restore(room, archived).await,
            (Some(archived), Some(hot)) => self.reconcile(room, hot, log, archived).await,
        }
    }

    /// The room is new to the archive.
    async fn adopt(&self, room: &RoomId, hot: Option<&HotState>) -> Result<RestorePoint> {
        let Some(hot) = hot else {
            return Ok(new_room());
        };
        if hot.watermark.is_none() && hot.oldest > 1 {
            // The log was used without an archive, and was trimmed.
            self.store.begin_at(room, hot.oldest).await?;
        }
        let watermark = hot.watermark.unwrap_or(hot.oldest - 1);
        self.keep(room, hot, watermark, None).await
    }

    /// The room continues with its log's entries: in a new epoch if the log may have lost its end.
    async fn keep(
        &self,
        room: &RoomId,
        hot: &HotState,
        watermark: u64,
        newest: Option<Epoch>,
    ) -> Result<RestorePoint> {
        let kept = RestorePoint {
            head: None,
            past: hot.past.clone(),
            watermark,
            keep_entries: true,
            sends: Vec::new(),
        };
        if !hot.is_stale {
            return Ok(kept);
        }
        let numbering = NewNumbering {
            after: hot.head.seq,
            ended: vec![hot.head.clone()],
            newest,
        };
        let (head, _) = self.begin_epoch(room, &numbering).await?;
        Ok(RestorePoint {
            head: Some(head),
            past: with_past(hot.head.clone(), &hot.past),
            ..kept
        })
    }

    /// The hot log doesn't know the room: it expired, or Redis lost it, or this node was restarted.
    async fn restore(&self, room: &RoomId, archived: ArchivedRoom) -> Result<RestorePoint> {
        let archived = self.wait_for_late_commits(room, archived).await?;
        self.close_holes(room, &archived).await?;
        let after = archived.head;
        let head = match self.continued_epoch(&archived) {
            Some(epoch) => Head { epoch, seq: after },
            None => {
                let numbering = NewNumbering {
                    after,
                    ended: Vec::new(),
                    newest: newest_epoch(&archived),
                };
                self.begin_epoch(room, &numbering).await?.0
            }
        };
        self.restored(room, &archived, head, &[]).await
    }

    /// The epoch that this node may continue: the last one, if no entry of it can be lost.
    fn continued_epoch(&self, archived: &ArchivedRoom) -> Option<Epoch> {
        let run = self.run?;
        let latest = archived.epochs.first()?;
        let is_complete = latest.run > run.last_crashed && latest.ended.is_none();
        is_complete.then(|| latest.epoch.clone())
    }

    /// Hot log and archive both know the room.
    async fn reconcile(
        &self,
        room: &RoomId,
        hot: &HotState,
        log: &mut LogEntries<'_>,
        mut archived: ArchivedRoom,
    ) -> Result<RestorePoint> {
        let committed = match &log.committed {
            Some(committed) => committed.clone(),
            None => {
                let committed = self.commit_log(room, hot, log, &archived).await?;
                archived = self.store.room(room).await?.unwrap_or(archived);
                committed
            }
        };
        if let Some(ends) = committed.ends {
            return self.rebuild(room, &archived, ends).await;
        }
        let (last, hot_last) = (archived.head, hot.head.seq);
        if hot_last < last {
            let known = self.store.epoch(room, &hot.head.epoch).await?;
            // The archive knows best where an epoch ended that it has entries of.
            let mut ends = ends_of(hot);
            ends[0].seq = if known.is_some() { last } else { hot_last };
            return self.rebuild(room, &archived, ends).await;
        }
        let watermark = match hot.watermark {
            Some(watermark) => watermark,
            None => self.first_watermark(room, hot, &archived).await?,
        };
        let watermark = watermark.max(committed.reached);
        self.keep(room, hot, watermark, newest_epoch(&archived))
            .await
    }

    /// Commits the entries that only the log has, once for all decisions.
    async fn commit_log(
        &self,
        room: &RoomId,
        hot: &HotState,
        log: &mut LogEntries<'_>,
        archived: &ArchivedRoom,
    ) -> Result<CommittedLog> {
        let mut ends = ends_of(hot);
        let mut has_ended = false;
        if hot.watermark.is_none() {
            // The log was used without this archive. A commit may add its epochs to the archive.
            let mut is_known = Vec::new();
            for end in &ends {
                is_known.push(self.store.epoch(room, &end.epoch).await?.is_some());
            }
            has_ended = end_before_the_archive(&mut ends, &is_known, archived.head);
        }
        if hot.shared.is_some() || has_ended || hot.head.seq < archived.head {
            self.wait_for_late_commits(room, archived.clone()).await?;
        }
        let outcome = commit_all(&self.writer(), room, hot, log.entries).await?;
        let before_conflict = outcome.lowest_conflict.map(|seq| seq - 1);
        if let Some(shared) = hot.shared.into_iter().chain(before_conflict).min() {
            ends[0].seq = ends[0].seq.min(shared);
            has_ended = true;
        }
        let committed = CommittedLog {
            reached: outcome.reached,
            ends: if has_ended { Some(ends) } else { None },
        };
        log.committed = Some(committed.clone());
        Ok(committed)
    }

    /// The log continues from the archive's end; its own entries are dropped. `ends` are the log's epochs,
    /// newest first, with the last `seq` that each shares with the archive.
    async fn rebuild(
        &self,
        room: &RoomId,
        archived: &ArchivedRoom,
        ends: Vec<Head>,
    ) -> Result<RestorePoint> {
        self.close_holes(room, archived).await?;
        let numbering = NewNumbering {
            after: archived.head,
            newest: newest_epoch(archived),
            ended: ends,
        };
        let (head, past) = self.begin_epoch(room, &numbering).await?;
        let mut archived = archived.clone();
        for epoch in &mut archived.epochs {
            if let Some(end) = past.iter().find(|end| end.epoch == epoch.epoch) {
                epoch.ended = Some(end.seq);
            }
        }
        self.restored(room, &archived, head, &past).await
    }

    /// The watermark of a room that was archived before, but not by its present log.
    async fn first_watermark(
        &self,
        room: &RoomId,
        hot: &HotState,
        archived: &ArchivedRoom,
    ) -> Result<u64> {
        if hot.oldest > archived.contiguous + 1 {
            // Those of the range that the archive has are not recorded.
            let lost = archived.contiguous + 1..=hot.oldest - 1;
            let after_archive = (hot.oldest - 1).saturating_sub(archived.head);
            self.store.record_loss(room, lost).await?;
            self.counters.lost.add(after_archive);
        }
        let contiguous = archived.contiguous.max(hot.oldest - 1);
        Ok(contiguous.min(hot.head.seq))
    }

    /// Records numbers that neither log nor archive has.
    async fn close_holes(&self, room: &RoomId, archived: &ArchivedRoom) -> Result<()> {
        if archived.contiguous >= archived.head {
            return Ok(());
        }
        for lost in self.store.close_holes(room).await? {
            tracing::error!(
                %room,
                from = lost.start(),
                to = lost.end(),
                "messages are lost: neither the log nor the archive has them"
            );
            self.counters.add_lost(&lost);
        }
        Ok(())
    }

    /// Begins an epoch in the archive, so that its name outlasts every log. Returns it, and the recorded
    /// ends of the earlier ones. If the room has moved on since the archive was read, nothing begins.
    async fn begin_epoch(
        &self,
        room: &RoomId,
        numbering: &NewNumbering,
    ) -> Result<(Head, Vec<Head>)> {
        let new = NewEpoch {
            epoch: Epoch::fresh(),
            after: numbering.after,
            run: self.run_number(),
            ends: numbering.ended.clone(),
            newest: numbering.newest.clone(),
        };
        let ends = match self.store.begin_epoch(room, &new).await? {
            BeginOutcome::Begun(ends) => ends,
            BeginOutcome::Behind => return Err(RestoreError::Behind),
            BeginOutcome::Superseded => {
                let text = "the room has continued in another epoch meanwhile".to_owned();
                return Err(BackplaneError::Unavailable(text).into());
            }
        };
        let head = Head {
            epoch: new.epoch,
            seq: new.after,
        };
        Ok((head, ends))
    }

    /// A log without entries that continues after `head`, the end of the archive.
    async fn restored(
        &self,
        room: &RoomId,
        archived: &ArchivedRoom,
        head: Head,
        past: &[Head],
    ) -> Result<RestorePoint> {
        let last = head.seq;
        let mut past = past.to_vec();
        // The archive's epochs were read before the new one began: one without an end has ended there.
        let mut epochs = archived.clone();
        for epoch in &mut epochs.epochs {
            epoch.ended.get_or_insert(last);
        }
        past = rooms::past_epochs(&epochs, &head, &past);
        past.truncate(PAST_EPOCHS);
        let sends = self.recent_sends(room).await?;
        Ok(RestorePoint {
            watermark: last,
            head: Some(head),
            past,
            keep_entries: false,
            sends,
        })
    }

    async fn recent_sends(&self, room: &RoomId) -> Result<Vec<RestoredSend>> {
        let ttl = u64::try_from(self.dedupe_ttl.as_millis()).unwrap_or(u64::MAX);
        let since = Timestamp(Timestamp::now().0.saturating_sub(ttl));
        let sends = self.store.recent_sends(room, since, MAX_SENDS).await?;
        let restored = sends.into_iter().map(|send| RestoredSend {
            user: send.user,
            key: send.key,
            position: Appended {
                id: send.id,
                seq: send.seq,
                epoch: send.epoch,
                at: send.at,
                duplicate: true,
            },
        });
        Ok(restored.collect())
    }
}

fn newest_epoch(archived: &ArchivedRoom) -> Option<Epoch> {
    archived.epochs.first().map(|newest| newest.epoch.clone())
}

/// A room that nothing knows.
fn new_room() -> RestorePoint {
    RestorePoint {
        head: None,
        past: Vec::new(),
        watermark: 0,
        keep_entries: true,
        sends: Vec::new(),
    }
}

#[async_trait]
impl RestoreSource for Restorer {
    async fn restore_point(
        &self,
        room: &RoomId,
        hot: Option<&HotState>,
        entries: &mut dyn UnarchivedEntries,
    ) -> backplane::Result<RestorePoint> {
        let mut log = LogEntries {
            entries,
            committed: None,
        };
        for _ in 0..DECISIONS {
            match self.decide(room, hot, &mut log).await {
                Ok(point) => {
                    self.counters.restored.add(u64::from(!point.keep_entries));
                    return Ok(point);
                }
                Err(RestoreError::Behind) => {}
                Err(RestoreError::Failed(error)) => return Err(error),
            }
        }
        Err(BackplaneError::Unavailable(
            "other nodes still commit messages of the room".to_owned(),
        ))
    }

    fn archive_id(&self) -> String {
        self.deployment.simple().to_string()
    }
}
