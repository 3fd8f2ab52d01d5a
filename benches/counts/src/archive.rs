//! The steps with an archive behind the log.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hubbub::archive::{Archive, ArchiveSettings, Restorer};
use hubbub::backplane::{BackplaneLimits, memory, record};
use hubbub::domain::{Epoch, RoomId, Timestamp};
use hubbub::store::sql::{DatabaseUrl, SqlStore, prepare};
use hubbub::store::{
    ArchiveStore, ArchiveWindow, ArchiveWriter, ArchivedEntry, ArchivedEpoch, ArchivedRoom,
    ArchivedSend, BeginOutcome, CommitOutcome, DatabaseSettings, DeletedPart, Fence, MissingPage,
    NewEpoch, Result, RetentionClaim, RetentionRun, RoomAudit, RoomNumber, Run, StoredKind,
};
use uuid::Uuid;

use crate::{new_message, new_message_in};

/// Messages that wait for their commits at the same time. A divisor of the numbers of messages that
/// `scripts/counts` measures.
const AT_ONCE: usize = 25;
/// Rooms of the messages that are committed to a database.
const ROOMS: usize = 100;

/// Appends messages to the archived log of a lone node, and waits for their commits. The store
/// commits at once and keeps nothing, so only the archive's own work is counted.
pub(crate) async fn append(times: usize) {
    let store = Arc::new(InstantStore);
    let run = store.begin_run().await.unwrap();
    let limits = BackplaneLimits::default();
    let restorer = Restorer::new(store.clone(), Some(run), Duration::from_secs(60))
        .await
        .unwrap();
    let backplane = memory::embedded_with_archive(limits.clone(), restorer.clone());
    let settings = ArchiveSettings {
        acknowledge_commits: true,
        backlog: 100_000,
        retention: None,
    };
    let archive = Archive::start(
        backplane.hot_log.clone(),
        store,
        &restorer,
        settings,
        &limits,
    );
    let log = archive.log();
    let mut commits = Vec::with_capacity(AT_ONCE);
    for _ in 0..times / AT_ONCE {
        for _ in 0..AT_ONCE {
            let (_, commit) = log.place(&new_message(), None).await.unwrap();
            commits.push(commit);
        }
        for commit in commits.drain(..) {
            commit.wait().await.unwrap();
        }
    }
    archive.stop().await;
}

/// Commits messages to a new SQLite file.
pub(crate) async fn commit_to_sqlite(times: usize) {
    let directory = std::env::temp_dir().join(format!("hubbub-counts-{}", Uuid::new_v4()));
    std::fs::create_dir(&directory).unwrap();
    let url = format!("sqlite://{}/archive.db", directory.display());
    let settings = DatabaseSettings::new(DatabaseUrl::parse(&url).unwrap());
    let prepared = prepare(&settings).await.unwrap();
    let store = SqlStore::open(&(&settings).into()).await.unwrap();
    let mut writer = store.writer(1);
    let epoch = Epoch::fresh();
    let entries: Vec<_> = (0..times).map(|number| entry(number, &epoch)).collect();
    for batch in entries.chunks(AT_ONCE) {
        let outcomes = writer.commit(batch).await.unwrap();
        assert_eq!(outcomes, vec![CommitOutcome::Stored; batch.len()]);
    }
    store.close().await;
    drop(prepared);
    std::fs::remove_dir_all(directory).unwrap();
}

/// The entry of this number among those of all rooms, which take turns.
fn entry(number: usize, epoch: &Epoch) -> (RoomId, ArchivedEntry) {
    let message = new_message_in(&format!("room-{}", number % ROOMS));
    let entry = ArchivedEntry {
        seq: (number / ROOMS + 1) as u64,
        epoch: epoch.clone(),
        at: Timestamp::now(),
        kind: StoredKind::MESSAGE,
        id: message.id,
        user: message.user.clone(),
        send_key: None,
        record: record::encode(&message),
    };
    (message.room, entry)
}

/// A store of a new database that commits at once and keeps nothing.
struct InstantStore;

struct InstantWriter;

#[async_trait]
impl ArchiveWriter for InstantWriter {
    async fn commit_with(
        &mut self,
        entries: &[(RoomId, ArchivedEntry)],
        _: Fence,
    ) -> Result<Vec<CommitOutcome>> {
        Ok(vec![CommitOutcome::Stored; entries.len()])
    }
}

#[async_trait]
impl ArchiveStore for InstantStore {
    fn writer(&self, _: u64) -> Box<dyn ArchiveWriter> {
        Box::new(InstantWriter)
    }
    async fn ping(&self) -> Result<()> {
        Ok(())
    }
    async fn room(&self, _: &RoomId) -> Result<Option<ArchivedRoom>> {
        Ok(None)
    }
    async fn read(
        &self,
        _: &RoomId,
        _: ArchiveWindow,
        _: usize,
        _: usize,
    ) -> Result<Vec<ArchivedEntry>> {
        Ok(Vec::new())
    }
    async fn recent_sends(&self, _: &RoomId, _: Timestamp, _: usize) -> Result<Vec<ArchivedSend>> {
        Ok(Vec::new())
    }
    async fn close_holes(&self, _: &RoomId) -> Result<Vec<RangeInclusive<u64>>> {
        Ok(Vec::new())
    }
    async fn begin_at(&self, _: &RoomId, _: u64) -> Result<()> {
        Ok(())
    }
    async fn record_loss(&self, _: &RoomId, _: RangeInclusive<u64>) -> Result<()> {
        Ok(())
    }
    async fn mark_contiguous(&self, _: &[RoomNumber]) -> Result<()> {
        Ok(())
    }
    async fn epoch(&self, _: &RoomId, _: &Epoch) -> Result<Option<ArchivedEpoch>> {
        Ok(None)
    }
    async fn begin_epoch(&self, _: &RoomId, new: &NewEpoch) -> Result<BeginOutcome> {
        Ok(BeginOutcome::Begun(new.ends.clone()))
    }
    async fn begin_run(&self) -> Result<Run> {
        Ok(Run {
            number: 1,
            last_crashed: 0,
        })
    }
    async fn end_run(&self, _: u64) -> Result<()> {
        Ok(())
    }
    async fn deployment(&self) -> Result<Uuid> {
        Ok(Uuid::nil())
    }
    async fn rooms(&self, _: u64, _: usize) -> Result<Vec<(u64, RoomId)>> {
        Ok(Vec::new())
    }
    async fn expired(&self, _: &RoomId, _: Timestamp) -> Result<Option<u64>> {
        Ok(None)
    }
    async fn delete_up_to(&self, _: &RoomId, _: u64, _: usize) -> Result<DeletedPart> {
        Ok(DeletedPart::default())
    }
    async fn count_up_to(&self, _: &RoomId, _: u64) -> Result<(u64, u64)> {
        Ok((0, 0))
    }
    async fn begin_retention(&self, _: &RetentionRun, _: &RetentionClaim) -> Result<bool> {
        Ok(false)
    }
    async fn report_retention(&self, _: &RetentionRun) -> Result<()> {
        Ok(())
    }
    async fn last_retention(&self) -> Result<Option<RetentionRun>> {
        Ok(None)
    }
    async fn claim_check(&self, _: Timestamp, _: Timestamp) -> Result<bool> {
        Ok(false)
    }
    async fn find_missing(&self, _: &RoomId, _: u64) -> Result<MissingPage> {
        Ok(MissingPage::default())
    }
    async fn audit(&self, _: &RoomId) -> Result<RoomAudit> {
        Ok(RoomAudit::default())
    }
}
