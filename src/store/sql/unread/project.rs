//! The projection: brings the blocks of rooms up to date with their entries.
//!
//! It goes over the entries of a room in their order, and stops before a number that is missing: its
//! entry may be in a commit that has not ended. It goes on [`HOLE_AGE`] after it has met the missing number
//! first, when a commit of the entry would be a late one, for which
//! [`entries_added`](super::entries_added) goes back. That age is measured by the database's clock alone:
//! the times of entries are those of another clock.

use super::block::{Author, Block, block_of};
use super::rooms::{self, LockedRoom, NOT_CAPPED, Seen};
use crate::domain::RoomId;
use crate::store::sql::accounts::now;
use crate::store::sql::archive;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::store::SqlStore;
use crate::store::sql::value::{Text, args};
use crate::store::{Result, StoredKind, UNREAD_CAP};

/// The rooms of one transaction: on SQLite commits wait for it.
const ROOMS_PER_TRANSACTION: usize = 16;
/// The entries of a room in one transaction.
const ENTRIES_PER_ROOM: usize = 1024;
/// How long, in milliseconds, a number must be missing until no first attempt to commit its entry is under
/// way: each later one is fenced.
pub(super) const HOLE_AGE: i64 = 60_000;
/// The age of an entry that shows the same, in milliseconds, although the clocks of the log and of the
/// database may differ by an hour: so old entries are projected at once.
pub(super) const OLD_AGE: i64 = 3_600_000 + HOLE_AGE;
/// The most rooms that a reader has noted which one call projects.
const NOTED_ROOMS: usize = 64;

/// See [`ArchiveStore::project_unread`](crate::store::ArchiveStore::project_unread).
pub(in crate::store::sql) async fn project(store: &SqlStore, rooms: &[RoomId]) -> Result<bool> {
    let mut numbers = store.behind().take(NOTED_ROOMS);
    for part in rooms.chunks(NOTED_ROOMS) {
        numbers.extend(find(store.db(), part).await?);
    }
    numbers.sort_unstable();
    numbers.dedup();
    let unfinished = project_numbers(store.db(), &numbers).await?;
    let is_done = unfinished.is_empty();
    store.behind().note(unfinished);
    Ok(!is_done)
}

/// See [`ArchiveStore::project_unread_after`](crate::store::ArchiveStore::project_unread_after).
pub(in crate::store::sql) async fn project_next(
    store: &SqlStore,
    after: u64,
) -> Result<Option<u64>> {
    const NEXT: &str = "SELECT CAST(r.no AS {bigint}), COALESCE(u.projected_seq, 0), r.cut_seq, \
        COALESCE((SELECT e.seq FROM hubbub_entries e WHERE e.room_no = r.no \
         ORDER BY e.seq DESC LIMIT 1), 0) \
        FROM hubbub_rooms r LEFT JOIN hubbub_unread_rooms u ON u.room_no = r.no \
        WHERE r.no > ? ORDER BY r.no LIMIT ?";
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let limit = i64::try_from(NOTED_ROOMS).unwrap_or(i64::MAX);
    let page: Vec<(i64, i64, i64, i64)> = store.db().all(NEXT, args![after, limit]).await?;
    let Some((last, ..)) = page.last().copied() else {
        return Ok(None);
    };
    let is_behind = |(no, projected, cut, head): (i64, i64, i64, i64)| {
        (head > projected.max(cut)).then_some(no)
    };
    let mut left: Vec<i64> = page.into_iter().filter_map(is_behind).collect();
    while !left.is_empty() {
        left = project_numbers(store.db(), &left).await?;
    }
    Ok(u64::try_from(last).ok())
}

async fn find(db: &Db, rooms: &[RoomId]) -> Result<Vec<i64>> {
    let rooms = rooms.to_vec();
    db.read(move |conn| {
        let rooms = rooms.clone();
        Box::pin(async move {
            let rooms: Vec<&RoomId> = rooms.iter().collect();
            let found = archive::find_numbers(conn, &rooms).await?;
            Ok(found.into_values().collect())
        })
    })
    .await
}

/// Projects a part of each of these rooms. Returns those with more to project.
async fn project_numbers(db: &Db, room_nos: &[i64]) -> Result<Vec<i64>> {
    let mut unfinished = Vec::new();
    for part in room_nos.chunks(ROOMS_PER_TRANSACTION) {
        let part = part.to_vec();
        let left = db
            .transaction(move |conn| {
                let part = part.clone();
                Box::pin(async move { project_in(conn, &part).await })
            })
            .await?;
        unfinished.extend(left);
    }
    Ok(unfinished)
}

