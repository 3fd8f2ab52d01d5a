//! The Redis backplane: one log, one presence and one bus for a cluster of nodes.
//!
//! Every step that changes something is one script on one [partition](keys), and all scripts are
//! safe to repeat. The parts:
//!
//! | module | purpose |
//! | --- | --- |
//! | [`settings`], [`start`], [`tls`] | settings, and the start |
//! | [`checks`], [`rights`] | checks of the server, its data and the user's rights |
//! | [`link`], [`concurrency_limit`], [`fault`] | connections, the limit on presence calls, errors |
//! | [`keys`], [`script`], [`frame`], [`entry_kind`] | names and formats in Redis |
//! | [`log`], [`batch`] | rooms' logs, and batches of appends |
//! | [`hot_log`], [`restore`], [`archive`] | rooms' logs with an archive behind them |
//! | [`presence`], [`registry`] | presence, and this node's own connections |
//! | [`lease`] | the node's incarnation and its heartbeats |
//! | [`reconcile`], [`replication_ids`] | restoring what Redis has lost |
//! | [`reap`] | ending graces, and removing dead nodes |
//! | [`bus`], [`subscriber`] | fan-out between nodes |
//! | [`rate_limiter`] | users' rate limits across nodes |

mod append_outcome;
mod archive;
mod batch;
mod bus;
mod checks;
mod claimed;
mod concurrency_limit;
mod entry_kind;
mod fault;
mod forms;
mod frame;
#[cfg(test)]
mod fuzz;
mod hot_log;
mod keys;
mod lease;
mod link;
mod log;
mod presence;
mod rate_limiter;
mod reap;
mod reconcile;
mod registry;
mod replication_ids;
mod restore;
mod rights;
mod script;
mod settings;
mod start;
mod subscriber;
mod tls;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{
    Backplane, BackplaneError, BackplaneKind, BackplaneLimits, Counters, HotLog, Lifecycle,
    RestoreSource,
};
use crate::domain::RoomId;
use archive::Archive;
use batch::Appends;
use bus::Subscriptions;
use fault::Fault;
use hot_log::UnarchivedRound;
use keys::Partition;
use lease::Lease;
use link::{ConnectionPool, Link};
use rate_limiter::RedisRateLimiter;
use reap::Sweeps;
use registry::Registry;
use replication_ids::ReplicationIds;
use restore::{RestoreRounds, Restores};
use rights::MissingRights;
use script::{DEPLOYMENT, RIGHTS};
pub use settings::{KeyPrefix, RedisSettings};
pub use start::StartError;

/// How long a stopping node tries to publish pending disconnects.
const STOP_PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a stopping node tries to give up its incarnation.
const STOP_LEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// One node's part of the cluster.
struct Node {
    link: Arc<Link>,
    appends: Arc<Appends>,
    /// `None` without an archive.
    restores: Option<Arc<Restores>>,
    unarchived_round: UnarchivedRound,
    registry: Registry,
    lease: Lease,
    replication_ids: ReplicationIds,
    sweeps: Sweeps,
    bus: Subscriptions,
    limits: BackplaneLimits,
    settings: RedisSettings,
    description: String,
    /// The number of the database in Redis.
    database: u8,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Connects to Redis. It is no error if Redis can't be reached: the backplane is down until it can,
/// and keeps trying. `restore` is the archive behind the rooms' logs, if there is one.
///
/// # Errors
/// See [`StartError`].
pub async fn connect(
    settings: RedisSettings,
    limits: BackplaneLimits,
    restore: Option<Arc<dyn RestoreSource>>,
) -> Result<Backplane, StartError> {
    let (node, is_reachable) = Node::connect(settings, limits, restore).await?;
    if is_reachable && node.link.wait_until_connected().await {
        node.bus
            .wait_until_connected(node.settings.connect_timeout)
            .await;
        node.bus.follow_slots(&node.link).await;
        node.send_first_heartbeat().await;
    }
    node.spawn_tasks();
    Ok(Backplane {
        log: node.clone(),
        hot_log: node.clone(),
        presence: node.clone(),
        bus: node.clone(),
        rate_limiter: Some(Arc::new(RedisRateLimiter(node.link.clone()))),
        lifecycle: node,
    })
}

/// Connects to Redis without taking part in the cluster, to read rooms' logs. `None` if Redis can't be
/// reached.
///
/// # Errors
/// See [`StartError`].
pub async fn observe(
    settings: RedisSettings,
    limits: BackplaneLimits,
    archive: Arc<dyn RestoreSource>,
) -> Result<Option<Arc<dyn HotLog>>, StartError> {
    let (node, is_reachable) = Node::connect(settings, limits, Some(archive)).await?;
    let is_connected = is_reachable && node.link.wait_until_connected().await;
    if is_connected {
        node.bus.follow_slots(&node.link).await;
    }
    Ok(is_connected.then_some(node))
}

/// Runs `work` again and again, with this pause in between.
async fn every(interval: Duration, node: Arc<Node>, work: impl AsyncFn(&Node)) {
    loop {
        // The pause varies by 20 %, so that nodes don't work in step.
        let jitter = f64::from(Uuid::new_v4().as_bytes()[0]) / 255.0;
        tokio::time::sleep(interval.mul_f64(0.8 + 0.4 * jitter)).await;
        work(&node).await;
    }
}

impl Node {
    /// Connects, and begins nothing. Returns also whether Redis can be reached.
    async fn connect(
        settings: RedisSettings,
        limits: BackplaneLimits,
        restore: Option<Arc<dyn RestoreSource>>,
    ) -> Result<(Arc<Self>, bool), StartError> {
        let config = start::client_config(&settings.url, settings.ca.as_deref())?;
        let archive = Archive::of(restore.as_deref());
        let is_reachable = start::probe(&config, &settings, &archive).await?;
        let link = Arc::new(Link::new(&config, &settings, &limits, archive));
        let restores = restore.map(|source| Restores::new(link.clone(), source, &limits));
        let node = Arc::new(Self {
            appends: Appends::new(
                link.clone(),
                restores.clone(),
                &limits,
                settings.scrub_delay,
            ),
            restores,
            unarchived_round: UnarchivedRound::default(),
            registry: Registry::default(),
            lease: Lease::default(),
            replication_ids: ReplicationIds::default(),
            sweeps: Sweeps::default(),
            bus: Subscriptions::new(&config, &settings, &link),
            description: start::describe(&config),
            database: link::database(&config),
            link,
            limits,
            settings,
            tasks: Mutex::default(),
        });
        Ok((node, is_reachable))
    }

