//! Messages with their state.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::Bytes;
use uuid::Uuid;

use super::target::{self, Target};
use super::{forms, loaded, reactions, stored, threads, user};
use crate::domain::{Reaction, RoomId};
use crate::store::sql::archive;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Text, args};
use crate::store::{
    ArchivedEntry, Deletion, MessageRef, MessageState, Result, StoredKind, StoredMessage,
    Unrecorded,
};

pub(super) type States = BTreeMap<i64, MessageState>;

macro_rules! select_states {
    ($which:literal) => {
        concat!(
            "SELECT m.seq, m.reactions, m.reactions_seq, m.reactions_row, m.pinned_seq, \
             CAST(CASE WHEN p.seq IS NULL THEN 0 ELSE 1 END AS {bigint}), \
             CAST(CASE WHEN EXISTS (SELECT 1 FROM hubbub_message_changes c \
             WHERE c.room_no = m.room_no AND c.seq = m.seq AND c.revision = m.revision \
             AND c.change_seq IS NULL) THEN 1 ELSE 0 END AS {bigint}), \
             m.deleted_by, m.deleted_thread, m.version FROM hubbub_messages m \
             LEFT JOIN hubbub_pins p ON p.room_no = m.room_no AND p.seq = m.seq \
             WHERE m.room_no = ? AND ",
            $which
        )
    };
}

/// `seq`, `reactions`, `reactions_seq`, `reactions_row`, `pinned_seq`, whether the message is pinned, whether
/// its last revision is not recorded as announced, `deleted_by`, `deleted_thread`, and `version`.
type Row = (
    i64,
    Option<Text>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    i64,
    i64,
    Option<Text>,
    Option<Text>,
    Option<i64>,
);

pub(super) async fn states(
    db: &Db,
    room: &RoomId,
    seqs: RangeInclusive<u64>,
    has_threads: bool,
) -> Result<Vec<(u64, MessageState)>> {
    const RANGE: &str = select_states!("m.seq >= ? AND m.seq <= ?");
    let room = room.clone();
    let (first, last) = (stored(*seqs.start()), stored(*seqs.end()));
    let states = db.read(move |conn| {
        let room = room.clone();
        Box::pin(async move {
            let Some(room_no) = archive::find_number(conn, &room).await? else {
                return Ok(States::new());
            };
            let rows: Vec<Row> = conn.all(RANGE, args![room_no, first, last]).await?;
            let mut states = load(conn, room_no, rows).await?;
            if has_threads {
                for (seq, thread) in threads::in_range(conn, room_no, first, last).await? {
                    states.entry(seq).or_default().thread = Some(thread);
                }
            }
            Ok(states)
        })
    });
    let states = states.await?.into_iter();
    Ok(states.map(|(seq, state)| (loaded(seq), state)).collect())
}

async fn load(conn: &mut Conn, room_no: i64, rows: Vec<Row>) -> Outcome<States> {
    // The log may show newer reactions than those that are recorded, but none that are newer than these.
    let unrecorded = rows.iter().filter(|row| row.3.is_some());
    let unrecorded: Vec<i64> = unrecorded.map(|row| row.0).collect();
    let mut current = reactions::current(conn, room_no, &unrecorded).await?;
    let mut states = States::new();
    for row in rows {
        let seq = row.0;
        let state = state(row, current.remove(&seq))?;
        if state != MessageState::default() {
            states.insert(seq, state);
        }
    }
    Ok(states)
}

fn state(row: Row, current: Option<Vec<Reaction>>) -> Outcome<MessageState> {
    let (seq, summary, summary_seq, reactions_row, pinned_seq, is_pinned, unrecorded, ..) = row;
    let (.., deleted_by, deleted_thread, version) = row;
    let unrecorded = Unrecorded {
        reactions: reactions_row.is_some(),
        revision: unrecorded != 0,
    };
    if let Some(by) = deleted_by {
        let thread = deleted_thread.and_then(|thread| Uuid::parse_str(&thread.0).ok());
        return Ok(MessageState {
            unrecorded,
            deletion: Some(Deletion {
                by: user(by),
                thread,
                version: loaded(version.unwrap_or(seq)),
            }),
            ..MessageState::default()
        });
    }
    let reactions = match summary {
        _ if unrecorded.reactions => Some(current.unwrap_or_default()),
        Some(summary) => Some(reactions::decode(&summary.0)?),
        None => None,
    };
    let is_pinned = is_pinned != 0;
    let has_pin = is_pinned || pinned_seq.is_some() || unrecorded.revision;
    Ok(MessageState {
        reactions: reactions.map(|reactions| (reactions, loaded(summary_seq.unwrap_or(seq)))),
        thread: None,
        pinned: has_pin.then(|| (is_pinned, loaded(pinned_seq.unwrap_or(seq)))),
        unrecorded,
        deletion: None,
    })
}

pub(super) async fn message(db: &Db, message: &MessageRef) -> Result<Option<StoredMessage>> {
    let message = message.clone();
    db.read(move |conn| {
        let message = message.clone();
        Box::pin(async move {
            match target::find(conn, &message).await? {
                Some(target) => of_target(conn, &target).await.map(Some),
                None => Ok(None),
            }
        })
    })
    .await
}

/// The message of a target.
pub(super) async fn of_target(conn: &mut Conn, target: &Target) -> Outcome<StoredMessage> {
    let room = (target.room_no, &target.room);
    let mut messages = of_entries(conn, room, vec![target.entry.clone()]).await?;
    let mut message = messages.remove(0);
    if !target.is_deleted() {
        let threads = threads::in_range(conn, target.room_no, target.seq, target.seq).await?;
        message.state.thread = threads.into_iter().next().map(|(_, thread)| thread);
    }
    Ok(message)
}

/// These messages with their forms and states, apart from threads.
pub(super) async fn of_entries(
    conn: &mut Conn,
    (room_no, room): (i64, &RoomId),
    entries: Vec<ArchivedEntry>,
) -> Outcome<Vec<StoredMessage>> {
    const LIST: &str = select_states!("m.seq IN ({list})");
    let seqs: Vec<i64> = entries.iter().map(|entry| stored(entry.seq)).collect();
    let list = seqs.iter().copied();
    let rows: Vec<Row> = conn.all_of_list(LIST, args![room_no], list).await?;
    let mut states = load(conn, room_no, rows).await?;
    let mut forms = forms::of_seqs(conn, (room_no, room), &seqs).await?;
    let message = |entry: ArchivedEntry| {
        let seq = stored(entry.seq);
        let form = forms.remove(&seq);
        let form = form.unwrap_or_else(|| forms::unrecorded(room, &entry));
        StoredMessage {
            record: newest_record(&form.content, entry),
            form,
            state: states.remove(&seq).unwrap_or_default(),
        }
    };
    Ok(entries.into_iter().map(message).collect())
}

/// The forms were read after the entries: an edit or a deletion may have come between.
fn newest_record(content: &crate::domain::FormContent, entry: ArchivedEntry) -> Bytes {
    use crate::domain::FormContent;
    match content {
        FormContent::Edited(record) => record.clone(),
        FormContent::Deleted(_) => Bytes::new(),
        FormContent::Original if entry.kind == StoredKind::DELETED => Bytes::new(),
        FormContent::Original => entry.record,
    }
}
