//! What this node has told Redis of its own connections: what is put back after a loss, and what is still to be said.
//!
//! An entry is written *before* Redis is asked, so that whatever may have happened there is known here and undone when the
//! connection is lost. Only what Redis has confirmed is ever put back. What a call may or may not have changed is noted
//! (*unsettled*) and set right later, as this registry then has it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::keys::Partition;
use crate::domain::{ConnId, RoomId, UserId, Username};

struct Held {
    user: UserId,
    username: Username,
    /// The connection's rooms, and whether Redis has confirmed each.
    rooms: Vec<(RoomId, bool)>,
    confirmed: bool,
    /// Lost, and Redis doesn't know it yet: the mark of the loss.
    lost: Option<u64>,
}

/// What was known of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing.
    No,
    /// Redis has been asked, and hasn't confirmed it.
    Asked,
    /// It was lost; Redis may be told of that just now.
    Lost,
    /// Redis has it.
    Confirmed,
}

/// What Redis should have of a connection in a room.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// It is in it.
    In(UserId, Username),
    /// It isn't.
    Out,
    /// It is being asked for.
    Asked,
}

/// A live connection with its rooms, or a lost one with those to take it out of.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) conn: ConnId,
    pub(super) user: UserId,
    pub(super) username: Username,
    pub(super) rooms: Vec<RoomId>,
    /// Which loss it is, for a lost one. The later the higher.
    pub(super) mark: u64,
}

/// The node's connections; bounded by their number.
pub(super) struct Registry {
    held: Mutex<HashMap<ConnId, Held>>,
    /// Entries in each partition, to know which ones matter.
    uses: Vec<AtomicUsize>,
    lost: AtomicUsize,
    marks: AtomicU64,
    /// Places that a call may or may not have changed. Locked after `held`, where both are.
    unsettled: Mutex<HashSet<(ConnId, RoomId)>>,
}

impl Default for Registry {
    fn default() -> Self {
        let uses = Partition::all().map(|_| AtomicUsize::new(0)).collect();
        let (lost, marks) = (AtomicUsize::new(0), AtomicU64::new(1));
        Self {
            held: Mutex::default(),
            uses,
            lost,
            marks,
            unsettled: Mutex::default(),
        }
    }
}

impl Registry {
    /// A connection is about to be registered; what was known of it.
    pub(super) fn connect(&self, conn: &ConnId, user: &UserId, username: &Username) -> Known {
        let mut held = self.held.lock();
        let mut known = Known::Asked;
        let entry = held.entry(conn.clone()).or_insert_with(|| {
            known = Known::No;
            self.new_entry(user, username)
        });
        entry.username = username.clone();
        if entry.lost.take().is_some() {
            self.lost.fetch_sub(1, Ordering::Relaxed);
            // Redis may have learned of the loss.
            entry.confirmed = false;
            known = Known::Lost;
        }
        if entry.confirmed {
            Known::Confirmed
        } else {
            known
        }
    }

    fn new_entry(&self, user: &UserId, username: &Username) -> Held {
        self.uses[Partition::of_user(user).index()].fetch_add(1, Ordering::Relaxed);
        Held {
            user: user.clone(),
            username: username.clone(),
            rooms: Vec::new(),
            confirmed: false,
            lost: None,
        }
    }

    /// Redis has the connection.
    pub(super) fn confirm(&self, conn: &ConnId) {
        if let Some(entry) = self.held.lock().get_mut(conn) {
            entry.confirmed = true;
        }
    }

