//! The Redis backplane: one numbered log, one presence and one bus for a cluster of nodes.
//!
//! Every step that changes something is one script on one partition ([`keys`]), and all of them are safe to repeat. The
//! pieces: [`link`] runs scripts, [`turns`] bounds those about presence, [`batch`] gathers appends, [`log`] and
//! [`presence`] keep the traits' promises, [`lease`] keeps the node's incarnation alive, [`mend`] puts back what was lost,
//! [`reap`] ends graces and takes dead nodes out, [`bus`] and [`subscriber`] listen, [`rate_limiter`] adds up.

mod batch;
mod bus;
mod frame;
#[cfg(test)]
mod fuzz;
mod keys;
mod lease;
mod link;
mod log;
mod presence;
mod rate_limiter;
mod reap;
mod reconcile;
mod registry;
mod script;
mod subscriber;
mod tls;
mod turns;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use fred::error::ErrorKind;
use fred::interfaces::ClientLike;
use fred::prelude::{Client, Config};
use fred::types::{ClusterHash, CustomCommand, InfoKind, Value};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{Backplane, BackplaneKind, BackplaneLimits, Counters, Lifecycle, RateLimiter};
use batch::Appends;
use bus::Subscriptions;
use lease::Lease;
use link::{Lane, Link};
use reap::Sweeps;
use reconcile::Replids;
use registry::Registry;

/// How to reach Redis, and the times of a node's life. The defaults fit the contract; tests shorten them.
#[derive(Clone)]
pub struct RedisSettings {
    /// `redis://`, `rediss://`, `redis-sentinel://` (with `?sentinelServiceName=`) or `redis-cluster://`.
    pub url: String,
    /// The PEM file of the one authority to trust, for a URL with TLS; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Connections that serve the log; half as many serve presence.
    pub connections: usize,
    /// Connections that listen.
    pub subscribers: usize,
    /// Commands that may wait for one connection.
    pub max_waiting_commands: usize,
    /// The longest a call may take.
    pub command_timeout: Duration,
    /// The longest a connection may take to come up.
    pub connect_timeout: Duration,
    /// Between heartbeats.
    pub beat_interval: Duration,
    /// The longest a heartbeat may take.
    pub beat_timeout: Duration,
    /// How long a node lives without a heartbeat, by Redis's clock.
    pub lease: Duration,
    /// How often graces are looked at; one may last this much longer.
    pub sweep_interval: Duration,
    /// How long a round over all partitions takes, for graces that a node left which is gone.
    pub full_sweep: Duration,
    /// How often it is looked for lost data and moved slots.
    pub check_interval: Duration,
}

/// Without the URL, which may hold a password.
impl std::fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSettings").finish_non_exhaustive()
    }
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            ca: None,
            connections: 4,
            subscribers: 2,
            max_waiting_commands: 16_384,
            command_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(2),
            beat_interval: Duration::from_secs(2),
            beat_timeout: Duration::from_millis(1500),
            lease: Duration::from_secs(10),
            sweep_interval: Duration::from_millis(250),
            full_sweep: Duration::from_secs(4),
            check_interval: Duration::from_secs(5),
        }
    }
}

/// Why the node must not start with this Redis.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StartError {
    /// The URL can't be understood.
    #[error("the Redis URL can't be used: {0}")]
    BadUrl(String),
    /// The authority can't be taken from its file, or there is no TLS that would need one.
    #[error("REDIS_CA can't be used: {0}")]
    BadCa(String),
    /// Redis refuses the password, or wants one.
    #[error("Redis refuses the password: {0}")]
    WrongPassword(String),
    /// Redis may throw keys away, and with them messages and members.
    #[error("Redis must be set to maxmemory-policy noeviction, and is set to {0}")]
    Policy(String),
    /// It isn't the kind of Redis that the URL says.
    #[error("this Redis can't be used: {0}")]
    Unfit(String),
}

