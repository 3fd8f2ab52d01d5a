//! How often and how much: rates with their bursts, what someone has left of them, and a bounded table of such accounts.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Kinds of things that have a rate.
pub const KINDS: usize = 4;

/// For each kind, how long its rate takes to make up for what was spent.
pub type Charges = [Duration; KINDS];

/// So many a second on average, and so many at once. 0 a second: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    /// On average.
    pub per_sec: u64,
    /// At once, after a pause.
    pub burst: u64,
}

impl Rate {
    /// A rate that lets through at once what it lets through in `secs`.
    #[must_use]
    pub const fn with_burst_of(per_sec: u64, secs: u64) -> Self {
        Self {
            per_sec,
            burst: per_sec.saturating_mul(secs),
        }
    }

    /// How long it takes to make up for `count`.
    fn time_for(self, count: u64) -> Duration {
        let nanos = u128::from(count) * 1_000_000_000 / u128::from(self.per_sec.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The rates of a socket, a user or an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Events.
    pub events: Rate,
    /// Joins.
    pub joins: Rate,
    /// Bytes of events.
    pub bytes: Rate,
    /// Connections that begin: handshakes of an address, logins of a user.
    pub connects: Rate,
}

impl Rates {
    fn all(&self) -> [Rate; KINDS] {
        [self.events, self.joins, self.bytes, self.connects]
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn are_off(&self) -> bool {
        self.all().iter().all(|rate| rate.per_sec == 0)
    }

    /// Whether nothing of what `cost` spends is limited.
    #[must_use]
    pub fn are_off_for(&self, cost: Cost) -> bool {
        self.all()
            .iter()
            .zip(cost.0)
            .all(|(rate, count)| rate.per_sec == 0 || count == 0)
    }
}

/// What something spends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost([u64; KINDS]);

impl Cost {
    /// A join; the event was spent before.
    pub const JOIN: Self = Self([0, 1, 0, 0]);
    /// A connection.
    pub const CONNECT: Self = Self([0, 0, 0, 1]);

    /// An event of so many bytes.
    #[must_use]
    pub const fn event(bytes: usize) -> Self {
        Self([1, 0, bytes as u64, 0])
    }

    /// How long those rates take to make up for it.
    #[must_use]
    pub fn debts(self, rates: &Rates) -> Charges {
        let mut debts = Charges::default();
        for ((debt, rate), count) in debts.iter_mut().zip(rates.all()).zip(self.0) {
            if rate.per_sec > 0 {
                *debt = rate.time_for(count);
            }
        }
        debts
    }
}

/// What was asked for exceeds a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Of what there is too much, for the refusal's text.
    pub what: &'static str,
    /// After this time it will be let through, if nothing else is spent.
    pub wait: Duration,
}

/// What one has left of each rate: kept as the moment at which all of it will be there again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limiter([Option<Instant>; KINDS]);

impl Limiter {
    /// Spends `cost`, all of it or nothing. What is more than a whole burst takes a full one, and is paid for afterwards.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing is spent then.
    pub fn spend(&mut self, rates: &Rates, cost: Cost, now: Instant) -> Result<(), Exceeded> {
        let kinds = ["events", "joins", "bytes", "connections"];
        for (((rate, count), full_at), what) in
            rates.all().into_iter().zip(cost.0).zip(self.0).zip(kinds)
        {
            if rate.per_sec == 0 || count == 0 {
                continue;
            }
            let owed = full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
            let whole = rate.time_for(rate.burst.max(1));
            let wait = (owed + rate.time_for(count).min(whole)).saturating_sub(whole);
            if !wait.is_zero() {
                return Err(Exceeded {
                    what,
                    wait: wait.max(Duration::from_millis(1)),
                });
            }
        }
        self.charge(cost.debts(rates), now);
        Ok(())
    }

    /// Adds to what is owed.
    fn charge(&mut self, debts: Charges, now: Instant) {
        for (full_at, debt) in self.0.iter_mut().zip(debts) {
            if !debt.is_zero() {
                *full_at = full_at.unwrap_or(now).max(now).checked_add(debt);
            }
        }
    }

    /// At least this is owed.
    fn raise(&mut self, debts: Charges, now: Instant) {
        for (full_at, debt) in self.0.iter_mut().zip(debts) {
            *full_at = (*full_at).max(now.checked_add(debt).filter(|_| !debt.is_zero()));
        }
    }

    /// Whether nothing is owed any more.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.0
            .iter()
            .all(|full_at| full_at.is_none_or(|at| at <= now))
    }
}

/// The allowances of many, by who they are. Whoever owes nothing takes no room; who comes when all room is taken shares one
/// allowance with all others who do.
#[derive(Debug)]
pub struct Limiters<K> {
    rates: Rates,
    held: HashMap<K, Limiter>,
    most: usize,
    shared: Limiter,
    /// Swept when so many are held, but at most once a second.
    sweep_at: usize,
    swept: Option<Instant>,
}

/// Between two sweeps of a table.
const SWEEP: Duration = Duration::from_secs(1);
/// A table that is smaller isn't worth a sweep.
const SMALL: usize = 1024;

impl<K: Eq + Hash + Clone> Limiters<K> {
    /// With those rates, for at most so many at once.
    #[must_use]
    pub fn new(rates: Rates, most: usize) -> Self {
        Self {
            rates,
            held: HashMap::new(),
            most,
            shared: Limiter::default(),
            sweep_at: SMALL.min(most),
            swept: None,
        }
    }

