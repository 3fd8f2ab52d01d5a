//! The check of the archive by nodes: its claim, and the search for missing numbers in steps.

use super::super::meta::{self, CHECK_CLAIM};
use super::gaps::{Scan, bounds, losses, unsigned, without};
use super::stored;
use crate::domain::{RoomId, Timestamp};
use crate::store::sql::db::Db;
use crate::store::{MissingPage, Result};

pub(super) async fn claim(db: &Db, now: Timestamp, since: Timestamp) -> Result<bool> {
    db.transaction(move |conn| {
        Box::pin(async move {
            meta::lock(conn, CHECK_CLAIM, "0").await?;
            let found = meta::find(conn, CHECK_CLAIM).await?;
            let last: u64 = found.map_or(0, |text| text.parse().unwrap_or(0));
            if last >= since.0 {
                return Ok(false);
            }
            meta::set(conn, CHECK_CLAIM, &now.0.to_string()).await?;
            Ok(true)
        })
    })
    .await
}

pub(super) async fn find_missing(db: &Db, room: &RoomId, after: u64) -> Result<MissingPage> {
    let Some(bounds) = bounds(db, room).await? else {
        return Ok(MissingPage::default());
    };
    let (room_no, lower) = (bounds.room_no, stored(after)?.max(bounds.cut));
    if lower >= bounds.last {
        return Ok(MissingPage::default());
    }
    let (page, next) = Scan::step(db, room_no, lower, bounds.last).await?;
    let mut missing = page.holes;
    if !missing.is_empty() {
        let losses = db.read(move |conn| Box::pin(losses(conn, room_no))).await?;
        missing = without(&missing, &losses);
    }
    Ok(MissingPage {
        missing: missing.into_iter().map(unsigned).collect(),
        next: next.map(super::loaded),
    })
}