    fn spawn_tasks(self: &Arc<Self>) {
        let sweep_interval = self.settings.sweep_interval;
        let check_interval = self.settings.check_interval;
        let sweep = every(sweep_interval, self.clone(), async |node| {
            node.sweep().await;
        });
        let reconcile = every(sweep_interval, self.clone(), async |node| {
            node.reconcile().await;
        });
        let check = every(check_interval, self.clone(), async |node| {
            node.check().await;
        });
        *self.tasks.lock() = vec![
            tokio::spawn(self.clone().send_heartbeats()),
            tokio::spawn(sweep),
            tokio::spawn(reconcile),
            tokio::spawn(check),
        ];
    }

    /// Restores rooms that a script has refused as [`Fault::Unrestored`].
    async fn restore_rooms(
        &self,
        rooms: &[RoomId],
        rounds: &mut RestoreRounds,
    ) -> super::Result<()> {
        match &self.restores {
            Some(restores) => restores.restore(rooms, rounds).await,
            None => Err(Fault::Unrestored.into()),
        }
    }

    fn count_changes(&self, changes: u64) {
        self.link
            .tally
            .presence_changes
            .fetch_add(changes, Ordering::Relaxed);
    }

    /// Checks for moved slots and lost data.
    async fn check(&self) {
        self.bus.follow_slots(&self.link).await;
        if self.is_up() {
            // After an error the next check tries again.
            let _ = self.check_partitions().await;
            self.check_rights().await;
        }
    }

    /// Checks that Redis doesn't evict keys, as far as it tells, and the rights of the user.
    /// Heartbeats check the layout of its data.
    async fn check_server(&self) -> Result<(), StartError> {
        let client = self.link.client(ConnectionPool::Log, Partition::LEASES);
        checks::check_policy_of(client, Partition::LEASES).await?;
        self.check_rights().await;
        Ok(())
    }

    /// Checks the rights of the user again, if Redis has denied something.
    async fn check_denied_rights(&self) {
        if self.link.rights.is_denied() {
            self.check_rights().await;
        }
    }

    /// Checks the rights of the user on each server, and records whether they are complete: while
    /// they aren't, the node isn't up. An error that isn't about rights leaves the record as it is.
    async fn check_rights(&self) {
        let mut missing = MissingRights::default();
        let mut is_checked = true;
        let mut partitions = self.link.rights.partitions_to_check();
        partitions.extend(self.bus.one_partition_of_each_server());
        let subscribed = self.bus.check_rights(partitions.iter().copied().collect());
        if let Err(fault) = subscribed.await {
            is_checked = false;
            missing.add("SUBSCRIBE", &BackplaneError::from(fault).to_string());
        }
        for partition in partitions {
            let result = match self
                .link
                .run(&RIGHTS, partition, vec![self.link.archive.name()])
                .await
            {
                Ok(reply) => missing.add_reply(reply),
                Err(fault) => Err(fault),
            };
            is_checked &= result.is_ok();
        }
        if !missing.is_empty() {
            let missing = missing.describe(&self.settings.prefix);
            self.link.rights.record_missing(&missing);
            return;
        }
        if is_checked && self.link.rights.set_complete() {
            // A denied subscription may have counted as made.
            self.bus.renew_all();
        }
    }
}

#[async_trait]
impl Lifecycle for Node {
    fn kind(&self) -> BackplaneKind {
        BackplaneKind::Redis
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    fn is_up(&self) -> bool {
        self.lease.is_up() && !self.link.rights.is_denied()
    }

    async fn deployment(&self) -> super::Result<Option<String>> {
        // Before the first heartbeat, the data may have another layout.
        if !self.is_up() {
            return Err(BackplaneError::Unavailable("redis is down".to_owned()));
        }
        let new_id = Uuid::new_v4().simple().to_string()[..16].to_owned();
        let args = vec![new_id.into()];
        let mut reply = self.link.run(&DEPLOYMENT, Partition::LEASES, args).await?;
        let id = reply.text()?;
        let prefix = self.settings.prefix.as_str();
        Ok(Some(format!("redis {prefix} {} {id}", self.database)))
    }

    fn counters(&self) -> Counters {
        self.link.tally.read()
    }

    async fn stop(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.link.tally.stopping.store(true, Ordering::Relaxed);
        let pending = self.registry.pending_disconnects(usize::MAX);
        if !pending.is_empty() {
            let publish = self.publish_disconnects(pending);
            let _ = tokio::time::timeout(STOP_PUBLISH_TIMEOUT, publish).await;
        }
        // If this fails, the lease expires and another node reaps this one.
        let _ = tokio::time::timeout(STOP_LEASE_TIMEOUT, self.give_up_incarnation()).await;
        self.bus.close().await;
        self.link.close().await;
    }
}