/// One node's share of the cluster.
struct Node {
    link: Arc<Link>,
    appends: Arc<Appends>,
    registry: Registry,
    lease: Lease,
    replids: Replids,
    sweeps: Sweeps,
    bus: Subscriptions,
    limits: BackplaneLimits,
    settings: RedisSettings,
    describe: String,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Connects to Redis. One that isn't there is no error: the backplane is down until it comes, and goes on trying.
///
/// # Errors
/// See [`StartError`].
pub async fn connect(
    settings: RedisSettings,
    limits: BackplaneLimits,
) -> Result<Backplane, StartError> {
    let config = configuration(&settings.url, settings.ca.as_deref())?;
    let there = probe(&config, &settings).await?;
    let link = Arc::new(Link::new(&config, &settings, &limits));
    let node = Arc::new(Node {
        appends: Appends::new(link.clone(), limits.dedupe_ttl, limits.history_ttl),
        registry: Registry::default(),
        lease: Lease::default(),
        replids: Replids::default(),
        sweeps: Sweeps::default(),
        bus: Subscriptions::new(&config, &settings, &link),
        describe: describe(&config),
        link,
        limits,
        settings,
        tasks: Mutex::default(),
    });
    if there && node.link.settle().await {
        node.bus.settle(node.settings.connect_timeout).await;
        node.bus.follow_slots(&node.link).await;
        node.first_beat().await;
    }
    let tasks = vec![
        tokio::spawn(node.clone().beat_on()),
        tokio::spawn(every(
            node.settings.sweep_interval,
            node.clone(),
            async |node| node.sweep().await,
        )),
        tokio::spawn(every(
            node.settings.sweep_interval,
            node.clone(),
            async |node| node.catch_up().await,
        )),
        tokio::spawn(every(
            node.settings.check_interval,
            node.clone(),
            async |node| node.check().await,
        )),
    ];
    *node.tasks.lock() = tasks;
    let rate_limiter = Some(Arc::new(rate_limiter::Sum(node.link.clone())) as Arc<dyn RateLimiter>);
    Ok(Backplane {
        log: node.clone(),
        presence: node.clone(),
        bus: node.clone(),
        rate_limiter,
        lifecycle: node,
    })
}

/// fred takes any scheme for a single Redis.
fn configuration(url: &str, ca: Option<&Path>) -> Result<Config, StartError> {
    const SCHEMES: [&str; 6] = [
        "redis",
        "rediss",
        "redis-sentinel",
        "rediss-sentinel",
        "redis-cluster",
        "rediss-cluster",
    ];
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    if !SCHEMES.contains(&scheme) {
        return Err(StartError::BadUrl(format!(
            "it must begin with one of {}",
            SCHEMES.map(|name| format!("{name}://")).join(", ")
        )));
    }
    let parse = |url: &str| {
        Config::from_url(url).map_err(|error| StartError::BadUrl(error.details().to_owned()))
    };
    let Some(ca) = ca else { return parse(url) };
    let Some(rest) = url.strip_prefix("rediss") else {
        return Err(StartError::BadCa(
            "the Redis URL asks for no TLS".to_owned(),
        ));
    };
    // As if it asked for none: else fred would want the system's authorities, which need not be there.
    let mut config = parse(&format!("redis{rest}"))?;
    config.tls = Some(tls::trusting(ca)?);
    Ok(config)
}

/// One connection, to learn what must end the start; whether Redis is there.
async fn probe(config: &Config, settings: &RedisSettings) -> Result<bool, StartError> {
    let (performance, connection, _) = link::client_settings(settings, 32);
    let client = Client::new(config.clone(), Some(performance), Some(connection), None);
    let reached = tokio::time::timeout(settings.connect_timeout * 2, client.init()).await;
    let verdict = match reached {
        Err(_) => Ok(false),
        Ok(Ok(_)) => policy_of(&client).await.map(|()| true),
        Ok(Err(error)) => match error.kind() {
            ErrorKind::Auth => Err(StartError::WrongPassword(error.details().to_owned())),
            ErrorKind::Config => Err(StartError::Unfit(error.details().to_owned())),
            _ if error.details().contains("without any password configured") => {
                Err(StartError::WrongPassword(error.details().to_owned()))
            }
            _ => {
                tracing::warn!(%error, "redis: not there yet");
                Ok(false)
            }
        },
    };
    let _ = client.quit().await;
    verdict
}

async fn policy_of(client: &Client) -> Result<(), StartError> {
    let slots = client.active_connections().len().max(1);
    for server in client.active_connections() {
        let options = fred::prelude::Options {
            cluster_node: Some(server).filter(|_| slots > 1),
            ..Default::default()
        };
        let memory: String = client
            .with_options(&options)
            .info(Some(InfoKind::Memory))
            .await
            .unwrap_or_default();
        evicts(&memory).map_or(Ok(()), |policy| Err(StartError::Policy(policy.to_owned())))?;
    }
    Ok(())
}

/// The policy in `INFO memory`, if it is a wrong one.
fn evicts(memory: &str) -> Option<&str> {
    let policy = memory
        .lines()
        .find_map(|line| line.strip_prefix("maxmemory_policy:"))?
        .trim();
    (policy != "noeviction").then_some(policy)
}

fn describe(config: &Config) -> String {
    let kind = if config.server.is_clustered() {
        "cluster"
    } else if config.server.is_sentinel() {
        "sentinel"
    } else {
        "single"
    };
    let hosts: Vec<_> = config
        .server
        .hosts()
        .iter()
        .map(ToString::to_string)
        .collect();
    format!("redis {kind} {}", hosts.join(","))
}

async fn every(interval: Duration, node: Arc<Node>, work: impl AsyncFn(&Node)) {
    loop {
        // Nodes must not work in step.
        let jitter = f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0;
        tokio::time::sleep(interval.mul_f64(0.8 + 0.4 * jitter)).await;
        work(&node).await;
    }
}

impl Node {
    fn count_changes(&self, changes: u64) {
        self.link
            .tally
            .presence_changes
            .fetch_add(changes, Ordering::Relaxed);
    }

