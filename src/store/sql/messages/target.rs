//! The message that a change is about: finding it, locking it, and recording the change.

use std::time::Duration;

use uuid::Uuid;

use super::{Committed, MESSAGE_KINDS, loaded, stored_kind, user};
use crate::domain::{MessageChangeKind, RoomId, UserId};
use crate::store::sql::archive::entries::{self, WithEntry, entry_columns};
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::outbox;
use crate::store::sql::value::{Text, args};
use crate::store::{
    Announced, ArchivedEntry, ChangeOutcome, ChangeRow, Changed, Changer, MessageRef, NewRow,
    OutboxId, StoredKind,
};

/// A message. The entry has its newest record.
#[derive(Debug)]
pub(super) struct Target {
    pub room_no: i64,
    pub room: RoomId,
    pub seq: i64,
    pub entry: ArchivedEntry,
}

/// An entry with `room_no`, and the name of its room.
type Row = WithEntry<(i64, Text)>;

macro_rules! select_target {
    ($lock:literal) => {
        concat!(
            "SELECT ",
            entry_columns!(),
            ", CAST(e.room_no AS {bigint}), \
             (SELECT r.name FROM hubbub_rooms r WHERE r.no = e.room_no) \
             FROM hubbub_entries e WHERE e.id = ? ",
            $lock
        )
    };
}

impl Target {
    fn new(row: Row) -> Outcome<Self> {
        let (room_no, Text(room)) = row.others;
        let room = RoomId::trusted(&room);
        Ok(Self {
            room_no,
            seq: row.entry.0,
            entry: entries::decoded(&room, row.entry)?,
            room,
        })
    }

    fn is_message_of(&self, room: &RoomId) -> bool {
        MESSAGE_KINDS.contains(&self.entry.kind) && self.room == *room
    }

    pub fn is_deleted(&self) -> bool {
        self.entry.kind == StoredKind::DELETED
    }

    /// The outcome of a change that has this announcement.
    pub fn changed(&self, announcement: Announced) -> ChangeOutcome {
        changed(self.seq, announcement)
    }
}

/// Finds a message without a lock.
pub(super) async fn find(conn: &mut Conn, message: &MessageRef) -> Outcome<Option<Target>> {
    const FIND: &str = select_target!("");
    let found: Option<Row> = conn.first(FIND, args![message.id]).await?;
    let target = found.map(Target::new).transpose()?;
    Ok(target.filter(|target| target.is_message_of(&message.room)))
}

/// Position and kind of a message, for changes that don't need its content.
#[derive(Debug)]
pub(super) struct TargetKey {
    pub id: Uuid,
    pub room_no: i64,
    pub seq: i64,
    pub room: RoomId,
    kind: StoredKind,
}

impl TargetKey {
    /// Whether the user may know of the message.
    pub fn is_visible(&self, message: &MessageRef, by: &Changer) -> bool {
        MESSAGE_KINDS.contains(&self.kind)
            && self.room == message.room
            && loaded(self.seq) > by.hidden_seq
    }

    pub fn is_deleted(&self) -> bool {
        self.kind == StoredKind::DELETED
    }

    /// The outcome of a change that has this announcement.
    pub fn changed(&self, announcement: Announced) -> ChangeOutcome {
        changed(self.seq, announcement)
    }
}

fn changed(seq: i64, announcement: Announced) -> ChangeOutcome {
    ChangeOutcome::Changed(Changed {
        target_seq: loaded(seq),
        announcement,
    })
}

/// Locks entries until the end of the transaction, in the order of their ids. Only their keys are read: one
/// whose content is damaged must not prevent changes of others.
pub(super) async fn lock_keys(conn: &mut Conn, mut ids: Vec<Uuid>) -> Outcome<Vec<TargetKey>> {
    const LOCK: &str = "SELECT e.id, CAST(e.room_no AS {bigint}), e.seq, \
        CAST(e.kind AS {bigint}), (SELECT r.name FROM hubbub_rooms r WHERE r.no = e.room_no) \
        FROM hubbub_entries e WHERE e.id IN ({list}) ORDER BY e.id {for_update}";
    type Row = (Uuid, i64, i64, i64, Option<Text>);
    ids.sort_unstable();
    ids.dedup();
    let rows: Vec<Row> = conn.all_of_list(LOCK, args![], ids).await?;
    let target = |(id, room_no, seq, kind, room): Row| {
        Some(TargetKey {
            id,
            room_no,
            seq,
            room: RoomId::trusted(&room?.0),
            kind: StoredKind(kind),
        })
    };
    Ok(rows.into_iter().filter_map(target).collect())
}

