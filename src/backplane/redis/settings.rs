//! The settings of the Redis backplane.

use std::path::PathBuf;
use std::time::Duration;

/// How to reach Redis, and the timing of a node's lease. The defaults fulfil the documented
/// guarantees; tests use shorter times.
#[derive(Clone)]
pub struct RedisSettings {
    /// A URL with the scheme `redis`, `redis-sentinel` (with `?sentinelServiceName=`) or
    /// `redis-cluster`, or with TLS `rediss`, `rediss-sentinel` or `rediss-cluster`.
    pub url: String,
    /// The PEM file with the only authority to trust, for a URL with TLS; `None`: the authorities of
    /// the system.
    pub ca: Option<PathBuf>,
    /// Connections for the log; half as many are added for presence.
    pub connections: usize,
    /// Connections that subscribe.
    pub subscribers: usize,
    /// Commands that may wait for one connection.
    pub max_waiting_commands: usize,
    /// The timeout of a call.
    pub command_timeout: Duration,
    /// The timeout for opening a connection.
    pub connect_timeout: Duration,
    /// The time between heartbeats.
    pub beat_interval: Duration,
    /// The timeout of a heartbeat.
    pub beat_timeout: Duration,
    /// How long a node is considered alive after a heartbeat, by Redis's clock.
    pub lease: Duration,
    /// How often graces that are over are ended; a grace may last this much longer.
    pub sweep_interval: Duration,
    /// How long a round over all partitions takes. The round ends graces that were begun by nodes
    /// that are gone.
    pub full_sweep: Duration,
    /// How often the node checks for lost data and moved slots.
    pub check_interval: Duration,
}

/// Omits all fields, because the URL may contain a password.
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
