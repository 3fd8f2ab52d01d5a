//! Failed logins.

use std::time::Duration;

use super::now;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::args;
use crate::store::{LoginLimit, Result};

pub(super) async fn count(
    db: &Db,
    limits: &[LoginLimit],
    window: Duration,
) -> Result<Option<Duration>> {
    let mut limits = limits.to_vec();
    // In one order, so that calls don't wait for each other in a circle.
    limits.sort_unstable_by_key(|limit| limit.subject);
    let window = i64::try_from(window.as_millis()).unwrap_or(i64::MAX / 2);
    db.transaction(move |conn| {
        let limits = limits.clone();
        Box::pin(async move { count_in(conn, &limits, window).await })
    })
    .await
}

async fn count_in(
    conn: &mut Conn,
    limits: &[LoginLimit],
    window: i64,
) -> Outcome<Option<Duration>> {
    const ADD: &str = "INSERT INTO hubbub_login_failures (subject, began_at, failures) \
        VALUES (?, ?, 0) {if_absent:subject}";
    const FIND: &str = "SELECT began_at, failures FROM hubbub_login_failures \
        WHERE subject = ? {for_update}";
    const REMOVE: &str = "DELETE FROM hubbub_login_failures WHERE subject = ?";
    const SET: &str =
        "UPDATE hubbub_login_failures SET began_at = ?, failures = ? WHERE subject = ?";
    let now = now(conn).await?;
    let mut counted = Vec::new();
    for limit in limits {
        let subject = limit.subject.to_vec();
        conn.run(ADD, args![subject.clone(), now]).await?;
        let found: Option<(i64, i64)> = conn.first(FIND, args![subject.clone()]).await?;
        let (began_at, failures) = found.unwrap_or((now, 0));
        let (began_at, failures) = if began_at + window <= now {
            (now, 0)
        } else {
            (began_at, failures)
        };
        if u64::try_from(failures).unwrap_or(0) >= limit.failures {
            // A refused attempt leaves no rows.
            for (subject, _, failures) in counted {
                if failures == 1 {
                    conn.run(REMOVE, args![subject]).await?;
                }
            }
            let left = u64::try_from(began_at + window - now).unwrap_or(0);
            return Ok(Some(Duration::from_millis(left)));
        }
        counted.push((subject, began_at, failures + 1));
    }
    for (subject, began_at, failures) in counted {
        conn.run(SET, args![began_at, failures, subject]).await?;
    }
    Ok(None)
}

pub(super) async fn uncount(db: &Db, limits: &[LoginLimit]) -> Result<()> {
    const FORGET: &str = "DELETE FROM hubbub_login_failures WHERE subject = ?";
    const LESS: &str = "UPDATE hubbub_login_failures SET failures = failures - 1 \
        WHERE subject = ? AND failures > 0";
    let mut limits = limits.to_vec();
    limits.sort_unstable_by_key(|limit| limit.subject);
    db.transaction(move |conn| {
        let limits = limits.clone();
        Box::pin(async move {
            for limit in &limits {
                let statement = match limit.forgotten_by_success {
                    true => FORGET,
                    false => LESS,
                };
                conn.run(statement, args![limit.subject.to_vec()]).await?;
            }
            Ok(())
        })
    })
    .await
}
