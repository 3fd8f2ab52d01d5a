//! Removes expired rows.

use std::time::Duration;

use super::sessions::{millis, now};
use crate::store::Result;
use crate::store::sql::db::Db;
use crate::store::sql::value::args;

pub(super) async fn remove(db: &Db, window: Duration) -> Result<()> {
    const EXPIRED: [&str; 5] = [
        "DELETE FROM hubbub_sessions WHERE expires_at <= ?",
        "DELETE FROM hubbub_refresh_tokens WHERE issued_at <= ? AND session_id NOT IN \
            (SELECT id FROM hubbub_sessions)",
        "DELETE FROM hubbub_account_tokens WHERE expires_at <= ?",
        "DELETE FROM hubbub_invites WHERE expires_at <= ?",
        "DELETE FROM hubbub_bot_tokens WHERE expires_at <= ?",
    ];
    const FAILURES: &str = "DELETE FROM hubbub_login_failures WHERE began_at <= ?";
    let window = millis(window);
    let before = db
        .transaction(|conn| Box::pin(async move { now(conn).await }))
        .await?;
    // Each in a transaction of its own, so that none holds locks for long.
    for template in EXPIRED {
        db.transaction(move |conn| {
            Box::pin(async move { conn.run(template, args![before]).await.map(drop) })
        })
        .await?;
    }
    db.transaction(move |conn| {
        Box::pin(async move { conn.run(FAILURES, args![before - window]).await.map(drop) })
    })
    .await
}
