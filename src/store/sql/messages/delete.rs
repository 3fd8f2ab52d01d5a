//! Deletes a message.

use std::time::Duration;

use serde::Deserialize;
use uuid::Uuid;

use super::Committed;
use super::target::{self, NewChange, StateRow, Target};
use crate::domain::MessageChangeKind;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::idempotency;
use crate::store::sql::unread;
use crate::store::sql::value::args;
use crate::store::{Announced, ChangeOutcome, Changer, MessageRef, Result, StoredKind};

pub(super) async fn delete(
    db: &Db,
    message: &MessageRef,
    by: &Changer,
    lease: Option<Duration>,
) -> Result<Committed> {
    let (message, by) = (message.clone(), by.clone());
    let committed = db
        .transaction(move |conn| {
            let (message, by) = (message.clone(), by.clone());
            Box::pin(async move {
                let outcome = delete_in(conn, &message, &by).await?;
                target::with_own_row(conn, &message.room, outcome, lease).await
            })
        })
        .await?;
    if matches!(committed.0, ChangeOutcome::Changed(_)) {
        db.scrub_log();
    }
    Ok(committed)
}

async fn delete_in(conn: &mut Conn, message: &MessageRef, by: &Changer) -> Outcome<ChangeOutcome> {
    const BEGIN: &str = "INSERT INTO hubbub_messages (deleted_by, deleted_thread, room_no, seq) \
        VALUES (?, ?, ?, ?)";
    const FORGET: &str = "UPDATE hubbub_messages SET deleted_by = ?, deleted_thread = ?, reactions = NULL, \
         reactions_seq = NULL, reactions_row = NULL WHERE room_no = ? AND seq = ?";
    let Some(target) = target::lock(conn, message, by).await? else {
        return Ok(ChangeOutcome::NotFound);
    };
    if target.entry.user != by.user && !by.is_moderator {
        return Ok(ChangeOutcome::Forbidden);
    }
    if target.is_deleted() {
        let kind = MessageChangeKind::Deleted;
        let announced = target::announced_again(conn, &target, kind).await?;
        // Reverting the migration has removed the records of deletions.
        let at_message = Announced::At(target.entry.seq);
        return Ok(target.changed(announced.unwrap_or(at_message)));
    }
    let mut row = target::lock_state_row(conn, &target).await?;
    let thread = thread(&target.entry.record).map(|thread| thread.to_string());
    forget_content(conn, &target, &row).await?;
    let values = args![by.user.as_str(), thread, target.room_no, target.seq];
    let forget = if row.exists { FORGET } else { BEGIN };
    conn.run(forget, values).await?;
    row.exists = true;
    idempotency::redact(conn, &target.entry.id.to_string()).await?;
    unread::delete_reply(conn, (target.room_no, target.seq)).await?;
    unread::message_deleted(conn, target.room_no, target.seq).await?;
    let change = NewChange {
        kind: MessageChangeKind::Deleted,
        by: &by.user,
        before: (0, Vec::new()),
    };
    target::record(conn, &target, &row, change).await
}

/// Removes the content of a message, with all that others have added to it. The numbers of its changes stay.
async fn forget_content(conn: &mut Conn, target: &Target, row: &StateRow) -> Outcome<()> {
    const CONTENT: &str = "UPDATE hubbub_entries SET kind = ?, form = 0, record = ? \
        WHERE room_no = ? AND seq = ?";
    const VERSIONS: &str = "UPDATE hubbub_message_changes SET form = 0, record = ? \
        WHERE room_no = ? AND seq = ?";
    const MENTIONS: &str = "DELETE FROM hubbub_mentions WHERE room_no = ? AND seq = ?";
    const OTHERS: [&str; 2] = [
        "DELETE FROM hubbub_reactions WHERE room_no = ? AND seq = ?",
        "DELETE FROM hubbub_pins WHERE room_no = ? AND seq = ?",
    ];
    let (room_no, seq) = (target.room_no, target.seq);
    let nothing = Vec::<u8>::new;
    let values = args![StoredKind::DELETED.0, nothing(), room_no, seq];
    conn.run(CONTENT, values).await?;
    conn.run(MENTIONS, args![room_no, seq]).await?;
    if !row.exists {
        // It was never changed.
        return Ok(());
    }
    conn.run(VERSIONS, args![nothing(), room_no, seq]).await?;
    for template in OTHERS {
        conn.run(template, args![room_no, seq]).await?;
    }
    Ok(())
}

/// The id of the root of a reply.
fn thread(record: &[u8]) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Fields {
        thread_id: Option<Uuid>,
    }
    let fields: Fields = serde_json::from_slice(record).ok()?;
    fields.thread_id
}
