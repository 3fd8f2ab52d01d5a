//! A store in an empty database, and entries for it.

use std::time::Duration;

use bytes::Bytes;
use hubbub::domain::{Epoch, RoomId, Timestamp, UserId};
use hubbub::store::sql::{DatabaseUrl, Settings, SqlStore};
use hubbub::store::{
    ArchiveStore as _, ArchiveWindow, ArchivedEntry, ArchivedRoom, BeginOutcome, CommitOutcome,
    MAX_VERSIONS, MessageRef, MessageStore as _, MessageVersion, NewEpoch, StoredKind,
};
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use uuid::Uuid;

pub use CommitOutcome::{Conflict, Stored};

/// A store in a database of its own.
pub struct TestStore {
    pub store: SqlStore,
    pub database: TestDatabase,
}

impl TestStore {
    pub async fn new(kind: DatabaseKind) -> Self {
        let database = TestDatabase::new(kind);
        migrate(&database.url).await;
        let store = SqlStore::open(&settings(&database.url)).await.unwrap();
        Self { store, database }
    }

    pub fn kind(&self) -> DatabaseKind {
        self.database.kind
    }

    /// The settings of another store in the same database.
    pub fn settings(&self) -> Settings {
        settings(&self.database.url)
    }

    /// Commits entries by a new writer.
    pub async fn commit(&self, entries: &[(RoomId, ArchivedEntry)]) -> Vec<CommitOutcome> {
        self.store.writer(0).commit(entries).await.unwrap()
    }

    /// Commits entries with these numbers to a room.
    pub async fn fill(
        &self,
        room: &str,
        seqs: impl IntoIterator<Item = u64>,
    ) -> Vec<ArchivedEntry> {
        let entries: Vec<ArchivedEntry> = seqs.into_iter().map(entry).collect();
        let mut writer = self.store.writer(0);
        for batch in entries.chunks(500) {
            let outcomes = writer.commit(&in_room(room, batch)).await.unwrap();
            assert!(outcomes.iter().all(|outcome| *outcome == Stored));
        }
        entries
    }

    pub async fn room(&self, name: &str) -> ArchivedRoom {
        self.store.room(&room(name)).await.unwrap().unwrap()
    }

    /// Begins an epoch after those that the room has now.
    pub async fn begin_epoch(&self, name: &str, new: &NewEpoch) -> BeginOutcome {
        let known = self.store.room(&room(name)).await.unwrap();
        let newest = known.and_then(|known| Some(known.epochs.first()?.epoch.clone()));
        let new = NewEpoch {
            newest,
            ..new.clone()
        };
        self.store.begin_epoch(&room(name), &new).await.unwrap()
    }

    /// Waits for calls that have begun, also if their futures were dropped.
    pub async fn wait_until_idle(&self) {
        // On SQLite writing calls get the only connection that writes in order.
        let mark = [(room("unknown"), 1)];
        self.store.mark_contiguous(&mark).await.unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while self.store.pool_stats().in_use > 0 {
            assert!(tokio::time::Instant::now() < deadline, "a call never ends");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Every entry of a room.
    pub async fn all(&self, name: &str) -> Vec<ArchivedEntry> {
        let (room, window) = (room(name), ArchiveWindow::After(0));
        let read = self.store.read(&room, window, usize::MAX, usize::MAX);
        read.await.unwrap()
    }

    pub async fn seqs(&self, name: &str) -> Vec<u64> {
        self.all(name).await.iter().map(|entry| entry.seq).collect()
    }

    /// The first column of the rows of a statement, past the store.
    pub async fn lines(&self, text: &str) -> Vec<String> {
        if self.kind() != DatabaseKind::Sqlite {
            let output = self.database.sql(text);
            return output.lines().map(str::to_owned).collect();
        }
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.database.file());
        let mut connection = options.connect().await.unwrap();
        let rows = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
        let rows = rows.fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        rows.iter().map(|row| sqlx::Row::get(row, 0)).collect()
    }

    /// Inserts rows past the store. `into`: the table with its columns.
    pub async fn insert(&self, into: &str, rows: impl IntoIterator<Item = String>) {
        // The arguments of a client have a limit.
        const MAX_BYTES: usize = 64 * 1024;
        let mut values = String::new();
        for row in rows {
            if values.len() + row.len() > MAX_BYTES {
                self.execute(&format!("INSERT INTO {into} VALUES {values}"))
                    .await;
                values.clear();
            }
            if !values.is_empty() {
                values.push_str(", ");
            }
            values.push_str(&row);
        }
        self.execute(&format!("INSERT INTO {into} VALUES {values}"))
            .await;
    }

    /// Runs a statement past the store.
    pub async fn execute(&self, text: &str) {
        execute(&self.database, text).await;
    }
}

pub fn settings(url: &str) -> Settings {
    Settings::new(DatabaseUrl::parse(url).unwrap())
}

async fn execute(database: &TestDatabase, text: &str) {
    if database.kind != DatabaseKind::Sqlite {
        database.sql(text);
        return;
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(database.file())
        .create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    let done = sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection);
    done.await.unwrap();
    connection.close().await.unwrap();
}

/// Makes the tables.
pub async fn migrate(url: &str) {
    let url = DatabaseUrl::parse(url).unwrap();
    hubbub::store::sql::migrate::up(&url).await.unwrap();
}

/// The folder of a database's migrations.
pub fn migrations(kind: DatabaseKind) -> std::path::PathBuf {
    let folder = match kind {
        DatabaseKind::Sqlite => "sqlite",
        DatabaseKind::Postgres => "postgres",
        DatabaseKind::MariaDb => "mysql",
    };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("migrations").join(folder)
}

pub fn room(name: &str) -> RoomId {
    RoomId::trusted(name)
}

/// An entry with a number, in the epoch `e`, at 1,000 times its number.
pub fn entry(seq: u64) -> ArchivedEntry {
    ArchivedEntry {
        seq,
        epoch: Epoch::trusted("e"),
        at: Timestamp(seq * 1000),
        kind: StoredKind::MESSAGE,
        id: Uuid::now_v7(),
        user: UserId::trusted("ann"),
        send_key: None,
        record: Bytes::from(format!("{{\"n\":{seq}}}")),
    }
}

/// All versions of a message.
pub async fn versions(test: &TestStore, message: &MessageRef) -> Vec<MessageVersion> {
    let page = test.store.versions(message, None, MAX_VERSIONS).await;
    let page = page.unwrap().unwrap();
    assert_eq!(page.next, None);
    page.versions
}

/// Entries of one room, as a commit takes them.
pub fn in_room(name: &str, entries: &[ArchivedEntry]) -> Vec<(RoomId, ArchivedEntry)> {
    let room = room(name);
    entries
        .iter()
        .map(|entry| (room.clone(), entry.clone()))
        .collect()
}
