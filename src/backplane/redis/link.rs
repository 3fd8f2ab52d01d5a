//! The connections that run commands.
//!
//! There are two pools of clients, and each partition always uses the same client of a pool. So the
//! calls of a pool about one room keep their order. (Appends to several partitions may share a call,
//! which uses the client of the first. They keep their order because one such call is under way at a
//! time.)
//!
//! The pools are a bulkhead: when thousands of connections are lost or come back at once, the calls
//! about them use the presence pool, with a limit on concurrent calls, and never delay appends and
//! heartbeats.
//!
//! fred must not repeat a command by itself after a disconnect: the repeat could overtake later
//! commands. So every command fails together with its connection (`fail_fast`), and at once while
//! the connection is known to be down. The caller repeats it, which all scripts allow. (fred still
//! repeats commands, within its timeout, in two cases: when it leaves a server because slots have
//! moved, and when we make it renew a connection whose server is no primary any more. The scripts
//! allow that too.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fred::clients::WithOptions;
use fred::prelude::{
    Client, ClientLike, Config, ConnectionConfig, Options, PerformanceConfig, ReconnectPolicy,
};
use fred::types::config::{ClusterDiscoveryPolicy, UnresponsiveConfig};
use fred::types::{ClusterHash, CustomCommand, Value};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::RedisSettings;
use super::archive::Archive;
use super::concurrency_limit::ConcurrencyLimit;
use super::fault::{Fault, is_demotion};
use super::keys::{Keys, Partition};
use super::rights::{Rights, is_denial};
use super::script::{HEARTBEAT, Script, ScriptReply};
use crate::backplane::{BackplaneLimits, Counters};
use crate::domain::Epoch;

/// How often the connections may be renewed after a demotion.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait before a client that gave up connects again.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// How long the goodbye to a server may take.
const QUIT_TIMEOUT: Duration = Duration::from_millis(500);

/// Counts, each updated where the counted thing happens.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) round_trips: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) presence_changes: AtomicU64,
    pub(super) log_scrubs: AtomicU64,
    pub(super) interruptions: AtomicU64,
    /// Not a count: set when the node itself closes its connections.
    pub(super) stopping: AtomicBool,
}

impl Tally {
    pub(super) fn read(&self) -> Counters {
        Counters {
            round_trips: self.round_trips.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            presence_changes: self.presence_changes.load(Ordering::Relaxed),
            log_scrubs: self.log_scrubs.load(Ordering::Relaxed),
            interruptions: self.interruptions.load(Ordering::Relaxed),
        }
    }
}

/// The pool of connections that a call uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionPool {
    /// For calls that must be fast: the log, heartbeats, and publications.
    Log,
    /// For all other calls, a few at a time ([`ConcurrencyLimit`]).
    Presence,
}

/// The connections, and the arguments that all scripts get.
pub(super) struct Link {
    log: Vec<WithOptions<Client>>,
    presence: Vec<WithOptions<Client>>,
    presence_limit: ConcurrencyLimit,
    timeout: Duration,
    publish: &'static str,
    history_size: i64,
    room_ttl: i64,
    user_ttl: i64,
    pub(super) is_cluster: bool,
    pub(super) keys: Arc<Keys>,
    /// The archive behind the logs.
    pub(super) archive: Archive,
    pub(super) rights: Arc<Rights>,
    /// Whether the last heartbeat found data of another layout, or with another archive. Then no call
    /// but a heartbeat is made.
    pub(super) has_foreign_data: AtomicBool,
    pub(super) tally: Arc<Tally>,
    renewed_at: Mutex<Option<Instant>>,
    drivers: Vec<JoinHandle<()>>,
}

/// A duration in milliseconds, as an argument of a script: at least 1.
pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis())
        .unwrap_or(i64::MAX / 4)
        .max(1)
}

/// The command that publishes.
pub(super) fn publish_command(is_cluster: bool) -> &'static str {
    if is_cluster { "SPUBLISH" } else { "PUBLISH" }
}

