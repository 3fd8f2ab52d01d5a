//! Jobs in a database: the rows of `hubbub_outbox` without a room.
//!
//! The number of attempts, which each claim raises, identifies a claim.

use std::time::Duration;

use async_trait::async_trait;

use super::accounts::now;
use super::meta::{self, JOB_CLAIM};
use super::outbox::{self, MAX_ROWS, Row, loaded, millis, shortened};
use super::store::SqlStore;
use super::value::{Arg, args};
use crate::store::{JobEnd, JobQueue, OutboxRow, Result};

/// The attempts of a claim, as they are stored.
fn claim_of(job: &OutboxRow) -> i64 {
    i64::try_from(job.attempts).unwrap_or(i64::MAX)
}

#[async_trait]
impl JobQueue for SqlStore {
    async fn job_added(&self) {
        self.jobs_announced().await;
    }

    async fn claim_jobs(
        &self,
        kinds: &[&'static str],
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<OutboxRow>> {
        const DUE: &str = "SELECT id, room_id, type, payload, attempts, \
            CAST(COALESCE(tried_since, ?) AS {bigint}) FROM hubbub_outbox \
            WHERE state = 0 AND room_id IS NULL AND due_at <= ? AND lease_until <= ? \
            AND type IN ({list}) ORDER BY due_at, id LIMIT ?";
        if kinds.is_empty() {
            return Ok(Vec::new());
        }
        let kinds: Vec<Arg> = kinds.iter().map(|kind| Arg::from(*kind)).collect();
        let limit = limit.min(MAX_ROWS) as i64;
        let lease = millis(lease);
        self.db()
            .transaction(move |conn| {
                let (text, kinds) = conn.dialect().with_list(DUE, kinds.clone());
                Box::pin(async move {
                    // One claim at a time: no two get the same job.
                    meta::lock(conn, JOB_CLAIM, "").await?;
                    let now = now(conn).await?;
                    let values = [args![now, now, now], kinds, args![limit]].concat();
                    let rows: Vec<Row> = conn.all_of_text(text, values).await?;
                    outbox::lease(conn, &rows, now, now + lease).await?;
                    Ok(rows.into_iter().map(|row| loaded(row, 1, now)).collect())
                })
            })
            .await
    }

    async fn next_job_due(&self, kinds: &[&'static str]) -> Result<Option<Duration>> {
        const NEXT: &str = "SELECT CAST(MIN(CASE WHEN due_at > lease_until THEN due_at \
                ELSE lease_until END) - {now} AS {bigint}) \
            FROM hubbub_outbox WHERE state = 0 AND room_id IS NULL AND type IN ({list})";
        if kinds.is_empty() {
            return Ok(None);
        }
        let kinds: Vec<Arg> = kinds.iter().map(|kind| Arg::from(*kind)).collect();
        let (text, kinds) = self.db().dialect().with_list(NEXT, kinds);
        let next: Option<(Option<i64>,)> = self
            .db()
            .read(move |conn| {
                let kinds = kinds.clone();
                Box::pin(async move { Ok(conn.all_of_text(text, kinds).await?.into_iter().next()) })
            })
            .await?;
        let millis = next.and_then(|(millis,)| millis);
        Ok(millis.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0))))
    }

    async fn renew_job(&self, job: &OutboxRow, lease: Duration) -> Result<bool> {
        const RENEW: &str = "UPDATE hubbub_outbox SET lease_until = {now} + ? \
            WHERE id = ? AND attempts = ? AND state = 0";
        self.change_job(RENEW, args![millis(lease), job.id, claim_of(job)])
            .await
    }

    async fn end_job(&self, job: &OutboxRow, end: JobEnd) -> Result<bool> {
        const DONE: &str = "DELETE FROM hubbub_outbox WHERE id = ? AND attempts = ? AND state = 0";
        const RETRY: &str = "UPDATE hubbub_outbox \
            SET lease_until = 0, due_at = {now} + ?, reason = ? \
            WHERE id = ? AND attempts = ? AND state = 0";
        const FAIL: &str = "UPDATE hubbub_outbox SET state = 1, lease_until = 0, reason = ? \
            WHERE id = ? AND attempts = ? AND state = 0";
        let (id, claim) = (job.id, claim_of(job));
        match end {
            JobEnd::Done => self.change_job(DONE, args![id, claim]).await,
            JobEnd::Retry { delay, reason } => {
                let values = args![millis(delay), shortened(&reason), id, claim];
                self.change_job(RETRY, values).await
            }
            JobEnd::Failed { reason } => {
                self.change_job(FAIL, args![shortened(&reason), id, claim])
                    .await
            }
        }
    }
}

impl SqlStore {
    /// Runs a statement for one job. Returns whether it has changed the job.
    async fn change_job(&self, template: &'static str, values: Vec<Arg>) -> Result<bool> {
        self.db()
            .transaction(move |conn| {
                let values = values.clone();
                Box::pin(async move { Ok(conn.run(template, values).await? > 0) })
            })
            .await
    }
}
