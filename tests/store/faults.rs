//! Databases that are away, stopped or overloaded, and connections that are lost.

use std::time::{Duration, Instant};

use hubbub::domain::Epoch;
use hubbub::store::sql::{Settings, SqlStore};
use hubbub::store::{
    ArchiveStore as _, ArchiveTransfer as _, ArchivedEntry, BeginOutcome, Fence, NewEpoch,
    StoreError,
};
use hubbub_test_support::database::{DatabaseKind, DatabaseServer};

use crate::concurrency::{Session, insert, wait_for_a_blocked_session};
use crate::fixture::{Conflict, Stored, TestStore, entry, in_room, migrate, room, settings};

crate::on_every_database!(
    a_connection_lost_during_a_commit_is_replaced,
    connections_lost_while_idle_are_replaced,
    a_call_waits_for_a_connection_for_a_limited_time,
    an_unknown_database_is_reported_when_the_store_opens,
    a_closed_store_is_unavailable,
);

/// Ends the sessions of the store.
fn end_sessions(store: &TestStore) {
    if store.kind() == DatabaseKind::Postgres {
        store.database.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid() \
             AND application_name = 'hubbub'",
        );
        return;
    }
    let sessions = store.database.sql(
        "SELECT id FROM information_schema.processlist \
         WHERE db = DATABASE() AND id <> CONNECTION_ID()",
    );
    for id in sessions.lines() {
        store.database.sql(&format!("KILL CONNECTION {id}"));
    }
}

async fn a_connection_lost_during_a_commit_is_replaced(store: &TestStore) {
    store.fill("r", [1]).await;
    let Some(mut session) = Session::begin(store).await else {
        return;
    };
    session.run(&insert(store.kind(), 3)).await.unwrap();
    let node = SqlStore::open(&store.settings()).await.unwrap();
    let mut writer = node.writer(0);
    let batch = in_room("r", &[entry(2), entry(3)]);
    let commit = {
        let batch = batch.clone();
        tokio::spawn(async move {
            let outcome = writer.commit(&batch).await;
            (writer, outcome)
        })
    };
    wait_for_a_blocked_session(store).await;
    end_sessions(store);
    let (mut writer, outcome) = commit.await.unwrap();
    assert!(
        matches!(outcome, Err(StoreError::Unavailable(_))),
        "{outcome:?}"
    );
    // On MariaDB the session of the test was ended, too.
    if store.kind() == DatabaseKind::Postgres {
        session.run("COMMIT").await.unwrap();
        let outcomes = writer.commit(&batch).await.unwrap();
        assert_eq!(outcomes, [Stored, Conflict]);
    } else {
        assert_eq!(writer.commit(&batch).await.unwrap(), [Stored, Stored]);
    }
}

async fn connections_lost_while_idle_are_replaced(store: &TestStore) {
    if store.kind() == DatabaseKind::Sqlite {
        return;
    }
    store.fill("r", 1..=3).await;
    let mut writer = store.store.writer(0);
    writer.commit(&in_room("r", &[entry(4)])).await.unwrap();
    // Several connections are open.
    let reads = (0..4).map(|_| store.all("r"));
    for read in futures_util::future::join_all(reads).await {
        assert_eq!(read.len(), 4);
    }
    end_sessions(store);
    let reads = (0..4).map(|_| store.all("r"));
    for read in futures_util::future::join_all(reads).await {
        assert_eq!(read.len(), 4);
    }
    end_sessions(store);
    store.store.record_loss(&room("r"), 9..=9).await.unwrap();
    let batch = in_room("r", &[entry(5)]);
    assert_eq!(writer.commit(&batch).await.unwrap(), [Stored]);
    // The outcome of the attempt is unknown then: the repeat must keep to the ends of epochs.
    end_sessions(store);
    let ends = NewEpoch {
        epoch: Epoch::trusted("later"),
        after: 5,
        run: 0,
        ends: Vec::new(),
        newest: None,
    };
    let begun = store.begin_epoch("r", &ends).await;
    assert_eq!(begun, BeginOutcome::Begun(Vec::new()));
    let late = in_room("r", &[entry(6)]);
    let outcomes = writer.commit_with(&late, Fence::Fresh).await;
    assert_eq!(outcomes.unwrap(), [Conflict]);
    // Nor may it add an epoch that the room has continued without.
    end_sessions(store);
    let lost = ArchivedEntry {
        epoch: Epoch::trusted("lost"),
        ..entry(7)
    };
    let outcomes = writer
        .commit_with(&in_room("r", &[lost]), Fence::Fresh)
        .await;
    assert_eq!(outcomes.unwrap(), [Conflict]);
    // Entries of a copy are not checked.
    end_sessions(store);
    assert_eq!(writer.commit(&late).await.unwrap(), [Stored]);
}

