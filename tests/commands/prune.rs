//! `hubbub db prune`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hubbub::domain::{Epoch, RoomId, Timestamp, UserId};
use hubbub::store::{ArchiveStore as _, ArchivedEntry, StoredKind};

use crate::fixture::{MariaDb, Postgres, Sqlite, contents, open, run, seeded, summary};

const DAY: u64 = 86_400_000;

#[tokio::test]
async fn a_dry_run_counts_what_a_run_deletes() {
    for kind in [Sqlite, Postgres, MariaDb] {
        let database = seeded(kind, 4, 3000);
        let store = open(&database).await;
        let before = contents(&store).await;
        let options = ["prune", "--older-than", "45"];
        let counted = summary(&database, &[&options[..], &["--dry-run"]].concat());
        assert_eq!(contents(&store).await, before);
        assert_eq!(store.last_retention().await.unwrap(), None);
        let deleted = summary(&database, &options);
        for value in ["rooms", "messages", "record_bytes"] {
            assert_eq!(counted[value], deleted[value], "{value}");
        }
        // Messages are spread over 90 days.
        let share = deleted["messages"].as_u64().unwrap();
        assert!((1300..1700).contains(&share), "{share}");
        let kept = contents(&store).await;
        assert_eq!(
            kept.iter().map(|room| room.2.len() as u64).sum::<u64>(),
            3000 - share
        );
        let report = store.last_retention().await.unwrap().unwrap();
        assert_eq!(report.entries, share);
        for (room, _, entries) in kept {
            let is_kept = |at: Timestamp| at >= report.cutoff;
            assert!(entries.iter().all(|entry| is_kept(entry.at)), "{room}");
        }
        assert_eq!(summary(&database, &["verify"])["is_complete"], true);
        assert_eq!(summary(&database, &options)["messages"], 0);
    }
}

#[tokio::test]
async fn the_age_is_that_of_the_configuration_unless_it_is_named() {
    let database = seeded(Sqlite, 1, 90);
    let options = ["prune", "--json", "--database-url", &database.url];
    let ended = run(&options);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("--older-than"), "{}", ended.stderr);
    let mut configured = crate::fixture::command(&options);
    configured.env("RETENTION_DAYS", "30");
    let before = Timestamp::now();
    let ended = crate::fixture::Ended::of(configured.output().unwrap());
    let cutoff = ended.summary()["cutoff"].as_str().unwrap().to_owned();
    let after = Timestamp::now();
    // Texts of RFC 3339 in UTC have the order of their times.
    let cutoff_at = |now: Timestamp| Timestamp(now.0 - 30 * DAY).to_string();
    assert!(
        (cutoff_at(before)..=cutoff_at(after)).contains(&cutoff),
        "{cutoff}"
    );
    let store = open(&database).await;
    let room = RoomId::trusted("demo-1");
    let known = store.room(&room).await.unwrap().unwrap();
    assert_eq!(known.head, 90, "numbering goes on");
    assert!(known.first > 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_and_committing_do_not_stop_each_other() {
    for kind in [Sqlite, Postgres, MariaDb] {
        let database = seeded(kind, 2, 12_000);
        let store = open(&database).await;
        let stop = Arc::new(AtomicBool::new(false));
        let (writing, writer_stop) = (store.clone(), stop.clone());
        let writer = tokio::spawn(async move {
            let room = RoomId::trusted("live");
            let mut writer = writing.writer(0);
            let (mut seq, mut slowest) = (0, Duration::ZERO);
            while !writer_stop.load(Ordering::Relaxed) {
                seq += 1;
                let rows = [(room.clone(), live_entry(seq))];
                let began = Instant::now();
                writer.commit(&rows).await.unwrap();
                slowest = slowest.max(began.elapsed());
            }
            (seq, slowest)
        });
        let pruned = summary(&database, &["prune", "--older-than", "1"]);
        stop.store(true, Ordering::Relaxed);
        let (committed, slowest) = writer.await.unwrap();
        assert!(pruned["messages"].as_u64().unwrap() > 11_000, "{pruned}");
        assert!(
            committed > 10 && slowest < Duration::from_secs(10),
            "{kind:?}: {slowest:?}"
        );
        let live = RoomId::trusted("live");
        let audit = store.audit(&live).await.unwrap();
        assert_eq!((audit.entries, audit.missing), (committed, vec![]));
    }
}

fn live_entry(seq: u64) -> ArchivedEntry {
    ArchivedEntry {
        seq,
        epoch: Epoch::trusted("e1"),
        at: Timestamp::now(),
        kind: StoredKind::MESSAGE,
        id: uuid::Uuid::now_v7(),
        user: UserId::trusted("ann"),
        send_key: None,
        record: bytes::Bytes::from_static(b"{}"),
    }
}
