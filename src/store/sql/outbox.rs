//! The outbox in a database: the table `hubbub_outbox`.
//!
//! The number of attempts, which each claim raises, identifies a claim.

mod front;
mod own;
mod urgent;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;

use super::accounts::now;
use super::conn::Conn;
use super::dialect::{Dialect, exact_parts};
use super::fault::{Fault, Outcome};
use super::meta::{self, OUTBOX_CLAIM};
use super::store::SqlStore;
use super::unread;
use super::value::{Arg, Text, args};
use crate::domain::RoomId;
use crate::store::{
    Claim, NewRow, Outbox, OutboxId, OutboxRow, OwnRows, Result, RowState, WantsRows,
};
use front::Selection;
pub(super) use own::{OwnClaim, OwnRowQueue, claim_own};

/// The most rows that one call claims, and one statement changes: a list has at most 500.
pub(super) const MAX_ROWS: usize = 500;
/// The longest reason, in bytes.
const MAX_REASON: usize = 1000;

/// Adds rows, in the caller's transaction. Rows of one room must be added under a lock that their
/// cause holds, so that their numbers rise in the order of the commits.
pub(super) async fn add(conn: &mut Conn, rows: Vec<NewRow>) -> Outcome<()> {
    const ADD: &str = "INSERT INTO hubbub_outbox (room_id, type, payload) VALUES {rows:3}";
    let parts = exact_parts(rows.len());
    let mut rows = rows.into_iter();
    for part in parts {
        let mut values = Vec::with_capacity(3 * part);
        for row in rows.by_ref().take(part) {
            let room = row.room.map(|room| room.as_str().to_owned());
            values.extend(args![room, row.kind, row.payload]);
        }
        let text = conn.dialect().text_of(ADD, part);
        conn.run_text(text, values).await?;
    }
    Ok(())
}

/// As [`add`], for one row that is due at a time. Returns its number.
pub(super) async fn add_one(conn: &mut Conn, row: NewRow, due_at: i64) -> Outcome<OutboxId> {
    const ADD: &str = "INSERT INTO hubbub_outbox (room_id, type, payload, due_at) \
        VALUES (?, ?, ?, ?) RETURNING id";
    // MySQL doesn't know RETURNING.
    const LAST: &str = "SELECT CAST(LAST_INSERT_ID() AS {bigint})";
    let number: Option<(i64,)> = if conn.dialect() == Dialect::MySql {
        add_at(conn, row, due_at).await?;
        conn.first(LAST, args![]).await?
    } else {
        let room = row.room.map(|room| room.as_str().to_owned());
        conn.first(ADD, args![room, row.kind, row.payload, due_at])
            .await?
    };
    let missing = || Fault::Broken("the database has returned no number of a new row".to_owned());
    number.map(|(number,)| number).ok_or_else(missing)
}

/// As [`add`], for a row that is due at a time.
pub(super) async fn add_at(conn: &mut Conn, row: NewRow, due_at: i64) -> Outcome<()> {
    const ADD: &str =
        "INSERT INTO hubbub_outbox (room_id, type, payload, due_at) VALUES (?, ?, ?, ?)";
    let room = row.room.map(|room| room.as_str().to_owned());
    let values = args![room, row.kind, row.payload, due_at];
    conn.run(ADD, values).await.map(drop)
}

/// Lets a row that was given up wait again. Returns false if there is no such row. It is locked until the end
/// of the transaction.
pub(super) async fn wait_again(conn: &mut Conn, row: OutboxId) -> Outcome<bool> {
    const LOCK: &str =
        "SELECT CAST(state AS {bigint}) FROM hubbub_outbox WHERE id = ? {for_update}";
    const REVIVE: &str = "UPDATE hubbub_outbox SET state = 0, due_at = 0 WHERE id = ?";
    let state: Option<(i64,)> = conn.first(LOCK, args![row]).await?;
    let Some((state,)) = state else {
        return Ok(false);
    };
    if state != 0 {
        conn.run(REVIVE, args![row]).await?;
    }
    Ok(true)
}

/// `id, room_id, type, payload, attempts`, and the time of the first claim.
pub(super) type Row = (i64, Option<Text>, Text, Text, i64, i64);

