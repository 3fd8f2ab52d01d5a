//! Ends graces that are over, and removes dead incarnations: work that any node may do for any other
//! node, in small steps that are safe to repeat.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;

use super::Node;
use super::fault::Fault;
use super::keys::Partition;
use super::link::millis;
use super::script::{
    CONDEMN, FORGET_LEASE, REAP_ROOMS, REAP_USERS, SCRUB, SWEEP_ROOMS, SWEEP_USERS,
};

/// Graces, or connections of a dead node, that one step handles: no step occupies Redis for more
/// than a few milliseconds.
const ITEMS_PER_STEP: i64 = 100;
/// Consecutive steps of a partition's sweep: when a node has died, many graces end at once.
const STEPS_PER_SWEEP: usize = 50;
/// Entries of a step that removes the texts of deleted messages, and the bytes of records after which the
/// step ends.
const SCRUBBED_ENTRIES: i64 = 100;
const SCRUBBED_BYTES: i64 = 256 * 1024;
/// Such steps of a partition's sweep, at most.
const SCRUBS_PER_SWEEP: usize = 64;
/// Partitions that are swept or reaped concurrently.
const CONCURRENT_PARTITIONS: usize = 32;

/// When to sweep which partition.
pub(super) struct Sweeps {
    due: Vec<Mutex<Option<Instant>>>,
    /// The position of the slow round over all partitions. The round finds graces that were begun by
    /// nodes that are gone.
    round: AtomicUsize,
    /// The incarnations that this node is reaping.
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
    /// Schedules a sweep of the partition, in which a grace ends after `delay`.
    pub(super) fn schedule(&self, partition: Partition, delay: Duration) {
        let at = Instant::now() + delay;
        let mut due = self.due[partition.index()].lock();
        *due = Some(due.map_or(at, |due| due.min(at)));
    }

    /// The partitions to sweep now: those that are due, and the next `per_round` of the slow round.
    fn take_due(&self, per_round: usize) -> Vec<Partition> {
        let now = Instant::now();
        let from = self.round.fetch_add(per_round, Ordering::Relaxed) % Partition::COUNT;
        let is_in_round = |partition: Partition| {
            (partition.index() + Partition::COUNT - from) % Partition::COUNT < per_round
        };
        let take_if_due = |partition: Partition| {
            let mut due = self.due[partition.index()].lock();
            let is_due = due.is_some_and(|due| due <= now);
            if is_due {
                *due = None;
            }
            is_due
        };
        Partition::all()
            .filter(|partition| take_if_due(*partition) || is_in_round(*partition))
            .collect()
    }
}

impl Node {
    /// Ends the graces that are over, in the partitions where there may be any.
    pub(super) async fn sweep(&self) {
        if !self.link.is_connected_to_leases() {
            return;
        }
        let sweeps_per_round = self
            .settings
            .full_sweep
            .as_millis()
            .div_ceil(self.settings.sweep_interval.as_millis().max(1));
        let sweeps_per_round = usize::try_from(sweeps_per_round).unwrap_or(1).max(1);
        let per_round = Partition::COUNT.div_ceil(sweeps_per_round);
        let sweeps: Vec<_> = self
            .sweeps
            .take_due(per_round)
            .into_iter()
            .map(|partition| self.sweep_partition(partition))
            .collect();
        stream::iter(sweeps)
            .buffer_unordered(CONCURRENT_PARTITIONS)
            .collect::<()>()
            .await;
    }

    async fn sweep_partition(&self, partition: Partition) {
        for _ in 0..STEPS_PER_SWEEP {
            match self.sweep_step(partition).await {
                // The next grace is over already.
                Ok(Some(Duration::ZERO)) => {}
                Ok(Some(until_next)) => {
                    self.sweeps.schedule(partition, until_next);
                    return;
                }
                Ok(None) => return,
                Err(_) => break,
            }
        }
        self.sweeps
            .schedule(partition, self.settings.sweep_interval);
    }

