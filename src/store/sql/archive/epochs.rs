//! Epochs of rooms.

use std::collections::BTreeMap;

use ahash::AHashMap;

use super::entries::check_name;
use super::numbers::Numbers;
use super::{loaded, rooms, rows, stored};
use crate::domain::{Epoch, Head, RoomId};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::dialect::pad;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::value::{Arg, Text, args};
use crate::store::{ArchivedEpoch, BeginOutcome, Fence, NewEpoch, Result};

/// Epochs whose numbers are wanted.
pub(super) type Wanted = BTreeMap<(RoomId, Epoch), WantedEpoch>;

/// The entries of a commit in one epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct WantedEpoch {
    /// Their lowest `seq`.
    pub(super) first: u64,
    /// The position in the commit of the last of them.
    pub(super) last_at: usize,
}

const INSERT: &str = "INSERT INTO hubbub_epochs \
    (room_no, epoch_no, name, after_seq, ended_seq, run) VALUES {rows:6} {if_absent:room_no}";

const END_OPEN: &str =
    "UPDATE hubbub_epochs SET ended_seq = ? WHERE room_no = ? AND ended_seq IS NULL";

/// The newest epochs of a room, newest first, at most `limit`.
pub(super) async fn newest(
    conn: &mut Conn,
    room_no: i64,
    limit: usize,
) -> Outcome<Vec<ArchivedEpoch>> {
    const NEWEST: &str = "SELECT name, after_seq, ended_seq, run FROM hubbub_epochs \
        WHERE room_no = ? ORDER BY epoch_no DESC LIMIT ?";
    let args = args![room_no, rows(limit)];
    let found: Vec<EpochRow> = conn.all(NEWEST, args).await?;
    Ok(found.into_iter().map(epoch).collect())
}

/// The last number that was assigned before one of the epochs; 0 without epochs.
pub(super) fn last_begun(epochs: &[ArchivedEpoch]) -> u64 {
    let begins = epochs.iter().map(|epoch| epoch.after);
    begins.max().unwrap_or(0)
}

type EpochRow = (Text, i64, Option<i64>, i64);

fn epoch((name, after, ended, run): EpochRow) -> ArchivedEpoch {
    ArchivedEpoch {
        epoch: Epoch::trusted(&name.0),
        after: loaded(after),
        ended: ended.map(loaded),
        run: loaded(run),
    }
}

pub(super) async fn named(db: &Db, room: &RoomId, name: &Epoch) -> Result<Option<ArchivedEpoch>> {
    const NAMED: &str = "SELECT name, after_seq, ended_seq, run FROM hubbub_epochs \
        WHERE room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) AND name = ?";
    let args = args![room.as_str(), name.as_str()];
    let found: Vec<EpochRow> = db.all(NAMED, args).await?;
    Ok(found.into_iter().next().map(epoch))
}

pub(super) async fn begin(db: &Db, room: &RoomId, new: &NewEpoch) -> Result<BeginOutcome> {
    let (room, new) = (room.clone(), new.clone());
    db.awaited_transaction(move |conn| {
        let (room, new) = (room.clone(), new.clone());
        Box::pin(async move { begin_locked(conn, &room, &new).await })
    })
    .await
}

async fn begin_locked(conn: &mut Conn, room: &RoomId, new: &NewEpoch) -> Outcome<BeginOutcome> {
    let room_no = rooms::lock_or_add(conn, room).await?.no;
    let after = stored(new.after)?;
    let newest = newest(conn, room_no, 1).await?.pop();
    let is_repeated = newest.as_ref().is_some_and(|it| it.epoch == new.epoch);
    if !is_repeated {
        let is_known = exists(conn, room_no, &new.epoch).await?;
        if is_known || newest.is_some_and(|newest| !new.follows(&newest.epoch)) {
            return Ok(BeginOutcome::Superseded);
        }
        lock_open(conn, room_no).await?;
        if last_entry(conn, room_no).await? > after {
            return Ok(BeginOutcome::Behind);
        }
    }
    let ends = set_ends(conn, room_no, new).await?;
    if !is_repeated {
        conn.run(END_OPEN, args![after, room_no]).await?;
        add(conn, room_no, &new.epoch, (after, None), new.run).await?;
    }
    Ok(BeginOutcome::Begun(ends))
}

