//! Ends graces that are over, and takes dead incarnations out: work that any node may do for any other, in small steps
//! that are safe to repeat.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;

use super::Node;
use super::keys::Partition;
use super::link::{Fault, millis};
use super::script::{CONDEMN, REAP_ROOMS, REAP_USERS, SWEEP_ROOMS, SWEEP_USERS};

/// Graces, or connections of a dead node, in one step: none keeps Redis for more than a few milliseconds.
const STEP: i64 = 100;
/// Steps of a partition's sweep, one after the other: many graces may end at once, when a node is gone.
const STEPS: usize = 50;
/// Partitions that are swept or reaped at a time.
const CALLS: usize = 32;

/// When to look at which partition.
pub(super) struct Sweeps {
    due: Vec<Mutex<Option<Instant>>>,
    /// Where the slow round over all partitions stands: it finds the graces that nodes left which are gone.
    round: AtomicUsize,
    reaping: Mutex<HashSet<String>>,
}

impl Default for Sweeps {
    fn default() -> Self {
        Self {
            due: Partition::all().map(|_| Mutex::new(None)).collect(),
            round: AtomicUsize::new(0),
            reaping: Mutex::default(),
        }
    }
}

impl Sweeps {
    /// A grace ends in the partition after `delay`.
    pub(super) fn note(&self, partition: Partition, delay: Duration) {
        let at = Instant::now() + delay;
        let mut due = self.due[partition.index()].lock();
        *due = Some(due.map_or(at, |due| due.min(at)));
    }

    /// The partitions to look at now: those that are due, and the next few of the round.
    fn take(&self, of_round: usize) -> Vec<Partition> {
        let now = Instant::now();
        let from = self.round.fetch_add(of_round, Ordering::Relaxed) % Partition::COUNT;
        let in_round = |partition: Partition| {
            (partition.index() + Partition::COUNT - from) % Partition::COUNT < of_round
        };
        let is_due = |partition: Partition| {
            let mut due = self.due[partition.index()].lock();
            let is_due = due.is_some_and(|due| due <= now);
            if is_due {
                *due = None;
            }
            is_due
        };
        Partition::all()
            .filter(|partition| is_due(*partition) || in_round(*partition))
            .collect()
    }
}

impl Node {
    /// Ends the graces that are over, where some may be.
    pub(super) async fn sweep(&self) {
        if !self.link.client_is_connected() {
            return;
        }
        let ticks = self
            .settings
            .full_sweep
            .as_millis()
            .div_ceil(self.settings.sweep_interval.as_millis().max(1));
        let of_round = Partition::COUNT.div_ceil(usize::try_from(ticks).unwrap_or(1).max(1));
        let sweeps = self
            .sweeps
            .take(of_round)
            .into_iter()
            .map(|partition| self.sweep_partition(partition));
        let sweeps: Vec<_> = sweeps.collect();
        stream::iter(sweeps)
            .buffer_unordered(CALLS)
            .collect::<()>()
            .await;
    }

    async fn sweep_partition(&self, partition: Partition) {
        let script = if partition.holds_rooms() {
            &SWEEP_ROOMS
        } else {
            &SWEEP_USERS
        };
        for _ in 0..STEPS {
            let done = self.link.run(script, partition, vec![STEP.into()]).await;
            let done = done.and_then(|mut answer| {
                answer.number()?;
                self.count_changes(answer.number()?);
                answer.signed()
            });
            match done {
                // The next one is over already.
                Ok(0) => {}
                Ok(next) => {
                    if let Ok(next) = u64::try_from(next) {
                        self.sweeps.note(partition, Duration::from_millis(next));
                    }
                    return;
                }
                Err(_) => break,
            }
        }
        self.sweeps.note(partition, self.settings.sweep_interval);
    }

    /// Reaps a dead incarnation, beside everything else; does nothing when this node already does it.
    pub(super) fn begin_reaping(self: Arc<Self>, incarnation: String) {
        if !self.sweeps.reaping.lock().insert(incarnation.clone()) {
            return;
        }
        tokio::spawn(async move {
            if let Err(fault) = self.reap_dead(&incarnation).await {
                tracing::warn!(?fault, incarnation, "redis: a dead node isn't reaped yet");
            }
            self.sweeps.reaping.lock().remove(&incarnation);
        });
    }

    async fn reap_dead(&self, incarnation: &str) -> Result<(), Fault> {
        let dead = vec![incarnation.into(), "DEAD".into()];
        if self
            .link
            .run(&CONDEMN, Partition::LEASES, dead)
            .await?
            .number()?
            == 0
        {
            return Ok(());
        }
        let all = Partition::all().collect();
        // It may live after all, cut off or asleep: then a heartbeat tells it, and it registers again before the graces end.
        let grace = self
            .limits
            .presence_grace
            .max(self.settings.beat_interval * 2);
        self.reap(incarnation, grace, all).await?;
        tracing::info!(incarnation, "redis: a dead node was reaped");
        self.link
            .run(
                &CONDEMN,
                Partition::LEASES,
                vec![incarnation.into(), "DONE".into()],
            )
            .await
            .map(drop)
    }

    /// Gives up this node's own incarnation: what is still registered is lost, with its grace.
    pub(super) async fn abdicate(&self) -> Result<(), Fault> {
        // First of all, so that nothing is registered behind the reaping.
        let incarnation = self.lease.give_up()?;
        let condemned = vec![(&*incarnation).into(), "STOP".into()];
        self.link
            .run(&CONDEMN, Partition::LEASES, condemned)
            .await?;
        let used = Partition::all()
            .filter(|partition| self.registry.uses(*partition))
            .collect();
        self.reap(&incarnation, self.limits.presence_grace, used)
            .await?;
        self.link
            .run(
                &CONDEMN,
                Partition::LEASES,
                vec![(&*incarnation).into(), "DONE".into()],
            )
            .await
            .map(drop)
    }

    async fn reap(
        &self,
        incarnation: &str,
        grace: Duration,
        partitions: Vec<Partition>,
    ) -> Result<(), Fault> {
        let steps: Vec<_> = partitions
            .into_iter()
            .map(|partition| self.reap_partition(incarnation, grace, partition))
            .collect();
        let mut steps = stream::iter(steps).buffer_unordered(CALLS);
        let mut done = Ok(());
        while let Some(step) = steps.next().await {
            done = done.and(step);
        }
        done
    }

    async fn reap_partition(
        &self,
        incarnation: &str,
        grace: Duration,
        partition: Partition,
    ) -> Result<(), Fault> {
        let script = if partition.holds_rooms() {
            &REAP_ROOMS
        } else {
            &REAP_USERS
        };
        loop {
            let args = vec![incarnation.into(), millis(grace).into(), STEP.into()];
            let mut answer = self.link.run(script, partition, args).await?;
            let taken = answer.number()?;
            self.count_changes(answer.number()?);
            if answer.number()? > 0 {
                self.sweeps.note(partition, grace);
            }
            if answer.number()? == 0 {
                return Ok(());
            }
            if taken == 0 {
                return Err(Fault::nonsense("a dead node's connections stay"));
            }
        }
    }
}