    /// Spends of `who`'s allowance.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing is spent then.
    pub fn spend(&mut self, who: &K, cost: Cost, now: Instant) -> Result<(), Exceeded> {
        let rates = self.rates;
        if rates.are_off_for(cost) {
            return Ok(());
        }
        self.of(who, now).spend(&rates, cost, now)
    }

    /// `who` owes at least this: others know of it.
    pub fn raise(&mut self, who: &K, debts: Charges, now: Instant) {
        self.of(who, now).raise(debts, now);
    }

    /// Whether `who` owes nothing.
    #[must_use]
    pub fn is_full(&self, who: &K, now: Instant) -> bool {
        self.held
            .get(who)
            .is_none_or(|allowance| allowance.is_full(now))
    }

    /// How many are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nobody owes anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn of(&mut self, who: &K, now: Instant) -> &mut Limiter {
        if !self.held.contains_key(who) {
            if self.held.len() >= self.sweep_at
                && self.swept.is_none_or(|swept| now >= swept + SWEEP)
            {
                self.held.retain(|_, allowance| !allowance.is_full(now));
                self.sweep_at = (self.held.len() * 2).clamp(SMALL.min(self.most), self.most);
                self.held.shrink_to(self.sweep_at);
                self.swept = Some(now);
            }
            if self.held.len() >= self.most {
                return &mut self.shared;
            }
        }
        self.held.entry(who.clone()).or_default()
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
    fn a_burst_and_then_the_rate_and_the_wait_is_told_exactly() {
        let (rates, mut allowance, now) = (rates(10, 3), Limiter::default(), Instant::now());
        for _ in 0..3 {
            allowance.spend(&rates, Cost::event(1), now).unwrap();
        }
        let exceeded = allowance.spend(&rates, Cost::event(1), now).unwrap_err();
        assert_eq!((exceeded.what, exceeded.wait), ("events", SECOND / 10));
        let later = now + exceeded.wait;
        assert!(
            allowance
                .spend(&rates, Cost::event(1), later - Duration::from_millis(1))
                .is_err()
        );
        allowance.spend(&rates, Cost::event(1), later).unwrap();
        assert!(!allowance.is_full(later + SECOND / 4) && allowance.is_full(later + SECOND));
    }

    #[test]
    fn what_is_refused_costs_nothing_of_any_kind() {
        let bytes = Rate {
            per_sec: 100,
            burst: 100,
        };
        let (rates, mut allowance, now) = (
            Rates {
                bytes,
                ..rates(1, 2)
            },
            Limiter::default(),
            Instant::now(),
        );
        allowance.spend(&rates, Cost::event(90), now).unwrap();
        assert_eq!(
            allowance
                .spend(&rates, Cost::event(11), now)
                .unwrap_err()
                .what,
            "bytes"
        );
        allowance.spend(&rates, Cost::event(10), now).unwrap();
        assert!(
            allowance.spend(&rates, Cost::JOIN, now).is_ok(),
            "no rate, no limit"
        );
    }

    #[test]
    fn more_than_a_burst_is_let_through_once_and_paid_for() {
        let (rates, mut allowance, now) = (
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
        allowance.spend(&rates, Cost::event(100), now).unwrap();
        let exceeded = allowance.spend(&rates, Cost::event(100), now).unwrap_err();
        assert_eq!(exceeded.wait, 10 * SECOND);
        allowance
            .spend(&rates, Cost::event(100), now + exceeded.wait)
            .unwrap();
    }

    #[test]
    fn what_others_know_counts_and_is_paid_back() {
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
        assert_eq!(table.len(), 2, "what has no rate is not noted");
    }

    #[test]
    fn a_table_is_bounded_and_forgets_who_owes_nothing() {
        let now = Instant::now();
        let mut table = Limiters::new(rates(1, 2), 2000);
        for n in 0..1_000_000 {
            let _ = table.spend(&n, Cost::event(1), now);
        }
        assert_eq!(table.len(), 2000);
        assert!(
            table.spend(&5, Cost::event(1), now).is_ok(),
            "who is known keeps an allowance of one's own"
        );
        assert!(
            table.spend(&2_000_000, Cost::event(1), now).is_err(),
            "the others share one"
        );
        assert!(
            table
                .spend(&2_000_001, Cost::event(1), now + 3 * SECOND)
                .is_ok()
        );
        assert_eq!(table.len(), 1);
    }
}
