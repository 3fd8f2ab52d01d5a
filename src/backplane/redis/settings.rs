//! The settings of the Redis backplane.

use std::path::PathBuf;
use std::time::Duration;

/// The most bytes of a [`KeyPrefix`].
const MAX_PREFIX_BYTES: usize = 64;

/// The beginning of every key and channel of a deployment in Redis. It has no brace, so that it
/// changes no slot, and no other character with a meaning in the patterns of Redis or its ACLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPrefix(String);

impl KeyPrefix {
    /// Parses a prefix. `None` if it is empty, too long or contains other characters than ASCII
    /// letters, digits and `: - _ . /`.
    pub fn parse(text: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_./".contains(&byte);
        let is_valid = (1..=MAX_PREFIX_BYTES).contains(&text.len()) && text.bytes().all(is_allowed);
        if is_valid {
            Some(Self(text.to_owned()))
        } else {
            None
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for KeyPrefix {
    fn default() -> Self {
        Self("hubbub:".to_owned())
    }
}

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
    /// The beginning of every key and channel.
    pub prefix: KeyPrefix,
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
    /// How long the text of a deleted message may stay in its log. Then the log is written anew: so this is
    /// also the least time between two times.
    pub scrub_delay: Duration,
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
            prefix: KeyPrefix::default(),
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
            scrub_delay: Duration::from_secs(30),
            check_interval: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_only_characters_without_a_meaning_in_redis() {
        let longest = "x".repeat(MAX_PREFIX_BYTES);
        for valid in ["hubbub:", "a", "eu-west/chat_2.", longest.as_str()] {
            assert!(KeyPrefix::parse(valid).is_some(), "{valid}");
        }
        let too_long = format!("{longest}x");
        for invalid in [
            "", "a{b", "a}", "a*", "a?", "[a]", "a b", "a\\", "é", "a\n", &too_long,
        ] {
            assert!(KeyPrefix::parse(invalid).is_none(), "{invalid:?}");
        }
    }
}
