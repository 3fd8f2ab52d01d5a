//! Tests of the worker on an embedded log and an outbox of their own.

use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::backplane::{BackplaneLimits, Window, memory};
use crate::store::{Result, RowState};

/// An outbox with rows in memory. Its first calls of `done` fail.
#[derive(Default)]
struct Rows {
    rows: Mutex<VecDeque<OutboxRow>>,
    failures: Mutex<usize>,
    failed: Mutex<Vec<String>>,
}

#[async_trait]
impl Outbox for Rows {
    async fn added(&self) {
        std::future::pending().await
    }

    async fn claim(&self, limit: usize, _: Duration) -> Result<Vec<OutboxRow>> {
        let mut rows = self.rows.lock();
        rows.iter_mut().for_each(|row| row.attempts += 1);
        Ok(rows.iter().take(limit).cloned().collect())
    }

    async fn done(&self, done: &[OutboxId]) -> Result<()> {
        let mut failures = self.failures.lock();
        if *failures > 0 && !done.is_empty() {
            *failures -= 1;
            return Err(StoreError::Unavailable("on purpose".to_owned()));
        }
        self.rows.lock().retain(|row| !done.contains(&row.id));
        Ok(())
    }

    async fn retry(&self, _: &[OutboxId], _: Duration, _: &str) -> Result<()> {
        Ok(())
    }

    async fn fail(&self, row: OutboxId, reason: &str) -> Result<()> {
        self.rows.lock().retain(|other| other.id != row);
        self.failed.lock().push(reason.to_owned());
        Ok(())
    }

    async fn next_due(&self) -> Result<Option<Duration>> {
        Ok(None)
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

#[tokio::test]
async fn a_row_that_could_not_be_removed_is_published_once() {
    for dedupe_ttl in [Duration::from_secs(60), Duration::from_millis(1)] {
        let (worker, outbox, log) = worker(vec![row(1, "session_ended")], dedupe_ttl);
        *outbox.failures.lock() = 1;
        worker.publish_due().await.unwrap_err();
        let other = NewEntryOfOthers(&*log);
        other.append(600).await;
        // So the log has forgotten the key.
        tokio::time::sleep(Duration::from_millis(5)).await;
        outbox.rows.lock()[0].tried_for = Duration::from_millis(10);
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
            self.0.announce(&room(), id, record).await.unwrap();
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
