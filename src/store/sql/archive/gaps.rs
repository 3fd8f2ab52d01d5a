//! Numbers without an entry: lost ones, which are recorded, and missing ones.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use ahash::AHashMap;

use super::rooms::{self, LockedRoom};
use super::writer::Key;
use super::{epochs, loaded, rows, stored};
use crate::domain::RoomId;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::args;
use crate::store::{EPOCHS_KEPT, Result, RoomAudit};

/// Keys that are read by one statement.
const KEYS_PER_PAGE: usize = 10_000;

type Range = RangeInclusive<i64>;

/// A page of keys: how many, the lowest, the highest, and the bytes of their records.
const COUNT_KEYS: &str = "SELECT COUNT(*), MIN(t.seq), MAX(t.seq), \
    CAST(COALESCE(SUM(t.bytes), 0) AS {bigint}) FROM \
    (SELECT seq, LENGTH(record) AS bytes FROM hubbub_entries \
    WHERE room_no = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?) t";

const KEYS: &str = "SELECT seq FROM hubbub_entries \
    WHERE room_no = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?";

/// The result of reading the keys of a range.
#[derive(Debug, Default)]
pub(super) struct Scan {
    entries: i64,
    bytes: i64,
    first: Option<i64>,
    last: Option<i64>,
    /// Numbers of the range without an entry.
    pub(super) holes: Vec<Range>,
}

impl Scan {
    /// Reads one page of keys after `lower`. Returns where the next page begins; `None` at the end.
    async fn page(
        &mut self,
        conn: &mut Conn,
        room_no: i64,
        lower: i64,
        upper: i64,
    ) -> Outcome<Option<i64>> {
        let bounds = || args![room_no, lower, upper, rows(KEYS_PER_PAGE)];
        let page: Option<(i64, Option<i64>, Option<i64>, i64)> =
            conn.first(COUNT_KEYS, bounds()).await?;
        let Some((count, Some(first), Some(last), bytes)) = page else {
            self.add_hole(lower + 1, upper);
            return Ok(None);
        };
        self.entries += count;
        self.bytes += bytes;
        self.first = self.first.or(Some(first));
        self.last = Some(last);
        if last - lower != count {
            let keys: Vec<(i64,)> = conn.all(KEYS, bounds()).await?;
            let mut before = lower;
            for (seq,) in keys {
                self.add_hole(before + 1, seq - 1);
                before = seq;
            }
        }
        if count == rows(KEYS_PER_PAGE) {
            return Ok(Some(last));
        }
        self.add_hole(last + 1, upper);
        Ok(None)
    }

    fn add_hole(&mut self, from: i64, to: i64) {
        if from <= to {
            self.holes.push(from..=to);
        }
    }

    /// Reads the keys in `(lower, upper]` on one connection.
    async fn whole(conn: &mut Conn, room_no: i64, lower: i64, upper: i64) -> Outcome<Self> {
        let mut scan = Self::default();
        let mut next = Some(lower);
        while let Some(lower) = next {
            next = scan.page(conn, room_no, lower, upper).await?;
        }
        Ok(scan)
    }

    /// One page of keys after `lower`, and where the next one begins. Page by page no statement and no
    /// transaction is long.
    pub(super) async fn step(
        db: &Db,
        room_no: i64,
        lower: i64,
        upper: i64,
    ) -> Result<(Self, Option<i64>)> {
        db.read(move |conn| {
            Box::pin(async move {
                let mut scan = Self::default();
                let next = scan.page(conn, room_no, lower, upper).await?;
                Ok((scan, next))
            })
        })
        .await
    }

    /// Reads the keys in `(lower, upper]` page by page.
    async fn in_steps(db: &Db, room_no: i64, lower: i64, upper: i64) -> Result<Self> {
        let mut scan = Self::default();
        let mut next = Some(lower);
        while let Some(lower) = next {
            let (page, following) = Self::step(db, room_no, lower, upper).await?;
            scan.entries += page.entries;
            scan.bytes += page.bytes;
            scan.first = scan.first.or(page.first);
            scan.last = page.last.or(scan.last);
            scan.holes.extend(page.holes);
            next = following;
        }
        Ok(scan)
    }
}

/// A room's bounds for a search: the recorded ones, and the last entry.
pub(super) struct Bounds {
    pub(super) room_no: i64,
    contiguous: i64,
    pub(super) cut: i64,
    pub(super) last: i64,
}