/// The number of the database that the connections use. A cluster has only one.
pub(super) fn database(config: &Config) -> u8 {
    if config.server.is_clustered() {
        0
    } else {
        config.database.unwrap_or(0)
    }
}

/// fred's settings, which are the same for commands and subscriptions except for `events`, the
/// capacity of each event queue.
pub(super) fn client_settings(
    settings: &RedisSettings,
    events: usize,
) -> (PerformanceConfig, ConnectionConfig, ReconnectPolicy) {
    let performance = PerformanceConfig {
        default_command_timeout: settings.command_timeout,
        broadcast_channel_capacity: events,
        ..PerformanceConfig::default()
    };
    let mut connection = ConnectionConfig {
        connection_timeout: settings.connect_timeout,
        internal_command_timeout: settings.connect_timeout,
        max_command_buffer_len: settings.max_waiting_commands,
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(settings.command_timeout),
            interval: settings.command_timeout / 4,
        },
        ..ConnectionConfig::default()
    };
    connection.tcp.nodelay = Some(true);
    let reconnect = ReconnectPolicy::new_exponential(0, 50, 1000, 2);
    (performance, connection, reconnect)
}

/// Keeps a client connected. fred alone gives up for good after some errors, for example when a node
/// has lost its cluster.
pub(super) fn drive(client: impl ClientLike + 'static, tally: Arc<Tally>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            // Aborting this task must also abort the connection's own task.
            let connection = AbortOnDrop(client.connect());
            if let Err(error) = connection.wait().await
                && !tally.stopping.load(Ordering::Relaxed)
            {
                tracing::warn!(%error, "redis: a connection has ended; connecting again");
            }
            tokio::time::sleep(RESTART_DELAY).await;
        }
    })
}

struct AbortOnDrop(JoinHandle<Result<(), fred::error::Error>>);

impl AbortOnDrop {
    async fn wait(mut self) -> Result<(), fred::error::Error> {
        (&mut self.0).await.unwrap_or(Ok(()))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes a call, and repeats it once if the wrong server got it: where slots have moved, fred knows
/// the right server by then.
async fn with_redirect<F>(call: impl Fn() -> F) -> Result<Value, fred::error::Error>
where
    F: Future<Output = Result<Value, fred::error::Error>>,
{
    match call().await {
        Err(error) if error.details().starts_with("Too many redirections") => call().await,
        result => result,
    }
}

/// Creates clients that begin to connect and keep trying.
struct Connector<'a> {
    config: Config,
    settings: &'a RedisSettings,
    tally: Arc<Tally>,
    drivers: Vec<JoinHandle<()>>,
}

impl Connector<'_> {
    fn connect(&mut self, count: usize) -> Vec<WithOptions<Client>> {
        (0..count.max(1)).map(|_| self.connect_one()).collect()
    }

    fn connect_one(&mut self) -> WithOptions<Client> {
        let (performance, mut connection, reconnect) = client_settings(self.settings, 32);
        // fred would follow an ASK to the server that has no data yet, or in circles, and delay all
        // other calls meanwhile. After a MOVED it learns the new owners of slots even so, and
        // `with_redirect` repeats the call.
        connection.max_redirections = 0;
        let client = Client::new(
            self.config.clone(),
            Some(performance),
            Some(connection),
            Some(reconnect),
        );
        self.drivers.push(drive(client.clone(), self.tally.clone()));
        client.with_options(&Options {
            fail_fast: true,
            ..Options::default()
        })
    }
}