    /// Ends some graces. Returns the time until the partition's next grace ends; `None` if there is
    /// none.
    async fn sweep_step(&self, partition: Partition) -> Result<Option<Duration>, Fault> {
        let script = if partition.holds_rooms() {
            &SWEEP_ROOMS
        } else {
            &SWEEP_USERS
        };
        let args = vec![ITEMS_PER_STEP.into()];
        let mut reply = self.link.run(script, partition, args).await?;
        let _ended = reply.number()?;
        self.count_changes(reply.number()?);
        let until_next = reply.signed()?;
        if !reply.is_empty() && reply.number()? > 0 {
            self.scrub(partition).await?;
        }
        Ok(u64::try_from(until_next).ok().map(Duration::from_millis))
    }

    /// Removes the texts of deleted messages from the logs of a partition that are due.
    async fn scrub(&self, partition: Partition) -> Result<(), Fault> {
        for _ in 0..SCRUBS_PER_SWEEP {
            let args = vec![
                self.link.archive.name(),
                SCRUBBED_ENTRIES.into(),
                SCRUBBED_BYTES.into(),
            ];
            let mut reply = self.link.run(&SCRUB, partition, args).await?;
            let _removed = reply.number()?;
            let may_be_due = reply.number()? == 1;
            let replaced = reply.number()?;
            let tally = &self.link.tally;
            tally.log_scrubs.fetch_add(replaced, Ordering::Relaxed);
            if !may_be_due {
                return Ok(());
            }
        }
        self.sweeps
            .schedule(partition, self.settings.sweep_interval);
        Ok(())
    }

    /// Reaps a dead incarnation in a task of its own; does nothing if this node is doing so already.
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
        let args = vec![incarnation.into(), "EXPIRED".into()];
        let mut reply = self.link.run(&CONDEMN, Partition::LEASES, args).await?;
        let is_condemned = reply.number()? == 1;
        if !is_condemned {
            return Ok(());
        }
        // The node may be alive, only cut off or suspended. Then a heartbeat tells it, and it
        // registers again before these graces end.
        let grace = self
            .limits
            .presence_grace
            .max(self.settings.beat_interval * 2);
        let all = Partition::all().collect();
        self.reap(incarnation, grace, all).await?;
        tracing::info!(incarnation, "redis: a dead node was reaped");
        self.forget_lease(incarnation).await
    }

    /// Gives up this node's own incarnation: connections that are still registered count as lost,
    /// with their grace.
    pub(super) async fn give_up_incarnation(&self) -> Result<(), Fault> {
        // This comes first, so that nothing is registered behind the reaping.
        let incarnation = self.lease.give_up()?;
        let args = vec![(&*incarnation).into(), "ALWAYS".into()];
        self.link.run(&CONDEMN, Partition::LEASES, args).await?;
        let used = Partition::all()
            .filter(|partition| self.registry.uses(*partition))
            .collect();
        self.reap(&incarnation, self.limits.presence_grace, used)
            .await?;
        self.forget_lease(&incarnation).await
    }

    async fn forget_lease(&self, incarnation: &str) -> Result<(), Fault> {
        let args = vec![incarnation.into()];
        self.link
            .run(&FORGET_LEASE, Partition::LEASES, args)
            .await
            .map(drop)
    }

    async fn reap(
        &self,
        incarnation: &str,
        grace: Duration,
        partitions: Vec<Partition>,
    ) -> Result<(), Fault> {
        let reapings: Vec<_> = partitions
            .into_iter()
            .map(|partition| self.reap_partition(incarnation, grace, partition))
            .collect();
        let mut reapings = stream::iter(reapings).buffer_unordered(CONCURRENT_PARTITIONS);
        let mut result = Ok(());
        while let Some(reaping) = reapings.next().await {
            result = result.and(reaping);
        }
        result
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
            let args = vec![
                incarnation.into(),
                millis(grace).into(),
                ITEMS_PER_STEP.into(),
            ];
            let mut reply = self.link.run(script, partition, args).await?;
            let removed = reply.number()?;
            self.count_changes(reply.number()?);
            let graces = reply.number()?;
            let is_done = reply.number()? == 0;
            if graces > 0 {
                self.sweeps.schedule(partition, grace);
            }
            if is_done {
                return Ok(());
            }
            if removed == 0 {
                return Err(Fault::broken("the connections of a dead node remain"));
            }
        }
    }
}
