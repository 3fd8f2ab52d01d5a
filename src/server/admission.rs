//! Admission of new connections: caps on their number, in all and by address, the rate of
//! handshakes, and the drain. Requests and events are charged to the rates of their address here,
//! too.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::ClientAddress;
use super::slots::{SlotKind, Slots};
use crate::domain::{Code, Cost, Limiters, Rates, Refusal};
use crate::telemetry::meter::Counter;

pub use super::slots::ConnectionSlot;

/// Addresses that have a limiter of their own at the same time. Further addresses share one.
const ADDRESSES: usize = 1 << 16;

/// The caps on connections and handshakes. 0 means no cap.
#[derive(Debug, Clone, Default)]
pub struct Caps {
    /// Connections of this node.
    pub connections: usize,
    /// Connections of one address.
    pub per_ip: usize,
    /// Connections of this node that have not authenticated yet.
    pub unauthenticated: usize,
    /// Handshakes per second on this node.
    pub handshakes_per_sec: u32,
    /// The rates of one address. Its `connects` are handshakes.
    pub address: Rates,
}

/// The token bucket of the node's handshakes. It holds the handshakes of one second.
struct HandshakeTokens {
    available: f64,
    updated: Instant,
}

impl HandshakeTokens {
    /// Takes a token; false if there is none.
    fn take(&mut self, per_sec: f64, now: Instant) -> bool {
        let refilled = now.duration_since(self.updated).as_secs_f64() * per_sec;
        self.available = (self.available + refilled).min(per_sec);
        self.updated = now;
        if self.available < 1.0 {
            return false;
        }
        self.available -= 1.0;
        true
    }
}

/// Decides about handshakes.
pub struct Admission {
    caps: Caps,
    slots: Arc<Mutex<Slots>>,
    handshake_tokens: Mutex<HandshakeTokens>,
    /// By IPv4 address or /64 of IPv6.
    addresses: Mutex<Limiters<IpAddr>>,
    draining: AtomicBool,
    refused: Counter,
}

impl Admission {
    /// With these caps.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        let handshake_tokens = HandshakeTokens {
            available: f64::from(caps.handshakes_per_sec),
            updated: Instant::now(),
        };
        let addresses = Limiters::new(caps.address, ADDRESSES);
        Self {
            caps,
            slots: Arc::default(),
            handshake_tokens: Mutex::new(handshake_tokens),
            addresses: Mutex::new(addresses),
            draining: AtomicBool::new(false),
            refused: Counter::default(),
        }
    }

    /// From now on every handshake is refused.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// True once the node has begun to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// The number of handshakes that were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// The number of connections that were closed because others needed their slots.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.slots.lock().evicted()
    }

    /// Charges `cost` to the rates of the address.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn spend(&self, client: Option<ClientAddress>, cost: Cost) -> Result<(), Refusal> {
        let Some(client) = client else {
            return Ok(());
        };
        if self.caps.address.are_off_for(cost) {
            return Ok(());
        }
        self.addresses
            .lock()
            .spend(&client.network(), cost, Instant::now())
            .map_err(|exceeded| Refusal::rate_limited(exceeded, " of this address"))
    }

    /// Admits a handshake of `client`, or refuses it with the time to wait before a retry. Checking
    /// and counting are one atomic step.
    ///
    /// The connection counts as unauthenticated until it has a user. If the cap on these is reached,
    /// the oldest one that is old enough is closed when the new session opens: a handshake that
    /// fails later closes none.
    ///
    /// # Errors
    /// `draining` and `unavailable`: another node may have capacity. `too_many_connections` and
    /// `rate_limited`: the address has used up its share.
    pub fn admit(&self, client: Option<ClientAddress>) -> Result<ConnectionSlot, Refusal> {
        self.admit_as(SlotKind::Unauthenticated, client)
    }

    /// As [`Admission::admit`], for a handshake that is answered only when its user is known. It
    /// never counts as unauthenticated.
    ///
    /// # Errors
    /// As [`Admission::admit`].
    pub fn admit_identified(
        &self,
        client: Option<ClientAddress>,
    ) -> Result<ConnectionSlot, Refusal> {
        self.admit_as(SlotKind::Identified, client)
    }

    fn admit_as(
        &self,
        kind: SlotKind,
        client: Option<ClientAddress>,
    ) -> Result<ConnectionSlot, Refusal> {
        let admitted = self
            .check_rates(client)
            .and_then(|()| self.take_slot(kind, client));
        admitted.inspect_err(|_| self.refused.add(1))
    }

    fn check_rates(&self, client: Option<ClientAddress>) -> Result<(), Refusal> {
        if self.is_draining() {
            return Err(Refusal::new(Code::Draining, "this node is about to stop"));
        }
        // Before the node's rate: an address that floods the node must not use up the handshakes of
        // all others.
        self.spend(client, Cost::CONNECT)?;
        if self.take_handshake_token() {
            Ok(())
        } else {
            Err(refuse_for_now(
                Code::Unavailable,
                "too many handshakes at this node",
            ))
        }
    }

    fn take_slot(
        &self,
        kind: SlotKind,
        client: Option<ClientAddress>,
    ) -> Result<ConnectionSlot, Refusal> {
        let ip = match client {
            Some(client) if self.caps.per_ip > 0 => Some(client.network()),
            _ => None,
        };
        let mut slots = self.slots.lock();
        let is_reached = |cap: usize, count: usize| cap > 0 && count >= cap;
        if is_reached(self.caps.connections, slots.total()) {
            return Err(refuse_for_now(
                Code::Unavailable,
                "this node has reached its limit of connections",
            ));
        }
        let of_address = ip.map_or(0, |ip| slots.of_address(ip));
        if is_reached(self.caps.per_ip, of_address) {
            return Err(refuse_for_now(
                Code::TooManyConnections,
                "this address has reached its limit of connections",
            ));
        }
        let mut predecessor = None;
        if kind == SlotKind::Unauthenticated
            && is_reached(self.caps.unauthenticated, slots.unauthenticated())
        {
            let oldest = slots.reserve_oldest().ok_or_else(|| {
                let text = "this node has reached its limit of unauthenticated connections";
                refuse_for_now(Code::Unavailable, text)
            })?;
            predecessor = Some(oldest);
        }
        Ok(ConnectionSlot::take(
            &self.slots,
            &mut slots,
            kind,
            ip,
            predecessor,
        ))
    }

    fn take_handshake_token(&self) -> bool {
        if self.caps.handshakes_per_sec == 0 {
            return true;
        }
        let per_sec = f64::from(self.caps.handshakes_per_sec);
        let mut tokens = self.handshake_tokens.lock();
        tokens.take(per_sec, Instant::now())
    }
}