impl Link {
    /// Begins to connect, and keeps trying.
    pub(super) fn new(
        config: &Config,
        settings: &RedisSettings,
        limits: &BackplaneLimits,
        archive: Archive,
    ) -> Self {
        let mut config = config.clone();
        config.fail_fast = false;
        // When the configured nodes are down, any node that was ever known may show the way.
        let _ = config
            .server
            .set_cluster_discovery_policy(ClusterDiscoveryPolicy::UseCache);
        let is_cluster = config.server.is_clustered();
        let mut connector = Connector {
            config,
            settings,
            tally: Arc::default(),
            drivers: Vec::new(),
        };
        Self {
            log: connector.connect(settings.connections),
            presence: connector.connect(settings.connections.div_ceil(2)),
            presence_limit: ConcurrencyLimit::new(settings.command_timeout),
            timeout: settings.command_timeout,
            publish: publish_command(is_cluster),
            history_size: i64::try_from(limits.history_size).unwrap_or(i64::MAX),
            room_ttl: millis(limits.room_ttl),
            user_ttl: millis(limits.room_ttl.max(Duration::from_secs(30 * 86_400))),
            is_cluster,
            keys: Arc::new(Keys::new(&settings.prefix, database(&connector.config))),
            archive,
            rights: Arc::default(),
            has_foreign_data: AtomicBool::new(false),
            tally: connector.tally,
            renewed_at: Mutex::new(None),
            drivers: connector.drivers,
        }
    }

    /// The client that runs the partition's commands in the pool.
    pub(super) fn client(
        &self,
        pool: ConnectionPool,
        partition: Partition,
    ) -> &WithOptions<Client> {
        let clients = match pool {
            ConnectionPool::Log => &self.log,
            ConnectionPool::Presence => &self.presence,
        };
        &clients[partition.index() % clients.len()]
    }

    /// The number of append queues, each with one call under way. A single server runs one call at a
    /// time anyway, and wakes up less often the more messages a call carries. In a cluster a
    /// script serves one slot, so there is a queue for each partition.
    pub(super) fn append_queues(&self) -> usize {
        if self.is_cluster { Partition::COUNT } else { 1 }
    }

    /// The index of the queue for the partition's appends. All appends in a queue may share a call.
    pub(super) fn append_queue(&self, partition: Partition) -> usize {
        partition.index() % self.append_queues()
    }

    fn clients(&self) -> impl Iterator<Item = &WithOptions<Client>> {
        self.log.iter().chain(&self.presence)
    }