pub(super) async fn bounds(db: &Db, room: &RoomId) -> Result<Option<Bounds>> {
    const BOUNDS: &str = "SELECT CAST(r.no AS {bigint}), r.contiguous_seq, r.cut_seq, \
        (SELECT e.seq FROM hubbub_entries e WHERE e.room_no = r.no ORDER BY e.seq DESC LIMIT 1) \
        FROM hubbub_rooms r WHERE r.name = ?";
    let found: Vec<(i64, i64, i64, Option<i64>)> = db.all(BOUNDS, args![room.as_str()]).await?;
    let bounds = found.into_iter().next();
    Ok(bounds.map(|(room_no, contiguous, cut, last)| Bounds {
        room_no,
        contiguous,
        cut,
        last: last.unwrap_or(0),
    }))
}

/// The recorded losses of a room, in order.
pub(super) async fn losses(conn: &mut Conn, room_no: i64) -> Outcome<Vec<Range>> {
    const LOSSES: &str =
        "SELECT first_seq, last_seq FROM hubbub_gaps WHERE room_no = ? ORDER BY first_seq";
    let found: Vec<(i64, i64)> = conn.all(LOSSES, args![room_no]).await?;
    Ok(found.into_iter().map(|(from, to)| from..=to).collect())
}

pub(super) const INSERT: &str =
    "INSERT INTO hubbub_gaps (room_no, first_seq, last_seq) VALUES (?, ?, ?)";

/// The newest recorded losses, whose numbers are looked at again when another loss is recorded.
const RECENT_LOSSES: usize = 16;

/// Records the numbers of `ranges` as lost that have no entry. Returns those that were not recorded
/// yet. Numbers of recent losses that have got an entry since then are lost no more.
async fn record(conn: &mut Conn, room: &LockedRoom, ranges: &[Range]) -> Outcome<Vec<Range>> {
    const CLEAR: &str = "DELETE FROM hubbub_gaps WHERE room_no = ? AND first_seq >= ?";
    let holes = joined(holes_of(conn, room, ranges).await?);
    let mut new = Vec::new();
    if let (Some(first), Some(last)) = (holes.first(), holes.last()) {
        let recorded = losses_within(conn, room.no, &(*first.start()..=*last.end())).await?;
        new = without(&holes, &recorded);
    }
    let recent = recent_losses(conn, room.no).await?;
    let mut lost = holes_of(conn, room, &recent).await?;
    lost.extend(new.iter().cloned());
    let lost = joined(lost);
    if lost == recent {
        return Ok(new);
    }
    if let Some(first) = recent.first() {
        conn.run(CLEAR, args![room.no, *first.start()]).await?;
    }
    for range in lost {
        let args = args![room.no, *range.start(), *range.end()];
        conn.run(INSERT, args).await?;
    }
    Ok(new)
}

/// The newest recorded losses, in order.
async fn recent_losses(conn: &mut Conn, room_no: i64) -> Outcome<Vec<Range>> {
    const RECENT: &str = "SELECT first_seq, last_seq FROM hubbub_gaps WHERE room_no = ? \
        ORDER BY first_seq DESC LIMIT ?";
    let args = args![room_no, rows(RECENT_LOSSES)];
    let found: Vec<(i64, i64)> = conn.all(RECENT, args).await?;
    let newest_last = found.into_iter().rev();
    Ok(newest_last.map(|(from, to)| from..=to).collect())
}

/// Takes numbers out of the recorded losses that have an entry after all: those of `keys`. In a
/// transaction.
pub(super) async fn narrow(conn: &mut Conn, keys: &[Key]) -> Outcome<()> {
    // The lowest and the highest number in each room.
    let mut bounds: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (room_no, seq, _) in keys {
        let (lowest, highest) = bounds.entry(*room_no).or_insert((*seq, *seq));
        *lowest = (*lowest).min(*seq);
        *highest = (*highest).max(*seq);
    }
    let room_nos: Vec<i64> = bounds.keys().copied().collect();
    let ends = last_losses(conn, &room_nos).await?;
    for (room_no, (lowest, highest)) in bounds {
        // Almost always the entries come after the last loss.
        if ends.get(&room_no).is_some_and(|end| *end >= lowest) {
            narrow_room(conn, room_no, keys, lowest..=highest).await?;
        }
    }
    Ok(())
}

/// The last number of the last loss of each room that has one.
async fn last_losses(conn: &mut Conn, room_nos: &[i64]) -> Outcome<AHashMap<i64, i64>> {
    const LAST: &str = "SELECT CAST(r.no AS {bigint}), \
        (SELECT g.last_seq FROM hubbub_gaps g WHERE g.room_no = r.no \
        ORDER BY g.first_seq DESC LIMIT 1) FROM hubbub_rooms r WHERE r.no IN ({list})";
    if room_nos.is_empty() {
        return Ok(AHashMap::new());
    }
    epochs::number_of_rooms(conn, LAST, room_nos).await
}

