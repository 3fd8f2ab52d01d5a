//! The connections that run commands: a few clients in two lanes, chosen by partition, so that calls of a lane for one room
//! keep their order. (Appends of several partitions may share a call, which takes the connection of the first; they keep their
//! order because one such call is under way at a time.)
//!
//! What people say must not wait behind who comes and goes: when thousands of connections are lost or come back at once,
//! Redis is told so in the lane of presence, with a bound on what is under way, and appends and heartbeats go past it.
//!
//! fred should not repeat a command by itself after a disconnect: a replay could overtake what was said meanwhile. So every
//! command fails with its connection (`fail_fast`), at once while the connection is known to be down, and whoever called
//! repeats it, which all scripts allow. (fred still does, within its timeout, when it leaves a server because slots have
//! moved, or because we have it renew a connection whose server is no primary any more; the scripts allow that too.)

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
use super::keys::Partition;
use super::script::{Script, ScriptReply};
use super::turns::Turns;
use crate::backplane::{BackplaneError, BackplaneLimits, Counters};
use crate::domain::Epoch;

/// Why a script gave no answer.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// The incarnation was reaped: take another one, register again, and repeat.
    Fenced,
    /// What the caller is told.
    Backplane(BackplaneError),
}

impl Fault {
    pub(super) fn nonsense(text: &str) -> Self {
        Self::Backplane(BackplaneError::Broken(text.to_owned()))
    }

    pub(super) fn unavailable(text: impl Into<String>) -> Self {
        Self::Backplane(BackplaneError::Unavailable(text.into()))
    }
}

impl From<Fault> for BackplaneError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Fenced => {
                Self::Unavailable("this node was given up for dead, and registers again".to_owned())
            }
            Fault::Backplane(error) => error,
        }
    }
}

/// What is counted, by whoever does it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) round_trips: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) presence_changes: AtomicU64,
    pub(super) interruptions: AtomicU64,
    /// Not a count: connections end because we end them.
    pub(super) stopping: AtomicBool,
}

impl Tally {
    pub(super) fn read(&self) -> Counters {
        Counters {
            round_trips: self.round_trips.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            presence_changes: self.presence_changes.load(Ordering::Relaxed),
            interruptions: self.interruptions.load(Ordering::Relaxed),
        }
    }
}

/// Which connections a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// What must be swift: the log, the heartbeats, what is published by itself.
    Log,
    /// Everything else, a few calls at a time ([`Turns`]).
    Presence,
}

/// The connections, and what every script is told.
pub(super) struct Link {
    log: Vec<WithOptions<Client>>,
    presence: Vec<WithOptions<Client>>,
    turns: Turns,
    timeout: Duration,
    publish: &'static str,
    history_size: i64,
    room_ttl: i64,
    user_ttl: i64,
    pub(super) sharded: bool,
    pub(super) tally: Arc<Tally>,
    reconnected_at: Mutex<Option<Instant>>,
    drivers: Vec<JoinHandle<()>>,
}

/// Milliseconds for a script.
pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis())
        .unwrap_or(i64::MAX / 4)
        .max(1)
}

/// fred's settings, the same for commands and subscriptions but for the size of event queues.
pub(super) fn client_settings(
    settings: &RedisSettings,
    events: usize,
) -> (PerformanceConfig, ConnectionConfig, ReconnectPolicy) {
    let performance = PerformanceConfig {
        default_command_timeout: settings.command_timeout,
        broadcast_channel_capacity: events,
        ..PerformanceConfig::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: settings.connect_timeout,
        internal_command_timeout: settings.connect_timeout,
        max_command_buffer_len: settings.max_waiting_commands,
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(settings.command_timeout),
            interval: settings.command_timeout / 4,
        },
        ..ConnectionConfig::default()
    };
    let mut connection = connection;
    connection.tcp.nodelay = Some(true);
    let reconnect = ReconnectPolicy::new_exponential(0, 50, 1000, 2);
    (performance, connection, reconnect)
}