    /// Makes a call within the limits of its pool, and counts it. The call's timeout begins when the
    /// pool admits it.
    async fn timed(
        &self,
        pool: ConnectionPool,
        partition: Partition,
        call: impl Future<Output = Result<Value, fred::error::Error>>,
    ) -> Result<Value, Fault> {
        self.tally.round_trips.fetch_add(1, Ordering::Relaxed);
        let result = self.admitted(pool, partition, call).await;
        if let Err(Fault::Backplane(_)) = &result {
            self.tally.errors.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn admitted(
        &self,
        pool: ConnectionPool,
        partition: Partition,
        call: impl Future<Output = Result<Value, fred::error::Error>>,
    ) -> Result<Value, Fault> {
        let _permit = match pool {
            ConnectionPool::Log => None,
            ConnectionPool::Presence => Some(self.presence_limit.acquire(partition).await?),
        };
        let Ok(result) = tokio::time::timeout(self.timeout, call).await else {
            return Err(Fault::unavailable("no reply in time"));
        };
        self.presence_limit.record_reply(partition);
        result.map_err(|error| self.fault(partition, error.details()))
    }

    /// Waits for the connections to come up, at most for the timeout of a call. Returns whether they
    /// did.
    pub(super) async fn wait_until_connected(&self) -> bool {
        let all = self.clients().map(|client| client.wait_for_connect());
        let up = tokio::time::timeout(self.timeout, futures_util::future::join_all(all)).await;
        up.is_ok_and(|all| all.iter().all(Result::is_ok))
    }

    /// Whether every connection is up.
    pub(super) fn is_connected(&self) -> bool {
        self.clients().all(|client| client.is_connected())
    }

    /// Whether the connection to the partition of leases is up, as far as is known without a call.
    pub(super) fn is_connected_to_leases(&self) -> bool {
        self.client(ConnectionPool::Log, Partition::LEASES)
            .is_connected()
    }

    /// Runs a script on a partition; `args` are the script's own arguments.
    pub(super) async fn run(
        &self,
        script: &Script,
        partition: Partition,
        args: Vec<Value>,
    ) -> Result<ScriptReply, Fault> {
        if self.has_foreign_data.load(Ordering::Relaxed) && !std::ptr::eq(script, &*HEARTBEAT) {
            return Err(Fault::unavailable(
                "the data in Redis has another layout or archive",
            ));
        }
        let mut all = self.common_arguments(script, partition, args.len());
        all.extend(args);
        let hash = ClusterHash::Custom(partition.slot());
        let client = self.client(script.pool, partition);
        let call = async {
            let result = with_redirect(|| {
                let evalsha = CustomCommand::new_static("EVALSHA", hash.clone(), false);
                client.custom(evalsha, all.clone())
            });
            match result.await {
                // EVAL also loads the script into that server's cache.
                Err(error) if error.details().starts_with("NOSCRIPT") => {
                    all[0] = script.body.into();
                    let eval = CustomCommand::new_static("EVAL", hash, false);
                    client.custom(eval, all).await
                }
                result => result,
            }
        };
        self.timed(script.pool, partition, call)
            .await
            .map(ScriptReply::new)
    }

    /// The arguments of EVALSHA before the script's own ones, as `common.lua` describes them.
    fn common_arguments(
        &self,
        script: &Script,
        partition: Partition,
        own_arguments: usize,
    ) -> Vec<Value> {
        let ttl = if partition.holds_rooms() {
            self.room_ttl
        } else {
            self.user_ttl
        };
        let mut all: Vec<Value> = Vec::with_capacity(own_arguments + 8);
        all.extend([
            script.sha.as_str().into(),
            2.into(),
            Value::String(self.keys.tag(partition).clone()),
            Value::String(self.keys.channels(partition).clone()),
            self.publish.into(),
            Epoch::fresh().as_str().into(),
            self.history_size.into(),
            ttl.into(),
        ]);
        all
    }

    /// Runs a plain command on a partition.
    pub(super) async fn command(
        &self,
        pool: ConnectionPool,
        name: &'static str,
        partition: Partition,
        args: Vec<Value>,
    ) -> Result<Value, Fault> {
        let command = CustomCommand::new_static(name, ClusterHash::Custom(partition.slot()), false);
        let client = self.client(pool, partition);
        self.timed(
            pool,
            partition,
            with_redirect(|| client.custom(command.clone(), args.clone())),
        )
        .await
    }

    /// Publishes to a channel of the partition.
    pub(super) async fn publish(
        &self,
        partition: Partition,
        channel: String,
        payload: bytes::Bytes,
    ) -> Result<(), Fault> {
        self.command(
            ConnectionPool::Log,
            self.publish,
            partition,
            vec![channel.into(), Value::Bytes(payload)],
        )
        .await
        .map(drop)
    }

    /// The meaning of an error that a script reported for a part of a call. Counts it.
    pub(super) fn partial_fault(&self, partition: Partition, text: &str) -> Fault {
        self.tally.errors.fetch_add(1, Ordering::Relaxed);
        self.fault(partition, text)
    }

    /// The meaning of an error text; renews the connections if the server was demoted.
    fn fault(&self, partition: Partition, text: &str) -> Fault {
        if is_denial(text) {
            self.rights.record_denial(partition, text);
            return Fault::unavailable(text);
        }
        let fault = Fault::from_text(text);
        if matches!(fault, Fault::Backplane(_)) && is_demotion(text) {
            self.renew_connections();
        }
        fault
    }

    fn renew_connections(&self) {
        let mut last = self.renewed_at.lock();
        if last.is_some_and(|at| at.elapsed() < RENEWAL_INTERVAL) {
            return;
        }
        *last = Some(Instant::now());
        for client in self.clients() {
            let client = client.clone();
            tokio::spawn(async move { client.force_reconnection().await });
        }
    }

    /// Closes the connections.
    pub(super) async fn close(&self) {
        for client in self.clients() {
            let _ = tokio::time::timeout(QUIT_TIMEOUT, client.quit()).await;
        }
        for driver in &self.drivers {
            driver.abort();
        }
    }
}
