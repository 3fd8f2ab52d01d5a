//! The rows of rooms: how far their blocks go. Each is the lock of its room's blocks.

use ahash::AHashMap;

use super::block::{Author, BLOCK, Block, block_of};
use crate::store::UNREAD_CAP;
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Arg, args};

/// [`LockedRoom::capped`] without such a number.
pub(super) const NOT_CAPPED: i64 = -1;
/// The newest blocks of a room in which more than [`UNREAD_CAP`] messages are looked for.
const CAP_BLOCKS: i64 = 8;

/// A room whose blocks no other transaction changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct LockedRoom {
    pub(super) no: i64,
    /// The blocks have the messages up to this number, and none after it.
    pub(super) projected: i64,
    /// Each user that has read up to this number, or less, has more than [`UNREAD_CAP`] unread messages.
    /// [`NOT_CAPPED`] if no such number is known.
    pub(super) capped: i64,
    /// At this time, by the database's clock, the room had an entry of this number, behind a number that
    /// was missing: how long any number before it has been missing at least.
    pub(super) seen: Seen,
}

/// An entry behind a missing number.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) seq: i64,
    pub(super) at: i64,
}

/// Locks rooms, in the order of their numbers. The list is not empty, and has at most 500.
pub(super) async fn lock(conn: &mut Conn, room_nos: &[i64]) -> Outcome<Vec<LockedRoom>> {
    const ADD: &str =
        "INSERT INTO hubbub_unread_rooms (room_no) VALUES {rows:1} {if_absent:room_no}";
    let found = lock_known(conn, room_nos).await?;
    let absent = |no: &&i64| !found.iter().any(|room| room.no == **no);
    let absent: Vec<Arg> = room_nos
        .iter()
        .filter(absent)
        .map(|no| Arg::from(*no))
        .collect();
    if absent.is_empty() {
        return Ok(found);
    }
    let (text, values) = conn.dialect().with_list(ADD, absent);
    conn.run_text(text, values).await?;
    lock_known(conn, room_nos).await
}

async fn lock_known(conn: &mut Conn, room_nos: &[i64]) -> Outcome<Vec<LockedRoom>> {
    const LOCK: &str = "SELECT CAST(room_no AS {bigint}), projected_seq, capped_seq, \
        seen_seq, seen_at FROM hubbub_unread_rooms WHERE room_no IN ({list}) ORDER BY room_no {for_update}";
    let numbers = room_nos.iter().map(|no| Arg::from(*no));
    let (text, values) = conn.dialect().with_list(LOCK, numbers);
    let found: Vec<(i64, i64, i64, i64, i64)> = conn.all_of_text(text, values).await?;
    let room = |(no, projected, capped, seq, at)| LockedRoom {
        no,
        projected,
        capped,
        seen: Seen { seq, at },
    };
    Ok(found.into_iter().map(room).collect())
}

impl LockedRoom {
    /// Records the state of the room.
    pub(super) async fn store(&self, conn: &mut Conn) -> Outcome<()> {
        const STORE: &str = "UPDATE hubbub_unread_rooms SET projected_seq = ?, capped_seq = ?, \
            seen_seq = ?, seen_at = ? WHERE room_no = ?";
        let Seen { seq, at } = self.seen;
        let values = args![self.projected, self.capped, seq, at, self.no];
        conn.run(STORE, values).await.map(drop)
    }

    /// A block of the room, if it is stored.
    pub(super) async fn block(&self, conn: &mut Conn, block: i64) -> Outcome<Option<Block>> {
        const FIND: &str = "SELECT map FROM hubbub_unread_blocks WHERE room_no = ? AND block = ?";
        let found: Option<(Vec<u8>,)> = conn.first(FIND, args![self.no, block]).await?;
        found.map(|(map,)| Block::decode(&map)).transpose()
    }

    /// Stores a block, which is new or replaces the stored one.
    pub(super) async fn store_block(
        &self,
        conn: &mut Conn,
        number: i64,
        block: &Block,
        is_new: bool,
    ) -> Outcome<()> {
        const ADD: &str = "INSERT INTO hubbub_unread_blocks (map, room_no, block) VALUES (?, ?, ?)";
        const REPLACE: &str =
            "UPDATE hubbub_unread_blocks SET map = ? WHERE room_no = ? AND block = ?";
        let text = if is_new { ADD } else { REPLACE };
        let values = args![block.encode(), self.no, number];
        conn.run(text, values).await.map(drop)
    }

    /// Ends the projection at an earlier number: later entries are projected again.
    pub(super) async fn go_back(&mut self, conn: &mut Conn, projected: i64) -> Outcome<()> {
        const FORGET: &str = "DELETE FROM hubbub_unread_blocks WHERE room_no = ? AND block > ?";
        let last = block_of(projected);
        conn.run(FORGET, args![self.no, last]).await?;
        if let Some(mut block) = self.block(conn, last).await? {
            block.retain(last, -1, projected);
            self.store_block(conn, last, &block, false).await?;
        }
        self.projected = projected;
        self.capped = NOT_CAPPED;
        self.store(conn).await
    }

    /// Finds [`capped`](Self::capped) anew, by the stored blocks.
    pub(super) async fn find_capped(&mut self, conn: &mut Conn) -> Outcome<()> {
        const NEWEST: &str = "SELECT block, map FROM hubbub_unread_blocks \
            WHERE room_no = ? ORDER BY block DESC LIMIT ?";
        let found: Vec<(i64, Vec<u8>)> = conn.all(NEWEST, args![self.no, CAP_BLOCKS]).await?;
        let mut totals: AHashMap<Author, u64> = AHashMap::new();
        for (number, map) in found {
            for (author, count) in Block::decode(&map)?.counts() {
                *totals.entry(author).or_default() += count;
            }
            // A user's own messages don't count: in the worst case they are those of the busiest author.
            let live: u64 = totals.values().sum();
            let most = totals.values().copied().max().unwrap_or(0);
            if live - most > UNREAD_CAP {
                self.capped = (number * BLOCK - 1).max(0);
                return Ok(());
            }
        }
        Ok(())
    }
}
