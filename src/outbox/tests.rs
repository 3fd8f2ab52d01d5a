//! Tests of the worker on an embedded log and an outbox of their own.

mod messages;
mod own_rows;
mod positions;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::backplane::{
    Appended, BackplaneError, BackplaneKind, BackplaneLimits, Counters, NewChange, Slice, Window,
    change_record, memory,
};
use crate::domain::{Change, Head, NewMessage};
use crate::store::testing::{FakeMessages, MessageCalls};
use crate::store::{Claim, OutboxId, OwnRow, OwnRows, Result, RowState, WantsRows};

/// An outbox with rows in memory. So many calls of `done` fail.
#[derive(Default)]
struct Rows {
    rows: Mutex<VecDeque<OutboxRow>>,
    leased: Mutex<HashSet<OutboxId>>,
    claims: AtomicUsize,
    failures: Mutex<usize>,
    failed: Mutex<Vec<String>>,
    postponed: Mutex<Vec<OutboxId>>,
    own: Mutex<Option<(mpsc::Sender<OwnRow>, WantsRows)>>,
}

/// The most claimed rows that wait for the worker.
const OWN_ROWS_WAITING: usize = 4;

impl Rows {
    fn left(&self) -> Vec<OutboxId> {
        self.rows.lock().iter().map(|row| row.id).collect()
    }

    /// Ends all leases.
    fn release(&self) {
        self.leased.lock().clear();
    }

    /// The rows that announce positions, or the others, as far as they are free.
    fn free(&self, are_positions: bool) -> Vec<OutboxId> {
        let leased = self.leased.lock();
        let rows = self.rows.lock();
        let is_free = |row: &&OutboxRow| {
            (row.kind == Change::POSITION_EVENT) == are_positions && !leased.contains(&row.id)
        };
        rows.iter().filter(is_free).map(|row| row.id).collect()
    }

    fn claim_of(&self, are_positions: bool, limit: usize) -> Vec<OutboxRow> {
        self.claims.fetch_add(1, Ordering::SeqCst);
        let free = self.free(are_positions);
        let mut rows = self.rows.lock();
        let free = rows.iter_mut().filter(|row| free.contains(&row.id));
        let claimed = free.take(limit).map(|row| {
            row.attempts += 1;
            row.clone()
        });
        let claimed: Vec<OutboxRow> = claimed.collect();
        self.leased.lock().extend(claimed.iter().map(|row| row.id));
        claimed
    }

    fn is_due(&self, are_positions: bool) -> Option<Duration> {
        let is_due = !self.free(are_positions).is_empty();
        is_due.then_some(Duration::ZERO)
    }

    fn remove(&self, done: &[Claim]) -> Result<()> {
        let mut failures = self.failures.lock();
        if *failures > 0 && !done.is_empty() {
            *failures -= 1;
            return Err(StoreError::Unavailable("on purpose".to_owned()));
        }
        let mut rows = self.rows.lock();
        rows.retain(|row| !done.contains(&row.claim()));
        Ok(())
    }
}

/// No messages that were changed.
struct NoMessages;

impl MessageCalls for NoMessages {}

fn no_messages() -> Arc<dyn MessageStore> {
    Arc::new(FakeMessages(NoMessages))
}

#[async_trait]
impl Outbox for Rows {
    async fn added(&self) {
        std::future::pending().await
    }

    fn own_rows(&self, _: Duration, wants_rows: WantsRows) -> OwnRows {
        let (rows, receiver) = OwnRows::channel(OWN_ROWS_WAITING);
        *self.own.lock() = Some((rows, wants_rows));
        receiver
    }

    async fn claim(&self, limit: usize, _: Duration) -> Result<Vec<OutboxRow>> {
        Ok(self.claim_of(false, limit))
    }

    async fn claim_positions(&self, limit: usize, _: Duration) -> Result<Vec<OutboxRow>> {
        Ok(self.claim_of(true, limit))
    }

    async fn done(&self, done: &[Claim]) -> Result<()> {
        self.remove(done)
    }

    async fn retry(&self, claims: &[Claim], _: Duration, _: &str) -> Result<()> {
        let mut postponed = self.postponed.lock();
        postponed.extend(claims.iter().map(|claim| claim.row));
        Ok(())
    }

    async fn fail(&self, claim: Claim, reason: &str) -> Result<()> {
        self.rows.lock().retain(|other| other.claim() != claim);
        self.failed.lock().push(reason.to_owned());
        Ok(())
    }

    async fn next_due(&self) -> Result<Option<Duration>> {
        Ok(self.is_due(false))
    }

    async fn next_due_position(&self) -> Result<Option<Duration>> {
        Ok(self.is_due(true))
    }

    async fn has_waiting(&self, _: &RoomId) -> Result<bool> {
        Ok(!self.rows.lock().is_empty())
    }