/// Records the ends of the epochs before a new one. Returns them as they are recorded.
async fn set_ends(conn: &mut Conn, room_no: i64, new: &NewEpoch) -> Outcome<Vec<Head>> {
    let mut ends = new.ends.clone();
    ends.retain(|end| end.epoch != new.epoch);
    let mut bound = i64::MAX;
    for end in &mut ends {
        bound = end_of(conn, room_no, &end.epoch, stored(end.seq)?.min(bound)).await?;
        end.seq = loaded(bound);
    }
    // Oldest first, so that those which are added are numbered in their order.
    for end in ends.iter().rev() {
        set_end(conn, room_no, end).await?;
    }
    Ok(ends)
}

/// Waits until no commit with a fence adds entries to the room's epochs without an end, and prevents
/// such commits until the end of the transaction.
async fn lock_open(conn: &mut Conn, room_no: i64) -> Outcome<()> {
    const LOCK: &str = "SELECT CAST(epoch_no AS {bigint}) FROM hubbub_epochs \
        WHERE room_no = ? AND ended_seq IS NULL ORDER BY epoch_no {for_update}";
    let _: Vec<(i64,)> = conn.all(LOCK, args![room_no]).await?;
    Ok(())
}

/// The `seq` of the room's last entry; 0 if there is none.
async fn last_entry(conn: &mut Conn, room_no: i64) -> Outcome<i64> {
    const LAST: &str = "SELECT seq FROM hubbub_entries WHERE room_no = ? ORDER BY seq DESC LIMIT 1";
    let found: Option<(i64,)> = conn.first(LAST, args![room_no]).await?;
    Ok(found.map_or(0, |(seq,)| seq))
}

/// The last `seq`, at most `seq`, up to which the epoch's numbers mean the entries of the archive.
async fn end_of(conn: &mut Conn, room_no: i64, epoch: &Epoch, seq: i64) -> Outcome<i64> {
    const FIND: &str = "SELECT CAST(epoch_no AS {bigint}), ended_seq FROM hubbub_epochs \
        WHERE room_no = ? AND name = ?";
    let found: Option<(i64, Option<i64>)> =
        conn.first(FIND, args![room_no, epoch.as_str()]).await?;
    match found {
        Some((epoch_no, Some(ended))) if ended < seq => {
            last_in_a_row(conn, (room_no, epoch_no), ended, seq).await
        }
        _ => Ok(seq),
    }
}

/// The last entry of the epoch, at most `last`, that follows `after` without a missing number and
/// without an entry of another epoch; `after` if there is none.
async fn last_in_a_row(
    conn: &mut Conn,
    (room_no, epoch_no): Numbers,
    after: i64,
    last: i64,
) -> Outcome<i64> {
    const PAGE: &str = "SELECT seq, CAST(epoch_no AS {bigint}) FROM hubbub_entries \
        WHERE room_no = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?";
    const PAGE_ROWS: usize = 1000;
    let mut reached = after;
    loop {
        let args = args![room_no, reached, last, rows(PAGE_ROWS)];
        let page: Vec<(i64, i64)> = conn.all(PAGE, args).await?;
        let is_last = page.len() < PAGE_ROWS;
        for (seq, number) in page {
            if seq != reached + 1 || number != epoch_no {
                return Ok(reached);
            }
            reached = seq;
        }
        if is_last {
            return Ok(reached);
        }
    }
}

async fn exists(conn: &mut Conn, room_no: i64, epoch: &Epoch) -> Outcome<bool> {
    const FIND: &str = "SELECT after_seq FROM hubbub_epochs WHERE room_no = ? AND name = ?";
    let found: Option<(i64,)> = conn.first(FIND, args![room_no, epoch.as_str()]).await?;
    Ok(found.is_some())
}

/// Adds an epoch after those that the room has. `bounds` are the `seq` before it and, if it has
/// ended, its last one.
async fn add(
    conn: &mut Conn,
    room_no: i64,
    epoch: &Epoch,
    (after, ended): (i64, Option<i64>),
    run: u64,
) -> Outcome<()> {
    check_name(epoch.as_str())?;
    let last = last_numbers(conn, &[room_no]).await?;
    let number = last.get(&room_no).map_or(1, |last| last + 1);
    let args = args![room_no, number, epoch.as_str(), after, ended, stored(run)?];
    let text = conn.dialect().text_of(INSERT, 1);
    conn.run_text(text, args).await?;
    Ok(())
}

