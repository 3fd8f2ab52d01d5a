//! The entries of `hubbub_meta`: a value for each of a few names.

use uuid::Uuid;

use crate::store::sql::conn::Conn;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::value::{Text, args};

/// An incomplete copy has this entry: the id of the archive that it is a copy of.
pub(super) const COPY_OF: &str = "copy_of";
/// The archive's id.
pub(super) const DEPLOYMENT: &str = "deployment";
/// By this entry a copy finds out whether its two databases are one.
pub(super) const COPY_MARK: &str = "copy_mark";
/// The name of the log that the archive belongs to.
pub(super) const LOG: &str = "log";
/// The time of the last claim of a check, in milliseconds.
pub(super) const CHECK_CLAIM: &str = "check_claim";
/// Locked while a run of retention begins.
pub(super) const RETENTION_CLAIM: &str = "retention_claim";
/// Locked while rows of the outbox are claimed.
pub(super) const OUTBOX_CLAIM: &str = "outbox_claim";
/// Locked while announcements of positions are claimed.
pub(super) const POSITIONS_CLAIM: &str = "positions_claim";
/// Locked while an admin changes the role or the usability of an account.
pub(super) const LAST_ADMIN: &str = "last_admin";
/// Locked while jobs are claimed.
pub(super) const JOB_CLAIM: &str = "job_claim";
/// Locked while the first account is created.
pub(super) const FIRST_ACCOUNT: &str = "first_account";

/// The value of an entry.
pub(super) async fn find(conn: &mut Conn, name: &'static str) -> Outcome<Option<String>> {
    const FIND: &str = "SELECT value FROM hubbub_meta WHERE name = ?";
    let found: Option<(Text,)> = conn.first(FIND, args![name]).await?;
    Ok(found.map(|(value,)| value.0))
}

/// The value of an entry that is an id.
pub(super) async fn find_id(conn: &mut Conn, name: &'static str) -> Outcome<Option<Uuid>> {
    let Some(value) = find(conn, name).await? else {
        return Ok(None);
    };
    let id = Uuid::parse_str(&value);
    id.map(Some)
        .map_err(|_| Fault::Broken(format!("the id {name} of the database is malformed")))
}

/// Adds an entry, unless there is one of this name.
pub(super) async fn add(conn: &mut Conn, name: &'static str, value: &str) -> Outcome<()> {
    const ADD: &str = "INSERT INTO hubbub_meta (name, value) VALUES (?, ?) {if_absent:name}";
    conn.run(ADD, args![name, value]).await.map(drop)
}

/// Changes an entry that exists.
pub(super) async fn set(conn: &mut Conn, name: &'static str, value: &str) -> Outcome<()> {
    const SET: &str = "UPDATE hubbub_meta SET value = ? WHERE name = ?";
    conn.run(SET, args![value, name]).await.map(drop)
}

/// Replaces an entry that is an id, or removes it.
pub(super) async fn replace_id(
    conn: &mut Conn,
    name: &'static str,
    id: Option<Uuid>,
) -> Outcome<()> {
    const REMOVE: &str = "DELETE FROM hubbub_meta WHERE name = ?";
    const INSERT: &str = "INSERT INTO hubbub_meta (name, value) VALUES (?, ?)";
    conn.run(REMOVE, args![name]).await?;
    if let Some(id) = id {
        conn.run(INSERT, args![name, id.to_string()]).await?;
    }
    Ok(())
}

/// Locks an entry until the end of the transaction. It is added with this value if there is none.
pub(super) async fn lock(conn: &mut Conn, name: &'static str, first: &str) -> Outcome<()> {
    const LOCK: &str = "UPDATE hubbub_meta SET value = value WHERE name = ?";
    add(conn, name, first).await?;
    conn.run(LOCK, args![name]).await.map(drop)
}
