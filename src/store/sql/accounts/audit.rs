//! The audit log.

use super::{loaded_time, now};
use crate::domain::{Actor, AdminAction};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Text, args};
use crate::store::{AuditEntry, Result};

/// Records an action, in its transaction.
pub(super) async fn add(
    conn: &mut Conn,
    actor: Actor,
    action: &AdminAction,
    target: &str,
) -> Outcome<()> {
    const ADD: &str = "INSERT INTO hubbub_audit (at, actor, action, target, details) \
        VALUES (?, ?, ?, ?, ?)";
    let actor = match actor {
        Actor::Admin(admin) => Some(admin.to_string()),
        Actor::Operator => None,
    };
    let details = action.details().into_iter();
    let details = details.map(|(name, value)| (name.to_owned(), value.into()));
    let details = serde_json::Value::Object(details.collect()).to_string();
    let at = now(conn).await?;
    let values = args![at, actor, action.name(), target, details];
    conn.run(ADD, values).await.map(drop)
}

pub(super) async fn list(db: &Db, before: Option<i64>, limit: usize) -> Result<Vec<AuditEntry>> {
    const LIST: &str = "SELECT id, at, actor, action, target, details FROM hubbub_audit \
        WHERE id < ? ORDER BY id DESC LIMIT ?";
    type Row = (i64, i64, Option<Text>, Text, Text, Text);
    let values = args![before.unwrap_or(i64::MAX), limit as i64];
    let rows: Vec<Row> = db.all(LIST, values).await?;
    let entry = |(id, at, actor, action, target, details): Row| AuditEntry {
        id,
        at: loaded_time(at),
        actor: actor.map(|actor| actor.0),
        action: action.0,
        target: target.0,
        details: details.0,
    };
    Ok(rows.into_iter().map(entry).collect())
}
