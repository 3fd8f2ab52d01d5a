//! Pinned messages.

use std::time::Duration;

use super::target::{self, NewChange, Target};
use super::{Committed, loaded, state, user};
use crate::domain::{MessageChangeKind, RoomId, Timestamp};
use crate::store::sql::accounts::now;
use crate::store::sql::archive;
use crate::store::sql::archive::entries::{self, WithEntry, entry_columns};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Text, args};
use crate::store::{Announced, ChangeOutcome, Changer, MAX_PINS, MessageRef, Pin, Result};

pub(super) async fn pin(
    db: &Db,
    message: &MessageRef,
    by: &Changer,
    on: bool,
    lease: Option<Duration>,
) -> Result<Committed> {
    let (message, by) = (message.clone(), by.clone());
    db.transaction(move |conn| {
        let (message, by) = (message.clone(), by.clone());
        Box::pin(async move {
            let outcome = pin_in(conn, &message, &by, on).await?;
            target::with_own_row(conn, &message.room, outcome, lease).await
        })
    })
    .await
}

async fn pin_in(
    conn: &mut Conn,
    message: &MessageRef,
    by: &Changer,
    on: bool,
) -> Outcome<ChangeOutcome> {
    const PINNED: &str = "SELECT seq FROM hubbub_pins WHERE room_no = ? AND seq = ?";
    const PIN: &str = "INSERT INTO hubbub_pins (room_no, seq, user_id, at) VALUES (?, ?, ?, ?)";
    const UNPIN: &str = "DELETE FROM hubbub_pins WHERE room_no = ? AND seq = ?";
    // Pins of a room come one after another, so that no two pass its limit together.
    if !archive::lock_room(conn, &message.room).await? {
        return Ok(ChangeOutcome::NotFound);
    }
    let Some(target) = target::lock(conn, message, by).await? else {
        return Ok(ChangeOutcome::NotFound);
    };
    if target.is_deleted() {
        return Ok(ChangeOutcome::Deleted);
    }
    let kind = match on {
        true => MessageChangeKind::Pinned,
        false => MessageChangeKind::Unpinned,
    };
    let key = args![target.room_no, target.seq];
    let pinned: Option<(i64,)> = conn.first(PINNED, key.clone()).await?;
    if pinned.is_some() == on {
        return repeated(conn, &target, kind).await;
    }
    if on {
        if is_full(conn, target.room_no).await? {
            return Ok(ChangeOutcome::Full);
        }
        let now = now(conn).await?;
        let values = args![target.room_no, target.seq, by.user.as_str(), now];
        conn.run(PIN, values).await?;
    } else {
        conn.run(UNPIN, key).await?;
    }
    let row = target::lock_state_row(conn, &target).await?;
    let change = NewChange {
        kind,
        by: &by.user,
        before: (0, Vec::new()),
    };
    target::record(conn, &target, &row, change).await
}

/// The outcome for a message that is pinned, or not, as it should be.
async fn repeated(
    conn: &mut Conn,
    target: &Target,
    kind: MessageChangeKind,
) -> Outcome<ChangeOutcome> {
    let announced = target::announced_again(conn, target, kind).await?;
    let never = Announced::At(target.entry.seq);
    Ok(target.changed(announced.unwrap_or(never)))
}

async fn is_full(conn: &mut Conn, room_no: i64) -> Outcome<bool> {
    const COUNT: &str = "SELECT COUNT(*) FROM hubbub_pins WHERE room_no = ?";
    let count: Option<(i64,)> = conn.first(COUNT, args![room_no]).await?;
    Ok(count.is_some_and(|(count,)| loaded(count) >= MAX_PINS))
}

/// A pinned message, with `room_no`, and `user_id` and `at` of the pin.
type Row = WithEntry<(i64, Text, i64)>;

pub(super) async fn pins(db: &Db, room: &RoomId) -> Result<Vec<Pin>> {
    const PINS: &str = concat!(
        "SELECT ",
        entry_columns!(),
        ", CAST(e.room_no AS {bigint}), t.user_id, t.at FROM hubbub_pins t \
         JOIN hubbub_entries e ON e.room_no = t.room_no AND e.seq = t.seq \
         WHERE t.room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) \
         ORDER BY t.at DESC, t.seq DESC"
    );
    let room = room.clone();
    db.read(move |conn| {
        let room = room.clone();
        Box::pin(async move {
            let rows: Vec<Row> = conn.all(PINS, args![room.as_str()]).await?;
            let mut pinned = Vec::with_capacity(rows.len());
            let mut by = Vec::with_capacity(rows.len());
            let mut number = 0;
            for Row { entry, others } in rows {
                let (room_no, name, pinned_at) = others;
                pinned.push(entries::decoded(&room, entry)?);
                by.push((user(name), Timestamp(loaded(pinned_at))));
                number = room_no;
            }
            let messages = state::of_entries(conn, (number, &room), pinned).await?;
            let pin = |(message, (user, at))| Pin { message, user, at };
            Ok(messages.into_iter().zip(by).map(pin).collect())
        })
    })
    .await
}