    async fn list(&self, _: OutboxId, _: usize) -> Result<Vec<RowState>> {
        Ok(Vec::new())
    }

    async fn revive(&self, _: OutboxId) -> Result<bool> {
        Ok(false)
    }
}

fn room() -> RoomId {
    RoomId::trusted("user:01890000-0000-7000-8000-000000000000")
}

fn row(id: OutboxId, kind: &str) -> OutboxRow {
    OutboxRow {
        id,
        room: Some(room()),
        kind: kind.to_owned(),
        payload: format!("{{\"session_id\":\"{}\"}}", Uuid::from_u128(id as u128)),
        attempts: 0,
        tried_for: Duration::ZERO,
        first_claimed: 0,
    }
}

/// A worker for these rows, and the log. Keys are known for `dedupe_ttl`.
fn worker(
    rows: Vec<OutboxRow>,
    dedupe_ttl: Duration,
) -> (Arc<Worker>, Arc<Rows>, Arc<dyn RoomLog>) {
    let outbox = Arc::new(Rows::default());
    outbox.rows.lock().extend(rows);
    let limits = BackplaneLimits {
        dedupe_ttl,
        ..BackplaneLimits::default()
    };
    let backplane = memory::embedded(limits);
    let (log, lifecycle) = (backplane.log, backplane.lifecycle);
    let worker = Worker::new(
        outbox.clone(),
        no_messages(),
        log.clone(),
        lifecycle,
        Uuid::from_u128(1),
        dedupe_ttl,
    );
    (worker, outbox, log)
}

async fn published(log: &dyn RoomLog) -> Vec<Bytes> {
    let slice = log
        .read(&room(), Window::After(0), 100, 1 << 20)
        .await
        .unwrap();
    slice
        .entries
        .into_iter()
        .map(|entry| entry.record)
        .collect()
}