async fn project_in(conn: &mut Conn, room_nos: &[i64]) -> Outcome<Vec<i64>> {
    let now = now(conn).await?;
    let mut unfinished = Vec::new();
    for mut room in rooms::lock(conn, room_nos).await? {
        if project_room(conn, &mut room, now).await? {
            unfinished.push(room.no);
        }
    }
    Ok(unfinished)
}

/// `seq`, `at`, `kind`, whether it is a reply, and the author.
type EntryRow = (i64, i64, i64, i64, Text);

/// Projects a part of a room, and returns whether there is more.
async fn project_room(conn: &mut Conn, room: &mut LockedRoom, now: i64) -> Outcome<bool> {
    const ENTRIES: &str = "SELECT e.seq, e.at, CAST(e.kind AS {bigint}), \
        CAST(CASE WHEN EXISTS (SELECT 1 FROM hubbub_replies y \
         WHERE y.room_no = e.room_no AND y.seq = e.seq) THEN 1 ELSE 0 END AS {bigint}), e.user_id \
        FROM hubbub_entries e WHERE e.room_no = ? AND e.seq > ? ORDER BY e.seq LIMIT ?";
    let limit = i64::try_from(ENTRIES_PER_ROOM).unwrap_or(i64::MAX);
    let values = args![room.no, room.projected, limit];
    let entries: Vec<EntryRow> = conn.all(ENTRIES, values).await?;
    let is_page_full = entries.len() == ENTRIES_PER_ROOM;
    let newest = entries.last().map_or(0, |(seq, ..)| *seq);
    let (before, seen_before) = (room.projected, room.seen.seq);
    let mut open = OpenBlock::load(conn, room).await?;
    for (seq, at, kind, is_reply, author) in entries {
        let is_after_hole = seq > room.projected + 1;
        if is_after_hole && !room.may_pass_hole(seq, at, now) {
            if seq > room.seen.seq {
                room.seen = Seen {
                    seq: newest,
                    at: now,
                };
            }
            break;
        }
        if open.number != block_of(seq) {
            open.store(conn, room).await?;
            open = OpenBlock::new(block_of(seq));
        }
        if kind == StoredKind::MESSAGE.0 && is_reply == 0 {
            open.block.add(seq, Author::of(&author.0));
            open.is_changed = true;
        }
        room.projected = seq;
    }
    if room.projected == before {
        if room.seen.seq != seen_before {
            room.store(conn).await?;
        }
        return Ok(false);
    }
    open.store(conn, room).await?;
    let is_long = u64::try_from(room.projected).is_ok_and(|last| last > UNREAD_CAP);
    if is_long && (room.capped == NOT_CAPPED || block_of(before) != block_of(room.projected)) {
        room.find_capped(conn).await?;
    }
    room.store(conn).await?;
    Ok(is_page_full)
}

impl LockedRoom {
    /// Whether the missing numbers before an entry, which was numbered at this time, may be passed.
    fn may_pass_hole(&self, seq: i64, at: i64, now: i64) -> bool {
        let is_long = seq <= self.seen.seq && now - self.seen.at >= HOLE_AGE;
        is_long || now - at >= OLD_AGE
    }
}

/// The block that the projection has come to.
struct OpenBlock {
    number: i64,
    block: Block,
    is_new: bool,
    is_changed: bool,
}

impl OpenBlock {
    /// A block after the last one of the room.
    fn new(number: i64) -> Self {
        Self {
            number,
            block: Block::default(),
            is_new: true,
            is_changed: false,
        }
    }

    /// The block of the last projected number.
    async fn load(conn: &mut Conn, room: &LockedRoom) -> Outcome<Self> {
        let number = block_of(room.projected);
        let stored = room.block(conn, number).await?;
        Ok(Self {
            number,
            is_new: stored.is_none(),
            block: stored.unwrap_or_default(),
            is_changed: false,
        })
    }

    async fn store(&self, conn: &mut Conn, room: &LockedRoom) -> Outcome<()> {
        if !self.is_changed {
            return Ok(());
        }
        room.store_block(conn, self.number, &self.block, self.is_new)
            .await
    }
}