async fn a_call_waits_for_a_connection_for_a_limited_time(store: &TestStore) {
    store.fill("r", [1]).await;
    let Some(mut session) = Session::begin(store).await else {
        return;
    };
    let lock = "UPDATE hubbub_rooms SET cut_seq = 0 WHERE name = 'r'";
    session.run(lock).await.unwrap();
    let settings = Settings {
        connections: 1,
        acquire_timeout: Duration::from_millis(300),
        ..store.settings()
    };
    let node = SqlStore::open(&settings).await.unwrap();
    let held = {
        let node = node.clone();
        tokio::spawn(async move { node.record_loss(&room("r"), 2..=2).await })
    };
    wait_for_a_blocked_session(store).await;
    let stats = node.pool_stats();
    assert_eq!((stats.size, stats.in_use, stats.idle), (1, 1, 0));
    let refused = node.room(&room("r")).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    session.run("ROLLBACK").await.unwrap();
    held.await.unwrap().unwrap();
    assert_eq!(node.room(&room("r")).await.unwrap().unwrap().head, 2);
    let stats = node.pool_stats();
    assert_eq!((stats.in_use, stats.idle, stats.waiting), (0, 1, 0));
}

async fn an_unknown_database_is_reported_when_the_store_opens(store: &TestStore) {
    let url = format!("{}/no/such", store.database.url.trim_end_matches(".db"));
    let url = match store.kind() {
        DatabaseKind::Sqlite => url,
        _ => format!("{}_unknown", store.database.url),
    };
    let started = Instant::now();
    let error = SqlStore::open(&settings(&url)).await.err().unwrap();
    assert!(started.elapsed() < Duration::from_secs(15));
    let text = error.to_string();
    let is_refused = matches!(error, StoreError::Refused(_));
    assert_eq!(is_refused, store.kind() != DatabaseKind::Sqlite, "{text}");
    assert!(!text.contains(" at line "), "{text}");
    let reason = match store.kind() {
        DatabaseKind::Sqlite => "unable to open",
        DatabaseKind::Postgres => "does not exist",
        DatabaseKind::MariaDb => "Unknown database",
    };
    assert!(text.contains(reason), "{text}");
}

async fn a_closed_store_is_unavailable(store: &TestStore) {
    store.fill("r", [1]).await;
    store.store.close().await;
    let refused = store.store.room(&room("r")).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    let again = SqlStore::open(&store.settings()).await.unwrap();
    assert_eq!(again.room(&room("r")).await.unwrap().unwrap().head, 1);
}

/// A server of its own, with what it commits on the disk, and a store that waits for a second at most.
async fn server(kind: DatabaseKind) -> (DatabaseServer, SqlStore) {
    let server = DatabaseServer::start_durable(kind);
    let url = server.create_database("chat");
    migrate(&url).await;
    let settings = Settings {
        acquire_timeout: Duration::from_secs(1),
        read_timeout: Duration::from_secs(1),
        write_timeout: Duration::from_secs(1),
        ..settings(&url)
    };
    let store = SqlStore::open(&settings).await.unwrap();
    (server, store)
}

async fn a_killed_server_is_unavailable_and_then_has_everything(kind: DatabaseKind) {
    let (mut server, store) = server(kind).await;
    let mut writer = store.writer(0);
    let batch = in_room("r", &[entry(1), entry(2)]);
    assert_eq!(writer.commit(&batch).await.unwrap(), [Stored, Stored]);
    server.kill();
    let later = in_room("r", &[entry(3)]);
    for _ in 0..3 {
        let started = Instant::now();
        let refused = writer.commit(&later).await;
        assert!(
            matches!(refused, Err(StoreError::Unavailable(_))),
            "{refused:?}"
        );
        let refused = store.room(&room("r")).await;
        assert!(
            matches!(refused, Err(StoreError::Unavailable(_))),
            "{refused:?}"
        );
        assert!(started.elapsed() < Duration::from_secs(15));
    }
    server.run();
    assert_eq!(store.room(&room("r")).await.unwrap().unwrap().head, 2);
    assert_eq!(writer.commit(&later).await.unwrap(), [Stored]);
    assert_eq!(writer.commit(&batch).await.unwrap(), [Stored, Stored]);
}

async fn a_stopped_server_is_unavailable_until_it_continues(kind: DatabaseKind) {
    let (server, store) = server(kind).await;
    let mut writer = store.writer(0);
    let batch = in_room("r", &[entry(1)]);
    writer.commit(&batch).await.unwrap();
    server.signal("-STOP");
    let started = Instant::now();
    let (refused, read) = tokio::join!(
        async { writer.commit(&in_room("r", &[entry(2)])).await },
        async { store.room(&room("r")).await }
    );
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(started.elapsed() < Duration::from_secs(15));
    server.signal("-CONT");
    let deadline = Instant::now() + Duration::from_secs(10);
    while writer.commit(&batch).await.is_err() {
        assert!(Instant::now() < deadline, "it doesn't come back");
    }
    assert_eq!(store.room(&room("r")).await.unwrap().unwrap().oldest, 1);
}

