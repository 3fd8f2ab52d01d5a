//! Chooses the rows of the outbox that a claim takes, by their numbers, times and rooms alone.
//!
//! Rows of one room are chosen in their order. Rooms with an urgent row come first, and then all rooms
//! in the order of their rows. A room has a bounded part of a claim, so that a flood in one room, or a
//! room that must wait, holds up no other. Rows that announce positions have no order, and are chosen by
//! themselves.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::domain::Change;
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Arg, Text, args};

/// The most rows of one room in a claim.
const MAX_ROWS_OF_ROOM: usize = 100;
/// The most rooms with urgent rows that one claim takes first: each costs a statement.
const MAX_URGENT_ROOMS: usize = 32;
/// Urgent rows among which these rooms are found.
const URGENT_ROWS: i64 = 1000;
/// Rows that one statement reads: at least, and at most.
const MIN_WINDOW: usize = 16;
const MAX_WINDOW: usize = 1000;
/// A room with this many rows that can't be chosen is left out of the next window.
const CROWDED: usize = 8;
/// The most rooms that a statement leaves out.
const MAX_LEFT_OUT: usize = 500;

/// A row that waits: `id, room_id, due_at, lease_until, attempts`.
type Waiting = (i64, Text, i64, i64, i64);

/// The condition for rows that don't announce a position. As a `CASE` it keeps the databases from an index
/// of the types.
macro_rules! in_order {
    ($type:literal) => {
        concat!("CASE WHEN ", $type, " = 'read' THEN 0 ELSE 1 END = 1")
    };
}

/// The rows that are chosen.
pub(super) struct Selection {
    now: i64,
    limit: usize,
    /// In the order in which they should be published.
    pub chosen: Vec<i64>,
    rooms: HashMap<String, Room>,
    /// The rooms of chosen rows that had a later time: later rows may have been claimed before them.
    delayed: BTreeSet<String>,
    /// The earliest time at which another row may be due.
    next: Option<i64>,
}

#[derive(Default)]
struct Room {
    chosen: usize,
    passed: usize,
    /// No more of its rows may be chosen.
    is_closed: bool,
}

impl Selection {
    pub fn new(now: i64, limit: usize) -> Self {
        Self {
            now,
            limit,
            chosen: Vec::new(),
            rooms: HashMap::new(),
            delayed: BTreeSet::new(),
            next: None,
        }
    }

    /// How long until a row is due: zero if one is chosen.
    pub fn next_due(&self) -> Option<Duration> {
        if !self.chosen.is_empty() {
            return Some(Duration::ZERO);
        }
        let wait = self.next? - self.now;
        Some(Duration::from_millis(u64::try_from(wait).unwrap_or(0)))
    }

    fn is_full(&self) -> bool {
        self.chosen.len() >= self.limit
    }

    /// Chooses the next row of a room, if it may be claimed now. It must not be claimed before an earlier
    /// row of its room that is claimed or postponed.
    fn offer(&mut self, (id, room, due_at, lease_until, attempts): Waiting) {
        let name = room.0;
        let room = self.rooms.entry(name.clone()).or_default();
        if room.is_closed {
            room.passed += 1;
            return;
        }
        let available_at = due_at.max(lease_until);
        if available_at <= self.now {
            self.chosen.push(id);
            if due_at > 0 && attempts == 0 {
                self.delayed.insert(name);
            }
            room.chosen += 1;
            room.is_closed = room.chosen >= MAX_ROWS_OF_ROOM;
            return;
        }
        self.next = Some(
            self.next
                .map_or(available_at, |next| next.min(available_at)),
        );
        // A row with a later time that was never tried holds up nothing.
        room.is_closed = lease_until > self.now || attempts > 0;
    }

    /// The rooms without which the next window is read: those that would fill it.
    fn crowded(&self) -> Vec<Arg> {
        let crowded = self.rooms.iter().filter(|(_, room)| room.passed >= CROWDED);
        let names = crowded.map(|(name, _)| Arg::from(name.as_str()));
        names.take(MAX_LEFT_OUT).collect()
    }
}

