//! What this node has told Redis of its own connections: what is put back after a loss, and what is still to be said.
//!
//! An entry is written *before* Redis is asked, so that whatever may have happened there is known here and undone when the
//! connection is lost. Only what Redis has confirmed is ever put back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::keys::Partition;
use crate::domain::{ConnId, RoomId, UserId, Username};

struct Held {
    user: UserId,
    username: Username,
    /// The connection's rooms, and whether Redis has confirmed each.
    rooms: Vec<(RoomId, bool)>,
    confirmed: bool,
    /// Lost, and Redis doesn't know it yet.
    lost: bool,
}

/// A live connection with its rooms, or a lost one with those to take it out of.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) conn: ConnId,
    pub(super) user: UserId,
    pub(super) username: Username,
    pub(super) rooms: Vec<RoomId>,
}

/// The node's connections; bounded by their number.
pub(super) struct Registry {
    held: Mutex<HashMap<ConnId, Held>>,
    /// Entries in each partition, to know which ones matter.
    uses: Vec<AtomicUsize>,
    lost: AtomicUsize,
}

impl Default for Registry {
    fn default() -> Self {
        let uses = Partition::all().map(|_| AtomicUsize::new(0)).collect();
        Self { held: Mutex::default(), uses, lost: AtomicUsize::new(0) }
    }
}

impl Registry {
    /// A connection is about to be registered; false when it already was.
    pub(super) fn connect(&self, conn: &ConnId, user: &UserId, username: &Username) -> bool {
        let mut held = self.held.lock();
        let mut new = false;
        let entry = held.entry(conn.clone()).or_insert_with(|| {
            new = true;
            self.uses[Partition::of_user(user).index()].fetch_add(1, Ordering::Relaxed);
            Held { user: user.clone(), username: username.clone(), rooms: Vec::new(), confirmed: false, lost: false }
        });
        entry.username = username.clone();
        if std::mem::take(&mut entry.lost) {
            self.lost.fetch_sub(1, Ordering::Relaxed);
        }
        new
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
        self.connect(conn, user, &Username::from(user));
        let mut held = self.held.lock();
        let entry = held.get_mut(conn);
        let rooms = entry.map_or_else(Vec::new, |entry| {
            for room in rooms {
                if !entry.rooms.iter().any(|(held, _)| held == room) {
                    entry.rooms.push((room.clone(), false));
                    self.uses[Partition::of_room(room).index()].fetch_add(1, Ordering::Relaxed);
                }
            }
            if !std::mem::replace(&mut entry.lost, true) {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            entry.rooms.iter().map(|(room, _)| room.clone()).collect()
        });
        Connection { conn: conn.clone(), user: user.clone(), username: Username::from(user), rooms }
    }

    /// Redis knows that the connection is lost, or never had it.
    pub(super) fn forget(&self, conn: &ConnId) {
        let Some(entry) = self.held.lock().remove(conn) else { return };
        self.uses[Partition::of_user(&entry.user).index()].fetch_sub(1, Ordering::Relaxed);
        for (room, _) in &entry.rooms {
            self.uses[Partition::of_room(room).index()].fetch_sub(1, Ordering::Relaxed);
        }
        if entry.lost {
            self.lost.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Redis was told that the connection is lost; if it has come back meanwhile, it stays.
    pub(super) fn forget_lost(&self, conn: &ConnId) {
        let lost = self.held.lock().get(conn).is_some_and(|entry| entry.lost);
        if lost {
            self.forget(conn);
        }
    }

    /// Lost connections that Redis doesn't know of, at most `limit`.
    pub(super) fn unsaid(&self, limit: usize) -> Vec<Connection> {
        if self.lost.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let held = self.held.lock();
        held.iter()
            .filter(|(_, entry)| entry.lost)
            .take(limit)
            .map(|(conn, entry)| connection(conn, entry, false))
            .collect()
    }

    /// Live connections with all that Redis has confirmed of them.
    pub(super) fn live(&self) -> Vec<Connection> {
        let held = self.held.lock();
        let live = held.iter().filter(|(_, entry)| entry.confirmed && !entry.lost);
        live.map(|(conn, entry)| connection(conn, entry, true)).collect()
    }

    /// Whether the connection is live.
    pub(super) fn is_live(&self, conn: &ConnId) -> bool {
        self.held.lock().get(conn).is_some_and(|entry| !entry.lost)
    }

    /// Whether the connection is live and in the room.
    pub(super) fn is_in(&self, conn: &ConnId, room: &RoomId) -> bool {
        self.held.lock().get(conn).is_some_and(|entry| !entry.lost && entry.rooms.iter().any(|(held, _)| held == room))
    }

    /// Whether anything here lies in the partition.
    pub(super) fn uses(&self, partition: Partition) -> bool {
        self.uses[partition.index()].load(Ordering::Relaxed) > 0
    }
}

fn connection(conn: &ConnId, entry: &Held, confirmed: bool) -> Connection {
    let rooms = entry.rooms.iter().filter(|(_, sure)| *sure || !confirmed).map(|(room, _)| room.clone()).collect();
    Connection { conn: conn.clone(), user: entry.user.clone(), username: entry.username.clone(), rooms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_confirmed_is_put_back_but_all_of_it_is_undone() {
        let registry = Registry::default();
        let (conn, user) = (ConnId::trusted("c"), UserId::trusted("ann"));
        let (sure, doubtful) = (RoomId::trusted("a"), RoomId::trusted("b"));
        assert!(registry.connect(&conn, &user, &Username::from(&user)));
        assert!(registry.live().is_empty());
        registry.confirm(&conn);
        registry.enter(&conn, &Username::from(&user), &sure);
        registry.confirm_room(&conn, &sure);
        registry.enter(&conn, &Username::from(&user), &doubtful);
        assert_eq!(registry.live()[0].rooms, std::slice::from_ref(&sure));
        assert_eq!(registry.lose(&conn, &user, &[]).rooms, [sure.clone(), doubtful]);
        assert!(registry.live().is_empty() && !registry.is_in(&conn, &sure));
        assert_eq!(registry.unsaid(9).len(), 1);
        registry.forget_lost(&conn);
        assert!(registry.unsaid(9).is_empty() && !registry.uses(Partition::of_room(&sure)));
    }

    #[test]
    fn who_comes_back_is_not_forgotten() {
        let registry = Registry::default();
        let (conn, user) = (ConnId::trusted("c"), UserId::trusted("ann"));
        registry.lose(&conn, &user, &[]);
        registry.connect(&conn, &user, &Username::from(&user));
        registry.forget_lost(&conn);
        assert!(registry.is_live(&conn));
    }
}