/// Keeps a client connected: fred gives up for good after some errors (such as a node that lost its cluster).
pub(super) fn drive(client: impl ClientLike + 'static, tally: Arc<Tally>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            // Aborting this task must not leave the connection's own behind.
            let connection = AbortOnDrop(client.connect());
            if let Err(error) = connection.wait().await
                && !tally.stopping.load(Ordering::Relaxed)
            {
                tracing::warn!(%error, "redis: a connection ended, and is begun anew");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
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

/// Sends a call again that the wrong server refused: where slots have moved, fred knows the right one now.
async fn redirected<F>(call: impl Fn() -> F) -> Result<Value, fred::error::Error>
where
    F: Future<Output = Result<Value, fred::error::Error>>,
{
    match call().await {
        Err(error) if error.details().starts_with("Too many redirections") => call().await,
        done => done,
    }
}

impl Link {
    /// Begins to connect, and goes on trying.
    pub(super) fn new(config: &Config, settings: &RedisSettings, limits: &BackplaneLimits) -> Self {
        let mut config = config.clone();
        config.fail_fast = false;
        // Any known node may show the way, when those that were configured are down.
        let _ = config
            .server
            .set_cluster_discovery_policy(ClusterDiscoveryPolicy::UseCache);
        let sharded = config.server.is_clustered();
        let options = Options {
            fail_fast: true,
            ..Options::default()
        };
        let tally = Arc::<Tally>::default();
        let mut drivers = Vec::new();
        let mut connect = |count: usize| -> Vec<_> {
            let clients = (0..count.max(1)).map(|_| {
                let (performance, mut connection, reconnect) = client_settings(settings, 32);
                // fred follows an ASK to the server that knows nothing yet, or in circles, and holds all other calls up
                // meanwhile; after a MOVED it learns the new map all the same, and we send the call again.
                connection.max_redirections = 0;
                let client = Client::new(
                    config.clone(),
                    Some(performance),
                    Some(connection),
                    Some(reconnect),
                );
                drivers.push(drive(client.clone(), tally.clone()));
                client.with_options(&options)
            });
            clients.collect()
        };
        Self {
            log: connect(settings.connections),
            presence: connect(settings.connections.div_ceil(2)),
            turns: Turns::new(settings.command_timeout),
            timeout: settings.command_timeout,
            publish: if sharded { "SPUBLISH" } else { "PUBLISH" },
            history_size: i64::try_from(limits.history_size).unwrap_or(i64::MAX),
            room_ttl: millis(limits.room_ttl),
            user_ttl: millis(limits.room_ttl.max(Duration::from_secs(30 * 86_400))),
            sharded,
            tally,
            reconnected_at: Mutex::new(None),
            drivers,
        }
    }

    /// The client that runs the partition's commands of the lane.
    pub(super) fn client(&self, lane: Lane, partition: Partition) -> &WithOptions<Client> {
        let clients = match lane {
            Lane::Log => &self.log,
            Lane::Presence => &self.presence,
        };
        &clients[partition.index() % clients.len()]
    }

    /// How many lanes of appends there are, with one call under way in each. A single server works off one call at a time
    /// anyway, and is woken the less often the more each brings; in a cluster a script serves one slot.
    pub(super) fn append_lanes(&self) -> usize {
        if self.sharded { Partition::COUNT } else { 1 }
    }

    /// The lane of a partition's appends. All in one may share a call.
    pub(super) fn append_lane(&self, partition: Partition) -> usize {
        partition.index() % self.append_lanes()
    }

    fn clients(&self) -> impl Iterator<Item = &WithOptions<Client>> {
        self.log.iter().chain(&self.presence)
    }

    /// Makes one call when it is its turn. The time that a call may take begins then; before, what counts is that the
    /// part's calls are answered.
    async fn timed(
        &self,
        lane: Lane,
        partition: Partition,
        call: impl Future<Output = Result<Value, fred::error::Error>>,
    ) -> Result<Value, Fault> {
        self.tally.round_trips.fetch_add(1, Ordering::Relaxed);
        let turn = match lane {
            Lane::Log => Ok(None),
            Lane::Presence => self.turns.take(partition).await.map(Some),
        };
        let done = match turn {
            Err(fault) => fault,
            Ok(_turn) => match tokio::time::timeout(self.timeout, call).await {
                Ok(done) => {
                    self.turns.answered(partition);
                    match done {
                        Ok(value) => return Ok(value),
                        Err(error) => self.fault(error.details()),
                    }
                }
                Err(_) => Fault::unavailable("no answer in time"),
            },
        };
        if !matches!(done, Fault::Fenced) {
            self.tally.errors.fetch_add(1, Ordering::Relaxed);
        }
        Err(done)
    }

    /// Waits a moment for the connections to come up; whether they did.
    pub(super) async fn settle(&self) -> bool {
        let all = self.clients().map(|client| client.wait_for_connect());
        let up = tokio::time::timeout(self.timeout, futures_util::future::join_all(all)).await;
        up.is_ok_and(|all| all.iter().all(Result::is_ok))
    }

    /// Whether every connection is up.
    pub(super) fn is_whole(&self) -> bool {
        self.clients().all(|client| client.is_connected())
    }

    /// Whether the leases can be reached, as far as is known without asking.
    pub(super) fn client_is_connected(&self) -> bool {
        self.client(Lane::Log, Partition::LEASES).is_connected()
    }

    /// Runs a script on a partition; `args` are the script's own.
    pub(super) async fn run(
        &self,
        script: &Script,
        partition: Partition,
        args: Vec<Value>,
    ) -> Result<ScriptReply, Fault> {
        let ttl = if partition.holds_rooms() {
            self.room_ttl
        } else {
            self.user_ttl
        };
        let mut all: Vec<Value> = Vec::with_capacity(args.len() + 8);
        all.extend([
            script.sha.as_str().into(),
            // Two names of the slot, of which common.lua says why.
            2.into(),
            partition.tag().into(),
            format!("{}-", partition.tag()).into(),
            self.publish.into(),
            Epoch::fresh().as_str().into(),
            self.history_size.into(),
            ttl.into(),
        ]);
        all.extend(args);
        let hash = ClusterHash::Custom(partition.slot());
        let client = self.client(script.lane, partition);
        let call = async {
            let done = redirected(|| {
                client.custom(
                    CustomCommand::new_static("EVALSHA", hash.clone(), false),
                    all.clone(),
                )
            });
            match done.await {
                // EVAL also puts it into that server's cache.
                Err(error) if error.details().starts_with("NOSCRIPT") => {
                    all[0] = script.body.into();
                    client
                        .custom(CustomCommand::new_static("EVAL", hash, false), all)
                        .await
                }
                done => done,
            }
        };
        self.timed(script.lane, partition, call)
            .await
            .map(ScriptReply::new)
    }

    /// Runs a plain command on a partition.
    pub(super) async fn command(
        &self,
        lane: Lane,
        name: &'static str,
        partition: Partition,
        args: Vec<Value>,
    ) -> Result<Value, Fault> {
        let command = CustomCommand::new_static(name, ClusterHash::Custom(partition.slot()), false);
        let client = self.client(lane, partition);
        self.timed(
            lane,
            partition,
            redirected(|| client.custom(command.clone(), args.clone())),
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
            Lane::Log,
            self.publish,
            partition,
            vec![channel.into(), Value::Bytes(payload)],
        )
        .await
        .map(drop)
    }

    /// What it means that a script refused a part of what it was given.
    pub(super) fn refused(&self, text: &str) -> Fault {
        self.tally.errors.fetch_add(1, Ordering::Relaxed);
        self.fault(text)
    }

    /// What the text of an error means, Redis's or the client library's.
    fn fault(&self, text: &str) -> Fault {
        if text.starts_with("FENCED") {
            return Fault::Fenced;
        }
        // Inside a script's error the server's own comes after what Lua puts in front.
        let says = |word: &str| text.starts_with(word) || text.contains(&format!("-{word} "));
        if says("READONLY") || says("MASTERDOWN") {
            // The server was demoted under an open connection: only a new one finds the new primary.
            self.reconnect();
        }
        let passing = [
            "READONLY",
            "MASTERDOWN",
            "LOADING",
            "CLUSTERDOWN",
            "TRYAGAIN",
            "BUSY",
            "MISCONF",
            "OOM",
            "NOREPLICAS",
            "NOAUTH",
            "WRONGPASS",
            "UNBLOCKED",
        ];
        if text.starts_with("ERR") && !passing.iter().any(|word| says(word)) {
            tracing::error!(error = text, "redis: a command was refused");
            return Fault::nonsense(text);
        }
        Fault::unavailable(text)
    }

    /// Connects anew, at most once a second.
    fn reconnect(&self) {
        let mut last = self.reconnected_at.lock();
        if last.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            return;
        }
        *last = Some(Instant::now());
        for client in self.clients() {
            let client = client.clone();
            tokio::spawn(async move { client.force_reconnection().await });
        }
    }

    /// Ends the connections.
    pub(super) async fn close(&self) {
        for client in self.clients() {
            let _ = tokio::time::timeout(Duration::from_millis(500), client.quit()).await;
        }
        for driver in &self.drivers {
            driver.abort();
        }
    }
}
