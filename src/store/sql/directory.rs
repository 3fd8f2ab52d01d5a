//! The rows of accounts, chats and the outbox, for copies of a database: table by table, in the order of
//! the keys.

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::conn::Conn;
use super::dialect::Dialect;
use super::fault::Outcome;
use super::store::SqlStore;
use super::value::{Arg, Text, args};
use crate::store::{DirectoryRow, DirectoryTransfer, Result};

/// Rows of one page, and of one transaction.
const PAGE_ROWS: i64 = 500;

impl From<Text> for Arg {
    fn from(text: Text) -> Self {
        Self::from(text.0)
    }
}

impl From<Option<Text>> for Arg {
    fn from(text: Option<Text>) -> Self {
        Self::from(text.map(|text| text.0))
    }
}

/// A table: its statements, and how its rows are read.
struct Table {
    name: &'static str,
    delete: &'static str,
    first: &'static str,
    next: &'static str,
    insert: &'static str,
    /// The number of columns of the key, which are the first ones.
    keys: usize,
    load: for<'c> fn(&'c mut Conn, &'static str, Vec<Arg>) -> Loading<'c>,
    /// Whether PostgreSQL numbers its rows.
    is_numbered: bool,
}

type Loading<'c> = std::pin::Pin<Box<dyn Future<Output = Outcome<Vec<Vec<Arg>>>> + Send + 'c>>;

/// `table!(name, (key columns) = marks, key to keep, "columns", "values": types)`.
macro_rules! table {
    ($name:literal, $keys:literal = $marks:literal * $count:literal, $keep:literal,
     $columns:literal, $values:literal: $($column:ident $kind:ty),+; $numbered:literal) => {
        Table {
            name: $name,
            delete: concat!("DELETE FROM ", $name),
            first: concat!("SELECT ", $columns, " FROM ", $name, " ORDER BY ", $keys, " LIMIT ?"),
            next: concat!(
                "SELECT ", $columns, " FROM ", $name, " WHERE (", $keys, ") > (", $marks,
                ") ORDER BY ", $keys, " LIMIT ?"
            ),
            insert: concat!(
                "INSERT INTO ", $name, " (", $columns, ") VALUES (", $values, ") {if_absent:", $keep, "}"
            ),
            keys: $count,
            load: |conn, template, args| Box::pin(async move {
                let rows: Vec<($($kind,)+)> = conn.all(template, args).await?;
                let values = |($($column,)+): ($($kind,)+)| vec![$(Arg::from($column)),+];
                Ok(rows.into_iter().map(values).collect())
            }),
            is_numbered: $numbered,
        }
    };
}

const TABLES: &[Table] = &[
    table!("hubbub_users", "id" = "?" * 1, "id",
        "id, username, username_key, email, email_key, email_verified_at, display_name, avatar_url, \
         status, search_key, role, password, disabled_at, deleted_at, created_at, updated_at",
        "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?":
        a Uuid, b Text, c Option<Text>, d Option<Text>, e Option<Text>, f Option<i64>, g Text,
        h Option<Text>, i Option<Text>, j Text, k i64, l Text, m Option<i64>, n Option<i64>, o i64, p i64;
        false),
    table!("hubbub_sessions", "id" = "?" * 1, "id",
        "id, user_id, created_at, last_used_at, expires_at, address, user_agent",
        "?, ?, ?, ?, ?, ?, ?": a Uuid, b Uuid, c i64, d i64, e i64, f Text, g Text; false),
    table!("hubbub_refresh_tokens", "digest" = "?" * 1, "digest",
        "digest, session_id, issued_at, used_at, salt",
        "?, ?, ?, ?, ?": a Vec<u8>, b Uuid, c i64, d Option<i64>, e Vec<u8>; false),
    table!("hubbub_audit", "id" = "?" * 1, "id",
        "id, at, actor, action, target, details",
        "?, ?, ?, ?, ?, ?": a i64, b i64, c Option<Text>, d Text, e Text, f Text; true),
    table!("hubbub_bot_tokens", "id" = "?" * 1, "id",
        "id, user_id, digest, name, scopes, created_at, expires_at, last_used_at",
        "?, ?, ?, ?, ?, ?, ?, ?":
        a Uuid, b Uuid, c Vec<u8>, d Text, e i64, f i64, g i64, h Option<i64>; false),
    table!("hubbub_invites", "digest" = "?" * 1, "digest",
        "digest, email_key, created_at, expires_at",
        "?, ?, ?, ?": a Vec<u8>, b Option<Text>, c i64, d i64; false),
    table!("hubbub_chats", "id" = "?" * 1, "id",
        "id, room_id, kind, name, history, direct_key, created_by, created_at, updated_at",
        "?, ?, ?, ?, ?, ?, ?, ?, ?":
        a Uuid, b Text, c i64, d Option<Text>, e i64, f Option<Text>, g Uuid, h i64, i i64; false),
    table!("hubbub_chat_members", "chat_id, user_id" = "?, ?" * 2, "chat_id",
        "chat_id, user_id, role, joined_at, joined_seq",
        "?, ?, ?, ?, ?": a Uuid, b Uuid, c i64, d i64, e i64; false),
    table!("hubbub_account_tokens", "digest" = "?" * 1, "digest",
        "digest, user_id, purpose, email_key, expires_at",
        "?, ?, ?, ?, ?": a Vec<u8>, b Uuid, c i64, d Text, e i64; false),
    table!("hubbub_account_deletions", "user_id" = "?" * 1, "user_id",
        "user_id, requested_at, pass, at_room, at_seq, messages, finished_at",
        "?, ?, ?, ?, ?, ?, ?":
        a Uuid, b i64, c i64, d i64, e i64, f i64, g Option<i64>; false),
    table!("hubbub_deletion_skips", "user_id" = "?" * 1, "user_id",
        "user_id, skipped", "?, ?": a Uuid, b i64; false),
    table!("hubbub_idempotency", "digest" = "?" * 1, "digest",
        "digest, scope, route, body_digest, state, status, answer, subject, redacted, created_at",
        "?, ?, ?, ?, ?, ?, ?, ?, ?, ?":
        a Vec<u8>, b Text, c Text, d Vec<u8>, e i64, f i64, g Vec<u8>, h Option<Text>, i Vec<u8>, j i64;
        false),
    table!("hubbub_outbox", "id" = "?" * 1, "id",
        "id, room_id, type, payload, dedupe_key, due_at, state, lease_until, attempts, tried_since, reason",
        "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?":
        a i64, b Option<Text>, c Text, d Text, e Option<Text>, f i64, g i64, h i64, i i64, j Option<i64>,
        k Option<Text>; true),
];

