//! Who may open a connection now: caps in all and by address, the rate of handshakes, and drain. And what an address may
//! spend besides.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Client;
use crate::domain::{Code, Cost, Limiters, Rates, Refusal};
use crate::telemetry::meter::Counter;

/// The caps; 0 is none.
#[derive(Debug, Clone, Default)]
pub struct Caps {
    /// Connections of this node.
    pub connections: usize,
    /// Connections of one address.
    pub per_ip: usize,
    /// Connections that haven't said yet who they are.
    pub strangers: usize,
    /// Handshakes a second.
    pub handshakes_per_sec: u32,
    /// What one address may spend; its connects are handshakes.
    pub address: Rates,
}

/// The places that are taken.
#[derive(Debug, Default)]
struct Taken {
    total: usize,
    strangers: usize,
    /// Of each address (or /64 of IPv6); kept only where addresses have a cap.
    by_ip: HashMap<IpAddr, usize>,
}

/// A connection's place in all counts, from its handshake on; given back when dropped.
#[derive(Debug)]
pub struct ConnectionSlot {
    taken: Arc<Mutex<Taken>>,
    ip: Option<IpAddr>,
    is_stranger: AtomicBool,
}

impl ConnectionSlot {
    /// From now on it is known who is connected.
    pub fn introduce(&self) {
        if self.is_stranger.swap(false, Ordering::Relaxed) {
            self.taken.lock().strangers -= 1;
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.introduce();
        let mut taken = self.taken.lock();
        taken.total -= 1;
        if let Some(ip) = self.ip
            && let Some(count) = taken.by_ip.get_mut(&ip)
        {
            *count -= 1;
            if *count == 0 {
                taken.by_ip.remove(&ip);
            }
        }
    }
}

/// Decides on handshakes.
pub struct Admission {
    caps: Caps,
    taken: Arc<Mutex<Taken>>,
    /// Handshakes that may be made now, and when that was counted.
    tokens: Mutex<(f64, Instant)>,
    /// Of addresses, by network.
    addresses: Mutex<Limiters<IpAddr>>,
    draining: AtomicBool,
    refused: Counter,
}

/// Addresses with an allowance of their own at once; the others share one.
const ADDRESSES: usize = 1 << 16;

impl Admission {
    /// With those caps.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        let tokens = Mutex::new((f64::from(caps.handshakes_per_sec), Instant::now()));
        let addresses = Mutex::new(Limiters::new(caps.address, ADDRESSES));
        Self {
            caps,
            taken: Arc::default(),
            tokens,
            addresses,
            draining: AtomicBool::new(false),
            refused: Counter::default(),
        }
    }

