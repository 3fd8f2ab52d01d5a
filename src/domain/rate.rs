//! Rate limiting by the generic cell rate algorithm (GCRA, equivalent to a token bucket): rates
//! with bursts, the limiter of one caller, and a bounded table of limiters.
//!
//! A limiter stores one instant per kind: when the whole burst will be available again. A charge
//! moves that instant into the future by the time the rate needs to refill the charge.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The number of kinds that have a rate: events, joins, bytes and connections.
pub const KINDS: usize = 4;

/// For each kind, the time that its rate needs to refill the charge.
pub type Charges = [Duration; KINDS];

/// An average per second and a burst. 0 per second means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    /// The average per second; 0: no limit.
    pub per_sec: u64,
    /// The most at once, after a pause.
    pub burst: u64,
}

impl Rate {
    /// A rate whose burst equals the amount allowed in `secs` seconds.
    #[must_use]
    pub const fn with_burst_of(per_sec: u64, secs: u64) -> Self {
        Self {
            per_sec,
            burst: per_sec.saturating_mul(secs),
        }
    }

    /// The time to refill `count`.
    fn time_for(self, count: u64) -> Duration {
        let nanos = u128::from(count) * 1_000_000_000 / u128::from(self.per_sec.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The rates of a connection, a user or an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Events per second.
    pub events: Rate,
    /// Joins per second.
    pub joins: Rate,
    /// Bytes of events per second.
    pub bytes: Rate,
    /// New connections per second: handshakes of an address, authentications of a user.
    pub connects: Rate,
}

impl Rates {
    fn all(&self) -> [Rate; KINDS] {
        [self.events, self.joins, self.bytes, self.connects]
    }

    /// True if no kind has a limit.
    #[must_use]
    pub fn are_off(&self) -> bool {
        self.all().iter().all(|rate| rate.per_sec == 0)
    }

    /// True if no kind that `cost` charges has a limit.
    #[must_use]
    pub fn are_off_for(&self, cost: Cost) -> bool {
        self.all()
            .iter()
            .zip(cost.0)
            .all(|(rate, count)| rate.per_sec == 0 || count == 0)
    }
}

/// The number of each kind that an operation takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost([u64; KINDS]);

impl Cost {
    /// A join; its event is charged separately, before.
    pub const JOIN: Self = Self([0, 1, 0, 0]);
    /// A new connection.
    pub const CONNECT: Self = Self([0, 0, 0, 1]);

    /// So many events without bytes: those of a change that the server announces.
    #[must_use]
    pub const fn events(count: u64) -> Self {
        Self([count, 0, 0, 0])
    }

    /// An event of `bytes` bytes.
    #[must_use]
    pub const fn event(bytes: usize) -> Self {
        Self([1, 0, bytes as u64, 0])
    }

    /// The time that each of these rates needs to refill this cost.
    #[must_use]
    pub fn charges(self, rates: &Rates) -> Charges {
        let mut charges = Charges::default();
        for ((charge, rate), count) in charges.iter_mut().zip(rates.all()).zip(self.0) {
            if rate.per_sec > 0 {
                *charge = rate.time_for(count);
            }
        }
        charges
    }
}

/// An operation exceeds a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// The name of the kind that is exceeded, for the refusal's text.
    pub kind: &'static str,
    /// After this time the operation will be allowed, if nothing else is charged.
    pub wait: Duration,
}

/// The limiter of one caller: for each kind, the instant at which the whole burst is available
/// again (`None`: it is now).
#[derive(Debug, Clone, Copy, Default)]
pub struct Limiter([Option<Instant>; KINDS]);

impl Limiter {
    /// Charges `cost`, all kinds or none. A cost larger than the burst is allowed if the whole
    /// burst is available; the time to refill all of it is charged.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing is charged then.
    pub fn spend(&mut self, rates: &Rates, cost: Cost, now: Instant) -> Result<(), Exceeded> {
        let kinds = ["events", "joins", "bytes", "connections"];
        for (((rate, count), full_at), kind) in
            rates.all().into_iter().zip(cost.0).zip(self.0).zip(kinds)
        {
            if rate.per_sec == 0 || count == 0 {
                continue;
            }
            let refill = full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
            let whole = rate.time_for(rate.burst.max(1));
            let wait = (refill + rate.time_for(count).min(whole)).saturating_sub(whole);
            if !wait.is_zero() {
                return Err(Exceeded {
                    kind,
                    wait: wait.max(Duration::from_millis(1)),
                });
            }
        }
        self.add(cost.charges(rates), now);
        Ok(())
    }