#[async_trait]
impl DirectoryTransfer for SqlStore {
    fn directory_tables(&self) -> Vec<&'static str> {
        TABLES.iter().map(|table| table.name).collect()
    }

    async fn clear_directory(&self) -> Result<()> {
        self.db()
            .transaction(|conn| {
                Box::pin(async move {
                    for table in TABLES {
                        conn.run(table.delete, args![]).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    async fn directory_page(
        &self,
        table: usize,
        after: Option<&DirectoryRow>,
    ) -> Result<Vec<DirectoryRow>> {
        let Some(table) = TABLES.get(table) else {
            return Ok(Vec::new());
        };
        let (template, mut values) = match after {
            None => (table.first, Vec::new()),
            Some(row) => (table.next, row.0[..table.keys].to_vec()),
        };
        values.push(Arg::from(PAGE_ROWS));
        let rows = self
            .db()
            .read(move |conn| (table.load)(conn, template, values.clone()));
        Ok(rows.await?.into_iter().map(DirectoryRow).collect())
    }

    async fn insert_directory(&self, table: usize, rows: Vec<DirectoryRow>) -> Result<()> {
        let Some(table) = TABLES.get(table) else {
            return Ok(());
        };
        self.db()
            .transaction(move |conn| {
                let rows = rows.clone();
                Box::pin(async move {
                    for DirectoryRow(values) in rows {
                        conn.run(table.insert, values).await?;
                    }
                    if table.is_numbered && conn.dialect() == Dialect::Postgres {
                        go_on_after_the_last(conn, table.name).await?;
                    }
                    Ok(())
                })
            })
            .await
    }
}

/// Lets PostgreSQL number the next row after those that were inserted with their numbers.
async fn go_on_after_the_last(conn: &mut Conn, table: &str) -> Outcome<()> {
    const OUTBOX: &str = "SELECT setval(pg_get_serial_sequence('hubbub_outbox', 'id'), \
        (SELECT COALESCE(MAX(id), 0) + 1 FROM hubbub_outbox), false)";
    const AUDIT: &str = "SELECT setval(pg_get_serial_sequence('hubbub_audit', 'id'), \
        (SELECT COALESCE(MAX(id), 0) + 1 FROM hubbub_audit), false)";
    let template = match table {
        "hubbub_outbox" => OUTBOX,
        _ => AUDIT,
    };
    let _: Option<(i64,)> = conn.first(template, args![]).await?;
    Ok(())
}

impl DirectoryRow {
    /// Adds the row to a digest. Equal rows of different databases add the same.
    pub fn add_to(&self, digest: &mut Sha256) {
        digest.update(format!("{:?}\n", self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Tables that a copy leaves out, or copies otherwise.
    const OTHERS: [&str; 10] = [
        "hubbub_entries",
        "hubbub_epochs",
        "hubbub_gaps",
        "hubbub_login_failures",
        "hubbub_meta",
        "hubbub_retention_runs",
        "hubbub_rooms",
        "hubbub_runs",
        "hubbub_unread_blocks",
        "hubbub_unread_rooms",
    ];

    #[test]
    fn a_copy_knows_every_table() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
        let mut created = BTreeSet::new();
        for step in std::fs::read_dir(folder).unwrap() {
            let path = step.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text.split("CREATE TABLE IF NOT EXISTS ").skip(1);
            created.extend(names.map(|rest| rest.split(' ').next().unwrap().to_owned()));
        }
        let known = TABLES.iter().map(|table| table.name).chain(OTHERS);
        let known = known.chain(crate::store::sql::archive::tables::names());
        let known: BTreeSet<String> = known.map(str::to_owned).collect();
        assert_eq!(created, known);
    }
}
