//! Measurements, which run only on request:
//! `cargo test --test store -- --ignored --nocapture --test-threads=1 measure`. Compare ratios: the times
//! are those of an unoptimised build.

use std::time::Instant;

use hubbub::backplane::record;
use hubbub::domain::{Limits, MessageFields, NewMessage, RoomId, UserId, Username};
use hubbub::store::ArchivedEntry;
use hubbub::store::sql::SqlStore;
use hubbub::store::{ArchiveStore as _, ArchiveWindow};
use hubbub_test_support::database::{DatabaseKind, DatabaseServer, TestDatabase};

use crate::fixture::{Stored, entry, migrate, room, settings};

const ROOMS: u64 = 100;

/// Messages of 300 bytes that go to the ends of many rooms.
struct Source {
    heads: Vec<u64>,
    state: u64,
}

impl Source {
    fn new() -> Self {
        Self {
            heads: vec![0; usize::try_from(ROOMS).unwrap()],
            state: 1,
        }
    }

    fn next(&mut self) -> (RoomId, ArchivedEntry) {
        // A linear congruential generator: the same rooms in every measurement.
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let number = (self.state >> 33) % ROOMS;
        let head = &mut self.heads[usize::try_from(number).unwrap()];
        *head += 1;
        let (room, user) = (
            room(&format!("room-{number:04}")),
            UserId::trusted("user-042"),
        );
        let fields = MessageFields {
            content: "0123456789".repeat(30),
            ..MessageFields::default()
        };
        let name = Username::from(&user);
        let message =
            NewMessage::new(room.clone(), user.clone(), name, fields, &Limits::default()).unwrap();
        let entry = ArchivedEntry {
            id: message.id,
            user,
            record: record::encode(&message),
            ..entry(*head)
        };
        (room, entry)
    }

    fn batch(&mut self, size: usize) -> Vec<(RoomId, ArchivedEntry)> {
        (0..size).map(|_| self.next()).collect()
    }
}

async fn measure(kind: DatabaseKind, store: &SqlStore, bytes: impl Fn() -> u64) {
    let mut source = Source::new();
    let mut writer = store.writer(0);
    let mut rows = 0;
    for (size, batches) in [
        (500, 20),
        (1, 400),
        (10, 200),
        (32, 100),
        (100, 60),
        (500, 160),
    ] {
        let prepared: Vec<_> = (0..batches).map(|_| source.batch(size)).collect();
        let started = Instant::now();
        for batch in &prepared {
            let outcomes = writer.commit(batch).await.unwrap();
            assert!(outcomes.iter().all(|outcome| *outcome == Stored));
        }
        let took = started.elapsed();
        rows += size * batches;
        let rate = f64::from(u32::try_from(size * batches).unwrap()) / took.as_secs_f64();
        let each = took / u32::try_from(batches).unwrap();
        println!("{kind:?}: batch {size}: {rate:.0} rows/s, {each:?} a commit");
    }
    let mut pages = Vec::new();
    for number in 0..ROOMS {
        let room = room(&format!("room-{number:04}"));
        let started = Instant::now();
        let window = ArchiveWindow::Before(500);
        let read = store.read(&room, window, 50, 1 << 20).await.unwrap();
        pages.push(started.elapsed());
        assert_eq!(read.len(), 50);
    }
    pages.sort();
    let (p50, p99) = (pages[pages.len() / 2], pages[pages.len() * 99 / 100]);
    println!("{kind:?}: a page of 50: {p50:?}, p99 {p99:?}");
    let started = Instant::now();
    store.room(&room("room-0001")).await.unwrap().unwrap();
    println!("{kind:?}: a room: {:?}", started.elapsed());
    let each = bytes() / rows as u64;
    println!("{kind:?}: {rows} rows, {each} bytes on the disk each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_sqlite() {
    let database = TestDatabase::new(DatabaseKind::Sqlite);
    migrate(&database.url).await;
    let store = SqlStore::open(&settings(&database.url)).await.unwrap();
    measure(database.kind, &store, || {
        std::fs::metadata(database.file()).unwrap().len()
    })
    .await;
}

async fn measure_server(kind: DatabaseKind, size: &str) {
    let server = DatabaseServer::start_durable(kind);
    let url = server.create_database("chat");
    migrate(&url).await;
    let store = SqlStore::open(&settings(&url)).await.unwrap();
    measure(kind, &store, || {
        let texts = server.sql(Some("chat"), size);
        println!("{kind:?}: {texts}");
        let sum = texts
            .lines()
            .last()
            .unwrap()
            .split('\t')
            .map(|part| part.parse::<u64>());
        sum.map(Result::unwrap).sum()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_postgres() {
    let size = "SELECT pg_table_size('hubbub_entries'), pg_relation_size('hubbub_entries_pkey'), \
        pg_relation_size('hubbub_entries_id')";
    measure_server(DatabaseKind::Postgres, size).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_mariadb() {
    let size = "ANALYZE TABLE hubbub_entries; SELECT data_length, index_length \
        FROM information_schema.tables \
        WHERE table_schema = DATABASE() AND table_name = 'hubbub_entries'";
    measure_server(DatabaseKind::MariaDb, size).await;
}
