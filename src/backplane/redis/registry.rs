//! This node's own connections, as far as Redis was told of them: the basis for restoring them after
//! a loss of data, and for disconnects that are still to be published.
//!
//! A connection is entered here *before* Redis is called. So if the outcome of the call is unknown,
//! the connection is known here, and is undone when it is lost. Only what Redis has confirmed is ever
//! restored. Rooms for which a call's outcome is unknown are marked as *uncertain*, and the node
//! later makes Redis agree with this registry.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::keys::Partition;
use crate::domain::{ConnId, RoomId, UserId, Username};

/// Identifies one loss of one connection. Later losses have greater marks.
type LossMark = u64;

/// A connection as the registry keeps it.
struct Record {
    user: UserId,
    username: Username,
    state: State,
    rooms: Vec<RoomRecord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Redis was asked to register it and hasn't confirmed that yet.
    Requested,
    /// Redis has confirmed it.
    Confirmed,
    /// It is lost, and Redis may not know that yet.
    Lost(LossMark),
}

struct RoomRecord {
    room: RoomId,
    /// Whether Redis has confirmed that the connection is in the room.
    is_confirmed: bool,
}

impl Record {
    fn is_live(&self) -> bool {
        !matches!(self.state, State::Lost(_))
    }

    fn room(&self, room: &RoomId) -> Option<&RoomRecord> {
        self.rooms.iter().find(|record| record.room == *room)
    }

    fn is_in(&self, room: &RoomId) -> bool {
        self.room(room).is_some()
    }
}

/// The registry's knowledge of a connection before a call of [`Registry::connect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It wasn't known.
    No,
    /// Redis was asked to register it and hasn't confirmed it yet.
    Requested,
    /// It was lost. A call may be telling Redis so at this moment.
    Lost,
    /// Redis has it.
    Confirmed,
}

/// The state of a connection in a room that Redis should have.
#[derive(Debug, Clone)]
pub(super) enum DesiredState {
    /// The connection is in the room.
    Joined(UserId, Username),
    /// The connection isn't in the room.
    Absent,
    /// A join is under way.
    Joining,
}

/// The effect of [`Registry::forget_lost`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forgotten {
    /// The loss needs nothing more. (If the connection was lost again since, that is another loss.)
    Done,
    /// The connection was registered again meanwhile, and Redis may have removed it behind that.
    Reconnected,
}

/// A snapshot of a connection: a live one with the rooms to restore, or a lost one with the rooms to
/// remove it from.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) conn: ConnId,
    pub(super) user: UserId,
    pub(super) username: Username,
    pub(super) rooms: Vec<RoomId>,
    /// Which loss it is, for a lost connection; else 0.
    pub(super) mark: LossMark,
}

/// The node's connections. Its size is bounded by their number.
pub(super) struct Registry {
    records: Mutex<HashMap<ConnId, Record>>,
    /// For each partition the number of connections and rooms here that lie in it.
    uses: Vec<AtomicUsize>,
    /// The number of lost connections.
    lost: AtomicUsize,
    next_mark: AtomicU64,
    /// Connections and rooms for which the outcome of a call is unknown. Locked after `records`
    /// where both are locked.
    uncertain: Mutex<HashSet<(ConnId, RoomId)>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            records: Mutex::default(),
            uses: Partition::all().map(|_| AtomicUsize::new(0)).collect(),
            lost: AtomicUsize::new(0),
            next_mark: AtomicU64::new(1),
            uncertain: Mutex::default(),
        }
    }
}

impl Registry {
    /// Enters a connection that is about to be registered. Returns what was known of it before.
    pub(super) fn connect(&self, conn: &ConnId, user: &UserId, username: &Username) -> Known {
        let mut records = self.records.lock();
        let Some(record) = records.get_mut(conn) else {
            records.insert(conn.clone(), self.new_record(user, username));
            return Known::No;
        };
        record.username = username.clone();
        match record.state {
            State::Requested => Known::Requested,
            State::Confirmed => Known::Confirmed,
            State::Lost(_) => {
                self.lost.fetch_sub(1, Ordering::Relaxed);
                // Redis may have processed the loss, so it has to confirm the connection again.
                record.state = State::Requested;
                Known::Lost
            }
        }
    }