/// Narrows the losses of a room that overlap with `range` and have a number of `keys`.
async fn narrow_room(conn: &mut Conn, room_no: i64, keys: &[Key], range: Range) -> Outcome<()> {
    const REMOVE: &str = "DELETE FROM hubbub_gaps WHERE room_no = ? AND first_seq = ?";
    let overlapping = losses_within(conn, room_no, &range).await?;
    if !overlapping.iter().any(|lost| has_key(keys, room_no, lost)) {
        return Ok(());
    }
    rooms::lock_numbers(conn, &[room_no]).await?;
    for lost in losses_within(conn, room_no, &range).await? {
        if !has_key(keys, room_no, &lost) {
            continue;
        }
        let scan = Scan::whole(conn, room_no, lost.start() - 1, *lost.end()).await?;
        conn.run(REMOVE, args![room_no, *lost.start()]).await?;
        for hole in scan.holes {
            let args = args![room_no, *hole.start(), *hole.end()];
            conn.run(INSERT, args).await?;
        }
    }
    Ok(())
}

/// The recorded losses that overlap with a range, in order: that which contains its first number, and
/// those that begin in it.
async fn losses_within(conn: &mut Conn, room_no: i64, range: &Range) -> Outcome<Vec<Range>> {
    const BEFORE: &str = "SELECT first_seq, last_seq FROM hubbub_gaps \
        WHERE room_no = ? AND first_seq < ? ORDER BY first_seq DESC LIMIT 1";
    const WITHIN: &str = "SELECT first_seq, last_seq FROM hubbub_gaps \
        WHERE room_no = ? AND first_seq >= ? AND first_seq <= ? ORDER BY first_seq";
    let (from, to) = (*range.start(), *range.end());
    let mut found: Vec<(i64, i64)> = conn.all(BEFORE, args![room_no, from]).await?;
    found.retain(|(_, last)| *last >= from);
    let within: Vec<(i64, i64)> = conn.all(WITHIN, args![room_no, from, to]).await?;
    found.extend(within);
    Ok(found.into_iter().map(|(from, to)| from..=to).collect())
}

fn has_key(keys: &[Key], room_no: i64, range: &Range) -> bool {
    keys.iter()
        .any(|(room, seq, _)| *room == room_no && range.contains(seq))
}

/// The numbers of `ranges` after the cut that have no entry.
async fn holes_of(conn: &mut Conn, room: &LockedRoom, ranges: &[Range]) -> Outcome<Vec<Range>> {
    let mut holes = Vec::new();
    for range in ranges {
        let lower = (range.start() - 1).max(room.cut);
        if lower < *range.end() {
            let scan = Scan::whole(conn, room.no, lower, *range.end()).await?;
            holes.extend(scan.holes);
        }
    }
    Ok(holes)
}

/// Ranges in order, those that adjoin as one.
fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut joined: Vec<Range> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if *range.start() <= last.end() + 1 => {
                *last = *last.start()..=*range.end().max(last.end());
            }
            _ => joined.push(range),
        }
    }
    joined
}

pub(super) async fn close_holes(db: &Db, room: &RoomId) -> Result<Vec<RangeInclusive<u64>>> {
    const MARK: &str =
        "UPDATE hubbub_rooms SET contiguous_seq = ? WHERE no = ? AND contiguous_seq < ?";
    let Some(bounds) = bounds(db, room).await? else {
        return Ok(Vec::new());
    };
    let room_no = bounds.room_no;
    let newest = db.read(move |conn| Box::pin(epochs::newest(conn, room_no, EPOCHS_KEPT)));
    // An epoch may have begun after entries that never came.
    let last = bounds.last.max(stored(epochs::last_begun(&newest.await?))?);
    let lower = bounds.contiguous.max(bounds.cut);
    if lower >= last {
        return Ok(Vec::new());
    }
    let found = holes_in_steps(db, room, bounds.room_no, (lower, last)).await?;
    let room = room.clone();
    let closed = db.transaction(move |conn| {
        let (room, found) = (room.clone(), found.clone());
        Box::pin(async move {
            let Some(room) = rooms::lock(conn, &room).await? else {
                return Ok(Vec::new());
            };
            let new = record(conn, &room, &found).await?;
            conn.run(MARK, args![last, room.no, last]).await?;
            Ok(new)
        })
    });
    Ok(closed.await?.into_iter().map(unsigned).collect())
}

/// The holes in `(lower, last]`. Pages before the first hole are marked as complete at once, so that the
/// search in a long room continues there if it is interrupted.
async fn holes_in_steps(
    db: &Db,
    room: &RoomId,
    room_no: i64,
    (lower, last): (i64, i64),
) -> Result<Vec<Range>> {
    let mut holes = Vec::new();
    let mut next = Some(lower);
    while let Some(lower) = next {
        let (page, following) = Scan::step(db, room_no, lower, last).await?;
        holes.extend(page.holes);
        if let Some(complete) = following.filter(|_| holes.is_empty()) {
            rooms::mark_contiguous(db, &[(room.clone(), loaded(complete))]).await?;
        }
        next = following;
    }
    Ok(holes)
}