    async fn check(&self) {
        self.bus.follow_slots(&self.link).await;
        if self.is_up() {
            let _ = self.check_partitions().await;
        }
    }

    /// Whether Redis keeps what it is given, as far as it tells.
    async fn check_policy(&self) -> Result<(), StartError> {
        let info = CustomCommand::new_static(
            "INFO",
            ClusterHash::Custom(keys::Partition::LEASES.slot()),
            false,
        );
        let client = self.link.client(Lane::Log, keys::Partition::LEASES);
        let memory: Result<String, _> = client.custom(info, vec![Value::from("memory")]).await;
        evicts(&memory.unwrap_or_default())
            .map_or(Ok(()), |policy| Err(StartError::Policy(policy.to_owned())))
    }
}

#[async_trait]
impl Lifecycle for Node {
    fn kind(&self) -> BackplaneKind {
        BackplaneKind::Redis
    }

    fn describe(&self) -> String {
        self.describe.clone()
    }

    fn is_up(&self) -> bool {
        self.lease.is_up()
    }

    fn counters(&self) -> Counters {
        self.link.tally.read()
    }

    async fn stop(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.link.tally.stopping.store(true, Ordering::Relaxed);
        let unsaid = self.registry.unsaid(usize::MAX);
        if !unsaid.is_empty() {
            let _ = tokio::time::timeout(Duration::from_secs(2), self.say_lost(unsaid)).await;
        }
        // When it can't be said, the lease runs out and another node reaps this one.
        let _ = tokio::time::timeout(Duration::from_secs(3), self.abdicate()).await;
        self.bus.close().await;
        self.link.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_noeviction_keeps_messages() {
        assert_eq!(
            evicts("maxmemory:0\r\nmaxmemory_policy:noeviction\r\n"),
            None
        );
        assert_eq!(
            evicts("maxmemory_policy:allkeys-lru\r\n"),
            Some("allkeys-lru")
        );
        assert_eq!(evicts(""), None);
    }

    #[test]
    fn only_redis_is_understood() {
        for url in [
            "redis://a",
            "rediss://a:1/2",
            "redis-cluster://a:1?node=b:2",
            "redis-sentinel://a?sentinelServiceName=m",
        ] {
            assert!(configuration(url, None).is_ok(), "{url}");
        }
        for url in ["", "a:6379", "http://a", "redis-sentinel://a", "redis://"] {
            assert!(
                matches!(configuration(url, None), Err(StartError::BadUrl(_))),
                "{url}"
            );
        }
    }

    #[test]
    fn an_authority_needs_tls_and_a_certificate() {
        let refusal = |url, ca: &str| {
            configuration(url, Some(Path::new(ca)))
                .unwrap_err()
                .to_string()
        };
        assert!(refusal("redis://a", "/dev/null").contains("no TLS"));
        assert!(refusal("rediss://a", "/dev/null").contains("/dev/null: holds no certificate"));
        assert!(
            refusal("rediss-cluster://a", "/nonexistent/ca.pem").contains("/nonexistent/ca.pem")
        );
    }

    #[test]
    fn a_description_holds_no_password() {
        let config = Config::from_url("redis://user:secret@cache.example:6380/2").unwrap();
        assert_eq!(describe(&config), "redis single cache.example:6380");
    }
}