/// Chooses rows of rooms with an urgent row, together with the earlier rows of these rooms: at most half
/// of what the selection takes, so that others are never kept out.
pub(super) async fn choose_urgent(conn: &mut Conn, selection: &mut Selection) -> Outcome<()> {
    // A room is left out if its first row is claimed or postponed. `state + 0` keeps the databases from
    // an index of the state, which most rows share.
    const ROOMS: &str = concat!(
        "SELECT u.room_id FROM \
            (SELECT id, room_id FROM hubbub_outbox \
             WHERE state = 0 AND type IN (?, ?) AND room_id IS NOT NULL ORDER BY id LIMIT ?) u \
        WHERE 0 = (SELECT CASE WHEN e.lease_until > ? OR e.due_at > ? THEN 1 ELSE 0 END \
             FROM hubbub_outbox e WHERE e.room_id = u.room_id AND e.state + 0 = 0 \
             AND (e.attempts > 0 OR e.lease_until > ? OR e.due_at <= ?) AND ",
        in_order!("e.type"),
        " ORDER BY e.id LIMIT 1) GROUP BY u.room_id ORDER BY MIN(u.id) LIMIT ?"
    );
    const ROWS: &str = concat!(
        "SELECT id, room_id, due_at, lease_until, attempts FROM hubbub_outbox \
         WHERE room_id = ? AND state + 0 = 0 AND ",
        in_order!("type"),
        " ORDER BY id LIMIT ?"
    );
    let [one, other] = Change::URGENT_EVENTS;
    let now = selection.now;
    let most = (selection.limit / 2).max(1);
    let rooms = MAX_URGENT_ROOMS.min(most) as i64;
    let values = args![one, other, URGENT_ROWS, now, now, now, now, rooms];
    let rooms: Vec<(Text,)> = conn.all(ROOMS, values).await?;
    if rooms.is_empty() {
        return Ok(());
    }
    let part = (most / rooms.len()).clamp(1, MAX_ROWS_OF_ROOM) as i64;
    for (room,) in rooms {
        let rows: Vec<Waiting> = conn.all(ROWS, args![room.0.as_str(), part]).await?;
        for row in rows {
            selection.offer(row);
        }
        // The search in the order of all rows finds its rows again.
        selection.rooms.entry(room.0).or_default().is_closed = true;
    }
    Ok(())
}

/// The rooms of chosen rows that have a claimed row: these rows wait for it. Only a row that had a later time
/// can be chosen before a claimed one.
pub(super) async fn busy_rooms(conn: &mut Conn, selection: &Selection) -> Outcome<HashSet<String>> {
    const BUSY: &str = concat!(
        "SELECT DISTINCT room_id FROM hubbub_outbox WHERE lease_until > ? AND state + 0 = 0 AND ",
        in_order!("type"),
        " AND room_id IN ({list})"
    );
    let rooms = selection.delayed.iter().map(String::as_str);
    let busy: Vec<(Text,)> = conn.all_of_list(BUSY, args![selection.now], rooms).await?;
    Ok(busy.into_iter().map(|(Text(room),)| room).collect())
}

/// Chooses rows in their order, as many as the selection still takes.
pub(super) async fn choose_in_order(conn: &mut Conn, selection: &mut Selection) -> Outcome<()> {
    // `NOT (…)` keeps SQLite from an index of the state: the primary key has the order.
    const WINDOW: &str = concat!(
        "SELECT id, room_id, due_at, lease_until, attempts FROM hubbub_outbox \
         WHERE id > ? AND NOT (state <> 0) AND room_id IS NOT NULL AND ",
        in_order!("type"),
        " ORDER BY id LIMIT ?"
    );
    const WINDOW_WITHOUT: &str = concat!(
        "SELECT id, room_id, due_at, lease_until, attempts FROM hubbub_outbox \
         WHERE id > ? AND NOT (state <> 0) AND room_id IS NOT NULL AND ",
        in_order!("type"),
        " AND room_id NOT IN ({list}) ORDER BY id LIMIT ?"
    );
    let mut after = 0;
    let mut window = selection.limit.clamp(MIN_WINDOW, MAX_WINDOW);
    while !selection.is_full() {
        let crowded = selection.crowded();
        let rows: Vec<Waiting> = if crowded.is_empty() {
            conn.all(WINDOW, args![after, window as i64]).await?
        } else {
            let (text, crowded) = conn.dialect().with_list(WINDOW_WITHOUT, crowded);
            let values = [args![after], crowded, args![window as i64]].concat();
            conn.all_of_text(text, values).await?
        };
        let is_last = rows.len() < window;
        for row in rows {
            if selection.is_full() {
                return Ok(());
            }
            after = row.0;
            selection.offer(row);
        }
        if is_last {
            return Ok(());
        }
        window = (4 * window).min(MAX_WINDOW);
    }
    Ok(())
}
