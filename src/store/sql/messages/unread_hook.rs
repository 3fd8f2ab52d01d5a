//! The unread messages follow deletions and retention.

use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;

/// A message was deleted, in the same transaction: its entry has the kind `DELETED`.
#[expect(
    clippy::unused_async,
    reason = "a place for the projection of unread messages"
)]
pub(super) async fn message_deleted(_conn: &mut Conn, _room_no: i64, _seq: i64) -> Outcome<()> {
    Ok(())
}

/// Retention has deleted the messages of a room up to a number, in the same transaction.
#[expect(
    clippy::unused_async,
    reason = "a place for the projection of unread messages"
)]
pub(in crate::store::sql) async fn messages_expired(
    _conn: &mut Conn,
    _room_no: i64,
    _cut: i64,
) -> Outcome<()> {
    Ok(())
}
