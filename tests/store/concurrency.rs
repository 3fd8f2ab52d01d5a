//! Writers and other calls at once.

use std::sync::Arc;
use std::time::Duration;

use hubbub::domain::{Epoch, RoomId, UserId};
use hubbub::store::sql::SqlStore;
use hubbub::store::{
    ArchiveStore as _, ArchiveWindow, ArchivedEntry, BeginOutcome, CommitOutcome, NewEpoch,
};
use hubbub_test_support::database::DatabaseKind;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, MySqlConnection, PgConnection};

use crate::fixture::{Conflict, Stored, TestStore, entry, in_room, room};

crate::on_every_database!(
    one_of_two_rivals_gets_each_number,
    the_same_entries_are_stored_by_two_nodes_at_once,
    fifty_writers_meet_no_error,
    a_deadlock_is_repeated,
    a_call_that_is_dropped_leaves_nothing_open,
);

type Batch = Vec<(RoomId, ArchivedEntry)>;

/// Commits batches one after another, by a writer with connections of its own.
async fn commit_all(store: &TestStore, batches: Vec<Batch>) -> Vec<Vec<CommitOutcome>> {
    let node = SqlStore::open(&store.settings()).await.unwrap();
    let mut writer = node.writer(0);
    let mut outcomes = Vec::new();
    for batch in batches {
        outcomes.push(writer.commit(&batch).await.unwrap());
    }
    outcomes
}

async fn one_of_two_rivals_gets_each_number(store: &TestStore) {
    let batches = |user: &str| -> Vec<Batch> {
        let rival = |seq| ArchivedEntry {
            user: UserId::trusted(user),
            ..entry(seq)
        };
        let mut batches = Vec::new();
        for round in 0..5 {
            let mut batch = Vec::new();
            for name in ["a", "b", "c"] {
                let entries: Vec<_> = (1..=10).map(|n| rival(round * 10 + n)).collect();
                batch.extend(in_room(name, &entries));
            }
            batches.push(batch);
        }
        batches
    };
    let (ann, bob) = (batches("ann"), batches("bob"));
    let reversed = bob.into_iter().map(|mut batch| {
        batch.reverse();
        batch
    });
    let reversed: Vec<Batch> = reversed.collect();
    let (first, second) = tokio::join!(
        commit_all(store, ann.clone()),
        commit_all(store, reversed.clone())
    );
    let mut stored = Vec::new();
    for (batches, outcomes) in [(ann, first), (reversed, second)] {
        for (batch, outcomes) in batches.into_iter().zip(outcomes) {
            let kept = batch.into_iter().zip(outcomes);
            let kept = kept.filter(|(_, outcome)| *outcome == Stored);
            stored.extend(kept.map(|((room, entry), _)| (room, entry.seq, entry.id)));
        }
    }
    stored.sort();
    let mut archived = Vec::new();
    for name in ["a", "b", "c"] {
        let entries = store.all(name).await;
        assert_eq!(entries.len(), 50);
        archived.extend(
            entries
                .iter()
                .map(|entry| (room(name), entry.seq, entry.id)),
        );
    }
    archived.sort();
    assert_eq!(stored, archived, "each sender knows what was kept");
}

async fn the_same_entries_are_stored_by_two_nodes_at_once(store: &TestStore) {
    let entries: Vec<ArchivedEntry> = (1..=300).map(entry).collect();
    let batches = |size| -> Vec<Batch> {
        let parts = entries.chunks(size);
        parts.map(|part| in_room("r", part)).collect()
    };
    let nodes = tokio::join!(
        commit_all(store, batches(50)),
        commit_all(store, batches(30)),
        commit_all(store, batches(7))
    );
    for outcomes in [nodes.0, nodes.1, nodes.2] {
        assert!(
            outcomes
                .into_iter()
                .flatten()
                .all(|outcome| outcome == Stored)
        );
    }
    assert_eq!(store.all("r").await, entries);
    assert_eq!(store.room("r").await.epochs.len(), 1);
}

async fn fifty_writers_meet_no_error(store: &TestStore) {
    let store = Arc::new(store.store.clone());
    let mut tasks = Vec::new();
    for task in 0..50 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let own = room(&format!("room {task}"));
            let mut writer = store.writer(0);
            for seq in 1..=10 {
                let shared = room(&format!("shared {seq}"));
                let batch = [(own.clone(), entry(seq)), (shared, entry(task + 1))];
                let outcomes = writer.commit(&batch).await.unwrap();
                assert_eq!(outcomes, [Stored, Stored]);
                store.mark_contiguous(&[(own.clone(), seq)]).await.unwrap();
                let window = ArchiveWindow::After(0);
                let read = store.read(&own, window, 100, 10_000).await.unwrap();
                assert_eq!(read.len() as u64, seq);
            }
            let new = NewEpoch {
                epoch: Epoch::trusted("f"),
                after: 10,
                run: 0,
                ends: Vec::new(),
                newest: Some(Epoch::trusted("e")),
            };
            let begun = store.begin_epoch(&own, &new).await.unwrap();
            assert_eq!(begun, BeginOutcome::Begun(Vec::new()));
            store.close_holes(&own).await.unwrap()
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), []);
    }
    let shared = store.room(&room("shared 10")).await.unwrap().unwrap();
    assert_eq!((shared.oldest, shared.head), (1, 50));
    let stats = store.pool_stats();
    assert_eq!((stats.in_use, stats.waiting), (0, 0));
}

/// A session of a test, in a transaction that the store meets.
pub enum Session {
    Postgres(PgConnection),
    MariaDb(MySqlConnection),
}

