//! Retention: which entries a run deletes, and which node runs.

use std::time::Duration;

use super::*;
use crate::archive::retention::{Due, Pass, RunHooks, RunMode, begin};
use crate::backplane;
use crate::domain::Timestamp;
use crate::store::RetentionRun;

const DAY: u64 = 86_400_000;
const KEEP: Duration = Duration::from_secs(10 * 86_400);
const HOUR: u64 = 3_600_000;

fn now() -> Timestamp {
    Timestamp(1000 * DAY)
}

fn later(millis: u64) -> Timestamp {
    Timestamp(now().0 + millis)
}

/// Hooks that do nothing, or fail for a room.
#[derive(Default)]
struct Hooks {
    unavailable: Option<RoomId>,
    trimmed: parking_lot::Mutex<Vec<(RoomId, u64)>>,
}

#[async_trait::async_trait]
impl RunHooks for Hooks {
    async fn delete_elsewhere(&self, room: &RoomId, cut: u64) -> backplane::Result<()> {
        if self.unavailable.as_ref() == Some(room) {
            return Err(backplane::BackplaneError::Unavailable("away".to_owned()));
        }
        self.trimmed.lock().push((room.clone(), cut));
        Ok(())
    }

    fn deleted(&self, _room: &RoomId) {}

    async fn pause(&self, _run: &RetentionRun, _took: Duration) {}
}

/// For nodes that started long ago.
const HOURLY: Due = Due::Hourly {
    started_at: Timestamp(0),
};

/// An archive with two rooms of 2,500 messages, one every hour, and one of 3 new messages.
async fn filled() -> FakeStore {
    let store = FakeStore::new();
    let mut writer = store.writer(0);
    for (name, count) in [("a", 2500), ("b", 2500), ("c", 3)] {
        let room = RoomId::trusted(name);
        let seqs: Vec<u64> = (1..=count).collect();
        for seqs in seqs.chunks(500) {
            let rows = seqs.iter().map(|seq| (room.clone(), entry(&room, *seq)));
            writer.commit(&rows.collect::<Vec<_>>()).await.unwrap();
        }
        store.set_times(&room, |seq| Timestamp(now().0 - (count - seq) * HOUR));
    }
    store
}

async fn delete(store: &FakeStore, hooks: &Hooks, run: RetentionRun) -> (bool, RetentionRun) {
    let mut pass = Pass::new(store, hooks, RunMode::Delete, run);
    let is_complete = pass.complete().await.unwrap();
    (is_complete, pass.run)
}

#[tokio::test]
async fn a_run_deletes_what_is_older_than_its_cutoff_and_nothing_else() {
    let store = filled().await;
    let run = begin(&store, now(), KEEP, HOURLY).await.unwrap();
    let hooks = Hooks::default();
    let (is_complete, run) = delete(&store, &hooks, run.unwrap()).await;
    assert!(is_complete);
    for name in ["a", "b"] {
        let kept = store.entries(&RoomId::trusted(name));
        assert!(kept.iter().all(|entry| entry.at >= run.cutoff));
        // The message of that very moment is kept, and one for each hour since.
        assert_eq!(kept.len(), 241);
        assert_eq!(kept[0].seq, 2260);
    }
    assert_eq!(store.seqs(&RoomId::trusted("c")), [1, 2, 3]);
    assert_eq!((run.rooms, run.entries), (2, 2 * 2259));
    assert!(run.bytes > 0);
    let cuts: Vec<u64> = hooks.trimmed.lock().iter().map(|(_, cut)| *cut).collect();
    assert_eq!(cuts, [2259, 2259]);
    assert_eq!(store.retention(), [run]);
}

#[tokio::test]
async fn numbering_and_head_of_a_room_outlast_its_messages() {
    let store = filled().await;
    let room = RoomId::trusted("c");
    let keep = Duration::ZERO;
    let run = begin(&store, later(1), keep, Due::Now).await.unwrap();
    delete(&store, &Hooks::default(), run.unwrap()).await;
    assert!(store.seqs(&room).is_empty());
    let archived = store.room(&room).await.unwrap().unwrap();
    assert_eq!((archived.head, archived.first, archived.oldest), (3, 4, 4));
}

#[tokio::test]
async fn a_count_finds_what_a_run_deletes_and_records_nothing() {
    let store = filled().await;
    let cutoff = Timestamp(now().0 - 10 * DAY);
    let counted = RetentionRun::new(now(), cutoff);
    let hooks = Hooks::default();
    let mut pass = Pass::new(&store, &hooks, RunMode::Count, counted);
    assert!(pass.complete().await.unwrap());
    let counted = pass.run;
    assert!(store.retention().is_empty());
    assert_eq!(store.seqs(&RoomId::trusted("a")).len(), 2500);
    let run = begin(&store, now(), KEEP, Due::Now).await.unwrap().unwrap();
    let (_, deleted) = delete(&store, &hooks, run).await;
    assert_eq!(
        (counted.rooms, counted.entries, counted.bytes),
        (deleted.rooms, deleted.entries, deleted.bytes)
    );
}