    /// Adds refill time for each kind.
    fn add(&mut self, charges: Charges, now: Instant) {
        for (full_at, charge) in self.0.iter_mut().zip(charges) {
            if !charge.is_zero() {
                *full_at = full_at.unwrap_or(now).max(now).checked_add(charge);
            }
        }
    }

    /// Raises the remaining refill time of each kind to at least this; never lowers it.
    fn raise(&mut self, charges: Charges, now: Instant) {
        for (full_at, charge) in self.0.iter_mut().zip(charges) {
            if !charge.is_zero() {
                *full_at = (*full_at).max(now.checked_add(charge));
            }
        }
    }

    /// True if the whole burst of every kind is available.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.0
            .iter()
            .all(|full_at| full_at.is_none_or(|at| at <= now))
    }
}

/// A bounded table of limiters by key. Keys whose burst is fully available are evicted; keys that
/// find the table full share one limiter.
#[derive(Debug)]
pub struct Limiters<K> {
    rates: Rates,
    limiters: HashMap<K, Limiter>,
    most: usize,
    shared: Limiter,
    /// The table is swept when it holds this many keys, but at most once per second.
    sweep_at: usize,
    swept: Option<Instant>,
}

/// The shortest time between two sweeps of a table.
const SWEEP: Duration = Duration::from_secs(1);
/// A table with fewer keys is not swept.
const SMALL: usize = 1024;

impl<K: Eq + Hash + Clone> Limiters<K> {
    /// With these rates, for at most `most` keys at a time.
    #[must_use]
    pub fn new(rates: Rates, most: usize) -> Self {
        Self {
            rates,
            limiters: HashMap::new(),
            most,
            shared: Limiter::default(),
            sweep_at: SMALL.min(most),
            swept: None,
        }
    }

    /// Charges the limiter of `key`.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing is charged then.
    pub fn spend(&mut self, key: &K, cost: Cost, now: Instant) -> Result<(), Exceeded> {
        let rates = self.rates;
        if rates.are_off_for(cost) {
            return Ok(());
        }
        self.of(key, now).spend(&rates, cost, now)
    }

    /// Raises the remaining refill time of `key` to at least this, as other nodes reported it.
    pub fn raise(&mut self, key: &K, charges: Charges, now: Instant) {
        self.of(key, now).raise(charges, now);
    }

    /// True if the whole burst of `key` is available.
    #[must_use]
    pub fn is_full(&self, key: &K, now: Instant) -> bool {
        self.limiters
            .get(key)
            .is_none_or(|limiter| limiter.is_full(now))
    }