/// Locks a message that the user may know of until the end of the transaction.
pub(super) async fn lock(
    conn: &mut Conn,
    message: &MessageRef,
    by: &Changer,
) -> Outcome<Option<Target>> {
    const LOCK: &str = select_target!("{for_update}");
    let found: Option<Row> = conn.first(LOCK, args![message.id]).await?;
    let target = found.map(Target::new).transpose()?;
    let is_visible =
        |target: &Target| target.is_message_of(&message.room) && target.entry.seq > by.hidden_seq;
    Ok(target.filter(is_visible))
}

/// A row of `hubbub_messages`, or the state of a message without one.
#[derive(Debug)]
pub(super) struct StateRow {
    pub exists: bool,
    pub revision: i64,
    /// The version that is published; `None` without an edit or a deletion.
    pub version: Option<i64>,
}

/// Makes sure that a locked message has its row in `hubbub_messages`.
pub(super) async fn ensure_state_row(conn: &mut Conn, (room_no, seq): (i64, i64)) -> Outcome<()> {
    const ADD: &str =
        "INSERT INTO hubbub_messages (room_no, seq) VALUES (?, ?) {if_absent:room_no}";
    conn.run(ADD, args![room_no, seq]).await.map(drop)
}

/// Locks the row in `hubbub_messages` of a locked message. Without one the message has no state.
pub(super) async fn lock_state_row(conn: &mut Conn, target: &Target) -> Outcome<StateRow> {
    const LOCK: &str = "SELECT revision, version FROM hubbub_messages \
        WHERE room_no = ? AND seq = ? {for_update}";
    let key = args![target.room_no, target.seq];
    let found: Option<(i64, Option<i64>)> = conn.first(LOCK, key).await?;
    let exists = found.is_some();
    let (revision, version) = found.unwrap_or_default();
    Ok(StateRow {
        exists,
        revision,
        version,
    })
}

/// A recorded change.
#[derive(Debug)]
pub(super) struct LastChange {
    pub revision: i64,
    /// The number of its announcement, once it is published.
    seq: Option<i64>,
    /// The row of the outbox that announces it.
    row: OutboxId,
    user: UserId,
}

impl LastChange {
    fn announced(&self) -> Announced {
        match self.seq {
            Some(seq) => Announced::At(loaded(seq)),
            None => Announced::ByRow {
                revision: loaded(self.revision),
            },
        }
    }
}

/// The last change of a message that is of this kind.
pub(super) async fn last_change(
    conn: &mut Conn,
    target: &Target,
    kind: MessageChangeKind,
) -> Outcome<Option<LastChange>> {
    const LAST: &str = "SELECT revision, change_seq, outbox_id, user_id \
        FROM hubbub_message_changes WHERE room_no = ? AND seq = ? AND kind = ? \
        ORDER BY revision DESC LIMIT 1";
    let values = args![target.room_no, target.seq, stored_kind(kind)];
    let found: Option<(i64, Option<i64>, i64, Text)> = conn.first(LAST, values).await?;
    let change = |(revision, seq, row, name)| LastChange {
        revision,
        seq,
        row,
        user: user(name),
    };
    Ok(found.map(change))
}

/// The announcement of the last change of this kind, for a repeat of it. A row that was given up waits again
/// afterwards, and one that was removed is replaced: the announcement comes after all.
///
/// Locks the row of the outbox, so no state of messages may be locked before.
pub(super) async fn announced_again(
    conn: &mut Conn,
    target: &Target,
    kind: MessageChangeKind,
) -> Outcome<Option<Announced>> {
    const REPLACE: &str = "UPDATE hubbub_message_changes SET outbox_id = ? \
        WHERE room_no = ? AND seq = ? AND revision = ?";
    let Some(change) = last_change(conn, target, kind).await? else {
        return Ok(None);
    };
    if change.seq.is_some() || outbox::wait_again(conn, change.row).await? {
        return Ok(Some(change.announced()));
    }
    // A row that is published is removed together with the record of its number.
    let Some(change) = last_change(conn, target, kind).await? else {
        return Ok(None);
    };
    if change.seq.is_none() {
        let announcement = change_row(target, kind, change.revision, &change.user);
        let row = new_row(&target.room, kind, &announcement);
        let row = outbox::add_one(conn, row, 0).await?;
        let values = args![row, target.room_no, target.seq, change.revision];
        conn.run(REPLACE, values).await?;
    }
    Ok(Some(change.announced()))
}

