//! Tests of the archive as a whole, over the embedded hot log and a store in memory.

mod appends;
mod away;
mod changes;
mod checks;
mod faulty_log;
mod late;
mod reads;
mod refused;
mod restores;
mod retention;
mod sweeps;

use std::sync::Arc;

use faulty_log::FaultyLog;

use super::testing::FakeStore;
use super::{Archive, ArchiveSettings, Restorer};
use crate::backplane::{
    Appended, Backplane, BackplaneLimits, Commit, Result, RoomLog, Window, memory, record,
};
use crate::domain::{
    Epoch, Head, Limits, MessageFields, NewMessage, RoomId, Timestamp, UserId, Username,
};
use crate::store::{ArchiveStore, ArchivedEntry, BeginOutcome, NewEpoch, StoredKind};

/// A lone node's log with its archive.
struct Node {
    archive: Archive,
    backplane: Backplane,
    log: Arc<dyn RoomLog>,
}

/// How a node is set up.
struct Setup {
    acknowledge_commits: bool,
    backlog: usize,
    history_size: usize,
    retention: Option<std::time::Duration>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            acknowledge_commits: true,
            backlog: 1000,
            history_size: 10,
            retention: None,
        }
    }
}

impl Setup {
    /// Starts a node on the store.
    async fn start(&self, store: &FakeStore) -> Node {
        self.start_with_faulty_log(store).await.0
    }

    /// Starts a node whose archive sees its log through one with faults.
    async fn start_with_faulty_log(&self, store: &FakeStore) -> (Node, Arc<FaultyLog>) {
        let limits = BackplaneLimits {
            history_size: self.history_size,
            ..BackplaneLimits::default()
        };
        let run = store.begin_run().await.unwrap();
        let store: Arc<dyn ArchiveStore> = Arc::new(store.clone());
        let restorer = Restorer::new(store.clone(), Some(run), limits.dedupe_ttl)
            .await
            .unwrap();
        let backplane = memory::embedded_with_archive(limits.clone(), restorer.clone());
        let settings = ArchiveSettings {
            acknowledge_commits: self.acknowledge_commits,
            backlog: self.backlog,
            retention: self.retention,
        };
        let hot_log = FaultyLog::new(backplane.hot_log.clone());
        let archive = Archive::start(hot_log.clone(), store, &restorer, settings, &limits);
        let log = archive.log();
        let node = Node {
            archive,
            backplane,
            log,
        };
        (node, hot_log)
    }
}

impl Node {
    /// Appends a message and waits until it is acknowledged.
    async fn append(&self, room: &RoomId, content: &str) -> Result<Appended> {
        self.log.append(&message(room, content), None).await
    }

    /// Makes the log know the room, so that an append needs no restore.
    async fn know(&self, room: &RoomId) {
        self.seqs(room, Window::Newest, 1).await;
    }

    async fn place(&self, room: &RoomId, content: &str) -> Result<(Appended, Commit)> {
        self.log.place(&message(room, content), None).await
    }

    /// The numbers of the page.
    async fn seqs(&self, room: &RoomId, window: Window, limit: usize) -> Vec<u64> {
        let slice = self.log.read(room, window, limit, usize::MAX).await;
        let entries = slice.unwrap().entries;
        entries.iter().map(|entry| entry.seq).collect()
    }

    /// Stops cleanly.
    async fn stop(self) {
        self.archive.stop().await;
        self.backplane.lifecycle.stop().await;
    }
}

fn lobby() -> RoomId {
    RoomId::trusted("lobby")
}

fn message(room: &RoomId, content: &str) -> NewMessage {
    let user = UserId::trusted("ann");
    let fields = MessageFields {
        content: content.into(),
        ..MessageFields::default()
    };
    let limits = Limits::default();
    NewMessage::new(
        room.clone(),
        user.clone(),
        Username::from(&user),
        fields,
        &limits,
    )
    .unwrap()
}

/// The room continues in another epoch, as by another node. `ends`: where earlier ones ended.
async fn begin_epoch(store: &FakeStore, epoch: Epoch, after: u64, ends: &[Head]) {
    let newest = store.newest_epoch(&lobby());
    let new = NewEpoch {
        epoch,
        after,
        run: 0,
        ends: ends.to_vec(),
        newest,
    };
    let outcome = store.begin_epoch(&lobby(), &new).await.unwrap();
    assert!(matches!(outcome, BeginOutcome::Begun(_)), "{outcome:?}");
}

/// An entry of the epoch `e1`, as the archive has it.
fn entry(room: &RoomId, seq: u64) -> ArchivedEntry {
    let message = message(room, &format!("message {seq}"));
    ArchivedEntry {
        seq,
        epoch: Epoch::trusted("e1"),
        at: Timestamp::now(),
        kind: StoredKind::MESSAGE,
        id: message.id,
        user: message.user.clone(),
        send_key: None,
        record: record::encode(&message),
    }
}
