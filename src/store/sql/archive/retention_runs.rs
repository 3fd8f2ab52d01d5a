//! Runs of retention: one at a time in a cluster, each with its report.

use uuid::Uuid;

use super::super::meta::{self, RETENTION_CLAIM};
use super::{loaded, stored};
use crate::domain::Timestamp;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Arg, args};
use crate::store::{Result, RetentionClaim, RetentionRun};

/// How long the reports of runs are kept.
const KEPT_MILLIS: u64 = 90 * 86_400_000;

pub(super) async fn begin(db: &Db, run: &RetentionRun, claim: &RetentionClaim) -> Result<bool> {
    const INSERT: &str = "INSERT INTO hubbub_retention_runs \
        (reported_at, finished_at, rooms, entries, bytes, id, started_at, cutoff) \
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    const PREVENTING: &str = "SELECT COUNT(*) FROM hubbub_retention_runs \
        WHERE (finished_at IS NULL AND reported_at >= ?) \
        OR (finished_at IS NOT NULL AND cutoff >= ?)";
    const FORGET: &str = "DELETE FROM hubbub_retention_runs WHERE started_at < ?";
    let preventing = args![stored(claim.alive_since.0)?, stored(claim.done_since.0)?];
    let mut values = progress(run)?;
    values.extend(args![stored(run.started_at.0)?, stored(run.cutoff.0)?]);
    let forgotten = stored(run.started_at.0.saturating_sub(KEPT_MILLIS))?;
    db.transaction(move |conn| {
        let (preventing, values) = (preventing.clone(), values.clone());
        Box::pin(async move {
            // Locking the runs themselves would not do: the first one has no row to lock.
            meta::lock(conn, RETENTION_CLAIM, "").await?;
            let found: Option<(i64,)> = conn.first(PREVENTING, preventing).await?;
            if found.is_none_or(|(count,)| count > 0) {
                return Ok(false);
            }
            conn.run(FORGET, args![forgotten]).await?;
            conn.run(INSERT, values).await?;
            Ok(true)
        })
    })
    .await
}

/// The values of a run that change, and its id.
fn progress(run: &RetentionRun) -> Outcome<Vec<Arg>> {
    let finished_at = run.finished_at.map(|at| stored(at.0)).transpose()?;
    Ok(args![
        stored(run.reported_at.0)?,
        finished_at,
        stored(run.rooms)?,
        stored(run.entries)?,
        stored(run.bytes)?,
        run.id,
    ])
}

pub(super) async fn report(db: &Db, run: &RetentionRun) -> Result<()> {
    const UPDATE: &str = "UPDATE hubbub_retention_runs SET reported_at = ?, finished_at = ?, \
        rooms = ?, entries = ?, bytes = ? WHERE id = ?";
    let values = progress(run)?;
    db.transaction(move |conn| {
        let values = values.clone();
        Box::pin(async move { conn.run(UPDATE, values).await.map(drop) })
    })
    .await
}

pub(super) async fn last(db: &Db) -> Result<Option<RetentionRun>> {
    const LAST: &str = "SELECT id, started_at, reported_at, finished_at, cutoff, rooms, entries, bytes \
        FROM hubbub_retention_runs WHERE finished_at IS NOT NULL \
        ORDER BY cutoff DESC LIMIT 1";
    type Row = (Uuid, i64, i64, Option<i64>, i64, i64, i64, i64);
    let found: Vec<Row> = db.all(LAST, args![]).await?;
    let run = |(id, started_at, reported_at, finished_at, cutoff, rooms, entries, bytes): Row| {
        let time = |millis| Timestamp(loaded(millis));
        RetentionRun {
            id,
            started_at: time(started_at),
            reported_at: time(reported_at),
            finished_at: finished_at.map(time),
            cutoff: time(cutoff),
            rooms: loaded(rooms),
            entries: loaded(entries),
            bytes: loaded(bytes),
        }
    };
    Ok(found.into_iter().next().map(run))
}
