//! Who may open a connection now: caps in all and by address, the rate of handshakes, and drain.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Client;
use crate::domain::{Code, Refusal};
use crate::telemetry::meter::Counter;

/// The caps.
#[derive(Debug, Clone)]
pub struct Caps {
    /// Connections of this node.
    pub connections: usize,
    /// Connections of one address; 0: no cap.
    pub per_ip: usize,
    /// Handshakes a second.
    pub handshakes_per_sec: u32,
}

/// The places that are taken.
#[derive(Debug, Default)]
struct Taken {
    total: usize,
    /// Of each address (or /64 of IPv6); kept only where addresses have a cap.
    by_ip: HashMap<IpAddr, usize>,
}

/// A connection's place in all counts, from its handshake on; given back when dropped.
#[derive(Debug)]
pub struct Place {
    taken: Arc<Mutex<Taken>>,
    ip: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
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
    draining: AtomicBool,
    refused: Counter,
}

impl Admission {
    /// With those caps.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        let tokens = Mutex::new((f64::from(caps.handshakes_per_sec), Instant::now()));
        Self { caps, taken: Arc::default(), tokens, draining: AtomicBool::new(false), refused: Counter::default() }
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

    /// Lets a handshake of `client` in, or says why not. Checking and counting are one step.
    ///
    /// # Errors
    /// `draining`, `too_many_connections`, `rate_limited`: each with a hint when to come back.
    pub fn admit(&self, client: Option<Client>) -> Result<Place, Refusal> {
        self.decide(client).inspect_err(|_| self.refused.add(1))
    }

    fn decide(&self, client: Option<Client>) -> Result<Place, Refusal> {
        if self.is_draining() {
            return Err(Refusal::new(Code::Draining, "this node is about to stop"));
        }
        let busy = |code, text: &'static str| Err(Refusal::new(code, text).retry_after(Duration::from_secs(1)));
        if !self.take_token() {
            return busy(Code::RateLimited, "too many handshakes");
        }
        let ip = client.filter(|_| self.caps.per_ip > 0).map(Client::network);
        let mut taken = self.taken.lock();
        if taken.total >= self.caps.connections {
            return busy(Code::TooManyConnections, "this node has as many connections as it may");
        }
        if ip.is_some_and(|ip| taken.by_ip.get(&ip).is_some_and(|count| *count >= self.caps.per_ip)) {
            return busy(Code::TooManyConnections, "this address has as many connections as it may");
        }
        taken.total += 1;
        if let Some(ip) = ip {
            *taken.by_ip.entry(ip).or_default() += 1;
        }
        Ok(Place { taken: self.taken.clone(), ip })
    }

    fn take_token(&self) -> bool {
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

    fn admission(connections: usize, per_ip: usize, handshakes_per_sec: u32) -> Admission {
        Admission::new(Caps { connections, per_ip, handshakes_per_sec })
    }

    #[test]
    fn an_address_gets_its_place_back() {
        let admission = admission(10, 1, 100);
        let ip = Some(Client(IpAddr::from([127, 0, 0, 1])));
        let place = admission.admit(ip).unwrap();
        assert_eq!(admission.admit(ip).unwrap_err().code, Code::TooManyConnections);
        assert!(admission.admit(Some(Client(IpAddr::from([127, 0, 0, 2])))).is_ok());
        drop(place);
        assert!(admission.admit(ip).is_ok());
    }

    #[test]
    fn caps_hold_and_say_when_to_come_back() {
        let small = admission(1, 0, 100);
        let place = small.admit(None).unwrap();
        assert_eq!(small.admit(None).unwrap_err().code, Code::TooManyConnections);
        drop(place);
        assert!(small.admit(None).is_ok());
        let slow = admission(10, 0, 1);
        assert!(slow.admit(None).is_ok());
        let refusal = slow.admit(None).unwrap_err();
        assert_eq!(refusal.code, Code::RateLimited);
        assert!(refusal.retry_after.is_some());
        let draining = admission(10, 0, 100);
        draining.begin_drain();
        assert_eq!(draining.admit(None).unwrap_err().code, Code::Draining);
        assert_eq!(draining.refused(), 1);
    }
}
