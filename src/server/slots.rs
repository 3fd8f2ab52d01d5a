//! The slots of connections in the limits on their number: in all, by address, and of those that
//! have not authenticated yet.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A connection of at least this age that has not authenticated is closed when another connection
/// needs its slot. Clients that authenticate right after CONNECT are never closed for it, however
/// many connections an attacker opens.
const MIN_EVICTION_AGE: Duration = Duration::from_secs(10);

/// Closes the transport of a connection, in such a way that the client reconnects by itself.
pub type CloseTransport = Arc<dyn Fn() + Send + Sync>;

/// The open connections.
#[derive(Default)]
pub(super) struct Slots {
    total: usize,
    next_number: u64,
    /// By the number of the slot, so the oldest is first.
    unauthenticated: BTreeMap<u64, Unauthenticated>,
    /// By IPv4 address or /64 of IPv6. Counted only where addresses have a cap.
    by_ip: HashMap<IpAddr, usize>,
}

struct Unauthenticated {
    since: Instant,
    /// `None` until the session has begun.
    close: Option<CloseTransport>,
}

impl Slots {
    pub fn total(&self) -> usize {
        self.total
    }

    pub fn unauthenticated(&self) -> usize {
        self.unauthenticated.len()
    }

    pub fn of_address(&self, ip: IpAddr) -> usize {
        self.by_ip.get(&ip).copied().unwrap_or_default()
    }

    /// Takes the slot of the oldest connection that has not authenticated, if it is old enough. The
    /// caller must close that connection, without holding a lock.
    pub fn evict_oldest(&mut self) -> Option<CloseTransport> {
        let youngest = Instant::now().checked_sub(MIN_EVICTION_AGE)?;
        let mut old = self
            .unauthenticated
            .iter()
            .take_while(|(_, connection)| connection.since <= youngest);
        let (&number, _) = old.find(|(_, connection)| connection.close.is_some())?;
        self.unauthenticated.remove(&number)?.close
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
    number: u64,
    since: Instant,
    /// The connections with a user that the transport carries.
    authenticated: Mutex<usize>,
    close: OnceLock<CloseTransport>,
}

impl ConnectionSlot {
    /// Takes a slot in `slots`, of which `locked` is the content.
    pub(super) fn take(
        slots: &Arc<Mutex<Slots>>,
        locked: &mut Slots,
        kind: SlotKind,
        ip: Option<IpAddr>,
    ) -> Self {
        let number = locked.next_number;
        locked.next_number += 1;
        locked.total += 1;
        if let Some(ip) = ip {
            *locked.by_ip.entry(ip).or_default() += 1;
        }
        let since = Instant::now();
        if kind == SlotKind::Unauthenticated {
            let unauthenticated = Unauthenticated { since, close: None };
            locked.unauthenticated.insert(number, unauthenticated);
        }
        Self {
            slots: slots.clone(),
            ip,
            number,
            since,
            authenticated: Mutex::new(usize::from(kind == SlotKind::Identified)),
            close: OnceLock::new(),
        }
    }

    /// From now on the connection can be closed when another one needs its slot.
    pub fn make_evictable(&self, close: CloseTransport) {
        if let Some(unauthenticated) = self.slots.lock().unauthenticated.get_mut(&self.number) {
            unauthenticated.close = Some(close.clone());
        }
        // An error means that it was evictable already.
        let _ = self.close.set(close);
    }

    /// A connection of the transport has a user now.
    pub fn add_authenticated(&self) {
        let mut authenticated = self.authenticated.lock();
        *authenticated += 1;
        self.slots.lock().unauthenticated.remove(&self.number);
    }

    /// A connection with a user has ended. Without another one, the transport counts as
    /// unauthenticated again: otherwise one token would be enough to keep any number of transports
    /// without a user.
    pub fn remove_authenticated(&self) {
        let mut authenticated = self.authenticated.lock();
        *authenticated -= 1;
        if *authenticated == 0 {
            let unauthenticated = Unauthenticated {
                since: self.since,
                close: self.close.get().cloned(),
            };
            let mut slots = self.slots.lock();
            slots.unauthenticated.insert(self.number, unauthenticated);
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut slots = self.slots.lock();
        slots.total -= 1;
        // Dropped without the lock, because it holds the session.
        let unauthenticated = slots.unauthenticated.remove(&self.number);
        if let Some(ip) = self.ip {
            slots.remove_address(ip);
        }
        drop(slots);
        drop(unauthenticated);
    }
}

impl fmt::Debug for ConnectionSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectionSlot").field(&self.number).finish()
    }
}
