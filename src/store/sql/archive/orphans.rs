//! Rows whose room `hubbub_rooms` doesn't have.

use super::{loaded, rows};
use crate::store::sql::db::Db;
use crate::store::sql::value::args;
use crate::store::{Orphans, Result};

/// The rooms that are listed at once.
const ROOMS_PER_PAGE: usize = 10_000;

macro_rules! search {
    ($table:literal) => {
        (
            $table,
            concat!(
                "SELECT COUNT(*), COUNT(DISTINCT t.room_no), CAST(MIN(t.room_no) AS {bigint}) FROM ",
                $table,
                " t WHERE NOT EXISTS (SELECT 1 FROM hubbub_rooms r WHERE r.no = t.room_no)"
            ),
        )
    };
}

/// Tables with few rows, which one statement searches.
const SMALL_TABLES: [(&str, &str); 11] = [
    search!("hubbub_epochs"),
    search!("hubbub_gaps"),
    search!("hubbub_messages"),
    search!("hubbub_message_changes"),
    search!("hubbub_reactions"),
    search!("hubbub_pins"),
    search!("hubbub_replies"),
    search!("hubbub_threads"),
    search!("hubbub_mentions"),
    search!("hubbub_positions"),
    search!("hubbub_thread_positions"),
];

pub(super) async fn find(db: &Db) -> Result<Vec<Orphans>> {
    let mut found = vec![of_entries(db).await?];
    for (table, search) in SMALL_TABLES {
        let sums: Vec<(i64, i64, Option<i64>)> = db.all(search, args![]).await?;
        let (rows, rooms, first) = sums.first().copied().unwrap_or_default();
        found.push(Orphans {
            table,
            rows: loaded(rows),
            rooms: loaded(rooms),
            first: first.unwrap_or(0),
        });
    }
    found.retain(|orphans| orphans.rows > 0);
    Ok(found)
}

/// Searches `hubbub_entries` by its key between the numbers of rooms, so that the cost depends on the
/// number of rooms and not on that of entries, and each statement is short.
async fn of_entries(db: &Db) -> Result<Orphans> {
    const ROOMS: &str =
        "SELECT CAST(no AS {bigint}) FROM hubbub_rooms WHERE no > ? ORDER BY no LIMIT ?";
    let mut found = Orphans {
        table: "hubbub_entries",
        rows: 0,
        rooms: 0,
        first: 0,
    };
    let mut after = i64::MIN;
    loop {
        let page: Vec<(i64,)> = db.all(ROOMS, args![after, rows(ROOMS_PER_PAGE)]).await?;
        let is_last = page.len() < ROOMS_PER_PAGE;
        for (no,) in page {
            if no.saturating_sub(after) > 1 {
                search(db, (after, no), &mut found).await?;
            }
            after = no;
        }
        if is_last {
            search(db, (after, i64::MAX), &mut found).await?;
            return Ok(found);
        }
    }
}

/// Adds the entries of rooms whose numbers lie between these two.
async fn search(db: &Db, (mut after, before): (i64, i64), found: &mut Orphans) -> Result<()> {
    const NEXT: &str = "SELECT CAST(room_no AS {bigint}) FROM hubbub_entries \
        WHERE room_no > ? AND room_no < ? ORDER BY room_no, seq LIMIT 1";
    const COUNT: &str = "SELECT COUNT(*) FROM hubbub_entries WHERE room_no = ?";
    // A room may have been added since its neighbours were listed.
    const ROOM: &str = "SELECT CAST(no AS {bigint}) FROM hubbub_rooms WHERE no = ?";
    loop {
        let next: Vec<(i64,)> = db.all(NEXT, args![after, before]).await?;
        let Some((no,)) = next.first().copied() else {
            return Ok(());
        };
        after = no;
        let rooms: Vec<(i64,)> = db.all(ROOM, args![no]).await?;
        if !rooms.is_empty() {
            continue;
        }
        let count: Vec<(i64,)> = db.all(COUNT, args![no]).await?;
        if found.rooms == 0 {
            found.first = no;
        }
        found.rooms += 1;
        found.rows += count.first().map_or(0, |(count,)| loaded(*count));
    }
}