    /// A connection is about to enter a room.
    pub(super) fn enter(&self, conn: &ConnId, username: &Username, room: &RoomId) {
        if let Some(entry) = self.held.lock().get_mut(conn) {
            entry.username = username.clone();
            if !entry.rooms.iter().any(|(held, _)| held == room) {
                entry.rooms.push((room.clone(), false));
                self.uses[Partition::of_room(room).index()].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Redis has the connection in the room.
    pub(super) fn confirm_room(&self, conn: &ConnId, room: &RoomId) {
        if let Some(entry) = self.held.lock().get_mut(conn)
            && let Some((_, confirmed)) = entry.rooms.iter_mut().find(|(held, _)| held == room)
        {
            *confirmed = true;
        }
    }

    /// The connection is out of the room, in Redis too.
    pub(super) fn leave(&self, conn: &ConnId, room: &RoomId) {
        if let Some(entry) = self.held.lock().get_mut(conn) {
            let before = entry.rooms.len();
            entry.rooms.retain(|(held, _)| held != room);
            if entry.rooms.len() < before {
                self.uses[Partition::of_room(room).index()].fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// The connection is lost: Redis is to learn of it. `rooms` are added to those known here.
    pub(super) fn lose(&self, conn: &ConnId, user: &UserId, rooms: &[RoomId]) -> Connection {
        let mut held = self.held.lock();
        let entry = held
            .entry(conn.clone())
            .or_insert_with(|| self.new_entry(user, &Username::from(user)));
        self.mark_lost(entry, rooms);
        connection(conn, entry, false)
    }

    /// What was put back although it may have gone meanwhile: what has, is still to be said, or said again.
    pub(super) fn put_back(&self, one: &Connection) {
        let mut held = self.held.lock();
        let entry = held.get_mut(&one.conn);
        if let Some(entry) = entry.as_ref().filter(|entry| entry.lost.is_none()) {
            let left = one
                .rooms
                .iter()
                .filter(|room| !entry.rooms.iter().any(|(held, _)| held == *room));
            self.unsettled
                .lock()
                .extend(left.map(|room| (one.conn.clone(), room.clone())));
            return;
        }
        let entry = held
            .entry(one.conn.clone())
            .or_insert_with(|| self.new_entry(&one.user, &one.username));
        // A new mark: Redis may have been told of the loss before it was told to put the connection back.
        self.mark_lost(entry, &one.rooms);
    }

    fn mark_lost(&self, entry: &mut Held, rooms: &[RoomId]) {
        for room in rooms {
            if !entry.rooms.iter().any(|(held, _)| held == room) {
                entry.rooms.push((room.clone(), false));
                self.uses[Partition::of_room(room).index()].fetch_add(1, Ordering::Relaxed);
            }
        }
        if entry
            .lost
            .replace(self.marks.fetch_add(1, Ordering::Relaxed))
            .is_none()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Redis knows that the connection is lost, or never had it.
    pub(super) fn forget(&self, conn: &ConnId) {
        let Some(entry) = self.held.lock().remove(conn) else {
            return;
        };
        self.forgotten(&entry);
    }

    fn forgotten(&self, entry: &Held) {
        self.uses[Partition::of_user(&entry.user).index()].fetch_sub(1, Ordering::Relaxed);
        for (room, _) in &entry.rooms {
            self.uses[Partition::of_room(room).index()].fetch_sub(1, Ordering::Relaxed);
        }
        if entry.lost.is_some() {
            self.lost.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Redis was told of this loss. True when the connection has come back meanwhile, and Redis may not have it now.
    pub(super) fn forget_lost(&self, one: &Connection) -> bool {
        let mut held = self.held.lock();
        let lost = held.get(&one.conn).map(|entry| entry.lost);
        if lost == Some(Some(one.mark))
            && let Some(entry) = held.remove(&one.conn)
        {
            self.forgotten(&entry);
        }
        lost == Some(None)
    }

    /// Redis couldn't be told of this loss: others have their turn before it.
    pub(super) fn postpone(&self, one: &Connection) {
        if let Some(entry) = self.held.lock().get_mut(&one.conn)
            && entry.lost == Some(one.mark)
        {
            entry.lost = Some(self.marks.fetch_add(1, Ordering::Relaxed));
        }
    }

    /// Lost connections that Redis doesn't know of, at most `limit`, those first that have waited longest.
    pub(super) fn unsaid(&self, limit: usize) -> Vec<Connection> {
        if self.lost.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let held = self.held.lock();
        let mut lost: Vec<_> = held
            .iter()
            .filter_map(|(conn, entry)| entry.lost.map(|mark| (mark, conn, entry)))
            .collect();
        if lost.len() > limit {
            lost.select_nth_unstable_by_key(limit, |(mark, ..)| *mark);
            lost.truncate(limit);
        }
        lost.into_iter()
            .map(|(_, conn, entry)| connection(conn, entry, false))
            .collect()
    }

    /// Redis may or may not have the connection in the room.
    pub(super) fn unsettle(&self, conn: &ConnId, room: &RoomId) {
        self.unsettled.lock().insert((conn.clone(), room.clone()));
    }

    /// All that is unsettled.
    pub(super) fn unsettled(&self) -> Vec<(ConnId, RoomId)> {
        self.unsettled.lock().iter().cloned().collect()
    }

    /// Redis was told whether the connection is in the room; if that has changed meanwhile, it is told again.
    pub(super) fn settle(&self, conn: &ConnId, room: &RoomId, in_it: bool) {
        let held = self.held.lock();
        if is_in(&held, conn, room) == in_it {
            self.unsettled.lock().remove(&(conn.clone(), room.clone()));
        }
    }

    /// What Redis should have of the connection in the room.
    pub(super) fn place(&self, conn: &ConnId, room: &RoomId) -> Place {
        let held = self.held.lock();
        let Some(entry) = held.get(conn).filter(|entry| entry.lost.is_none()) else {
            return Place::Out;
        };
        match entry.rooms.iter().find(|(held, _)| held == room) {
            Some((_, true)) => Place::In(entry.user.clone(), entry.username.clone()),
            Some((_, false)) => Place::Asked,
            None => Place::Out,
        }
    }

    /// Live connections with all that Redis has confirmed of them.
    pub(super) fn live(&self) -> Vec<Connection> {
        let held = self.held.lock();
        let live = held
            .iter()
            .filter(|(_, entry)| entry.confirmed && entry.lost.is_none());
        live.map(|(conn, entry)| connection(conn, entry, true))
            .collect()
    }

    /// Whether the connection is live.
    pub(super) fn is_live(&self, conn: &ConnId) -> bool {
        self.held
            .lock()
            .get(conn)
            .is_some_and(|entry| entry.lost.is_none())
    }

    /// Whether the connection is live and in the room.
    pub(super) fn is_in(&self, conn: &ConnId, room: &RoomId) -> bool {
        is_in(&self.held.lock(), conn, room)
    }

    /// Whether anything here lies in the partition.
    pub(super) fn uses(&self, partition: Partition) -> bool {
        self.uses[partition.index()].load(Ordering::Relaxed) > 0
    }
}

fn is_in(held: &HashMap<ConnId, Held>, conn: &ConnId, room: &RoomId) -> bool {
    let live = held.get(conn).filter(|entry| entry.lost.is_none());
    live.is_some_and(|entry| entry.rooms.iter().any(|(held, _)| held == room))
}

fn connection(conn: &ConnId, entry: &Held, confirmed: bool) -> Connection {
    let rooms = entry
        .rooms
        .iter()
        .filter(|(_, sure)| *sure || !confirmed)
        .map(|(room, _)| room.clone())
        .collect();
    let mark = entry.lost.unwrap_or(0);
    Connection {
        conn: conn.clone(),
        user: entry.user.clone(),
        username: entry.username.clone(),
        rooms,
        mark,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_confirmed_is_put_back_but_all_of_it_is_undone() {
        let registry = Registry::default();
        let (conn, user) = (ConnId::trusted("c"), UserId::trusted("ann"));
        let (sure, doubtful) = (RoomId::trusted("a"), RoomId::trusted("b"));
        assert_eq!(
            registry.connect(&conn, &user, &Username::from(&user)),
            Known::No
        );
        assert!(registry.live().is_empty());
        registry.confirm(&conn);
        registry.enter(&conn, &Username::from(&user), &sure);
        registry.confirm_room(&conn, &sure);
        registry.enter(&conn, &Username::from(&user), &doubtful);
        assert_eq!(registry.live()[0].rooms, std::slice::from_ref(&sure));
        assert_eq!(
            registry.lose(&conn, &user, &[]).rooms,
            [sure.clone(), doubtful]
        );
        assert!(registry.live().is_empty() && !registry.is_in(&conn, &sure));
        let unsaid = registry.unsaid(9);
        assert_eq!(unsaid.len(), 1);
        assert!(!registry.forget_lost(&unsaid[0]));
        assert!(registry.unsaid(9).is_empty() && !registry.uses(Partition::of_room(&sure)));
    }

    #[test]
    fn who_comes_back_is_not_forgotten() {
        let registry = Registry::default();
        let (conn, user) = (ConnId::trusted("c"), UserId::trusted("ann"));
        let lost = registry.lose(&conn, &user, &[]);
        assert_eq!(
            registry.connect(&conn, &user, &Username::from(&user)),
            Known::Lost
        );
        assert!(
            registry.forget_lost(&lost),
            "Redis must be told that it is back"
        );
        assert!(registry.is_live(&conn));
    }

    #[test]
    fn what_went_while_it_was_put_back_is_said_again() {
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
        registry.put_back(&snapshot[0]);
        assert!(
            registry.unsettled().is_empty() && registry.unsaid(9).is_empty(),
            "all is as it was"
        );
        // It leaves: that is to be said again.
        registry.leave(&conn, &room);
        registry.put_back(&snapshot[0]);
        assert_eq!(registry.unsettled(), [(conn.clone(), room.clone())]);
        registry.settle(&conn, &room, false);
        assert!(registry.unsettled().is_empty());
        // It is lost, and what is said of that just now may come too early.
        let lost = registry.lose(&conn, &user, &[]);
        registry.put_back(&snapshot[0]);
        registry.forget_lost(&lost);
        assert_eq!(registry.unsaid(9)[0].rooms, [room]);
        // The same when it was forgotten already.
        registry.forget(&conn);
        registry.put_back(&snapshot[0]);
        assert_eq!(registry.unsaid(9).len(), 1);
    }

    #[test]
    fn what_cannot_be_said_lets_others_pass() {
        let registry = Registry::default();
        for name in ["a", "b", "c"] {
            registry.lose(&ConnId::trusted(name), &UserId::trusted(name), &[]);
        }
        let first = registry.unsaid(1);
        registry.postpone(&first[0]);
        let second = registry.unsaid(1);
        registry.postpone(&second[0]);
        let third = registry.unsaid(1);
        let mut all = [&first[0].conn, &second[0].conn, &third[0].conn];
        all.sort_unstable();
        assert_eq!(all.map(ConnId::as_str), ["a", "b", "c"]);
    }
}