/// Gives an epoch these bounds and this run. It is added if the archive doesn't know it.
pub(super) async fn set(conn: &mut Conn, room_no: i64, epoch: &ArchivedEpoch) -> Outcome<()> {
    const SET: &str = "UPDATE hubbub_epochs SET after_seq = ?, ended_seq = ?, run = ? \
        WHERE room_no = ? AND name = ?";
    let after = stored(epoch.after)?;
    let ended = epoch.ended.map(stored).transpose()?;
    if !exists(conn, room_no, &epoch.epoch).await? {
        return add(conn, room_no, &epoch.epoch, (after, ended), epoch.run).await;
    }
    let (run, name) = (stored(epoch.run)?, epoch.epoch.as_str());
    conn.run(SET, args![after, ended, run, room_no, name])
        .await?;
    Ok(())
}

/// Records the end of an epoch, which is added with this end if the archive doesn't know it.
async fn set_end(conn: &mut Conn, room_no: i64, end: &Head) -> Outcome<()> {
    const END: &str = "UPDATE hubbub_epochs SET ended_seq = ? WHERE room_no = ? AND name = ?";
    let seq = stored(end.seq)?;
    if !exists(conn, room_no, &end.epoch).await? {
        return add(conn, room_no, &end.epoch, (seq, Some(seq)), 0).await;
    }
    conn.run(END, args![seq, room_no, end.epoch.as_str()])
        .await?;
    Ok(())
}

/// The number of the last epoch of each room that has one.
async fn last_numbers(conn: &mut Conn, room_nos: &[i64]) -> Outcome<AHashMap<i64, i64>> {
    const LAST: &str = "SELECT CAST(r.no AS {bigint}), \
        CAST((SELECT e.epoch_no FROM hubbub_epochs e WHERE e.room_no = r.no \
        ORDER BY e.epoch_no DESC LIMIT 1) AS {bigint}) \
        FROM hubbub_rooms r WHERE r.no IN ({list})";
    number_of_rooms(conn, LAST, room_nos).await
}

/// A number of each room that has one, by a statement that selects the room's and that number.
pub(super) async fn number_of_rooms(
    conn: &mut Conn,
    template: &'static str,
    room_nos: &[i64],
) -> Outcome<AHashMap<i64, i64>> {
    let (text, args) = listed(conn, template, room_nos);
    let found: Vec<(i64, Option<i64>)> = conn.all_of_text(text, args).await?;
    let number = |(room_no, number): (i64, Option<i64>)| Some((room_no, number?));
    Ok(found.into_iter().filter_map(number).collect())
}

pub(super) fn listed(
    conn: &Conn,
    template: &'static str,
    numbers: &[i64],
) -> (&'static str, Vec<Arg>) {
    let numbers = numbers.iter().copied().map(Arg::from);
    conn.dialect().with_list(template, numbers)
}

/// The numbers of rooms and epochs. Those that the archive doesn't know are added: an epoch begins
/// before the lowest `seq` to commit in it. Epochs that the fence excludes are neither added nor
/// returned. In a transaction.
pub(super) async fn resolve(
    conn: &mut Conn,
    wanted: &Wanted,
    run: u64,
    fence: Fence,
) -> Outcome<AHashMap<(RoomId, Epoch), Numbers>> {
    let mut names: Vec<&RoomId> = wanted.keys().map(|(room, _)| room).collect();
    names.dedup();
    let room_nos = rooms::numbers(conn, &names).await?;
    let found = find(conn, wanted, &room_nos).await?;
    let missing: Vec<Missing> = wanted
        .iter()
        .filter(|(key, _)| !found.contains_key(*key))
        .map(|((room, epoch), wanted)| Missing {
            room_no: room_nos[room],
            epoch: epoch.clone(),
            wanted: *wanted,
        })
        .collect();
    if missing.is_empty() {
        return Ok(found);
    }
    let added = add_missing(conn, missing, stored(run)?, fence).await?;
    // Again also if none was added: another commit may have added the same epoch before the lock of the
    // room, which then is not an unknown one that the fence excludes.
    let expected = found.len() + added;
    let found = find(conn, wanted, &room_nos).await?;
    if found.len() < expected {
        return Err(Fault::Again("another epoch has the number".to_owned()));
    }
    Ok(found)
}

