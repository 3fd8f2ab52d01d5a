//! Messages with their state.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::target::{self, Target};
use super::{forms, loaded, reactions, stored, threads};
use crate::domain::RoomId;
use crate::store::sql::archive;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Text, args};
use crate::store::{ArchivedEntry, MessageRef, MessageState, Result, StoredKind, StoredMessage};
use bytes::Bytes;

pub(super) type States = BTreeMap<i64, MessageState>;

macro_rules! select_states {
    ($which:literal) => {
        concat!(
            "SELECT m.seq, m.reactions, m.reactions_seq, m.pinned_seq, \
             CAST(CASE WHEN p.seq IS NULL THEN 0 ELSE 1 END AS {bigint}) FROM hubbub_messages m \
             LEFT JOIN hubbub_pins p ON p.room_no = m.room_no AND p.seq = m.seq \
             WHERE m.room_no = ? AND m.deleted_by IS NULL AND ",
            $which
        )
    };
}

/// `seq`, `reactions`, `reactions_seq`, `pinned_seq`, and whether the message is pinned.
type Row = (i64, Option<Text>, Option<i64>, Option<i64>, i64);

pub(super) async fn states(
    db: &Db,
    room: &RoomId,
    seqs: RangeInclusive<u64>,
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
            let mut states = load(rows)?;
            for (seq, thread) in threads::in_range(conn, room_no, first, last).await? {
                states.entry(seq).or_default().thread = Some(thread);
            }
            Ok(states)
        })
    });
    let states = states.await?.into_iter();
    Ok(states.map(|(seq, state)| (loaded(seq), state)).collect())
}

fn load(rows: Vec<Row>) -> Outcome<States> {
    let mut states = States::new();
    for (seq, summary, summary_seq, pinned_seq, is_pinned) in rows {
        let reactions = match (summary, summary_seq) {
            (Some(summary), Some(seq)) => Some((reactions::decode(&summary.0)?, loaded(seq))),
            _ => None,
        };
        let pinned = pinned_seq.map(|seq| (is_pinned != 0, loaded(seq)));
        if reactions.is_some() || pinned.is_some() {
            let state = MessageState {
                reactions,
                thread: None,
                pinned,
            };
            states.insert(seq, state);
        }
    }
    Ok(states)
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
    let rows: Vec<Row> = conn.all_of_list(LIST, &args![room_no], list).await?;
    let mut states = load(rows)?;
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