/// Whether a change is about to be announced. If its row was given up, it is not: the next change
/// announces the newest content.
pub(super) async fn is_pending(conn: &mut Conn, change: &LastChange) -> Outcome<bool> {
    const WAITING: &str = "SELECT id FROM hubbub_outbox WHERE id = ? AND state = 0";
    if change.seq.is_some() {
        return Ok(false);
    }
    let waiting: Option<(i64,)> = conn.first(WAITING, args![change.row]).await?;
    Ok(waiting.is_some())
}

/// A change to record.
pub(super) struct NewChange<'a> {
    pub kind: MessageChangeKind,
    pub by: &'a UserId,
    /// Form and stored record of the content before an edit.
    pub before: (i64, Vec<u8>),
}

/// Records a change of a locked message, and adds the row of the outbox that announces it.
pub(super) async fn record(
    conn: &mut Conn,
    target: &Target,
    row: &StateRow,
    change: NewChange<'_>,
) -> Outcome<ChangeOutcome> {
    const ADD: &str = "INSERT INTO hubbub_message_changes \
        (room_no, seq, revision, kind, form, at, outbox_id, user_id, record) \
        VALUES (?, ?, ?, ?, ?, {now}, ?, ?, ?)";
    const BEGIN: &str = "INSERT INTO hubbub_messages (revision, room_no, seq) VALUES (?, ?, ?)";
    const RAISE: &str = "UPDATE hubbub_messages SET revision = ? WHERE room_no = ? AND seq = ?";
    let revision = row.revision + 1;
    let announcement = change_row(target, change.kind, revision, change.by);
    let outbox_row =
        outbox::add_one(conn, new_row(&target.room, change.kind, &announcement), 0).await?;
    let (form, record) = change.before;
    let values = args![
        target.room_no,
        target.seq,
        revision,
        stored_kind(change.kind),
        form,
        outbox_row,
        change.by.as_str(),
        record,
    ];
    let raise = if row.exists { RAISE } else { BEGIN };
    conn.run(raise, args![revision, target.room_no, target.seq])
        .await?;
    conn.run(ADD, values).await?;
    Ok(target.changed(Announced::ByRow {
        revision: loaded(revision),
    }))
}

/// The outcome of a transaction that is about to commit, and the row that it has added, if it may claim that.
/// Rows of one message need no more order than the lock of the message gives them.
pub(super) async fn with_own_row(
    conn: &mut Conn,
    room: &RoomId,
    outcome: ChangeOutcome,
    lease: Option<Duration>,
) -> Outcome<Committed> {
    let has_row = matches!(
        outcome,
        ChangeOutcome::Changed(Changed {
            announcement: Announced::ByRow { .. },
            ..
        })
    );
    let row = match lease {
        Some(lease) if has_row => outbox::claim_own(conn, room, lease).await?,
        _ => None,
    };
    Ok((outcome, row))
}

fn change_row(target: &Target, kind: MessageChangeKind, revision: i64, user: &UserId) -> ChangeRow {
    let user_id = match kind {
        MessageChangeKind::Pinned | MessageChangeKind::Unpinned => Some(user.as_str().to_owned()),
        _ => None,
    };
    ChangeRow {
        id: target.entry.id,
        target_seq: target.entry.seq,
        revision: loaded(revision),
        user_id,
    }
}

/// The row of the outbox that announces a change.
pub(super) fn new_row(room: &RoomId, kind: MessageChangeKind, row: &ChangeRow) -> NewRow {
    NewRow {
        room: Some(room.clone()),
        kind: kind.event().to_owned(),
        payload: serde_json::to_string(row).expect("a row of numbers and texts always serialises"),
    }
}
