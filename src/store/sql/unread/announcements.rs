//! The rows of the outbox that announce positions to the feeds of their users.
//!
//! A row only names the room: it is rendered when it is claimed, with the position of then. So one row
//! serves all positions until a worker claims it. Rows of a user and a room are a second apart.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::count;
use crate::domain::{Change, RoomId, UserId};
use crate::store::sql::accounts::now;
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::meta::{self, POSITIONS_CLAIM};
use crate::store::sql::outbox;
use crate::store::sql::store::SqlStore;
use crate::store::sql::value::args;
use crate::store::{
    Claim, NewRow, Outbox, OutboxId, OutboxRow, POSITIONS_INTERVAL_MS, Result, RoomUnread,
    StoreError,
};

/// Users whose positions are read at the same time: each read takes a connection.
const CONCURRENT_READS: usize = 4;

/// The pause before a row is rendered again.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);

/// The payload of a row.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PositionRow<'a> {
    target_room_id: std::borrow::Cow<'a, str>,
}

/// The payload of an announcement.
#[derive(Serialize)]
struct Announcement<'a> {
    target_room_id: &'a str,
    last_read_seq: u64,
    unread: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    capped: bool,
}

/// The announcements of a position, as its row has them: the last row, and the earliest time of the next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Announced {
    pub last: Option<OutboxId>,
    pub next_at: i64,
}

/// Announces the position of a user in a room, which is locked and was moved `now`. Returns what its row has
/// to record; `None` if a row serves it that no worker has claimed.
pub(super) async fn announce(
    conn: &mut Conn,
    (user, room): (&UserId, &RoomId),
    announced: Announced,
    now: i64,
) -> Outcome<Option<Announced>> {
    // The lock lets a claim wait, or leave the row out, until the position is committed. A number may have
    // been used again for another row.
    const LOCK: &str = "SELECT id FROM hubbub_outbox WHERE id = ? AND attempts = 0 AND state = 0 \
        AND type = ? AND room_id = ? AND payload = ? {for_update}";
    let payload = PositionRow {
        target_room_id: room.as_str().into(),
    };
    let row = NewRow {
        room: Some(RoomId::personal(user)),
        kind: Change::POSITION_EVENT.to_owned(),
        payload: serde_json::to_string(&payload).expect("a payload always serialises"),
    };
    if let Some(last) = announced.last {
        let feed = RoomId::personal(user);
        let values = args![last, row.kind.as_str(), feed.as_str(), row.payload.as_str()];
        let waiting: Option<(OutboxId,)> = conn.first(LOCK, values).await?;
        if waiting.is_some() {
            return Ok(None);
        }
    }
    // The clock may have gone back since.
    let interval = POSITIONS_INTERVAL_MS.cast_signed();
    let due_at = announced.next_at.clamp(now, now + interval);
    Ok(Some(Announced {
        last: Some(outbox::add_one(conn, row, due_at).await?),
        next_at: due_at + interval,
    }))
}

/// See [`Outbox::next_due_position`], in milliseconds.
pub(in crate::store::sql) async fn next_due(conn: &mut Conn) -> Outcome<Option<i64>> {
    const NEXT: &str = "SELECT MIN(CASE WHEN lease_until > due_at THEN lease_until ELSE due_at END) \
        FROM hubbub_outbox WHERE state = 0 AND type = ?";
    let next: Option<(Option<i64>,)> = conn.first(NEXT, args![Change::POSITION_EVENT]).await?;
    let Some((Some(next),)) = next else {
        return Ok(None);
    };
    Ok(Some((next - now(conn).await?).max(0)))
}

/// See [`Outbox::claim_positions`].
pub(in crate::store::sql) async fn claim(
    store: &SqlStore,
    limit: usize,
    lease: i64,
) -> Result<Vec<OutboxRow>> {
    // Not behind a claimed row of the same user and room, which may be published later with an earlier
    // position.
    const DUE: &str = "SELECT o.id FROM hubbub_outbox o WHERE o.state = 0 AND o.type = ? \
        AND o.due_at <= ? AND o.lease_until <= ? AND o.room_id IS NOT NULL \
        AND NOT EXISTS (SELECT 1 FROM hubbub_outbox b WHERE b.room_id = o.room_id AND b.id < o.id \
         AND b.state + 0 = 0 AND b.type = o.type AND b.payload = o.payload AND b.lease_until > ?) \
        ORDER BY o.id LIMIT ?";
    let limit = i64::try_from(limit.min(outbox::MAX_ROWS)).unwrap_or(i64::MAX);
    let claim = store.db().transaction(move |conn| {
        Box::pin(async move {
            meta::lock(conn, POSITIONS_CLAIM, "").await?;
            let now = now(conn).await?;
            let values = args![Change::POSITION_EVENT, now, now, now, limit];
            let due: Vec<(OutboxId,)> = conn.all(DUE, values).await?;
            let due: Vec<OutboxId> = due.into_iter().map(|(id,)| id).collect();
            outbox::claim_free(conn, &due, now, now + lease).await
        })
    });
    render(store, claim.await?).await
}