/// The last `seq` of each of these epochs that has ended. Locks the epochs until the end of the
/// transaction, so that none ends meanwhile.
pub(super) async fn ends(
    conn: &mut Conn,
    mut wanted: Vec<Numbers>,
) -> Outcome<AHashMap<Numbers, i64>> {
    // Each number of a room with each number of an epoch: some rows more than needed.
    const ENDS: &str = "SELECT CAST(room_no AS {bigint}), CAST(epoch_no AS {bigint}), ended_seq \
        FROM hubbub_epochs WHERE room_no IN ({list}) AND epoch_no IN ({list}) \
        ORDER BY room_no, epoch_no {for_update}";
    if wanted.is_empty() {
        return Ok(AHashMap::new());
    }
    wanted.sort_unstable();
    wanted.dedup();
    pad(&mut wanted);
    let room_nos = wanted.iter().map(|(room_no, _)| Arg::from(*room_no));
    let epoch_nos = wanted.iter().map(|(_, epoch_no)| Arg::from(*epoch_no));
    let args = room_nos.chain(epoch_nos).collect();
    let text = conn.dialect().text_of(ENDS, wanted.len());
    let found: Vec<(i64, i64, Option<i64>)> = conn.all_of_text(text, args).await?;
    let ended = |(room_no, epoch_no, ended): (i64, i64, Option<i64>)| {
        ended.map(|seq| ((room_no, epoch_no), seq))
    };
    Ok(found.into_iter().filter_map(ended).collect())
}

struct Missing {
    room_no: i64,
    epoch: Epoch,
    wanted: WantedEpoch,
}

async fn find(
    conn: &mut Conn,
    wanted: &Wanted,
    room_nos: &BTreeMap<RoomId, i64>,
) -> Outcome<AHashMap<(RoomId, Epoch), Numbers>> {
    const FIND: &str = "SELECT CAST(room_no AS {bigint}), CAST(epoch_no AS {bigint}), name FROM hubbub_epochs \
        WHERE room_no IN ({list}) AND name IN ({list})";
    let mut keys: Vec<&(RoomId, Epoch)> = wanted.keys().collect();
    pad(&mut keys);
    let rooms = keys.iter().map(|(room, _)| Arg::from(room_nos[room]));
    let epochs = keys.iter().map(|(_, epoch)| Arg::from(epoch.as_str()));
    let args = rooms.chain(epochs).collect();
    let text = conn.dialect().text_of(FIND, keys.len());
    let rows: Vec<(i64, i64, Text)> = conn.all_of_text(text, args).await?;
    let numbered: AHashMap<(i64, &str), i64> = rows
        .iter()
        .map(|(room_no, epoch_no, name)| ((*room_no, name.0.as_str()), *epoch_no))
        .collect();
    let mut found = AHashMap::new();
    for key in wanted.keys() {
        let room_no = room_nos[&key.0];
        if let Some(epoch_no) = numbered.get(&(room_no, key.1.as_str())) {
            found.insert(key.clone(), (room_no, *epoch_no));
        }
    }
    Ok(found)
}

/// Adds epochs, unless the fence excludes them. Returns the number of those that should exist now.
async fn add_missing(
    conn: &mut Conn,
    mut missing: Vec<Missing>,
    run: i64,
    fence: Fence,
) -> Outcome<usize> {
    let mut room_nos: Vec<i64> = missing.iter().map(|missing| missing.room_no).collect();
    room_nos.sort_unstable();
    room_nos.dedup();
    rooms::lock_numbers(conn, &room_nos).await?;
    let mut last = last_numbers(conn, &room_nos).await?;
    if fence == Fence::KnownEpochs {
        missing = newest_of_rooms_without_epochs(missing, &last);
    }
    if missing.is_empty() {
        return Ok(0);
    }
    let added = missing.len();
    let mut rows = Vec::with_capacity(missing.len());
    for Missing {
        room_no,
        epoch,
        wanted,
    } in missing
    {
        check_name(epoch.as_str())?;
        let after = stored(wanted.first.saturating_sub(1))?;
        let number = last.entry(room_no).or_insert(0);
        *number += 1;
        rows.push(args![
            room_no,
            *number,
            epoch.as_str(),
            after,
            None::<i64>,
            run
        ]);
    }
    let (text, rows) = conn.dialect().with_list(INSERT, rows);
    conn.run_text(text, rows.concat()).await?;
    Ok(added)
}

/// Of each room without an epoch in `last`, the epoch of its last entry in the commit.
fn newest_of_rooms_without_epochs(
    missing: Vec<Missing>,
    last: &AHashMap<i64, i64>,
) -> Vec<Missing> {
    let mut newest: BTreeMap<i64, Missing> = BTreeMap::new();
    for epoch in missing {
        let room_no = epoch.room_no;
        let is_older = |other: &Missing| other.wanted.last_at > epoch.wanted.last_at;
        if !last.contains_key(&room_no) && !newest.get(&room_no).is_some_and(is_older) {
            newest.insert(room_no, epoch);
        }
    }
    newest.into_values().collect()
}