#[tokio::test]
async fn rows_are_published_in_order_and_removed() {
    let rows = (1..=3).map(|id| row(id, "session_ended")).collect();
    let (worker, outbox, log) = worker(rows, Duration::from_secs(60));
    worker.publish_due().await.unwrap();
    assert!(outbox.rows.lock().is_empty());
    let published = published(&*log).await;
    assert_eq!(published.len(), 3);
    for (index, record) in published.iter().enumerate() {
        let session = Uuid::from_u128(index as u128 + 1);
        assert_eq!(change_record::ended_session(record), Some(session));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_recorded_while_the_lease_lasts() {
    let (worker, outbox, log) = worker(vec![row(1, "session_ended")], Duration::from_secs(60));
    *outbox.failures.lock() = 8;
    let began = Instant::now();
    worker.publish_due().await.unwrap();
    assert!(outbox.rows.lock().is_empty());
    assert_eq!(began.elapsed(), 8 * POLL_INTERVAL);
    assert_eq!(published(&*log).await.len(), 1);
    assert_eq!(worker.published.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_could_not_be_removed_is_published_once() {
    for dedupe_ttl in [Duration::from_secs(600), Duration::from_millis(1)] {
        let (worker, outbox, log) = worker(vec![row(1, "session_ended")], dedupe_ttl);
        *outbox.failures.lock() = usize::MAX;
        worker.publish_due().await.unwrap_err();
        *outbox.failures.lock() = 0;
        let other = NewEntryOfOthers(&*log);
        other.append(600).await;
        // So the log has forgotten the key.
        tokio::time::sleep(Duration::from_millis(5)).await;
        outbox.rows.lock()[0].tried_for = Duration::from_millis(10);
        outbox.release();
        worker.publish_due().await.unwrap();
        assert!(outbox.rows.lock().is_empty());
        let published = published_by(&*log, 1).await;
        assert_eq!(published, 1, "{dedupe_ttl:?}");
    }
}

#[tokio::test]
async fn an_event_that_this_release_does_not_have_fails() {
    let (worker, outbox, log) = worker(vec![row(1, "disconnect")], Duration::from_secs(60));
    worker.publish_due().await.unwrap();
    assert!(outbox.rows.lock().is_empty());
    assert_eq!(outbox.failed.lock().len(), 1);
    assert!(published(&*log).await.is_empty());
}

/// Adds entries of others to the room.
struct NewEntryOfOthers<'a>(&'a dyn RoomLog);

impl NewEntryOfOthers<'_> {
    async fn append(&self, count: u128) {
        for number in 0..count {
            let id = Uuid::from_u128(1_000_000 + number);
            let record = change_record::encode(&room(), "session_ended", id, "{\"n\":1}");
            let change = [NewChange::complete(id, record)];
            self.0.announce_all(&room(), &change).await.1.unwrap();
        }
    }
}

/// How often the row is in the log.
async fn published_by(log: &dyn RoomLog, row: OutboxId) -> usize {
    let id = ids::of_row(Uuid::from_u128(1), row, 0);
    let slice = log
        .read(&room(), Window::After(0), 1000, 1 << 22)
        .await
        .unwrap();
    let ids = slice
        .entries
        .iter()
        .filter_map(|entry| change_record::Parts::of(&entry.record));
    ids.filter(|parts| parts.id == id).count()
}

/// A log with faults, which counts.
struct TestLog {
    inner: Arc<dyn RoomLog>,
    /// Never announces to these rooms.
    hanging: HashSet<RoomId>,
    /// Refuses to announce these.
    refused: Mutex<HashSet<Uuid>>,
    reads: AtomicUsize,
    /// The changes of each call.
    announced: Mutex<Vec<Vec<NewChange>>>,
}

impl TestLog {
    fn new(inner: Arc<dyn RoomLog>) -> Self {
        Self {
            inner,
            hanging: HashSet::new(),
            refused: Mutex::default(),
            reads: AtomicUsize::new(0),
            announced: Mutex::default(),
        }
    }
}

#[async_trait]
impl RoomLog for TestLog {
    async fn append(
        &self,
        message: &NewMessage,
        key: Option<&str>,
    ) -> crate::backplane::Result<Appended> {
        self.inner.append(message, key).await
    }

    async fn read(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> crate::backplane::Result<Slice> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.read(room, window, limit, max_bytes).await
    }

    async fn heads(&self, rooms: &[RoomId]) -> crate::backplane::Result<Vec<Option<Head>>> {
        self.inner.heads(rooms).await
    }

    async fn announce_all(
        &self,
        room: &RoomId,
        changes: &[NewChange],
    ) -> (Vec<Appended>, crate::backplane::Result<()>) {
        if self.hanging.contains(room) {
            std::future::pending::<()>().await;
        }
        self.announced.lock().push(changes.to_vec());
        let mut positions = Vec::new();
        for change in changes {
            if self.refused.lock().contains(&change.id) {
                let error = BackplaneError::Unavailable("on purpose".to_owned());
                return (positions, Err(error));
            }
            let (announced, outcome) = self
                .inner
                .announce_all(room, std::slice::from_ref(change))
                .await;
            positions.extend(announced);
            if outcome.is_err() {
                return (positions, outcome);
            }
        }
        (positions, Ok(()))
    }
}

/// A worker for these rows on a log with faults.
fn worker_on(log: Arc<TestLog>, outbox: Arc<Rows>, dedupe_ttl: Duration) -> Arc<Worker> {
    let lifecycle = memory::embedded(BackplaneLimits::default()).lifecycle;
    let id = Uuid::from_u128(1);
    Worker::new(outbox, no_messages(), log, lifecycle, id, dedupe_ttl)
}

fn id_of(row: OutboxId) -> Uuid {
    ids::of_row(Uuid::from_u128(1), row, 0)
}

/// Waits until the outbox has so many rows left.
async fn until_left(outbox: &Rows, left: usize) {
    let waiting = async {
        while outbox.rows.lock().len() != left {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .expect("the rows are published");
}

#[tokio::test(start_paused = true)]
async fn a_room_that_hangs_holds_up_no_other() {
    let hanging = RoomId::trusted("user:01890000-0000-7000-8000-00000000000b");
    let rows = vec![
        OutboxRow {
            room: Some(hanging.clone()),
            ..row(1, "session_ended")
        },
        row(2, "session_ended"),
    ];
    let (_, outbox, inner) = worker(rows, Duration::from_secs(60));
    let log = Arc::new(TestLog {
        hanging: HashSet::from([hanging]),
        ..TestLog::new(inner)
    });
    let worker = worker_on(log, outbox.clone(), Duration::from_secs(60));
    let running = tokio::spawn(worker.run());
    until_left(&outbox, 1).await;
    // Rows that come later are published, too, while the first one hangs.
    outbox.rows.lock().push_back(row(3, "session_ended"));
    until_left(&outbox, 1).await;
    running.abort();
}

/// A backplane that is down until it is told otherwise.
struct Down {
    inner: Arc<dyn Lifecycle>,
    is_up: AtomicBool,
}

#[async_trait]
impl Lifecycle for Down {
    fn kind(&self) -> BackplaneKind {
        self.inner.kind()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn is_up(&self) -> bool {
        self.is_up.load(Ordering::SeqCst)
    }

    async fn deployment(&self) -> crate::backplane::Result<Option<String>> {
        self.inner.deployment().await
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }

    async fn stop(&self) {
        self.inner.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn rows_are_due_as_soon_as_the_log_is_back() {
    let (_, outbox, log) = worker(vec![row(1, "session_ended")], Duration::from_secs(60));
    let lifecycle = Arc::new(Down {
        inner: memory::embedded(BackplaneLimits::default()).lifecycle,
        is_up: AtomicBool::new(false),
    });
    let id = Uuid::from_u128(1);
    let dedupe_ttl = Duration::from_secs(60);
    let (store, messages) = (outbox.clone(), no_messages());
    let worker = Worker::new(store, messages, log, lifecycle.clone(), id, dedupe_ttl);
    let running = tokio::spawn(worker.run());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(outbox.rows.lock()[0].attempts, 0, "claimed in vain");
    lifecycle.is_up.store(true, Ordering::SeqCst);
    let began = Instant::now();
    until_left(&outbox, 0).await;
    assert!(began.elapsed() < Duration::from_millis(500));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_rows_only_reads_and_finds_those_of_others_soon() {
    let (worker, outbox, _log) = worker(Vec::new(), Duration::from_secs(60));
    let running = tokio::spawn(worker.run());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(outbox.claims.load(Ordering::SeqCst), 0, "a claim writes");
    // Of another process: this one is not notified.
    outbox.rows.lock().push_back(row(1, "session_ended"));
    let began = Instant::now();
    until_left(&outbox, 0).await;
    assert!(began.elapsed() <= Duration::from_millis(300));
    running.abort();
}

#[tokio::test]
async fn rows_behind_one_that_must_wait_are_neither_published_nor_done() {
    let rows = (1..=5).map(|id| row(id, "session_ended")).collect();
    let (_, outbox, inner) = worker(rows, Duration::from_secs(60));
    let log = Arc::new(TestLog::new(inner));
    log.refused.lock().insert(id_of(3));
    let worker = worker_on(log.clone(), outbox.clone(), Duration::from_secs(60));
    worker.publish_due().await.unwrap();
    assert_eq!(outbox.left(), [3, 4, 5]);
    assert_eq!(*outbox.postponed.lock(), [3, 4, 5]);
    assert_eq!(published(&*log).await.len(), 2);
    log.refused.lock().clear();
    outbox.release();
    worker.publish_due().await.unwrap();
    let sessions: Vec<_> = published(&*log)
        .await
        .iter()
        .map(|record| change_record::ended_session(record).unwrap().as_u128())
        .collect();
    assert_eq!(sessions, [1, 2, 3, 4, 5]);
}

/// 600 entries of others are behind those of the first attempt: three pages.
#[tokio::test(start_paused = true)]
async fn one_search_finds_the_earlier_attempts_of_all_rows_of_a_room() {
    let dedupe_ttl = Duration::from_millis(1);
    let rows = (1..=20).map(|id| row(id, "session_ended")).collect();
    let (_, outbox, inner) = worker(rows, dedupe_ttl);
    let log = Arc::new(TestLog::new(inner));
    let worker = worker_on(log.clone(), outbox.clone(), dedupe_ttl);
    *outbox.failures.lock() = usize::MAX;
    worker.publish_due().await.unwrap_err();
    *outbox.failures.lock() = 0;
    NewEntryOfOthers(&*log).append(600).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    for row in outbox.rows.lock().iter_mut() {
        row.tried_for = Duration::from_millis(10);
    }
    outbox.release();
    worker.publish_due().await.unwrap();
    assert!(outbox.left().is_empty());
    assert_eq!(log.reads.load(Ordering::SeqCst), 3);
    for row in 1..=20 {
        assert_eq!(published_by(&*log, row).await, 1);
    }
}

#[tokio::test]
async fn rows_that_were_never_handed_to_the_log_need_no_search() {
    let rows = (1..=3).map(|id| OutboxRow {
        tried_for: Duration::from_secs(3600),
        ..row(id, "session_ended")
    });
    let (_, outbox, inner) = worker(rows.collect(), Duration::from_millis(1));
    let log = Arc::new(TestLog::new(inner));
    let worker = worker_on(log.clone(), outbox.clone(), Duration::from_millis(1));
    worker.publish_due().await.unwrap();
    assert!(outbox.left().is_empty());
    assert_eq!(log.reads.load(Ordering::SeqCst), 0);
}

/// A search that never ends before the lease leaves the rows to a later attempt.
#[tokio::test(start_paused = true)]
async fn a_search_ends_with_the_lease() {
    let (_, outbox, inner) = worker(vec![row(1, "session_ended")], Duration::from_millis(1));
    NewEntryOfOthers(&*inner).append(600).await;
    let log = TestLog::new(inner);
    let deadline = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    let hour = Duration::from_secs(3600);
    let search = earlier::find(&log, &room(), vec![id_of(1)], hour, deadline).await;
    assert!(matches!(search.error, Some(BackplaneError::Unavailable(_))));
    assert_eq!(log.reads.load(Ordering::SeqCst), 0);
    drop(outbox);
}