/// A refusal of a handshake that may succeed a second later.
fn refuse_for_now(code: Code, text: &'static str) -> Refusal {
    Refusal::new(code, text).retry_after(Duration::from_secs(1))
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
    fn closing_a_connection_frees_a_slot_of_its_address() {
        let admission = admission(10, 1, 100);
        let ip = Some(ClientAddress(IpAddr::from([127, 0, 0, 1])));
        let slot = admission.admit(ip).unwrap();
        assert_eq!(
            admission.admit(ip).unwrap_err().code,
            Code::TooManyConnections
        );
        assert!(
            admission
                .admit(Some(ClientAddress(IpAddr::from([127, 0, 0, 2]))))
                .is_ok()
        );
        drop(slot);
        assert!(admission.admit(ip).is_ok());
    }

    #[test]
    fn handshakes_beyond_a_cap_are_refused_with_a_time_to_retry() {
        let small = admission(1, 0, 100);
        let slot = small.admit(None).unwrap();
        assert_eq!(small.admit(None).unwrap_err().code, Code::Unavailable);
        drop(slot);
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
    fn an_address_beyond_its_rate_does_not_use_up_the_handshakes_of_others() {
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
            Some(ClientAddress(
                format!("2001:db8:0:{last}::{last}").parse().unwrap(),
            ))
        };
        let slots: Vec<_> = (0..1000)
            .filter_map(|_| admission.admit(from(1)).ok())
            .collect();
        assert_eq!(slots.len(), 3);
        let refusal = admission
            .admit(Some(ClientAddress("2001:db8:0:1:9::".parse().unwrap())))
            .unwrap_err();
        assert_eq!(
            refusal.code,
            Code::RateLimited,
            "another address of the same network"
        );
        assert!(refusal.retry_after.unwrap() <= Duration::from_secs(1));
        assert!(admission.admit(from(2)).is_ok());
    }

    /// An admission with this cap on unauthenticated connections.
    fn with_cap_on_unauthenticated(unauthenticated: usize) -> Admission {
        Admission::new(Caps {
            unauthenticated,
            ..Caps::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn unauthenticated_connections_have_their_own_cap() {
        let admission = with_cap_on_unauthenticated(2);
        let (one, two) = (
            admission.admit(None).unwrap(),
            admission.admit(None).unwrap(),
        );
        assert_eq!(admission.admit(None).unwrap_err().code, Code::Unavailable);
        let identified = admission.admit_identified(None).unwrap();
        one.add_authenticated();
        one.add_authenticated();
        let three = admission.admit(None).unwrap();
        assert!(admission.admit(None).is_err());
        drop((one, two, three, identified));
        let slots = admission.slots.lock();
        assert_eq!((slots.total(), slots.unauthenticated()), (0, 0));
    }

    /// Makes the slot evictable, and returns the number of times that it was evicted.
    fn evictions(slot: &ConnectionSlot) -> Arc<Counter> {
        let evictions = Arc::new(Counter::default());
        let count = evictions.clone();
        slot.make_evictable(Arc::new(move || count.add(1)));
        evictions
    }

    /// Admits a handshake whose session opens.
    fn open(admission: &Admission) -> ConnectionSlot {
        let slot = admission.admit(None).unwrap();
        slot.make_evictable(Arc::new(|| {}));
        slot
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_cap_the_oldest_unauthenticated_connection_makes_way_after_ten_seconds() {
        let admission = with_cap_on_unauthenticated(3);
        let slots: Vec<_> = (0..3).map(|_| admission.admit(None).unwrap()).collect();
        let evictions: Vec<_> = slots.iter().map(evictions).collect();
        let counts = || evictions.iter().map(|each| each.get()).collect::<Vec<_>>();
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert_eq!(admission.admit(None).unwrap_err().code, Code::Unavailable);
        slots[0].add_authenticated();
        let young = open(&admission);
        assert_eq!(counts(), [0, 0, 0]);

        tokio::time::advance(Duration::from_millis(1)).await;
        let next = open(&admission);
        assert_eq!(counts(), [0, 1, 0], "the first one has authenticated");
        let last = open(&admission);
        assert_eq!(counts(), [0, 1, 1]);
        assert!(admission.admit(None).is_err(), "all others are young");
        assert_eq!((admission.evicted(), admission.refused()), (2, 2));
        drop((slots, young, next, last));
        let slots = admission.slots.lock();
        assert_eq!((slots.total(), slots.unauthenticated()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_transport_that_its_user_has_left_counts_as_unauthenticated_again() {
        let admission = with_cap_on_unauthenticated(1);
        let slot = admission.admit(None).unwrap();
        let evictions = evictions(&slot);
        // A new connection on the transport may authenticate before the end of the old one is
        // processed.
        slot.add_authenticated();
        slot.add_authenticated();
        slot.remove_authenticated();
        drop(admission.admit(None).unwrap());
        slot.remove_authenticated();
        assert!(admission.admit(None).is_err());
        tokio::time::advance(Duration::from_secs(10)).await;
        drop(open(&admission));
        assert_eq!(evictions.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_opens_no_session_closes_no_connection() {
        let admission = with_cap_on_unauthenticated(1);
        let slot = admission.admit(None).unwrap();
        let evictions = evictions(&slot);
        tokio::time::advance(Duration::from_secs(10)).await;
        for _ in 0..3 {
            let refused_later = admission.admit(None).unwrap();
            assert!(
                admission.admit(None).is_err(),
                "one connection makes way for one handshake"
            );
            drop(refused_later);
        }
        assert_eq!((evictions.get(), admission.evicted()), (0, 0));
        let next = open(&admission);
        assert_eq!((evictions.get(), admission.evicted()), (1, 1));
        drop((slot, next));
        let slots = admission.slots.lock();
        assert_eq!((slots.total(), slots.unauthenticated()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_authenticates_before_its_transport_is_closed_keeps_it() {
        let admission = with_cap_on_unauthenticated(1);
        let slot = admission.admit(None).unwrap();
        let evictions = evictions(&slot);
        tokio::time::advance(Duration::from_secs(10)).await;
        let next = admission.admit(None).unwrap();
        slot.add_authenticated();
        next.make_evictable(Arc::new(|| {}));
        assert_eq!((evictions.get(), admission.evicted()), (0, 0));
        assert!(admission.admit(None).is_err(), "the new one counts");

        // The same if its user leaves again before the new session opens.
        next.add_authenticated();
        slot.remove_authenticated();
        tokio::time::advance(Duration::from_secs(10)).await;
        let third = admission.admit(None).unwrap();
        slot.add_authenticated();
        slot.remove_authenticated();
        third.make_evictable(Arc::new(|| {}));
        assert_eq!((evictions.get(), admission.evicted()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_and_comes_back_is_never_closed_for_its_age() {
        let admission = with_cap_on_unauthenticated(2);
        let slots = [(); 2].map(|()| admission.admit(None).unwrap());
        let evictions = slots.each_ref().map(evictions);
        let [slot, _other] = &slots;
        slot.add_authenticated();
        tokio::time::advance(Duration::from_secs(3600)).await;
        slot.remove_authenticated();
        let next = open(&admission);
        assert_eq!(
            evictions.each_ref().map(|each| each.get()),
            [0, 1],
            "the other one is older"
        );
        assert!(admission.admit(None).is_err(), "all are young");
        tokio::time::advance(Duration::from_secs(10)).await;
        drop(open(&admission));
        assert_eq!(evictions[0].get(), 1, "it has not come back");
        drop(next);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transport_is_young_again_only_a_few_times() {
        let admission = with_cap_on_unauthenticated(1);
        let slot = admission.admit(None).unwrap();
        let evictions = evictions(&slot);
        let mut young_again = 0;
        loop {
            slot.add_authenticated();
            tokio::time::advance(Duration::from_secs(10)).await;
            slot.remove_authenticated();
            if admission.admit(None).is_ok() {
                break;
            }
            young_again += 1;
            assert!(young_again < 100);
        }
        assert_eq!(young_again, 5);
        drop(open(&admission));
        assert_eq!(evictions.get(), 1);
    }
}
