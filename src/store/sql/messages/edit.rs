//! Edits a message.

use std::time::Duration;

use super::target::{self, NewChange, StateRow, Target};
use super::{Committed, loaded, state, versions};
use crate::domain::{MessageChangeKind, UserId};
use crate::store::sql::archive::entries;
use crate::store::sql::archive::projection;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::value::args;
use crate::store::{Announced, ChangeOutcome, EditedRecord, MAX_RECORD_BYTES, MessageEdit, Result};

pub(super) async fn edit(
    db: &Db,
    edit: &MessageEdit,
    lease: Option<Duration>,
) -> Result<Committed> {
    let edit = edit.clone();
    db.transaction(move |conn| {
        let edit = edit.clone();
        Box::pin(async move {
            let outcome = edit_in(conn, &edit).await?;
            target::with_own_row(conn, &edit.message.room, outcome, lease).await
        })
    })
    .await
}

async fn edit_in(conn: &mut Conn, edit: &MessageEdit) -> Outcome<ChangeOutcome> {
    let Some(target) = target::lock(conn, &edit.message, &edit.by).await? else {
        return Ok(ChangeOutcome::NotFound);
    };
    if target.entry.user != edit.by.user {
        return Ok(ChangeOutcome::Forbidden);
    }
    if target.is_deleted() {
        return Ok(ChangeOutcome::Deleted);
    }
    let edited = match (edit.record)(&target.entry.record) {
        Ok(edited) => edited,
        Err(refusal) => return Ok(ChangeOutcome::Refused(refusal)),
    };
    if edited.record.len() > MAX_RECORD_BYTES {
        return Err(Fault::Broken("a record is too large".to_owned()));
    }
    let kind = MessageChangeKind::Edited;
    if edited.record == target.entry.record {
        let announced = target::announced_again(conn, &target, kind).await?;
        let never = Announced::At(target.entry.seq);
        return Ok(target.changed(announced.unwrap_or(never)));
    }
    let row = target::lock_state_row(conn, &target).await?;
    let last = match row.revision {
        0 => None,
        _ => target::last_change(conn, &target, kind).await?,
    };
    let pending = match last {
        Some(last) if target::is_pending(conn, &last).await? => Some(last),
        _ => None,
    };
    if let Some(seen) = edit.version {
        let version = loaded(row.version.unwrap_or(target.seq));
        match pending {
            // The newest version is not known yet, neither to the user nor to the answer of a conflict.
            Some(last) if seen >= version => {
                return Ok(ChangeOutcome::Pending {
                    target_seq: target.entry.seq,
                    revision: loaded(last.revision),
                });
            }
            None if seen == version => {}
            _ => return conflict(conn, &target).await,
        }
    }
    replace(conn, &target, &row, edit, edited).await
}

async fn conflict(conn: &mut Conn, target: &Target) -> Outcome<ChangeOutcome> {
    let message = state::of_target(conn, target).await?;
    Ok(ChangeOutcome::Conflict(Box::new(message)))
}

async fn replace(
    conn: &mut Conn,
    target: &Target,
    row: &StateRow,
    edit: &MessageEdit,
    edited: EditedRecord,
) -> Outcome<ChangeOutcome> {
    const WRITE: &str =
        "UPDATE hubbub_entries SET form = ?, record = ? WHERE room_no = ? AND seq = ?";
    let before = entries::shortened(&target.room, &target.entry, &target.entry.record);
    let (form, stored) = entries::shortened(&target.room, &target.entry, &edited.record);
    conn.run(WRITE, args![form, stored, target.room_no, target.seq])
        .await?;
    if let Some(mentions) = &edited.mentions {
        let mentions: Vec<&str> = mentions.iter().map(UserId::as_str).collect();
        let (key, author) = ((target.room_no, target.seq), target.entry.user.as_str());
        projection::replace_mentions(conn, key, author, &mentions).await?;
    }
    let change = NewChange {
        kind: MessageChangeKind::Edited,
        by: &edit.by.user,
        before,
    };
    let outcome = target::record(conn, target, row, change).await?;
    versions::forget_oldest(conn, (target.room_no, target.seq), row.revision + 1).await?;
    Ok(outcome)
}