/// The row as it is `now`, with so many claims that it does not count yet.
pub(super) fn loaded(row: Row, claims: u64, now: i64) -> OutboxRow {
    let (id, room, kind, payload, attempts, first_claimed) = row;
    OutboxRow {
        id,
        room: room.map(|room| RoomId::trusted(&room.0)),
        kind: kind.0,
        payload: payload.0,
        attempts: u64::try_from(attempts).unwrap_or(0) + claims,
        tried_for: Duration::from_millis(u64::try_from(now - first_claimed).unwrap_or(0)),
        first_claimed,
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}

pub(super) fn shortened(reason: &str) -> String {
    reason[..reason.floor_char_boundary(MAX_REASON)].to_owned()
}

/// Claims these rows, now, until a time.
pub(super) async fn lease(conn: &mut Conn, rows: &[Row], now: i64, until: i64) -> Outcome<()> {
    const CLAIM: &str = "UPDATE hubbub_outbox SET lease_until = ?, attempts = attempts + 1, \
        tried_since = COALESCE(tried_since, ?) WHERE id IN ({list})";
    if rows.is_empty() {
        return Ok(());
    }
    let ids = rows.iter().map(|row| Arg::from(row.0));
    let (text, ids) = conn.dialect().with_list(CLAIM, ids);
    let values = [args![until, now], ids].concat();
    conn.run_text(text, values).await.map(drop)
}

/// Locks those of these rows that no other transaction has locked, where the database can find them:
/// a long transaction must not stop the announcements of all rooms.
async fn lock_free(conn: &mut Conn, ids: &[OutboxId]) -> Outcome<HashSet<OutboxId>> {
    const LOCK: &str =
        "SELECT id FROM hubbub_outbox WHERE id IN ({list}) ORDER BY id {for_update_of_free}";
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let list = ids.iter().map(|id| Arg::from(*id));
    let (text, list) = conn.dialect().with_list(LOCK, list);
    let free: Vec<(OutboxId,)> = conn.all_of_text(text, list).await?;
    Ok(free.into_iter().map(|(id,)| id).collect())
}

/// Claims those of these rows that no other transaction has locked, now, until a time. For rows that have
/// no order.
pub(super) async fn claim_free(
    conn: &mut Conn,
    ids: &[OutboxId],
    now: i64,
    until: i64,
) -> Outcome<Vec<OutboxRow>> {
    let free = lock_free(conn, ids).await?;
    let free: Vec<OutboxId> = ids.iter().copied().filter(|id| free.contains(id)).collect();
    let rows = load(conn, &free, now).await?;
    lease(conn, &rows, now, until).await?;
    Ok(rows.into_iter().map(|row| loaded(row, 1, now)).collect())
}

/// The rows that are free, without those behind a row of their room that is not.
fn without_later_ones(rows: Vec<Row>, free: &HashSet<OutboxId>) -> Vec<Row> {
    let mut closed: HashSet<Option<String>> = HashSet::new();
    let mut left = Vec::with_capacity(rows.len());
    for row in rows {
        let room = || row.1.as_ref().map(|room| room.0.clone());
        if !free.contains(&row.0) {
            closed.insert(room());
        } else if closed.is_empty() || !closed.contains(&room()) {
            left.push(row);
        }
    }
    left
}

/// The rows with these numbers, in this order.
async fn load(conn: &mut Conn, ids: &[OutboxId], now: i64) -> Outcome<Vec<Row>> {
    const LOAD: &str = "SELECT id, room_id, type, payload, attempts, \
        CAST(COALESCE(tried_since, ?) AS {bigint}) FROM hubbub_outbox WHERE id IN ({list})";
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let (text, list) = conn
        .dialect()
        .with_list(LOAD, ids.iter().map(|id| Arg::from(*id)));
    let values = [args![now], list].concat();
    let mut rows: Vec<Row> = conn.all_of_text(text, values).await?;
    let places: HashMap<OutboxId, usize> = ids.iter().copied().zip(0..).collect();
    rows.sort_by_key(|row| places.get(&row.0).copied());
    Ok(rows)
}

#[async_trait]
impl Outbox for SqlStore {
    async fn added(&self) {
        self.rows_announced().await;
    }

    fn own_rows(&self, lease: Duration, wants_rows: WantsRows) -> OwnRows {
        self.own_row_queue().open(lease, wants_rows)
    }

    async fn claim(&self, limit: usize, lease: Duration) -> Result<Vec<OutboxRow>> {
        let limit = limit.min(MAX_ROWS);
        let lease = millis(lease);
        self.db()
            .transaction(move |conn| {
                Box::pin(async move {
                    // One claim at a time: a later row of a room must not be claimed while another
                    // node claims an earlier one.
                    meta::lock(conn, OUTBOX_CLAIM, "").await?;
                    let now = now(conn).await?;
                    let mut selection = Selection::new(now, limit);
                    front::choose_urgent(conn, &mut selection).await?;
                    front::choose_in_order(conn, &mut selection).await?;
                    let busy = front::busy_rooms(conn, &selection).await?;
                    let free = lock_free(conn, &selection.chosen).await?;
                    let mut rows = load(conn, &selection.chosen, now).await?;
                    rows.retain(|row| !row.1.as_ref().is_some_and(|room| busy.contains(&room.0)));
                    let rows = without_later_ones(rows, &free);
                    self::lease(conn, &rows, now, now + lease).await?;
                    Ok(rows.into_iter().map(|row| loaded(row, 1, now)).collect())
                })
            })
            .await
    }

    async fn claim_positions(&self, limit: usize, lease: Duration) -> Result<Vec<OutboxRow>> {
        unread::claim_announcements(self, limit, millis(lease)).await
    }

    async fn done(&self, claims: &[Claim]) -> Result<()> {
        const DELETE: &str = "DELETE FROM hubbub_outbox \
            WHERE attempts = ? AND state = 0 AND id IN ({list})";
        self.change_claimed(DELETE, Vec::new(), claims).await
    }

    async fn retry(&self, claims: &[Claim], delay: Duration, reason: &str) -> Result<()> {
        const RETRY: &str = "UPDATE hubbub_outbox \
            SET lease_until = 0, due_at = {now} + ?, reason = ? \
            WHERE attempts = ? AND state = 0 AND id IN ({list})";
        let values = args![millis(delay), shortened(reason)];
        self.change_claimed(RETRY, values, claims).await
    }

    async fn fail(&self, claim: Claim, reason: &str) -> Result<()> {
        const FAIL: &str = "UPDATE hubbub_outbox SET state = 1, lease_until = 0, reason = ? \
            WHERE attempts = ? AND state = 0 AND id IN ({list})";
        let values = args![shortened(reason)];
        self.change_claimed(FAIL, values, &[claim]).await
    }

    async fn next_due(&self) -> Result<Option<Duration>> {
        self.db()
            .read(|conn| {
                Box::pin(async move {
                    let mut selection = Selection::new(now(conn).await?, 1);
                    front::choose_in_order(conn, &mut selection).await?;
                    Ok(selection.next_due())
                })
            })
            .await
    }

    async fn next_due_position(&self) -> Result<Option<Duration>> {
        let next = self
            .db()
            .read(|conn| Box::pin(unread::next_due_announcement(conn)));
        let wait = |wait: i64| Duration::from_millis(u64::try_from(wait).unwrap_or(0));
        Ok(next.await?.map(wait))
    }

    async fn has_waiting(&self, room: &RoomId) -> Result<bool> {
        const WAITING: &str = "SELECT id FROM hubbub_outbox WHERE room_id = ? AND state + 0 = 0 AND type <> 'read' \
            ORDER BY id LIMIT 1";
        let rows: Vec<(i64,)> = self.db().all(WAITING, args![room.as_str()]).await?;
        Ok(!rows.is_empty())
    }

    async fn list(&self, after: OutboxId, limit: usize) -> Result<Vec<RowState>> {
        const LIST: &str = "SELECT id, room_id, type, payload, attempts, \
                CAST(COALESCE(tried_since, {now}) AS {bigint}), state, reason, \
                CAST({now} AS {bigint}) FROM hubbub_outbox WHERE id > ? ORDER BY id LIMIT ?";
        type Listed = (
            i64,
            Option<Text>,
            Text,
            Text,
            i64,
            i64,
            i64,
            Option<Text>,
            i64,
        );
        let listed: Vec<Listed> = self.db().all(LIST, args![after, limit as i64]).await?;
        let state =
            |(id, room, kind, payload, attempts, tried, state, reason, now): Listed| RowState {
                row: loaded((id, room, kind, payload, attempts, tried), 0, now),
                has_failed: state != 0,
                reason: reason.map(|reason| reason.0),
            };
        Ok(listed.into_iter().map(state).collect())
    }

    async fn revive(&self, row: OutboxId) -> Result<bool> {
        // The attempts of an announcement identify its claims, so they only rise.
        const REVIVE: &str = "UPDATE hubbub_outbox SET state = 0, due_at = 0, \
            attempts = CASE WHEN room_id IS NULL THEN 0 ELSE attempts END WHERE id IN ({list}) AND \
            (state = 1 OR (attempts > 0 AND due_at > {now} AND lease_until <= {now}))";
        let changed = self.db().transaction(move |conn| {
            let (text, rows) = conn.dialect().with_list(REVIVE, args![row]);
            Box::pin(async move { conn.run_text(text, rows).await })
        });
        Ok(changed.await? > 0)
    }
}

impl SqlStore {
    /// Runs a statement for claims that have not ended: values, the attempts, and a list of rows.
    async fn change_claimed(
        &self,
        template: &'static str,
        values: Vec<Arg>,
        claims: &[Claim],
    ) -> Result<()> {
        let mut by_attempts: BTreeMap<u64, Vec<Arg>> = BTreeMap::new();
        for claim in claims {
            let rows = by_attempts.entry(claim.attempts).or_default();
            rows.push(Arg::from(claim.row));
        }
        if by_attempts.is_empty() {
            return Ok(());
        }
        self.db()
            .transaction(move |conn| {
                let (values, by_attempts) = (values.clone(), by_attempts.clone());
                Box::pin(async move {
                    for (attempts, rows) in by_attempts {
                        let attempts = i64::try_from(attempts).unwrap_or(i64::MAX);
                        for part in rows.chunks(MAX_ROWS) {
                            let (text, rows) =
                                conn.dialect().with_list(template, part.iter().cloned());
                            let values = [values.clone(), args![attempts], rows].concat();
                            conn.run_text(text, values).await?;
                        }
                    }
                    Ok(())
                })
            })
            .await
    }
}
