//! The outbox in a database: the table `hubbub_outbox`.

use std::time::Duration;

use async_trait::async_trait;

use super::accounts::now;
use super::conn::Conn;
use super::dialect::exact_parts;
use super::fault::Outcome;
use super::meta::{self, OUTBOX_CLAIM};
use super::store::SqlStore;
use super::value::{Arg, Text, args};
use crate::domain::RoomId;
use crate::store::{NewRow, Outbox, OutboxId, OutboxRow, Result, RowState};

/// The most rows that one call claims, removes or postpones: a list in a statement has at most 500.
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

/// As [`add`], for a row that is due at a time.
pub(super) async fn add_at(conn: &mut Conn, row: NewRow, due_at: i64) -> Outcome<()> {
    const ADD: &str =
        "INSERT INTO hubbub_outbox (room_id, type, payload, due_at) VALUES (?, ?, ?, ?)";
    let room = row.room.map(|room| room.as_str().to_owned());
    let values = args![room, row.kind, row.payload, due_at];
    conn.run(ADD, values).await.map(drop)
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

#[async_trait]
impl Outbox for SqlStore {
    async fn added(&self) {
        self.rows_announced().await;
    }

    async fn claim(&self, limit: usize, lease: Duration) -> Result<Vec<OutboxRow>> {
        // An earlier row of the room is claimed by another node, or was postponed.
        const DUE: &str = "SELECT o.id, o.room_id, o.type, o.payload, o.attempts, \
                CAST(COALESCE(o.tried_since, ?) AS {bigint}) \
            FROM hubbub_outbox o \
            WHERE o.state = 0 AND o.room_id IS NOT NULL AND o.due_at <= ? AND o.lease_until <= ? \
            AND NOT EXISTS \
                (SELECT e.id FROM hubbub_outbox e \
                 WHERE e.room_id = o.room_id AND e.id < o.id AND e.state = 0 \
                 AND (e.lease_until > ? OR (e.attempts > 0 AND e.due_at > ?))) \
            ORDER BY o.id LIMIT ?";
        let limit = limit.min(MAX_ROWS) as i64;
        let lease = millis(lease);
        self.db()
            .transaction(move |conn| {
                Box::pin(async move {
                    // One claim at a time: a later row of a room must not be claimed while another
                    // node claims an earlier one.
                    meta::lock(conn, OUTBOX_CLAIM, "").await?;
                    let now = now(conn).await?;
                    let rows: Vec<Row> =
                        conn.all(DUE, args![now, now, now, now, now, limit]).await?;
                    self::lease(conn, &rows, now, now + lease).await?;
                    Ok(rows.into_iter().map(|row| loaded(row, 1, now)).collect())
                })
            })
            .await
    }

    async fn done(&self, rows: &[OutboxId]) -> Result<()> {
        const DELETE: &str = "DELETE FROM hubbub_outbox WHERE id IN ({list})";
        for part in rows.chunks(MAX_ROWS) {
            let ids: Vec<Arg> = part.iter().map(|id| Arg::from(*id)).collect();
            self.change(DELETE, Vec::new(), ids).await?;
        }
        Ok(())
    }

    async fn retry(&self, rows: &[OutboxId], delay: Duration, reason: &str) -> Result<()> {
        const RETRY: &str = "UPDATE hubbub_outbox \
            SET lease_until = 0, due_at = {now} + ?, reason = ? WHERE id IN ({list})";
        for part in rows.chunks(MAX_ROWS) {
            let ids: Vec<Arg> = part.iter().map(|id| Arg::from(*id)).collect();
            let values = args![millis(delay), shortened(reason)];
            self.change(RETRY, values, ids).await?;
        }
        Ok(())
    }

    async fn fail(&self, row: OutboxId, reason: &str) -> Result<()> {
        const FAIL: &str = "UPDATE hubbub_outbox \
            SET state = 1, lease_until = 0, reason = ? WHERE id IN ({list})";
        let values = args![shortened(reason)];
        self.change(FAIL, values, args![row]).await.map(drop)
    }

    async fn next_due(&self) -> Result<Option<Duration>> {
        const NEXT: &str = "SELECT CAST(CASE WHEN due_at > lease_until THEN due_at \
                ELSE lease_until END - {now} AS {bigint}) \
            FROM hubbub_outbox o WHERE state = 0 AND room_id IS NOT NULL AND NOT EXISTS \
                (SELECT e.id FROM hubbub_outbox e \
                 WHERE e.room_id = o.room_id AND e.id < o.id AND e.state = 0 \
                 AND (e.lease_until > {now} OR (e.attempts > 0 AND e.due_at > {now}))) \
            ORDER BY due_at LIMIT 1";
        let next: Vec<(i64,)> = self.db().all(NEXT, args![]).await?;
        let until = |(millis,): &(i64,)| Duration::from_millis(u64::try_from(*millis).unwrap_or(0));
        Ok(next.first().map(until))
    }

    async fn has_waiting(&self, room: &RoomId) -> Result<bool> {
        const WAITING: &str =
            "SELECT id FROM hubbub_outbox WHERE room_id = ? AND state = 0 ORDER BY id LIMIT 1";
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
        const REVIVE: &str = "UPDATE hubbub_outbox \
            SET state = 0, due_at = 0, attempts = 0 WHERE id IN ({list}) AND \
            (state = 1 OR (attempts > 0 AND due_at > {now} AND lease_until <= {now}))";
        let changed = self.change(REVIVE, Vec::new(), args![row]).await?;
        Ok(changed > 0)
    }
}

impl SqlStore {
    /// Runs a statement for rows, and returns how many it has changed.
    async fn change(
        &self,
        template: &'static str,
        values: Vec<Arg>,
        rows: Vec<Arg>,
    ) -> Result<u64> {
        self.db()
            .transaction(move |conn| {
                let (text, rows) = conn.dialect().with_list(template, rows.clone());
                let values = [values.clone(), rows].concat();
                Box::pin(async move { conn.run_text(text, values).await })
            })
            .await
    }
}
