//! The slots of connections in the limits on their number: in all, by address, and of those that
//! have not authenticated yet.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A connection that has had no user for at least this time is closed when another connection needs
/// its slot. Clients that authenticate right after CONNECT are never closed for it, however many
/// connections an attacker opens.
const MIN_EVICTION_AGE: Duration = Duration::from_secs(10);

/// The number of times that the age of a transport begins again because its last user has left.
/// After these it continues: otherwise one token would keep any number of transports young.
const MAX_RENEWALS: u32 = 5;

/// Closes the transport of a connection, in such a way that the client reconnects by itself.
pub type CloseTransport = Arc<dyn Fn() + Send + Sync>;

/// The open connections.
#[derive(Default)]
pub(super) struct Slots {
    total: usize,
    next_number: u64,
    /// By the number of the slot, so the oldest is first.
    unauthenticated: BTreeMap<u64, Unauthenticated>,
    /// The number of connections in `unauthenticated` that have a successor.
    with_successor: usize,
    /// By IPv4 address or /64 of IPv6. Counted only where addresses have a cap.
    by_ip: HashMap<IpAddr, usize>,
    /// The number of connections that were closed for their successors.
    evicted: u64,
}

struct Unauthenticated {
    since: Instant,
    transport: Arc<Transport>,
    /// The number of the slot whose session closes this connection when it opens.
    successor: Option<u64>,
}

/// The transport of a slot.
struct Transport {
    /// The slot's number. It changes only while `users` is locked.
    number: AtomicU64,
    /// Locked until the transport is closed for its successor, so that no user is added meanwhile.
    /// Locked before `Slots`.
    users: Mutex<Users>,
    /// Empty until the session has opened.
    close: OnceLock<CloseTransport>,
}

struct Users {
    /// The connections with a user that the transport carries.
    count: usize,
    /// The time at which the age of the transport began.
    since: Instant,
    renewals: u32,
}

/// A connection that is closed when the session of its successor opens.
pub(super) struct Predecessor {
    number: u64,
    transport: Arc<Transport>,
}

impl Slots {
    pub fn total(&self) -> usize {
        self.total
    }

    /// The number of connections without a user. A connection and its successor count as one.
    pub fn unauthenticated(&self) -> usize {
        self.unauthenticated.len() - self.with_successor
    }

    pub fn of_address(&self, ip: IpAddr) -> usize {
        self.by_ip.get(&ip).copied().unwrap_or_default()
    }

    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Makes the next slot the successor of the oldest connection that has not authenticated, if
    /// that one is old enough.
    pub fn reserve_oldest(&mut self) -> Option<Predecessor> {
        let youngest = Instant::now().checked_sub(MIN_EVICTION_AGE)?;
        let mut old = self
            .unauthenticated
            .iter_mut()
            .take_while(|(_, connection)| connection.since <= youngest);
        let (&number, oldest) = old.find(|(_, connection)| {
            connection.successor.is_none() && connection.transport.close.get().is_some()
        })?;
        oldest.successor = Some(self.next_number);
        self.with_successor += 1;
        let transport = oldest.transport.clone();
        Some(Predecessor { number, transport })
    }

    /// Ends the reservation of a connection for a successor whose session never opened.
    fn release(&mut self, number: u64, successor: u64) {
        let Some(connection) = self.unauthenticated.get_mut(&number) else {
            return;
        };
        if connection.successor == Some(successor) {
            connection.successor = None;
            self.with_successor -= 1;
        }
    }

    /// Removes a connection that must be closed for its successor. False if it has authenticated or
    /// ended since it was reserved.
    fn evict(&mut self, number: u64, successor: u64) -> bool {
        let is_reserved = self
            .unauthenticated
            .get(&number)
            .is_some_and(|connection| connection.successor == Some(successor));
        if is_reserved {
            self.remove_unauthenticated(number);
            self.evicted += 1;
        }
        is_reserved
    }

    fn remove_unauthenticated(&mut self, number: u64) {
        if let Some(connection) = self.unauthenticated.remove(&number)
            && connection.successor.is_some()
        {
            self.with_successor -= 1;
        }
    }