pub(super) async fn record_loss(db: &Db, room: &RoomId, lost: RangeInclusive<u64>) -> Result<()> {
    let range = stored((*lost.start()).max(1))?..=stored(*lost.end())?;
    if range.is_empty() {
        return Ok(());
    }
    let room = room.clone();
    db.transaction(move |conn| {
        let (room, range) = (room.clone(), range.clone());
        Box::pin(async move {
            let room = rooms::lock_or_add(conn, &room).await?;
            record(conn, &room, &[range]).await.map(drop)
        })
    })
    .await
}

pub(super) async fn audit(db: &Db, room: &RoomId) -> Result<RoomAudit> {
    let Some(bounds) = bounds(db, room).await? else {
        return Ok(RoomAudit::default());
    };
    let scan = Scan::in_steps(db, bounds.room_no, 0, bounds.last).await?;
    let (below_one, below_cut) = below(db, &bounds).await?;
    let room_no = bounds.room_no;
    let losses = db.read(move |conn| Box::pin(losses(conn, room_no))).await?;
    let holes: Vec<Range> = scan
        .holes
        .into_iter()
        .filter(|hole| *hole.end() > bounds.cut)
        .map(|hole| (*hole.start()).max(bounds.cut + 1)..=*hole.end())
        .collect();
    let missing = without(&holes, &losses);
    let lost_below = size(&holes) - size(&missing);
    let lost_above: Vec<Range> = losses
        .iter()
        .filter(|lost| *lost.end() > bounds.last)
        .map(|lost| (*lost.start()).max(bounds.last + 1)..=*lost.end())
        .collect();
    Ok(RoomAudit {
        entries: loaded(scan.entries),
        bytes: loaded(scan.bytes),
        first: loaded(scan.first.unwrap_or(0)),
        last: loaded(scan.last.unwrap_or(0)),
        missing: missing.into_iter().map(unsigned).collect(),
        lost: loaded(lost_below + size(&lost_above)),
        cut: loaded(bounds.cut),
        below_one: loaded(below_one),
        below_cut: loaded(below_cut),
    })
}

/// The number of entries with a number below 1, and of those from there to the cut.
async fn below(db: &Db, bounds: &Bounds) -> Result<(i64, i64)> {
    const BELOW: &str = "SELECT COUNT(*), COUNT(CASE WHEN seq < 1 THEN 1 END) \
        FROM hubbub_entries WHERE room_no = ? AND seq <= ?";
    let args = args![bounds.room_no, bounds.cut.max(0)];
    let found: Vec<(i64, i64)> = db.all(BELOW, args).await?;
    let (all, below_one) = found.first().copied().unwrap_or_default();
    Ok((below_one, all - below_one))
}

pub(super) fn unsigned(range: Range) -> RangeInclusive<u64> {
    loaded(*range.start())..=loaded(*range.end())
}

fn size(ranges: &[Range]) -> i64 {
    ranges
        .iter()
        .map(|range| range.end() - range.start() + 1)
        .sum()
}

/// The parts of `ranges` that are in none of `taken`. Both are in order.
pub(super) fn without(ranges: &[Range], taken: &[Range]) -> Vec<Range> {
    let mut left = Vec::new();
    for range in ranges {
        let mut from = *range.start();
        for taken in taken {
            if *taken.end() < from || taken.start() > range.end() {
                continue;
            }
            if from < *taken.start() {
                left.push(from..=taken.start() - 1);
            }
            from = taken.end().saturating_add(1);
        }
        if from <= *range.end() {
            left.push(from..=*range.end());
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_adjoin_are_joined() {
        assert_eq!(joined(vec![5..=6, 1..=2, 3..=4]), [1..=6]);
        assert_eq!(joined(vec![8..=9, 1..=5, 2..=3]), [1..=5, 8..=9]);
    }

    #[test]
    fn ranges_without_others_keep_their_remaining_parts() {
        assert_eq!(without(&[1..=10], &[]), [1..=10]);
        assert_eq!(without(&[1..=10], &[3..=4, 8..=12]), [1..=2, 5..=7]);
        assert_eq!(without(&[1..=3, 5..=9], &[2..=6]), [1..=1, 7..=9]);
        assert_eq!(without(&[4..=5], &[1..=9]), Vec::<Range>::new());
        assert_eq!(size(&[1..=2, 5..=7]), 5);
    }
}