    fn new_record(&self, user: &UserId, username: &Username) -> Record {
        self.add_use(Partition::of_user(user));
        Record {
            user: user.clone(),
            username: username.clone(),
            state: State::Requested,
            rooms: Vec::new(),
        }
    }

    /// Records that Redis has the connection.
    pub(super) fn confirm(&self, conn: &ConnId) {
        if let Some(record) = self.records.lock().get_mut(conn)
            && record.is_live()
        {
            record.state = State::Confirmed;
        }
    }

    /// Enters a room that a connection is about to join.
    pub(super) fn enter(&self, conn: &ConnId, username: &Username, room: &RoomId) {
        if let Some(record) = self.records.lock().get_mut(conn) {
            record.username = username.clone();
            self.add_room(record, room);
        }
    }

    fn add_room(&self, record: &mut Record, room: &RoomId) {
        if !record.is_in(room) {
            record.rooms.push(RoomRecord {
                room: room.clone(),
                is_confirmed: false,
            });
            self.add_use(Partition::of_room(room));
        }
    }

    /// Records that Redis has the connection in the room.
    pub(super) fn confirm_room(&self, conn: &ConnId, room: &RoomId) {
        if let Some(record) = self.records.lock().get_mut(conn)
            && let Some(entry) = record.rooms.iter_mut().find(|entry| entry.room == *room)
        {
            entry.is_confirmed = true;
        }
    }

    /// Removes the room of a connection that has left it, in Redis too.
    pub(super) fn leave(&self, conn: &ConnId, room: &RoomId) {
        if let Some(record) = self.records.lock().get_mut(conn)
            && record.is_in(room)
        {
            record.rooms.retain(|entry| entry.room != *room);
            self.remove_use(Partition::of_room(room));
        }
    }

    /// Marks a connection as lost, so that Redis will be told of it. Adds `rooms` to those that are
    /// known here.
    pub(super) fn lose(&self, conn: &ConnId, user: &UserId, rooms: &[RoomId]) -> Connection {
        let mut records = self.records.lock();
        let record = records
            .entry(conn.clone())
            .or_insert_with(|| self.new_record(user, &Username::from(user)));
        self.mark_lost(record, rooms);
        snapshot(conn, record, Rooms::All)
    }

    /// Takes note that a live connection was restored in Redis, from a snapshot that may be out of
    /// date by now: if it left rooms meanwhile or was lost, that has to be published, or published
    /// again.
    pub(super) fn restored(&self, snapshot: &Connection) {
        let mut records = self.records.lock();
        if let Some(record) = records.get(&snapshot.conn)
            && record.is_live()
        {
            let left = snapshot.rooms.iter().filter(|room| !record.is_in(room));
            self.uncertain
                .lock()
                .extend(left.map(|room| (snapshot.conn.clone(), room.clone())));
            return;
        }
        let record = records
            .entry(snapshot.conn.clone())
            .or_insert_with(|| self.new_record(&snapshot.user, &snapshot.username));
        // This is a new loss: Redis may have processed the old one before it restored the
        // connection.
        self.mark_lost(record, &snapshot.rooms);
    }

    fn mark_lost(&self, record: &mut Record, rooms: &[RoomId]) {
        for room in rooms {
            self.add_room(record, room);
        }
        if record.is_live() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        record.state = State::Lost(self.new_mark());
    }

    fn new_mark(&self) -> LossMark {
        self.next_mark.fetch_add(1, Ordering::Relaxed)
    }

    /// Removes a connection that Redis never had.
    pub(super) fn forget(&self, conn: &ConnId) {
        let mut records = self.records.lock();
        self.remove(&mut records, conn);
    }

