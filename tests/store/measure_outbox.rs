//! Measurements of the outbox, which run only on request, as those of [`measure`](super::measure).

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use hubbub::archive::{Archive, ArchiveSettings, Restorer};
use hubbub::backplane::{
    Appended, BackplaneLimits, NewChange, Result, RoomLog, Slice, Window, memory,
};
use hubbub::domain::{Head, NewMessage, RoomId, UserId, Username};
use hubbub::outbox::Worker;
use hubbub::store::{
    Announced, ArchiveStore, ChangeOutcome, Changer, EditedRecord, MessageEdit, MessageRef,
    MessageStore as _, Outbox, OutboxRow,
};
use hubbub_test_support::database::DatabaseKind;
use tokio::sync::watch;
use uuid::Uuid;

use crate::fixture::TestStore;
use crate::outbox::flood;

const LEASE: Duration = Duration::from_secs(600);

/// A log that announces the changes of a room one after another.
struct OneByOne(Arc<dyn RoomLog>);

#[async_trait]
impl RoomLog for OneByOne {
    async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
        self.0.append(message, key).await
    }

    async fn announce_all(
        &self,
        room: &RoomId,
        changes: &[NewChange],
    ) -> (Vec<Appended>, Result<()>) {
        self.0.announce_all(room, changes).await
    }

    async fn read(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Slice> {
        self.0.read(room, window, limit, max_bytes).await
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        self.0.heads(rooms).await
    }
}

/// Publishes 1,000 rows of one room.
async fn publish(test: &TestStore, is_one_by_one: bool) -> Duration {
    flood(test, 1000, "chat_updated", 1).await;
    let limits = BackplaneLimits::default();
    let store: Arc<dyn ArchiveStore> = Arc::new(test.store.clone());
    let run = store.begin_run().await.unwrap();
    let restorer = Restorer::new(store.clone(), Some(run), limits.dedupe_ttl);
    let restorer = restorer.await.unwrap();
    let backplane = memory::embedded_with_archive(limits.clone(), restorer.clone());
    let settings = ArchiveSettings {
        acknowledge_commits: true,
        backlog: 10_000,
        retention: None,
    };
    let hot = backplane.hot_log.clone();
    let archive = Archive::start(hot, store, &restorer, settings, &limits);
    let log: Arc<dyn RoomLog> = if is_one_by_one {
        Arc::new(OneByOne(archive.log()))
    } else {
        archive.log()
    };
    let outbox = Arc::new(test.store.clone());
    let lifecycle = backplane.lifecycle.clone();
    let messages = outbox.clone();
    let (id, dedupe_ttl) = (Uuid::now_v7(), limits.dedupe_ttl);
    let worker = Worker::new(outbox, messages, log, lifecycle, id, dedupe_ttl);
    let (stop, stopped) = watch::channel(false);
    let began = Instant::now();
    let running = tokio::spawn(worker.run_until(stopped));
    while !test.store.list(0, 1).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = began.elapsed();
    stop.send(true).unwrap();
    running.await.unwrap();
    archive.stop().await;
    took
}

async fn measure_a_room(kind: DatabaseKind) {
    let test = TestStore::new(kind).await;
    let before = publish(&test, true).await;
    let after = publish(&test, false).await;
    let ratio = before.as_secs_f64() / after.as_secs_f64();
    println!(
        "{kind:?}: 1,000 rows of a room one by one: {before:?}; together: {after:?}; {ratio:.1}"
    );
}

/// Claims, and looks for due rows, with 100,000 rows in so many rooms.
async fn measure_claims(kind: DatabaseKind, rooms: usize) {
    let test = TestStore::new(kind).await;
    flood(&test, 100_000, "chat_updated", rooms).await;
    flood(&test, 1, "session_ended", 1).await;
    for number in 0..4 {
        let began = Instant::now();
        let claimed = test.store.claim(200, LEASE).await.unwrap();
        let claim = began.elapsed();
        let began = Instant::now();
        test.store.next_due().await.unwrap();
        let due = began.elapsed();
        println!(
            "{kind:?}, {rooms} rooms, claim {number}: {} rows, {claim:?}; next_due: {due:?}",
            claimed.len()
        );
        if number == 1 {
            let claims: Vec<_> = claimed.iter().map(OutboxRow::claim).collect();
            Outbox::done(&test.store, &claims).await.unwrap();
        }
    }
}