/// Calls that are made for each restore or each late commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_reads_all_epochs_or_losses_of_a_room() {
    let server = DatabaseServer::start(DatabaseKind::MariaDb);
    let url = server.create_database("chat");
    migrate(&url).await;
    let store = SqlStore::open(&settings(&url)).await.unwrap();
    let mut writer = store.writer(0);
    let first = in_room("r", &[entry(10_001)]);
    writer.commit(&first).await.unwrap();
    for fill in [
        "INSERT INTO hubbub_gaps SELECT 1, 2 * seq, 2 * seq FROM seq_1_to_5000",
        "INSERT INTO hubbub_epochs SELECT 1, 1 + seq, CONCAT('e', seq), 10000, 10001, 0 \
         FROM seq_1_to_5000",
    ] {
        server.sql(Some("chat"), fill);
    }
    let rows_read = || -> u64 {
        let counts = server.sql(None, "SHOW GLOBAL STATUS LIKE 'Handler_read%'");
        let counts = counts
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        counts.map(|count| count.parse::<u64>().unwrap()).sum()
    };
    // Showing the counts counts, too.
    let before = rows_read();
    let shown = rows_read() - before;
    let before = rows_read();
    assert_eq!(
        store.room(&room("r")).await.unwrap().unwrap().oldest,
        10_001
    );
    let of_room = rows_read() - before - shown;
    assert!(of_room < 300, "room: {of_room}");
    let before = rows_read();
    let unknown = ArchivedEntry {
        epoch: Epoch::trusted("new"),
        ..entry(10_002)
    };
    let late = in_room("r", &[unknown]);
    let outcomes = writer.commit_with(&late, Fence::EpochEnds).await;
    assert_eq!(outcomes.unwrap(), [Stored]);
    let of_commit = rows_read() - before - shown;
    assert!(of_commit < 300, "commit in a new epoch: {of_commit}");
    let before = rows_read();
    let late = in_room("r", &[entry(9_000)]);
    let outcomes = writer.commit_with(&late, Fence::EpochEnds).await;
    assert_eq!(outcomes.unwrap(), [Stored]);
    let of_commit = rows_read() - before - shown;
    assert!(of_commit < 300, "commit of a lost number: {of_commit}");
    let before = rows_read();
    store.record_loss(&room("r"), 8_999..=8_999).await.unwrap();
    store
        .record_loss(&room("r"), 10_005..=10_006)
        .await
        .unwrap();
    let of_loss = rows_read() - before - shown;
    assert!(of_loss < 300, "two losses: {of_loss}");
    let lost = store.room_state(&room("r")).await.unwrap().unwrap().lost;
    assert_eq!(lost.len(), 5001);
    assert!(!lost.contains(&(9_000..=9_000)));
    assert!(lost.contains(&(8_999..=8_999)) && lost.contains(&(10_005..=10_006)));
}

/// The driver closes a statement that leaves its cache in a packet of its own, and the next packet is
/// then delayed by 40 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_statements_of_a_store_stay_prepared() {
    let server = DatabaseServer::start(DatabaseKind::MariaDb);
    let url = server.create_database("chat");
    migrate(&url).await;
    let store = SqlStore::open(&settings(&url)).await.unwrap();
    let closed = || server.sql(None, "SHOW GLOBAL STATUS LIKE 'Com_stmt_close'");
    let mut writer = store.writer(0);
    let before = closed();
    let lengths = [
        1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 500,
    ];
    for (size, seq) in lengths.into_iter().zip(1..).chain([(1, 99)]) {
        // New rooms, then the same again, which reads the keys.
        let batch: Vec<_> = (0..size)
            .map(|number| (room(&format!("{size} {number}")), entry(seq)))
            .collect();
        for _ in 0..2 {
            let outcomes = writer.commit(&batch).await.unwrap();
            assert!(outcomes.iter().all(|outcome| *outcome == Stored));
        }
    }
    assert_eq!(closed(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_is_unavailable_and_then_has_everything() {
    a_killed_server_is_unavailable_and_then_has_everything(DatabaseKind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_mariadb_is_unavailable_and_then_has_everything() {
    a_killed_server_is_unavailable_and_then_has_everything(DatabaseKind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_postgres_is_unavailable_until_it_continues() {
    a_stopped_server_is_unavailable_until_it_continues(DatabaseKind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_mariadb_is_unavailable_until_it_continues() {
    a_stopped_server_is_unavailable_until_it_continues(DatabaseKind::MariaDb).await;
}

#[tokio::test]
async fn each_database_in_memory_is_a_store_of_its_own() {
    let store = SqlStore::open(&settings("sqlite::memory:")).await.unwrap();
    let other = SqlStore::open(&settings("sqlite::memory:")).await.unwrap();
    let batch = in_room("r", &[entry(1), entry(2)]);
    let outcomes = store.writer(0).commit(&batch).await.unwrap();
    assert_eq!(outcomes, [Stored, Stored]);
    let known = store.room(&room("r")).await.unwrap().unwrap();
    assert_eq!((known.first, known.head), (1, 2));
    assert_eq!(other.room(&room("r")).await.unwrap(), None);
    store.ping().await.unwrap();
}
