//! The unread messages follow deletions and retention.

use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::unread;

/// A message was deleted, in the same transaction: its entry has the kind `DELETED`.
pub(super) async fn message_deleted(conn: &mut Conn, room_no: i64, seq: i64) -> Outcome<()> {
    unread::message_deleted(conn, room_no, seq).await
}

/// Retention has deleted the messages of a room up to a number, in the same transaction.
pub(in crate::store::sql) async fn messages_expired(
    conn: &mut Conn,
    room_no: i64,
    cut: i64,
) -> Outcome<()> {
    unread::entries_cut(conn, room_no, cut).await
}
