//! The check of the archive by nodes: its claim, and the search for missing numbers in steps.

use super::gaps::{Scan, bounds, losses, unsigned, without};
use super::stored;
use crate::domain::{RoomId, Timestamp};
use crate::store::sql::db::Db;
use crate::store::sql::value::{Text, args};
use crate::store::{MissingPage, Result};

/// The entry of `hubbub_meta` with the time of the last claim, in milliseconds.
const NAME: &str = "check_claim";

pub(super) async fn claim(db: &Db, now: Timestamp, since: Timestamp) -> Result<bool> {
    const ADD: &str = "INSERT INTO hubbub_meta (name, value) VALUES (?, ?) {if_absent:name}";
    const LOCK: &str = "UPDATE hubbub_meta SET value = value WHERE name = ?";
    const FIND: &str = "SELECT value FROM hubbub_meta WHERE name = ?";
    const SET: &str = "UPDATE hubbub_meta SET value = ? WHERE name = ?";
    db.transaction(move |conn| {
        Box::pin(async move {
            conn.run(ADD, args![NAME, "0"]).await?;
            conn.run(LOCK, args![NAME]).await?;
            let found: Option<(Text,)> = conn.first(FIND, args![NAME]).await?;
            let last: u64 = found.map_or(0, |(text,)| text.0.parse().unwrap_or(0));
            if last >= since.0 {
                return Ok(false);
            }
            conn.run(SET, args![now.0.to_string(), NAME]).await?;
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
