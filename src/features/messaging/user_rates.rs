//! What users may spend: counted here at once, and now and then with the other nodes.
//!
//! A node never asks before an event. It counts by itself, and once a second tells the backplane what users spent here whose
//! untold rate_limiter would take their rate more than a sixteenth of a second; the answer is what all nodes together know of.
//! So in any time a user gets in the cluster what the rate gives for it and one burst, and beyond that only what passes
//! before nodes know of each other: a burst for each further node at most, which is owed and paid back later, and on each
//! the sixteenth of a second that it needn't tell. While the backplane is away each node goes on by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::backplane::RateLimiter;
use crate::domain::{Charges, Cost, Exceeded, Limiters, Rates, UserId};

/// Between two rounds of telling.
const ROUND: Duration = Duration::from_secs(1);
/// Less than this need not be told.
const WORTH_TELLING: Duration = Duration::from_micros(62_500);
/// Users with an allowance of their own at once; the others share one.
const USERS: usize = 1 << 18;

/// All users' allowances, as this node knows them.
pub struct UserRateLimiter {
    rates: Rates,
    shared: Option<Arc<dyn RateLimiter>>,
    ledger: Mutex<Ledger>,
}

struct Ledger {
    allowances: Limiters<UserId>,
    /// What was spent here and not told yet; only where others are told.
    untold: HashMap<UserId, Charges>,
}

impl UserRateLimiter {
    /// With those rates, shared with other nodes if there may be any.
    #[must_use]
    pub fn new(rates: Rates, shared: Option<Arc<dyn RateLimiter>>) -> Self {
        let ledger = Ledger {
            allowances: Limiters::new(rates, USERS),
            untold: HashMap::new(),
        };
        Self {
            rates,
            shared,
            ledger: Mutex::new(ledger),
        }
    }

    /// Spends of the user's allowance.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing is spent then.
    pub fn spend(&self, user: &UserId, cost: Cost) -> Result<(), Exceeded> {
        if self.rates.are_off_for(cost) {
            return Ok(());
        }
        let mut ledger = self.ledger.lock();
        ledger.allowances.spend(user, cost, Instant::now())?;
        if self.shared.is_some()
            && (ledger.untold.len() < USERS || ledger.untold.contains_key(user))
        {
            let untold = ledger.untold.entry(user.clone()).or_default();
            for (untold, debt) in untold.iter_mut().zip(cost.debts(&self.rates)) {
                *untold += debt;
            }
        }
        Ok(())
    }

    /// Tells what is worth telling, and takes over what the others know.
    pub async fn tell(&self) {
        let Some(shared) = &self.shared else { return };
        let told = self.ledger.lock().worth_telling();
        if told.is_empty() {
            return;
        }
        let known = shared.spend(told).await;
        let (mut ledger, now) = (self.ledger.lock(), Instant::now());
        for (user, debts) in known {
            ledger.allowances.raise(&user, debts, now);
        }
    }

    /// Goes on telling, for ever.
    pub async fn run(&self) {
        if self.shared.is_none() || self.rates.are_off() {
            return;
        }
        loop {
            tokio::time::sleep(ROUND).await;
            self.tell().await;
        }
    }
}

impl Ledger {
    fn worth_telling(&mut self) -> Vec<(UserId, Charges)> {
        let now = Instant::now();
        // Who owes nothing any more has nothing to tell of.
        self.untold
            .retain(|user, debts| is_worth_telling(debts) || !self.allowances.is_full(user, now));
        self.untold
            .extract_if(|_, debts| is_worth_telling(debts))
            .collect()
    }
}

fn is_worth_telling(debts: &Charges) -> bool {
    debts.iter().any(|debt| *debt > WORTH_TELLING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Rate;

    /// What all nodes of a test have spent, as if no time passed; and how often it was told.
    #[derive(Default)]
    struct Sum(Mutex<(HashMap<UserId, Charges>, usize)>);

    #[async_trait::async_trait]
    impl RateLimiter for Sum {
        async fn spend(&self, spent: Vec<(UserId, Charges)>) -> Vec<(UserId, Charges)> {
            let mut sum = self.0.lock();
            sum.1 += 1;
            let add = |(user, debts): (UserId, Charges)| {
                let all = sum.0.entry(user.clone()).or_default();
                all.iter_mut()
                    .zip(debts)
                    .for_each(|(all, debt)| *all += debt);
                (user, *all)
            };
            spent.into_iter().map(add).collect()
        }
    }

    fn rates() -> Rates {
        // So slow that nothing comes back within the test.
        Rates {
            events: Rate {
                per_sec: 1,
                burst: 1000,
            },
            ..Rates::default()
        }
    }

    fn pass(node: &UserRateLimiter, user: &UserId, tries: usize) -> usize {
        (0..tries)
            .filter(|_| node.spend(user, Cost::event(1)).is_ok())
            .count()
    }

    #[tokio::test]
    async fn nodes_share_one_allowance_and_are_told_in_rounds() {
        let sum = Arc::new(Sum::default());
        let nodes = [0, 1].map(|_| UserRateLimiter::new(rates(), Some(sum.clone())));
        let ann = UserId::trusted("ann");
        assert_eq!(
            nodes.each_ref().map(|node| pass(node, &ann, 700)),
            [700, 700],
            "not known to each other yet"
        );
        for node in &nodes {
            node.tell().await;
        }
        assert_eq!(sum.0.lock().1, 2, "one call a round, however many events");
        assert_eq!(
            pass(&nodes[1], &ann, 700),
            0,
            "400 too many, which are owed"
        );
        assert!(nodes[1].spend(&ann, Cost::event(1)).unwrap_err().wait > Duration::from_secs(390));
        // The first one told before the second; it learns with what it tells next.
        assert_eq!(pass(&nodes[0], &ann, 1), 1);
        nodes[0].tell().await;
        assert_eq!(pass(&nodes[0], &ann, 700), 0);
        let bob = UserId::trusted("bob");
        assert_eq!(pass(&nodes[0], &bob, 1), 1, "another user");
        nodes[0].tell().await;
        nodes[0].tell().await;
        assert_eq!(sum.0.lock().1, 4, "nothing to tell, no call");
    }

    #[tokio::test]
    async fn small_spending_is_told_when_it_adds_up() {
        let sum = Arc::new(Sum::default());
        let rates = Rates {
            events: Rate {
                per_sec: 100,
                burst: 100_000,
            },
            ..Rates::default()
        };
        let (node, ann) = (
            UserRateLimiter::new(rates, Some(sum.clone())),
            UserId::trusted("ann"),
        );
        pass(&node, &ann, 6);
        node.tell().await;
        assert_eq!(sum.0.lock().1, 0);
        pass(&node, &ann, 6);
        node.tell().await;
        assert_eq!(sum.0.lock().1, 1);
    }

    #[test]
    fn alone_nothing_is_kept_to_tell() {
        let (node, ann) = (UserRateLimiter::new(rates(), None), UserId::trusted("ann"));
        assert_eq!(pass(&node, &ann, 2000), 1000);
        assert!(node.ledger.lock().untold.is_empty());
        assert_eq!(
            pass(&UserRateLimiter::new(Rates::default(), None), &ann, 2000),
            2000,
            "no rate, no limit"
        );
    }
}
