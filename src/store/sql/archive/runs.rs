//! Runs of a lone node, the database's id, and the log that it belongs to.

use uuid::Uuid;

use super::super::meta::{self, COPY_OF, DEPLOYMENT, LOG};
use super::{loaded, stored};
use crate::store::sql::db::Db;
use crate::store::sql::fault::Fault;
use crate::store::sql::value::args;
use crate::store::{Result, Run};

pub(super) async fn begin(db: &Db) -> Result<Run> {
    const LAST: &str = "SELECT MAX(no), MAX(CASE WHEN ended = 0 THEN no END) FROM hubbub_runs";
    const INSERT: &str = "INSERT INTO hubbub_runs (no, ended) VALUES (?, 0)";
    db.transaction(|conn| {
        Box::pin(async move {
            let last: Option<(Option<i64>, Option<i64>)> = conn.first(LAST, args![]).await?;
            let (last, crashed) = last.unwrap_or_default();
            let number = last.unwrap_or(0) + 1;
            let inserted = conn.run(INSERT, args![number]).await;
            inserted.map_err(|fault| match fault {
                // Another node has begun a run at the same time.
                Fault::Taken(text) => Fault::Again(text),
                fault => fault,
            })?;
            Ok(Run {
                number: loaded(number),
                last_crashed: loaded(crashed.unwrap_or(0)),
            })
        })
    })
    .await
}

pub(super) async fn end(db: &Db, run: u64) -> Result<()> {
    const END: &str = "UPDATE hubbub_runs SET ended = 1 WHERE no = ?";
    let run = stored(run)?;
    db.transaction(move |conn| Box::pin(async move { conn.run(END, args![run]).await.map(drop) }))
        .await
}

pub(super) async fn deployment(db: &Db) -> Result<Uuid> {
    let deployment = db.transaction(|conn| {
        Box::pin(async move {
            if let Some(of) = meta::find_id(conn, COPY_OF).await? {
                return Err(Fault::Broken(format!(
                    "it is an incomplete copy of the archive {of}: run `hubbub db copy` again"
                )));
            }
            if let Some(known) = meta::find_id(conn, DEPLOYMENT).await? {
                return Ok(known);
            }
            let new = Uuid::new_v4().to_string();
            meta::add(conn, DEPLOYMENT, &new).await?;
            let id = meta::find_id(conn, DEPLOYMENT).await?;
            id.ok_or_else(|| Fault::Again("the id was removed".to_owned()))
        })
    });
    deployment.await
}

pub(super) async fn record_log(db: &Db, name: &str, replaced: Option<&str>) -> Result<bool> {
    let (name, replaced) = (name.to_owned(), replaced.map(ToOwned::to_owned));
    db.transaction(move |conn| {
        let (name, replaced) = (name.clone(), replaced.clone());
        Box::pin(async move {
            // A missing entry is added with the new name, which is then found in place of nothing.
            meta::lock(conn, LOG, &name).await?;
            let found = meta::find(conn, LOG).await?;
            if found.as_ref() != Some(replaced.as_ref().unwrap_or(&name)) {
                return Ok(false);
            }
            meta::set(conn, LOG, &name).await?;
            Ok(true)
        })
    })
    .await
}