    /// From now on nobody is let in.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether this node is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// How many were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Spends of an address's allowance.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn spend(&self, client: Option<Client>, cost: Cost) -> Result<(), Refusal> {
        let Some(client) = client.filter(|_| !self.caps.address.are_off_for(cost)) else {
            return Ok(());
        };
        let spent = self
            .addresses
            .lock()
            .spend(&client.network(), cost, Instant::now());
        spent.map_err(|exceeded| Refusal::rate_limited(exceeded, " of this address"))
    }

    /// Lets a handshake of `client` in, or says why not. Checking and counting are one step.
    ///
    /// # Errors
    /// `draining` and `unavailable` where another node may have room; `too_many_connections` and `rate_limited` where the
    /// address has had its share. Each with a hint when to come back.
    pub fn admit(&self, client: Option<Client>) -> Result<ConnectionSlot, Refusal> {
        self.decide(client).inspect_err(|_| self.refused.add(1))
    }

    fn decide(&self, client: Option<Client>) -> Result<ConnectionSlot, Refusal> {
        if self.is_draining() {
            return Err(Refusal::new(Code::Draining, "this node is about to stop"));
        }
        let busy = |code, text: &'static str| {
            Err(Refusal::new(code, text).retry_after(Duration::from_secs(1)))
        };
        // The address first: one that floods must not use up what is everyone's.
        self.spend(client, Cost::CONNECT)?;
        if !self.take_token() {
            return busy(Code::Unavailable, "too many handshakes at this node");
        }
        let ip = client.filter(|_| self.caps.per_ip > 0).map(Client::network);
        let mut taken = self.taken.lock();
        let is_full = |taken: usize, cap: usize| cap > 0 && taken >= cap;
        if is_full(taken.total, self.caps.connections) {
            return busy(
                Code::Unavailable,
                "this node has as many connections as it may",
            );
        }
        if is_full(taken.strangers, self.caps.strangers) {
            return busy(Code::Unavailable, "too many have not said yet who they are");
        }
        if ip.is_some_and(|ip| {
            taken
                .by_ip
                .get(&ip)
                .is_some_and(|count| *count >= self.caps.per_ip)
        }) {
            return busy(
                Code::TooManyConnections,
                "this address has as many connections as it may",
            );
        }
        taken.total += 1;
        taken.strangers += 1;
        if let Some(ip) = ip {
            *taken.by_ip.entry(ip).or_default() += 1;
        }
        Ok(ConnectionSlot {
            taken: self.taken.clone(),
            ip,
            is_stranger: AtomicBool::new(true),
        })
    }

    fn take_token(&self) -> bool {
        if self.caps.handshakes_per_sec == 0 {
            return true;
        }
        let rate = f64::from(self.caps.handshakes_per_sec);
        let mut tokens = self.tokens.lock();
        let now = Instant::now();
        let (left, counted) = *tokens;
        let left = (left + now.duration_since(counted).as_secs_f64() * rate).min(rate);
        let taken = left >= 1.0;
        *tokens = (if taken { left - 1.0 } else { left }, now);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Rate;

    fn admission(connections: usize, per_ip: usize, handshakes_per_sec: u32) -> Admission {
        Admission::new(Caps {
            connections,
            per_ip,
            handshakes_per_sec,
            ..Caps::default()
        })
    }

    #[test]
    fn an_address_gets_its_place_back() {
        let admission = admission(10, 1, 100);
        let ip = Some(Client(IpAddr::from([127, 0, 0, 1])));
        let place = admission.admit(ip).unwrap();
        assert_eq!(
            admission.admit(ip).unwrap_err().code,
            Code::TooManyConnections
        );
        assert!(
            admission
                .admit(Some(Client(IpAddr::from([127, 0, 0, 2]))))
                .is_ok()
        );
        drop(place);
        assert!(admission.admit(ip).is_ok());
    }

    #[test]
    fn caps_hold_and_say_when_to_come_back() {
        let small = admission(1, 0, 100);
        let place = small.admit(None).unwrap();
        assert_eq!(small.admit(None).unwrap_err().code, Code::Unavailable);
        drop(place);
        assert!(small.admit(None).is_ok());
        let slow = admission(10, 0, 1);
        assert!(slow.admit(None).is_ok());
        let refusal = slow.admit(None).unwrap_err();
        assert_eq!(refusal.code, Code::Unavailable);
        assert!(refusal.retry_after.is_some());
        let unlimited = admission(0, 0, 0);
        assert!((0..10_000).all(|_| unlimited.admit(None).is_ok()));
        let draining = admission(10, 0, 100);
        draining.begin_drain();
        assert_eq!(draining.admit(None).unwrap_err().code, Code::Draining);
        assert_eq!(draining.refused(), 1);
    }

    #[test]
    fn an_address_that_floods_leaves_the_others_their_handshakes() {
        let address = Rates {
            connects: Rate {
                per_sec: 1,
                burst: 3,
            },
            ..Rates::default()
        };
        let admission = Admission::new(Caps {
            handshakes_per_sec: 10,
            address,
            ..Caps::default()
        });
        let from = |last: u16| {
            Some(Client(
                format!("2001:db8:0:{last}::{last}").parse().unwrap(),
            ))
        };
        let places: Vec<_> = (0..1000)
            .filter_map(|_| admission.admit(from(1)).ok())
            .collect();
        assert_eq!(places.len(), 3);
        let refusal = admission
            .admit(Some(Client("2001:db8:0:1:9::".parse().unwrap())))
            .unwrap_err();
        assert_eq!(
            refusal.code,
            Code::RateLimited,
            "another address of the same network"
        );
        assert!(refusal.retry_after.unwrap() <= Duration::from_secs(1));
        assert!(admission.admit(from(2)).is_ok());
    }

    #[test]
    fn strangers_have_a_cap_of_their_own() {
        let admission = Admission::new(Caps {
            strangers: 2,
            ..Caps::default()
        });
        let (one, two) = (
            admission.admit(None).unwrap(),
            admission.admit(None).unwrap(),
        );
        assert_eq!(admission.admit(None).unwrap_err().code, Code::Unavailable);
        one.introduce();
        one.introduce();
        let three = admission.admit(None).unwrap();
        assert!(admission.admit(None).is_err());
        drop((one, two, three));
        assert_eq!(admission.taken.lock().strangers, 0);
    }
}