/// Edits so many messages a second, in ten rooms, and measures the time until each has its number.
async fn measure_edits(kind: DatabaseKind, rate: u32) {
    let test = TestStore::new(kind).await;
    let limits = BackplaneLimits::default();
    let store: Arc<dyn ArchiveStore> = Arc::new(test.store.clone());
    let run = store.begin_run().await.unwrap();
    let restorer = Restorer::new(store.clone(), Some(run), limits.dedupe_ttl);
    let restorer = restorer.await.unwrap();
    let backplane = memory::embedded_with_archive(limits.clone(), restorer.clone());
    let settings = ArchiveSettings {
        acknowledge_commits: true,
        backlog: 10_000,
        retention: None,
    };
    let hot = backplane.hot_log.clone();
    let archive = Archive::start(hot, store, &restorer, settings, &limits);
    let log = archive.log();
    let mut messages = Vec::new();
    for number in 0..100 {
        let message = NewMessage {
            id: Uuid::now_v7(),
            room: RoomId::trusted(&format!("room{}", number % 10)),
            user: UserId::trusted("ann"),
            username: Username::trusted("Ann"),
            content: "first".to_owned(),
            kind: "text".to_owned(),
            title: None,
            payload: None,
            attachment_urls: Vec::new(),
            client_msg_id: None,
            mentions: Vec::new(),
            thread: None,
        };
        log.append(&message, None).await.unwrap();
        messages.push(message);
    }
    let outbox = Arc::new(test.store.clone());
    let lifecycle = backplane.lifecycle.clone();
    let (id, ttl) = (Uuid::now_v7(), limits.dedupe_ttl);
    let worker = Worker::new(outbox.clone(), outbox, log, lifecycle, id, ttl);
    let publications = worker.publications();
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(worker.run_until(stopped));
    let mut interval = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut calls = tokio::task::JoinSet::new();
    let count = 5 * rate as usize;
    for number in 0..count {
        interval.tick().await;
        let message = &messages[number % messages.len()];
        let (room, id) = (message.room.clone(), message.id);
        let edit = MessageEdit {
            message: MessageRef { room, id },
            by: Changer {
                user: message.user.clone(),
                is_moderator: false,
                hidden_seq: 0,
            },
            version: None,
            record: Arc::new(move |_| {
                Ok(EditedRecord {
                    record: Bytes::from(format!("{{\"content\":\"{number}\"}}")),
                    mentions: None,
                })
            }),
        };
        let (store, publications) = (test.store.clone(), publications.clone());
        calls.spawn(async move {
            let began = Instant::now();
            let outcome = store.edit(&edit).await.unwrap();
            let made = began.elapsed();
            let ChangeOutcome::Changed(changed) = outcome else {
                panic!("{outcome:?}");
            };
            let Announced::ByRow { revision, .. } = changed.announcement else {
                panic!("{changed:?}");
            };
            let room = &edit.message.room;
            let wait = publications.wait(room, changed.target_seq, revision);
            let is_late = wait.await.is_err();
            (began.elapsed(), made, is_late)
        });
    }
    let mut times = Vec::new();
    let mut commits = Vec::new();
    let mut late = 0;
    while let Some(call) = calls.join_next().await {
        let (time, made, is_late) = call.unwrap();
        late += usize::from(is_late);
        times.push(time);
        commits.push(made);
    }
    times.sort_unstable();
    commits.sort_unstable();
    let [p50, p99] = [count / 2, count * 99 / 100].map(|index| (times[index], commits[index]));
    println!(
        "{kind:?}: {rate} edits a second; (numbered, committed): p50 {p50:?}, p99 {p99:?}, {late} late"
    );
    stop.send(true).unwrap();
    running.await.unwrap();
    archive.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_outbox_edits() {
    for kind in [
        DatabaseKind::Sqlite,
        DatabaseKind::Postgres,
        DatabaseKind::MariaDb,
    ] {
        for rate in [20, 200] {
            measure_edits(kind, rate).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_outbox_rooms() {
    for kind in [
        DatabaseKind::Sqlite,
        DatabaseKind::Postgres,
        DatabaseKind::MariaDb,
    ] {
        measure_a_room(kind).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_outbox_claims() {
    for kind in [
        DatabaseKind::Sqlite,
        DatabaseKind::Postgres,
        DatabaseKind::MariaDb,
    ] {
        for rooms in [1, 1000, 100_000] {
            measure_claims(kind, rooms).await;
        }
    }
}