/// The rows with the positions of now. Those that have nothing to announce are removed, and those of users
/// for whom that can't be read are postponed or given up.
async fn render(store: &SqlStore, rows: Vec<OutboxRow>) -> Result<Vec<OutboxRow>> {
    let mut rooms: BTreeMap<UserId, Vec<RoomId>> = BTreeMap::new();
    for row in &rows {
        if let Some((user, room)) = position_of(row) {
            rooms.entry(user).or_default().push(room);
        }
    }
    let reads = rooms.into_iter().map(|(user, rooms)| async move {
        let positions = positions_in(store, &user, &rooms).await;
        (user, positions)
    });
    let positions: BTreeMap<UserId, Positions> = stream::iter(reads)
        .buffer_unordered(CONCURRENT_READS)
        .collect()
        .await;
    let mut rendered = Vec::with_capacity(rows.len());
    let mut nothing: Vec<Claim> = Vec::new();
    for mut row in rows {
        if let Some((user, room)) = position_of(&row) {
            match positions.get(&user).and_then(|rooms| rooms.get(&room)) {
                Some(Err(error)) => {
                    give_back(store, &row, error).await?;
                    continue;
                }
                Some(Ok(position)) => row.payload = payload(position),
                // The user was deleted, or is no longer a member of the chat.
                None => {
                    nothing.push(row.claim());
                    continue;
                }
            }
        }
        rendered.push(row);
    }
    if !nothing.is_empty() {
        Outbox::done(store, &nothing).await?;
    }
    Ok(rendered)
}

/// The positions of a user, or why they can't be read.
type Positions = BTreeMap<RoomId, Result<RoomUnread>>;

/// The positions of a user in rooms: read together, or each alone if one of them is damaged.
async fn positions_in(store: &SqlStore, user: &UserId, rooms: &[RoomId]) -> Positions {
    let mut positions = Positions::new();
    match count::of_rooms(store, user, rooms).await {
        Ok(found) => {
            for unread in found {
                positions.insert(unread.room.clone(), Ok(unread));
            }
        }
        Err(StoreError::Broken(_)) if rooms.len() > 1 => {
            for room in rooms {
                match count::of_rooms(store, user, std::slice::from_ref(room)).await {
                    Ok(found) => {
                        let found = found.into_iter();
                        positions.extend(found.map(|unread| (room.clone(), Ok(unread))));
                    }
                    Err(error) => {
                        positions.insert(room.clone(), Err(error));
                    }
                }
            }
        }
        Err(error) => {
            let failed = |room: &RoomId| (room.clone(), Err(error.clone()));
            positions.extend(rooms.iter().map(failed));
        }
    }
    positions
}

/// Postpones a row for which the position can't be read; gives it up if a repetition doesn't help.
async fn give_back(store: &SqlStore, row: &OutboxRow, error: &StoreError) -> Result<()> {
    let (claim, reason) = (row.claim(), error.to_string());
    match error {
        StoreError::Broken(_) => {
            tracing::error!(
                row = claim.row,
                reason,
                "outbox: a position can't be read and is not announced; see hubbub outbox list"
            );
            Outbox::fail(store, claim, &reason).await
        }
        StoreError::Unavailable(_) | StoreError::Refused(_) => {
            Outbox::retry(store, &[claim], UNREADABLE_PAUSE, &reason).await
        }
    }
}

/// The position that a row announces. `None` for rows of other programs, which are announced as they are.
fn position_of(row: &OutboxRow) -> Option<(UserId, RoomId)> {
    let user = row.room.as_ref()?.personal_of()?;
    let position: PositionRow<'_> = serde_json::from_str(&row.payload).ok()?;
    Some((user, RoomId::trusted(&position.target_room_id)))
}

fn payload(position: &RoomUnread) -> String {
    let announcement = Announcement {
        target_room_id: position.room.as_str(),
        last_read_seq: position.last_read_seq,
        unread: position.unread.count,
        capped: position.unread.is_capped,
    };
    serde_json::to_string(&announcement).expect("a payload always serialises")
}