    fn add_unauthenticated(&mut self, since: Instant, transport: &Arc<Transport>) {
        let connection = Unauthenticated {
            since,
            transport: transport.clone(),
            successor: None,
        };
        let number = transport.number.load(Ordering::Relaxed);
        self.unauthenticated.insert(number, connection);
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    fn remove_address(&mut self, ip: IpAddr) {
        let Some(count) = self.by_ip.get_mut(&ip) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.by_ip.remove(&ip);
        }
    }
}

/// Whether a new connection counts as unauthenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotKind {
    /// It does, until it has a user.
    Unauthenticated,
    /// Its user is known before its handshake is answered.
    Identified,
}

/// A connection's slot in all counts, from its handshake on. Dropping it frees the slot.
pub struct ConnectionSlot {
    slots: Arc<Mutex<Slots>>,
    ip: Option<IpAddr>,
    /// The number that the slot began with.
    number: u64,
    transport: Arc<Transport>,
    /// `None` once the session has opened.
    predecessor: Mutex<Option<Predecessor>>,
}

impl ConnectionSlot {
    /// Takes a slot in `slots`, of which `locked` is the content. `predecessor` was reserved under
    /// the same lock.
    pub(super) fn take(
        slots: &Arc<Mutex<Slots>>,
        locked: &mut Slots,
        kind: SlotKind,
        ip: Option<IpAddr>,
        predecessor: Option<Predecessor>,
    ) -> Self {
        let number = locked.take_number();
        locked.total += 1;
        if let Some(ip) = ip {
            *locked.by_ip.entry(ip).or_default() += 1;
        }
        let since = Instant::now();
        let transport = Arc::new(Transport {
            number: AtomicU64::new(number),
            users: Mutex::new(Users {
                count: usize::from(kind == SlotKind::Identified),
                since,
                renewals: 0,
            }),
            close: OnceLock::new(),
        });
        if kind == SlotKind::Unauthenticated {
            locked.add_unauthenticated(since, &transport);
        }
        Self {
            slots: slots.clone(),
            ip,
            number,
            transport,
            predecessor: Mutex::new(predecessor),
        }
    }

    /// The session has opened: closes the connection whose slot it needs. From now on it can be
    /// closed itself when another one needs its slot.
    pub fn make_evictable(&self, close: CloseTransport) {
        // An error means that it was evictable already.
        let _ = self.transport.close.set(close);
        let predecessor = self.predecessor.lock().take();
        if let Some(predecessor) = predecessor {
            self.evict(&predecessor);
        }
    }

    /// Closes the predecessor, unless it has got a user or has ended.
    fn evict(&self, predecessor: &Predecessor) {
        let transport = &predecessor.transport;
        let _no_new_user = transport.users.lock();
        let is_evicted = self.slots.lock().evict(predecessor.number, self.number);
        if is_evicted && let Some(close) = transport.close.get() {
            close();
        }
    }

    /// A connection of the transport has a user now.
    pub fn add_authenticated(&self) {
        let mut users = self.transport.users.lock();
        users.count += 1;
        let number = self.transport.number.load(Ordering::Relaxed);
        self.slots.lock().remove_unauthenticated(number);
    }

    /// A connection with a user has ended. Without another one, the transport counts as
    /// unauthenticated again: otherwise one token would be enough to keep any number of transports
    /// without a user. Its age begins again, at most [`MAX_RENEWALS`] times, so that the client has
    /// the time to come back.
    pub fn remove_authenticated(&self) {
        let mut users = self.transport.users.lock();
        users.count -= 1;
        if users.count > 0 {
            return;
        }
        let mut slots = self.slots.lock();
        if users.renewals < MAX_RENEWALS {
            users.renewals += 1;
            users.since = Instant::now();
            let number = slots.take_number();
            self.transport.number.store(number, Ordering::Relaxed);
        }
        slots.add_unauthenticated(users.since, &self.transport);
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        // Dropped after the lock, because it holds a session.
        let predecessor = self.predecessor.get_mut().take();
        let mut slots = self.slots.lock();
        slots.total -= 1;
        // Without `users`, which is locked while the transport is closed for another one.
        let number = self.transport.number.load(Ordering::Relaxed);
        slots.remove_unauthenticated(number);
        if let Some(predecessor) = &predecessor {
            slots.release(predecessor.number, self.number);
        }
        if let Some(ip) = self.ip {
            slots.remove_address(ip);
        }
    }
}

impl fmt::Debug for ConnectionSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectionSlot").field(&self.number).finish()
    }
}