impl Session {
    /// `None` on SQLite, where one process has one writer.
    pub async fn begin(store: &TestStore) -> Option<Self> {
        let url = &store.database.url;
        let mut session = match store.kind() {
            DatabaseKind::Sqlite => return None,
            DatabaseKind::Postgres => Self::Postgres(PgConnection::connect(url).await.unwrap()),
            DatabaseKind::MariaDb => Self::MariaDb(MySqlConnection::connect(url).await.unwrap()),
        };
        session.run("BEGIN").await.unwrap();
        Some(session)
    }

    pub async fn run(&mut self, text: &str) -> Result<(), sqlx::Error> {
        let query = sqlx::raw_sql(AssertSqlSafe(text));
        match self {
            Self::Postgres(connection) => query.execute(connection).await.map(drop),
            Self::MariaDb(connection) => query.execute(connection).await.map(drop),
        }
    }
}

/// A transaction of another process that prevents changes of the room `r`, which must exist.
pub enum WriteLock {
    Sqlite(SqliteConnection),
    Other(Session),
}

impl WriteLock {
    pub async fn take(store: &TestStore) -> Self {
        let Some(mut session) = Session::begin(store).await else {
            let options = SqliteConnectOptions::new().filename(store.database.file());
            let mut connection = options.connect().await.unwrap();
            let begin = sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection);
            begin.await.unwrap();
            return Self::Sqlite(connection);
        };
        let lock = "SELECT no FROM hubbub_rooms WHERE name = 'r' FOR UPDATE";
        session.run(lock).await.unwrap();
        Self::Other(session)
    }

    pub async fn release(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await.unwrap(),
            Self::Other(mut session) => session.run("ROLLBACK").await.unwrap(),
        }
    }
}

/// A statement that inserts an entry to the room with number 1.
pub fn insert(kind: DatabaseKind, seq: u64) -> String {
    let id = uuid::Uuid::now_v7();
    let id = match kind {
        DatabaseKind::Postgres => format!("'{id}'"),
        _ => format!("x'{}'", id.simple()),
    };
    format!(
        "INSERT INTO hubbub_entries \
         (room_no, epoch_no, seq, at, kind, form, id, user_id, send_key, record) \
         VALUES (1, 1, {seq}, 1, 1, 0, {id}, 'eve', '', '')"
    )
}

async fn a_deadlock_is_repeated(store: &TestStore) {
    store.fill("r", [1]).await;
    let Some(mut session) = Session::begin(store).await else {
        return;
    };
    let kind = store.kind();
    // More rows than the store's transaction has: MariaDB undoes the smaller one.
    for seq in (30..60).chain([3]) {
        session.run(&insert(kind, seq)).await.unwrap();
    }
    let mut writer = store.store.writer(0);
    // Takes 2, and waits for 3.
    let commit = tokio::spawn(async move {
        let entries = [entry(2), entry(3), entry(4)];
        writer.commit(&in_room("r", &entries)).await
    });
    wait_for_a_blocked_session(store).await;
    // Waits for 2: a deadlock, which the store's transaction loses.
    session.run(&insert(kind, 2)).await.unwrap();
    session.run("COMMIT").await.unwrap();
    let outcomes = commit.await.unwrap().unwrap();
    assert_eq!(outcomes, [Conflict, Conflict, Stored]);
}

/// Waits until a session of the database waits for a lock.
pub async fn wait_for_a_blocked_session(store: &TestStore) {
    let text = match store.kind() {
        DatabaseKind::Postgres => {
            "SELECT COUNT(*) FROM pg_stat_activity \
             WHERE datname = current_database() AND wait_event_type = 'Lock'"
        }
        _ => "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while store.database.sql(text) == "0" {
        assert!(tokio::time::Instant::now() < deadline, "nothing waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn a_call_that_is_dropped_leaves_nothing_open(store: &TestStore) {
    store.fill("r", 1..=5).await;
    for seq in (0_u64..3000).step_by(50) {
        let room = room("r");
        let lost = store.store.record_loss(&room, 10 + 2 * seq..=10 + 2 * seq);
        let _ = tokio::time::timeout(Duration::from_micros(seq), lost).await;
        let mut writer = store.store.writer(0);
        let batch = in_room("w", &[entry(seq + 1)]);
        let commit = writer.commit(&batch);
        let _ = tokio::time::timeout(Duration::from_micros(seq), commit).await;
        // A dropped call continues. On SQLite the next one waits for the same connection, and gets it in
        // order, so this commit ends after them: otherwise the calls of all rounds would form a queue.
        store.commit(&in_room("after", &[entry(seq + 1)])).await;
    }
    // The dropped calls of the last round continue.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while store.store.pool_stats().in_use > 0 {
        assert!(tokio::time::Instant::now() < deadline, "a call never ends");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let open = match store.kind() {
        DatabaseKind::Sqlite => "0".to_owned(),
        DatabaseKind::Postgres => {
            // The server notices a closed connection when it reads from it.
            let text = "SELECT COUNT(*) FROM pg_stat_activity \
                WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
            eventually_zero(store, text).await
        }
        DatabaseKind::MariaDb => {
            let text = "SELECT COUNT(*) FROM information_schema.innodb_trx t \
                JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id \
                WHERE p.db = DATABASE()";
            eventually_zero(store, text).await
        }
    };
    assert_eq!(open, "0");
    store.fill("r", 6..=9).await;
    store.store.close_holes(&room("r")).await.unwrap();
    assert_eq!(store.store.pool_stats().in_use, 0);
}

async fn eventually_zero(store: &TestStore, text: &str) -> String {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        let count = store.database.sql(text);
        if count == "0" || tokio::time::Instant::now() > deadline {
            return count;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