#[tokio::test]
async fn of_all_nodes_one_runs_once_an_hour() {
    let store = filled().await;
    let first = begin(&store, now(), KEEP, HOURLY).await.unwrap();
    let (_, finished) = delete(&store, &Hooks::default(), first.unwrap()).await;
    assert!(finished.finished_at.is_some());
    for (time, begins) in [
        (now(), false),
        (later(HOUR / 2), false),
        (later(HOUR + 1), true),
    ] {
        let run = begin(&store, time, KEEP, HOURLY).await.unwrap();
        assert_eq!(run.is_some(), begins, "{time}");
    }
}

#[tokio::test]
async fn what_has_expired_at_the_start_of_a_node_is_deleted_soon() {
    let store = filled().await;
    let first = begin(&store, now(), KEEP, HOURLY).await.unwrap();
    delete(&store, &Hooks::default(), first.unwrap()).await;
    // Nodes that start at once need only one run.
    for (started_at, begins) in [(now(), false), (later(1000), true)] {
        let due = Due::Hourly { started_at };
        let run = begin(&store, later(60_000), KEEP, due).await.unwrap();
        assert_eq!(run.is_some(), begins, "{started_at}");
    }
}

#[tokio::test]
async fn a_run_begins_while_none_is_under_way_unless_it_was_interrupted() {
    let store = filled().await;
    assert!(begin(&store, now(), KEEP, HOURLY).await.unwrap().is_some());
    for due in [HOURLY, Due::Now] {
        let minute = later(60_000);
        assert!(begin(&store, minute, KEEP, due).await.unwrap().is_none());
    }
    let long_after = later(121_000);
    let next = begin(&store, long_after, KEEP, HOURLY).await.unwrap();
    assert!(next.is_some());
}

#[tokio::test]
async fn a_room_whose_log_cannot_be_trimmed_is_left_for_the_next_run() {
    let store = filled().await;
    let room = RoomId::trusted("a");
    let hooks = Hooks {
        unavailable: Some(room.clone()),
        ..Hooks::default()
    };
    let run = begin(&store, now(), KEEP, HOURLY).await.unwrap();
    let (is_complete, run) = delete(&store, &hooks, run.unwrap()).await;
    assert!(!is_complete);
    assert_eq!(run.finished_at, None);
    assert_eq!(store.seqs(&room).len(), 2500);
    assert_eq!(store.seqs(&RoomId::trusted("b")).len(), 241);
    let next = begin(&store, later(121_000), KEEP, HOURLY).await.unwrap();
    let (is_complete, next) = delete(&store, &Hooks::default(), next.unwrap()).await;
    assert!(is_complete);
    // Of each room one more has expired meanwhile.
    assert_eq!(next.entries, 2259 + 2);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_early_is_continued_by_the_next() {
    let store = filled().await;
    let hooks = Hooks::default();
    let run = begin(&store, now(), KEEP, HOURLY).await.unwrap();
    let mut pass = Pass::new(&store, &hooks, RunMode::Delete, run.unwrap());
    pass.deadline = Some(tokio::time::Instant::now());
    assert!(!pass.complete().await.unwrap());
    let deleted = pass.run.entries;
    assert_eq!(deleted, 1000, "one step");
    let next = begin(&store, later(121_000), KEEP, HOURLY).await.unwrap();
    let (is_complete, next) = delete(&store, &hooks, next.unwrap()).await;
    assert!(is_complete);
    assert_eq!(next.entries, 2 * 2260 - deleted);
}

#[tokio::test(start_paused = true)]
async fn a_node_deletes_what_is_too_old_and_goes_on_numbering() {
    let store = FakeStore::new();
    let setup = Setup {
        retention: Some(KEEP),
        ..Setup::default()
    };
    let node = setup.start(&store).await;
    for content in ["a", "b", "c"] {
        node.append(&lobby(), content).await.unwrap();
    }
    store.set_times(&lobby(), |_| Timestamp(0));
    let overdue = || {
        let samples = node.archive.samples();
        let metric = samples
            .into_iter()
            .find(|sample| sample.name == "archive_retention_overdue");
        format!("{:?}", metric.unwrap().value)
    };
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(store.seqs(&lobby()).is_empty());
    assert_eq!(overdue(), "Gauge(0)");
    assert_eq!(store.retention()[0].entries, 3);
    let next = node.append(&lobby(), "d").await.unwrap();
    assert_eq!(next.seq, 4);
    node.stop().await;
}
