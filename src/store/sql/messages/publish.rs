//! The announcements of changes: what they show, and that they are published.

use std::collections::BTreeMap;

use super::target::{self, Target};
use super::{forms, loaded, reactions, stored};
use crate::domain::{FormContent, MessageChangeKind, MessageForm, RoomId};
use crate::store::sql::archive;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::dialect::MAX_LIST;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::args;
use crate::store::{ChangeRow, MessageRef, PublishedChange, Result};

pub(super) async fn to_publish(
    db: &Db,
    room: &RoomId,
    row: &ChangeRow,
) -> Result<Option<MessageForm>> {
    let message = MessageRef {
        room: room.clone(),
        id: row.id,
    };
    db.read(move |conn| {
        let message = message.clone();
        Box::pin(async move {
            match target::find(conn, &message).await? {
                Some(target) => form(conn, &target).await,
                None => Ok(None),
            }
        })
    })
    .await
}

async fn form(conn: &mut Conn, target: &Target) -> Outcome<Option<MessageForm>> {
    let room = (target.room_no, &target.room);
    let mut forms = forms::of_seqs(conn, room, &[target.seq]).await?;
    let Some(mut form) = forms.remove(&target.seq) else {
        return Ok(None);
    };
    // Always those of now: an announcement replaces the reactions that another has shown, which may not
    // be recorded yet.
    if !matches!(form.content, FormContent::Deleted(_)) {
        let mut current = reactions::current(conn, target.room_no, &[target.seq]).await?;
        form.reactions = match current.remove(&target.seq) {
            Some(reactions) => Some(reactions),
            None => form.reactions.map(|_| Vec::new()),
        };
    }
    Ok(Some(form))
}

pub(super) async fn done(db: &Db, published: &[PublishedChange]) -> Result<()> {
    if published.is_empty() {
        return Ok(());
    }
    // In one order everywhere, so that two nodes don't form a deadlock.
    let mut published = published.to_vec();
    published.sort_by_key(|change| change.claim.row);
    db.transaction(move |conn| {
        let published = published.clone();
        Box::pin(async move { done_in(conn, &published).await })
    })
    .await
}

/// Locks in the order of [`super`]: rows of the outbox, then messages, and then their changes.
async fn done_in(conn: &mut Conn, published: &[PublishedChange]) -> Outcome<()> {
    let mut by_room: BTreeMap<&RoomId, Vec<&PublishedChange>> = BTreeMap::new();
    for change in published {
        if end_claim(conn, change).await? {
            by_room.entry(&change.room).or_default().push(change);
        }
    }
    let rooms: Vec<&RoomId> = by_room.keys().copied().collect();
    let mut by_number = BTreeMap::new();
    for part in rooms.chunks(MAX_LIST) {
        for (room, room_no) in archive::find_numbers(conn, part).await? {
            by_number.extend(by_room.remove(&room).map(|changes| (room_no, changes)));
        }
    }
    // Without others, and without reactions that are read first, the first update is lock enough.
    let is_one_change = matches!(published, [change] if change.row.revision > 0);
    if !is_one_change {
        for (room_no, changes) in &by_number {
            lock_messages(conn, *room_no, changes).await?;
        }
    }
    for (room_no, changes) in by_number {
        for change in changes {
            record(conn, change, room_no).await?;
        }
    }
    Ok(())
}

/// Removes the row of a claim. False if the claim has ended before.
async fn end_claim(conn: &mut Conn, change: &PublishedChange) -> Outcome<bool> {
    const REMOVE: &str = "DELETE FROM hubbub_outbox WHERE id = ? AND attempts = ? AND state = 0";
    let values = args![change.claim.row, stored(change.claim.attempts)];
    Ok(conn.run(REMOVE, values).await? > 0)
}

/// Locks the messages of changes of one room.
async fn lock_messages(conn: &mut Conn, room_no: i64, changes: &[&PublishedChange]) -> Outcome<()> {
    const LOCK: &str = "SELECT seq FROM hubbub_messages \
        WHERE room_no = ? AND seq IN ({list}) ORDER BY seq {for_update}";
    let mut seqs: Vec<i64> = changes
        .iter()
        .map(|change| stored(change.row.target_seq))
        .collect();
    seqs.sort_unstable();
    seqs.dedup();
    let _: Vec<(i64,)> = conn.all_of_list(LOCK, args![room_no], seqs).await?;
    Ok(())
}

async fn record(conn: &mut Conn, change: &PublishedChange, room_no: i64) -> Outcome<()> {
    const PUBLISHED: &str = "UPDATE hubbub_message_changes SET change_seq = ?, at = ? \
        WHERE room_no = ? AND seq = ? AND revision = ? AND change_seq IS NULL";
    const VERSION: &str = "UPDATE hubbub_messages SET version = ?, edited_at = ? \
        WHERE room_no = ? AND seq = ? AND (version IS NULL OR version < ?)";
    const PIN: &str = "UPDATE hubbub_messages SET pinned_seq = ? \
        WHERE room_no = ? AND seq = ? AND (pinned_seq IS NULL OR pinned_seq < ?)";
    let (target, seq) = (stored(change.row.target_seq), stored(change.seq));
    let at = stored(change.at.0);
    if change.kind == MessageChangeKind::ReactionsChanged {
        return record_reactions(conn, change, (room_no, target)).await;
    }
    let revision = stored(change.row.revision);
    if change.kind.raises_version() {
        conn.run(VERSION, args![seq, at, room_no, target, seq])
            .await?;
    } else {
        conn.run(PIN, args![seq, room_no, target, seq]).await?;
    }
    conn.run(PUBLISHED, args![seq, at, room_no, target, revision])
        .await
        .map(drop)
}

async fn record_reactions(
    conn: &mut Conn,
    change: &PublishedChange,
    (room_no, target): (i64, i64),
) -> Outcome<()> {
    const SUMMARY: &str = "UPDATE hubbub_messages SET reactions = ?, reactions_seq = ? \
        WHERE room_no = ? AND seq = ? AND deleted_by IS NULL \
        AND (reactions_seq IS NULL OR reactions_seq < ?)";
    const NO_ROW: &str = "UPDATE hubbub_messages SET reactions_row = NULL \
        WHERE room_no = ? AND seq = ? AND reactions_row = ?";
    let summary = match &change.reactions {
        Some(reactions) => reactions.clone(),
        // Later ones have a row of their own, which waits.
        None => {
            let mut current = reactions::current(conn, room_no, &[target]).await?;
            current.remove(&target).unwrap_or_default()
        }
    };
    let seq = stored(change.seq);
    let values = args![reactions::encode(&summary), seq, room_no, target, seq];
    conn.run(SUMMARY, values).await?;
    conn.run(NO_ROW, args![room_no, target, change.claim.row])
        .await
        .map(drop)
}

pub(super) async fn published(
    db: &Db,
    room: &RoomId,
    target_seq: u64,
    revision: u64,
) -> Result<Option<u64>> {
    const FIND: &str = "SELECT change_seq FROM hubbub_message_changes \
        WHERE room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) AND seq = ? AND revision = ?";
    let values = args![room.as_str(), stored(target_seq), stored(revision)];
    let found: Vec<(Option<i64>,)> = db.all(FIND, values).await?;
    let seq = found.first().and_then(|(seq,)| *seq);
    Ok(seq.map(loaded))
}
