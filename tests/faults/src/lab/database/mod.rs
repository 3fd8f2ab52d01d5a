//! Real database servers, with the durability that they have by default, and SQLite's files.

mod chats;
mod connection;
mod reader;
mod server;

use std::path::{Path, PathBuf};

use anyhow::Context;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection as _, SqliteConnection};

pub use self::chats::OutboxRow;
pub use self::reader::ArchiveReader;
pub use self::server::DatabaseServer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    Sqlite,
    Postgres,
    MariaDb,
}

/// The write lock of an SQLite database, held by a process that isn't the node: by the lab.
pub struct SqliteLock(SqliteConnection);

impl SqliteLock {
    /// Takes the lock, as soon as the node is between two transactions. Readers are not affected.
    pub async fn acquire(file: &Path) -> anyhow::Result<Self> {
        let mut connection = SqliteConnectOptions::new()
            .filename(file)
            .busy_timeout(super::RECOVERY_TIMEOUT)
            .connect()
            .await?;
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut connection)
            .await
            .context("the lock can't be taken")?;
        Ok(Self(connection))
    }

    pub async fn release(mut self) -> anyhow::Result<()> {
        sqlx::query("ROLLBACK").execute(&mut self.0).await?;
        Ok(self.0.close().await?)
    }
}

/// The file of the database of a node with this `DATA_DIR`.
pub fn sqlite_file(data_dir: &Path) -> PathBuf {
    data_dir.join("hubbub.db")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::connection::Connection;
    use super::*;

    /// The schema of the archive, and a room with two messages and a number that is lost.
    fn example(directory: &str, bytes: impl Fn(&str) -> String) -> String {
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../migrations")
            .join(directory);
        let mut files: Vec<PathBuf> = std::fs::read_dir(migrations)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().ends_with(".up.sql"))
            .collect();
        files.sort();
        let mut sql = String::new();
        for file in files {
            sql.push_str(&std::fs::read_to_string(file).unwrap());
        }
        sql.push_str(
            "INSERT INTO hubbub_rooms (no, name, cut_seq) VALUES (3, 'lobby', 1);\
             INSERT INTO hubbub_epochs VALUES (3, 1, 'e1', 0, NULL, 0);\
             INSERT INTO hubbub_gaps VALUES (3, 3, 3);",
        );
        for seq in [2, 4] {
            let id = format!("{seq:02x}").repeat(16);
            let word = &id[..4];
            let uuid = format!("{word}{word}-{word}-{word}-{word}-{word}{word}{word}");
            let key: String = format!("m{seq}")
                .bytes()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let record = format!(
                r#"{{"id":"{uuid}","room_id":"lobby","user_id":"sue","content":"c","client_msg_id":"m{seq}"}}"#
            );
            let hex: String = record.bytes().map(|byte| format!("{byte:02x}")).collect();
            let (id, key, record) = (bytes(&id), bytes(&key), bytes(&hex));
            sql.push_str(&format!(
                "INSERT INTO hubbub_entries \
                 (room_no, epoch_no, seq, at, kind, form, id, user_id, send_key, record) \
                 VALUES (3, 1, {seq}, 0, 1, 0, {id}, 'sue', {key}, {record});"
            ));
        }
        sql
    }

    async fn check_reader(reader: &ArchiveReader) {
        let rooms = reader.read().await.unwrap();
        assert_eq!(rooms.len(), 1);
        let room = &rooms[0];
        assert_eq!(
            (&*room.name, room.cut, &*room.gaps),
            ("lobby", 1, &[(3, 3)][..])
        );
        let entries: Vec<_> = room
            .entries
            .iter()
            .map(|entry| (entry.seq, &*entry.epoch, entry.msg.as_deref()))
            .collect();
        assert_eq!(entries, [(2, "e1", Some("m2")), (4, "e1", Some("m4"))]);
        let complete = reader.complete_up_to().await.unwrap();
        assert_eq!(complete["lobby"], 4);
    }

    /// A directory that is deleted at the end of a test.
    struct TestDir(PathBuf);

    impl TestDir {
        fn new(name: &str) -> Self {
            let id = std::process::id();
            let dir = std::env::temp_dir().join(format!("hubbub-faults-test-{name}-{id}"));
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for TestDir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    async fn check_server(kind: DatabaseKind, sql: &str) {
        let dir = TestDir::new(&format!("{kind:?}"));
        let mut server = DatabaseServer::start(&dir.0, kind).await.unwrap();
        let mut connection = Connection::open(kind, &server.url()).await.unwrap();
        connection.execute(sql).await.unwrap();
        check_reader(&server.reader()).await;
        server.kill();
        assert!(server.reader().read().await.is_err());
        server.run().await.unwrap();
        check_reader(&server.reader()).await;
        server.suspend();
        let reading = timeout(Duration::from_millis(300), async {
            server.reader().read().await
        });
        assert!(reading.await.is_err());
        server.resume();
        check_reader(&server.reader()).await;
    }

    #[tokio::test]
    async fn postgres_keeps_its_data_when_it_is_killed_and_waits_when_it_is_suspended() {
        let sql = example("postgres", |hex| {
            if hex.len() == 32 {
                format!("'{hex}'")
            } else {
                format!("'\\x{hex}'")
            }
        });
        check_server(DatabaseKind::Postgres, &sql).await;
    }

    #[tokio::test]
    async fn mariadb_keeps_its_data_when_it_is_killed_and_waits_when_it_is_suspended() {
        let sql = example("mysql", |hex| format!("x'{hex}'"));
        check_server(DatabaseKind::MariaDb, &sql).await;
    }

    #[tokio::test]
    async fn an_sqlite_file_is_read_while_another_process_writes_and_can_be_locked() {
        let dir = TestDir::new("sqlite");
        let file = sqlite_file(&dir.0);
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .create_if_missing(true)
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_millis(50));
        let mut writer = Connection::Sqlite(options.connect().await.unwrap());
        let sql = example("sqlite", |hex| format!("x'{hex}'"));
        writer.execute(&sql).await.unwrap();
        let reader = ArchiveReader {
            kind: DatabaseKind::Sqlite,
            url: format!("sqlite://{}", file.display()),
        };
        check_reader(&reader).await;
        let lock = SqliteLock::acquire(&file).await.unwrap();
        let update = "UPDATE hubbub_rooms SET cut_seq = 1";
        assert!(writer.execute(update).await.is_err());
        check_reader(&reader).await;
        lock.release().await.unwrap();
        writer.execute(update).await.unwrap();
    }
}