    fn remove(&self, records: &mut HashMap<ConnId, Record>, conn: &ConnId) {
        let Some(record) = records.remove(conn) else {
            return;
        };
        self.remove_use(Partition::of_user(&record.user));
        for entry in &record.rooms {
            self.remove_use(Partition::of_room(&entry.room));
        }
        if !record.is_live() {
            self.lost.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Removes a lost connection after Redis was told of the loss, unless it was lost again or
    /// registered again meanwhile.
    pub(super) fn forget_lost(&self, lost: &Connection) -> Forgotten {
        let mut records = self.records.lock();
        match records.get(&lost.conn).map(|record| record.state) {
            Some(State::Lost(mark)) if mark == lost.mark => {
                self.remove(&mut records, &lost.conn);
                Forgotten::Done
            }
            Some(State::Lost(_)) | None => Forgotten::Done,
            Some(State::Requested | State::Confirmed) => Forgotten::Reconnected,
        }
    }

    /// Moves a loss behind all others, because Redis couldn't be told of it.
    pub(super) fn postpone(&self, lost: &Connection) {
        if let Some(record) = self.records.lock().get_mut(&lost.conn)
            && record.state == State::Lost(lost.mark)
        {
            record.state = State::Lost(self.new_mark());
        }
    }

    /// Lost connections that Redis doesn't know of: at most `limit`, the oldest losses first.
    pub(super) fn pending_disconnects(&self, limit: usize) -> Vec<Connection> {
        if self.lost.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let records = self.records.lock();
        let mut lost: Vec<_> = records
            .iter()
            .filter_map(|(conn, record)| match record.state {
                State::Lost(mark) => Some((mark, conn, record)),
                State::Requested | State::Confirmed => None,
            })
            .collect();
        if lost.len() > limit {
            lost.select_nth_unstable_by_key(limit, |(mark, ..)| *mark);
            lost.truncate(limit);
        }
        lost.into_iter()
            .map(|(_, conn, record)| snapshot(conn, record, Rooms::All))
            .collect()
    }

    /// Marks a room of a connection as uncertain: Redis may or may not have the connection in it.
    pub(super) fn mark_uncertain(&self, conn: &ConnId, room: &RoomId) {
        self.uncertain.lock().insert((conn.clone(), room.clone()));
    }

    /// All connections and rooms that are uncertain.
    pub(super) fn uncertain(&self) -> Vec<(ConnId, RoomId)> {
        self.uncertain.lock().iter().cloned().collect()
    }

    /// Ends the uncertainty after Redis was told whether the connection is in the room, unless that
    /// has changed meanwhile: then Redis will be told again.
    pub(super) fn mark_certain(&self, conn: &ConnId, room: &RoomId, told_is_in: bool) {
        let records = self.records.lock();
        if is_in(&records, conn, room) == told_is_in {
            self.uncertain.lock().remove(&(conn.clone(), room.clone()));
        }
    }

    /// The state of the connection in the room that Redis should have.
    pub(super) fn desired_state(&self, conn: &ConnId, room: &RoomId) -> DesiredState {
        let records = self.records.lock();
        let Some(record) = records.get(conn) else {
            return DesiredState::Absent;
        };
        if !record.is_live() {
            return DesiredState::Absent;
        }
        match record.room(room) {
            Some(entry) if entry.is_confirmed => {
                DesiredState::Joined(record.user.clone(), record.username.clone())
            }
            Some(_) => DesiredState::Joining,
            None => DesiredState::Absent,
        }
    }

    /// The live connections that Redis has confirmed, with the rooms that it has confirmed.
    pub(super) fn live(&self) -> Vec<Connection> {
        let records = self.records.lock();
        records
            .iter()
            .filter(|(_, record)| record.state == State::Confirmed)
            .map(|(conn, record)| snapshot(conn, record, Rooms::Confirmed))
            .collect()
    }

    /// Whether the connection is known and not lost.
    pub(super) fn is_live(&self, conn: &ConnId) -> bool {
        self.records.lock().get(conn).is_some_and(Record::is_live)
    }

    /// Whether the connection is live and in the room, or about to join it.
    pub(super) fn is_in(&self, conn: &ConnId, room: &RoomId) -> bool {
        is_in(&self.records.lock(), conn, room)
    }

    /// Whether any connection or room here lies in the partition.
    pub(super) fn uses(&self, partition: Partition) -> bool {
        self.uses[partition.index()].load(Ordering::Relaxed) > 0
    }

    fn add_use(&self, partition: Partition) {
        self.uses[partition.index()].fetch_add(1, Ordering::Relaxed);
    }

    fn remove_use(&self, partition: Partition) {
        self.uses[partition.index()].fetch_sub(1, Ordering::Relaxed);
    }
}

fn is_in(records: &HashMap<ConnId, Record>, conn: &ConnId, room: &RoomId) -> bool {
    records
        .get(conn)
        .is_some_and(|record| record.is_live() && record.is_in(room))
}

/// The rooms of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rooms {
    All,
    /// Those that Redis has confirmed.
    Confirmed,
}

fn snapshot(conn: &ConnId, record: &Record, rooms: Rooms) -> Connection {
    let rooms = record
        .rooms
        .iter()
        .filter(|entry| entry.is_confirmed || rooms == Rooms::All)
        .map(|entry| entry.room.clone())
        .collect();
    let mark = match record.state {
        State::Lost(mark) => mark,
        State::Requested | State::Confirmed => 0,
    };
    Connection {
        conn: conn.clone(),
        user: record.user.clone(),
        username: record.username.clone(),
        rooms,
        mark,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_confirmed_rooms_are_restored_but_all_rooms_are_undone() {
        let registry = Registry::default();
        let (conn, user) = (ConnId::trusted("c"), UserId::trusted("ann"));
        let (confirmed, requested) = (RoomId::trusted("a"), RoomId::trusted("b"));
        assert_eq!(
            registry.connect(&conn, &user, &Username::from(&user)),
            Known::No
        );
        assert!(registry.live().is_empty());
        registry.confirm(&conn);
        registry.enter(&conn, &Username::from(&user), &confirmed);
        registry.confirm_room(&conn, &confirmed);
        registry.enter(&conn, &Username::from(&user), &requested);
        assert_eq!(registry.live()[0].rooms, std::slice::from_ref(&confirmed));
        assert_eq!(
            registry.lose(&conn, &user, &[]).rooms,
            [confirmed.clone(), requested]
        );
        assert!(registry.live().is_empty() && !registry.is_in(&conn, &confirmed));
        let pending = registry.pending_disconnects(9);
        assert_eq!(pending.len(), 1);
        assert_eq!(registry.forget_lost(&pending[0]), Forgotten::Done);
        assert!(
            registry.pending_disconnects(9).is_empty()
                && !registry.uses(Partition::of_room(&confirmed))
        );
    }

    #[test]
    fn a_connection_that_is_registered_again_is_not_forgotten() {
        let registry = Registry::default();
        let (conn, user) = (ConnId::trusted("c"), UserId::trusted("ann"));
        let lost = registry.lose(&conn, &user, &[]);
        assert_eq!(
            registry.connect(&conn, &user, &Username::from(&user)),
            Known::Lost
        );
        assert_eq!(registry.forget_lost(&lost), Forgotten::Reconnected);
        assert!(registry.is_live(&conn));
    }

    #[test]
    fn changes_during_a_restoration_are_published_again() {
        let registry = Registry::default();
        let (conn, user, room) = (
            ConnId::trusted("c"),
            UserId::trusted("ann"),
            RoomId::trusted("a"),
        );
        registry.connect(&conn, &user, &Username::from(&user));
        registry.confirm(&conn);
        registry.enter(&conn, &Username::from(&user), &room);
        registry.confirm_room(&conn, &room);
        let snapshot = registry.live();
        registry.restored(&snapshot[0]);
        assert!(
            registry.uncertain().is_empty() && registry.pending_disconnects(9).is_empty(),
            "nothing has changed"
        );
        // It leaves the room.
        registry.leave(&conn, &room);
        registry.restored(&snapshot[0]);
        assert_eq!(registry.uncertain(), [(conn.clone(), room.clone())]);
        registry.mark_certain(&conn, &room, false);
        assert!(registry.uncertain().is_empty());
        // It is lost, and Redis may have processed that before the restoration.
        let lost = registry.lose(&conn, &user, &[]);
        registry.restored(&snapshot[0]);
        registry.forget_lost(&lost);
        assert_eq!(registry.pending_disconnects(9)[0].rooms, [room]);
        // The same if it was already forgotten.
        registry.forget(&conn);
        registry.restored(&snapshot[0]);
        assert_eq!(registry.pending_disconnects(9).len(), 1);
    }

    #[test]
    fn a_disconnect_that_cannot_be_published_lets_others_pass() {
        let registry = Registry::default();
        for name in ["a", "b", "c"] {
            registry.lose(&ConnId::trusted(name), &UserId::trusted(name), &[]);
        }
        let first = registry.pending_disconnects(1);
        registry.postpone(&first[0]);
        let second = registry.pending_disconnects(1);
        registry.postpone(&second[0]);
        let third = registry.pending_disconnects(1);
        let mut all = [&first[0].conn, &second[0].conn, &third[0].conn];
        all.sort_unstable();
        assert_eq!(all.map(ConnId::as_str), ["a", "b", "c"]);
    }
}
