//! The rows of accounts, chats and the outbox, for copies of a database: table by table, in the order of
//! the keys.

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::conn::Conn;
use super::copied_tables::{Table, copied_table, mark, selected};
use super::dialect::Dialect;
use super::fault::Outcome;
use super::limited_delete::limited_delete;
use super::store::SqlStore;
use super::value::{Text, args};
use crate::store::{DirectoryRow, DirectoryTransfer, Result};

const TABLES: &[Table] = &[
    copied_table!("hubbub_users" {"id": Uuid} {
        "username": Text, "username_key": Option<Text>, "email": Option<Text>,
        "email_key": Option<Text>, "email_verified_at": Option<i64>, "display_name": Text,
        "avatar_url": Option<Text>, "status": Option<Text>, "search_key": Text, "role": i64,
        "password": Text, "disabled_at": Option<i64>, "deleted_at": Option<i64>,
        "created_at": i64, "updated_at": i64
    }),
    copied_table!("hubbub_sessions" {"id": Uuid} {
        "user_id": Uuid, "created_at": i64, "last_used_at": i64, "expires_at": i64,
        "address": Text, "user_agent": Text
    }),
    copied_table!("hubbub_refresh_tokens" {"digest": Vec<u8>} {
        "session_id": Uuid, "issued_at": i64, "used_at": Option<i64>, "salt": Vec<u8>
    }),
    copied_table!("hubbub_audit" {"id": i64} {
        "at": i64, "actor": Option<Text>, "action": Text, "target": Text, "details": Text
    }),
    copied_table!("hubbub_bot_tokens" {"id": Uuid} {
        "user_id": Uuid, "digest": Vec<u8>, "name": Text, "scopes": i64, "created_at": i64,
        "expires_at": i64, "last_used_at": Option<i64>
    }),
    copied_table!("hubbub_invites" {"digest": Vec<u8>} {
        "email_key": Option<Text>, "created_at": i64, "expires_at": i64
    }),
    copied_table!("hubbub_chats" {"id": Uuid} {
        "room_id": Text, "kind": i64, "name": Option<Text>, "history": i64,
        "direct_key": Option<Text>, "created_by": Uuid, "created_at": i64, "updated_at": i64
    }),
    copied_table!("hubbub_chat_members" {"chat_id": Uuid, "user_id": Uuid} {
        "role": i64, "joined_at": i64, "joined_seq": i64
    }),
    copied_table!("hubbub_account_tokens" {"digest": Vec<u8>} {
        "user_id": Uuid, "purpose": i64, "email_key": Text, "expires_at": i64
    }),
    copied_table!("hubbub_account_deletions" {"user_id": Uuid} {
        "requested_at": i64, "pass": i64, "at_room": i64, "at_seq": i64, "messages": i64,
        "finished_at": Option<i64>
    }),
    copied_table!("hubbub_deletion_skips" {"user_id": Uuid} {
        "skipped": i64
    }),
    copied_table!("hubbub_idempotency" {"digest": Vec<u8>} {
        "scope": Text, "route": Text, "body_digest": Vec<u8>, "state": i64, "status": i64,
        "answer": Vec<u8>, "subject": Option<Text>, "redacted": Vec<u8>, "created_at": i64
    }),
    copied_table!("hubbub_outbox" {"id": i64} {
        "room_id": Option<Text>, "type": Text, "payload": Text, "dedupe_key": Option<Text>,
        "due_at": i64, "state": i64, "lease_until": i64, "attempts": i64,
        "tried_since": Option<i64>, "reason": Option<Text>
    }),
];

#[async_trait]
impl DirectoryTransfer for SqlStore {
    fn directory_tables(&self) -> Vec<&'static str> {
        TABLES.iter().map(|table| table.name).collect()
    }

    async fn clear_directory(&self) -> Result<()> {
        for table in TABLES {
            table.clear(self.db(), Vec::new()).await?;
        }
        Ok(())
    }

    async fn directory_page(
        &self,
        table: usize,
        after: Option<&DirectoryRow>,
    ) -> Result<Vec<DirectoryRow>> {
        let Some(table) = TABLES.get(table) else {
            return Ok(Vec::new());
        };
        table.page(self.db(), Vec::new(), after).await
    }

    async fn insert_directory(&self, table: usize, rows: Vec<DirectoryRow>) -> Result<()> {
        let Some(table) = TABLES.get(table) else {
            return Ok(());
        };
        self.db()
            .transaction(move |conn| {
                let rows = rows.clone();
                Box::pin(async move {
                    table.insert(conn, &[], rows).await?;
                    number_after_the_last(conn, table.name).await
                })
            })
            .await
    }
}

/// Lets PostgreSQL number the next row of a table after those that were inserted with their numbers.
async fn number_after_the_last(conn: &mut Conn, table: &str) -> Outcome<()> {
    const OUTBOX: &str = "SELECT setval(pg_get_serial_sequence('hubbub_outbox', 'id'), \
        (SELECT COALESCE(MAX(id), 0) + 1 FROM hubbub_outbox), false)";
    const AUDIT: &str = "SELECT setval(pg_get_serial_sequence('hubbub_audit', 'id'), \
        (SELECT COALESCE(MAX(id), 0) + 1 FROM hubbub_audit), false)";
    let template = match (conn.dialect(), table) {
        (Dialect::Postgres, "hubbub_outbox") => OUTBOX,
        (Dialect::Postgres, "hubbub_audit") => AUDIT,
        _ => return Ok(()),
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
