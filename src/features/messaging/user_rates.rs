//! The rate limits of users: a GCRA limiter for each user, shared between nodes.
//!
//! A node never asks the backplane before an event: it charges the event to its own limiter. A
//! charge is the time that the user's rate takes to make up for the event. Once per second the node
//! reports to the backplane each user's unreported charges, if they exceed 62.5 ms, and receives
//! the sum of all nodes' reports.
//!
//! So in any period, the whole cluster allows a user the rate's amount for that period plus one
//! burst. It allows more only before the nodes know of each other's charges: at most one burst for
//! each further node, which the user owes and pays back later, and on each node the 62.5 ms that it
//! needn't report. While the backplane is down, each node limits on its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::backplane::RateLimiter;
use crate::domain::{Charges, Cost, Exceeded, Limiters, Rates, UserId};

/// The time between two reports to the backplane.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Charges up to this time of a user's rate are not reported.
const UNREPORTED: Duration = Duration::from_micros(62_500);
/// The most users with a limiter of their own at once. Further users share one limiter.
const MAX_USERS: usize = 1 << 18;

/// The limiters of all users, as this node knows them.
pub struct UserRateLimiter {
    rates: Rates,
    shared: Option<Arc<dyn RateLimiter>>,
    state: Mutex<State>,
}

struct State {
    limiters: Limiters<UserId>,
    /// Charges of this node that are not reported yet; empty on a node that shares nothing.
    unreported: HashMap<UserId, Charges>,
}

impl UserRateLimiter {
    /// Limiters with those rates; `shared` is the backplane's sum over all nodes, if there can be
    /// other nodes.
    #[must_use]
    pub fn new(rates: Rates, shared: Option<Arc<dyn RateLimiter>>) -> Self {
        let state = State {
            limiters: Limiters::new(rates, MAX_USERS),
            unreported: HashMap::new(),
        };
        Self {
            rates,
            shared,
            state: Mutex::new(state),
        }
    }

    /// Charges the cost to the user's limiter.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing is charged then.
    pub fn spend(&self, user: &UserId, cost: Cost) -> Result<(), Exceeded> {
        if self.rates.are_off_for(cost) {
            return Ok(());
        }
        let mut state = self.state.lock();
        state.limiters.spend(user, cost, Instant::now())?;
        if self.shared.is_some()
            && (state.unreported.len() < MAX_USERS || state.unreported.contains_key(user))
        {
            let unreported = state.unreported.entry(user.clone()).or_default();
            for (unreported, charge) in unreported.iter_mut().zip(cost.charges(&self.rates)) {
                *unreported += charge;
            }
        }
        Ok(())
    }

    /// Reports to the backplane once, and raises the limiters to the sum of all nodes' reports.
    pub async fn synchronize(&self) {
        let Some(shared) = &self.shared else { return };
        let report = self.state.lock().take_report();
        if report.is_empty() {
            return;
        }
        let sums = shared.charge(report).await;
        let now = Instant::now();
        let mut state = self.state.lock();
        for (user, charges) in sums {
            state.limiters.raise(&user, charges, now);
        }
    }

    /// Synchronizes with the backplane once per second, for ever. Returns at once where that isn't
    /// needed.
    pub async fn run(&self) {
        if self.shared.is_none() || self.rates.are_off() {
            return;
        }
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            self.synchronize().await;
        }
    }
}

impl State {
    /// Takes the charges that have to be reported.
    fn take_report(&mut self) -> Vec<(UserId, Charges)> {
        let now = Instant::now();
        // Small charges are forgotten when the user owes nothing any more.
        self.unreported
            .retain(|user, charges| must_be_reported(charges) || !self.limiters.is_full(user, now));
        self.unreported
            .extract_if(|_, charges| must_be_reported(charges))
            .collect()
    }
}

fn must_be_reported(charges: &Charges) -> bool {
    charges.iter().any(|charge| *charge > UNREPORTED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Rate;

    /// The sum of all nodes' reports, as if no time passed, and the number of reports.
    #[derive(Default)]
    struct Sum(Mutex<(HashMap<UserId, Charges>, usize)>);

    #[async_trait::async_trait]
    impl RateLimiter for Sum {
        async fn charge(&self, report: Vec<(UserId, Charges)>) -> Vec<(UserId, Charges)> {
            let mut sum = self.0.lock();
            sum.1 += 1;
            let add = |(user, charges): (UserId, Charges)| {
                let all = sum.0.entry(user.clone()).or_default();
                for (all, charge) in all.iter_mut().zip(charges) {
                    *all += charge;
                }
                (user, *all)
            };
            report.into_iter().map(add).collect()
        }
    }

    fn rates() -> Rates {
        // So slow that the limiters recover nothing within the test.
        Rates {
            events: Rate {
                per_sec: 1,
                burst: 1000,
            },
            ..Rates::default()
        }
    }

    /// Tries to send that many events; returns how many the node allows.
    fn allowed(node: &UserRateLimiter, user: &UserId, tries: usize) -> usize {
        (0..tries)
            .filter(|_| node.spend(user, Cost::event(1)).is_ok())
            .count()
    }

    #[tokio::test]
    async fn nodes_share_one_limit_and_report_in_rounds() {
        let sum = Arc::new(Sum::default());
        let nodes = [0, 1].map(|_| UserRateLimiter::new(rates(), Some(sum.clone())));
        let ann = UserId::trusted("ann");
        assert_eq!(
            nodes.each_ref().map(|node| allowed(node, &ann, 700)),
            [700, 700],
            "the nodes don't know of each other's charges yet"
        );
        for node in &nodes {
            node.synchronize().await;
        }
        assert_eq!(sum.0.lock().1, 2, "one call per round, however many events");
        assert_eq!(
            allowed(&nodes[1], &ann, 700),
            0,
            "400 were too many, and are owed"
        );
        assert!(nodes[1].spend(&ann, Cost::event(1)).unwrap_err().wait > Duration::from_secs(390));
        // The first node reported before the second one did. It learns of those charges with its
        // next report.
        assert_eq!(allowed(&nodes[0], &ann, 1), 1);
        nodes[0].synchronize().await;
        assert_eq!(allowed(&nodes[0], &ann, 700), 0);
        let bob = UserId::trusted("bob");
        assert_eq!(allowed(&nodes[0], &bob, 1), 1, "another user");
        nodes[0].synchronize().await;
        nodes[0].synchronize().await;
        assert_eq!(sum.0.lock().1, 4, "no call without a report");
    }

    #[tokio::test]
    async fn small_charges_are_reported_when_they_add_up() {
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
        allowed(&node, &ann, 6);
        node.synchronize().await;
        assert_eq!(sum.0.lock().1, 0);
        allowed(&node, &ann, 6);
        node.synchronize().await;
        assert_eq!(sum.0.lock().1, 1);
    }

    #[test]
    fn a_node_without_others_keeps_nothing_to_report() {
        let (node, ann) = (UserRateLimiter::new(rates(), None), UserId::trusted("ann"));
        assert_eq!(allowed(&node, &ann, 2000), 1000);
        assert!(node.state.lock().unreported.is_empty());
        assert_eq!(
            allowed(&UserRateLimiter::new(Rates::default(), None), &ann, 2000),
            2000,
            "no rate, no limit"
        );
    }
}