    /// The number of keys in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.limiters.len()
    }

    /// True if no key is in the table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.limiters.is_empty()
    }

    fn of(&mut self, key: &K, now: Instant) -> &mut Limiter {
        if !self.limiters.contains_key(key) {
            if self.limiters.len() >= self.sweep_at
                && self.swept.is_none_or(|swept| now >= swept + SWEEP)
            {
                self.limiters.retain(|_, limiter| !limiter.is_full(now));
                self.sweep_at = (self.limiters.len() * 2).clamp(SMALL.min(self.most), self.most);
                self.limiters.shrink_to(self.sweep_at);
                self.swept = Some(now);
            }
            if self.limiters.len() >= self.most {
                return &mut self.shared;
            }
        }
        self.limiters.entry(key.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(per_sec: u64, burst: u64) -> Rates {
        Rates {
            events: Rate { per_sec, burst },
            ..Rates::default()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_followed_by_the_rate_and_the_wait_is_exact() {
        let (rates, mut limiter, now) = (rates(10, 3), Limiter::default(), Instant::now());
        for _ in 0..3 {
            limiter.spend(&rates, Cost::event(1), now).unwrap();
        }
        let exceeded = limiter.spend(&rates, Cost::event(1), now).unwrap_err();
        assert_eq!((exceeded.kind, exceeded.wait), ("events", SECOND / 10));
        let later = now + exceeded.wait;
        assert!(
            limiter
                .spend(&rates, Cost::event(1), later - Duration::from_millis(1))
                .is_err()
        );
        limiter.spend(&rates, Cost::event(1), later).unwrap();
        assert!(!limiter.is_full(later + SECOND / 4) && limiter.is_full(later + SECOND));
    }

    #[test]
    fn a_refused_operation_charges_no_kind() {
        let bytes = Rate {
            per_sec: 100,
            burst: 100,
        };
        let (rates, mut limiter, now) = (
            Rates {
                bytes,
                ..rates(1, 2)
            },
            Limiter::default(),
            Instant::now(),
        );
        limiter.spend(&rates, Cost::event(90), now).unwrap();
        assert_eq!(
            limiter
                .spend(&rates, Cost::event(11), now)
                .unwrap_err()
                .kind,
            "bytes"
        );
        limiter.spend(&rates, Cost::event(10), now).unwrap();
        assert!(
            limiter.spend(&rates, Cost::JOIN, now).is_ok(),
            "a kind without a rate has no limit"
        );
    }

    #[test]
    fn a_cost_above_the_burst_is_allowed_once_and_charged_in_full() {
        let (rates, mut limiter, now) = (
            Rates {
                bytes: Rate {
                    per_sec: 10,
                    burst: 20,
                },
                ..Rates::default()
            },
            Limiter::default(),
            Instant::now(),
        );
        limiter.spend(&rates, Cost::event(100), now).unwrap();
        let exceeded = limiter.spend(&rates, Cost::event(100), now).unwrap_err();
        assert_eq!(exceeded.wait, 10 * SECOND);
        limiter
            .spend(&rates, Cost::event(100), now + exceeded.wait)
            .unwrap();
    }

    #[test]
    fn charges_reported_by_other_nodes_count_and_are_refilled() {
        let (rates, now) = (rates(10, 10), Instant::now());
        let mut table = Limiters::new(rates, 10);
        table.spend(&"ann", Cost::event(1), now).unwrap();
        table.raise(
            &"ann",
            [3 * SECOND, Duration::ZERO, Duration::ZERO, Duration::ZERO],
            now,
        );
        assert_eq!(
            table.spend(&"ann", Cost::event(1), now).unwrap_err().wait,
            2 * SECOND + SECOND / 10
        );
        table.raise(&"ann", Charges::default(), now);
        assert!(
            table.spend(&"ann", Cost::event(1), now + SECOND).is_err(),
            "never lowered"
        );
        assert!(table.spend(&"bob", Cost::event(1), now).is_ok());
        table.spend(&"eve", Cost::JOIN, now).unwrap();
        assert_eq!(table.len(), 2, "a kind without a rate takes no entry");
    }

    #[test]
    fn a_table_is_bounded_and_evicts_refilled_limiters() {
        let now = Instant::now();
        let mut table = Limiters::new(rates(1, 2), 2000);
        for n in 0..1_000_000 {
            let _ = table.spend(&n, Cost::event(1), now);
        }
        assert_eq!(table.len(), 2000);
        assert!(
            table.spend(&5, Cost::event(1), now).is_ok(),
            "a key in the table keeps its own limiter"
        );
        assert!(
            table.spend(&2_000_000, Cost::event(1), now).is_err(),
            "keys beyond the bound share one limiter"
        );
        assert!(
            table
                .spend(&2_000_001, Cost::event(1), now + 3 * SECOND)
                .is_ok()
        );
        assert_eq!(table.len(), 1);
    }
}
