//! Warnings before a configuration goes into production: one line for each weak setting.
//!
//! `hubbub config` prints them, `--strict` makes them an error, and a node logs them at its start.
//! Sections add those that follow from one of their values alone.

use std::time::Duration;

use super::Config;
use super::identity::AuthMode;
use super::parse::is_loopback;
use super::secrets::password_weakness;
use crate::backplane::redis::RedisSettings;
use crate::domain::Rates;
use crate::gateway::origins::Origins;
use crate::server::TrustedProxies;
use crate::store::sql::DatabaseUrl;

/// With a shorter grace every page reload causes presence events.
const MIN_GRACE: Duration = Duration::from_millis(500);
/// A client that has not authenticated by then never will.
const MAX_AUTH_TIMEOUT: Duration = Duration::from_secs(3600);

/// The weak settings, each with its consequence.
pub(super) fn find(config: &Config) -> Vec<String> {
    let mut warnings = Warnings::default();
    access(config, &mut warnings);
    network(config, &mut warnings);
    if let Some(redis) = &config.redis {
        redis_link(redis, &mut warnings);
    }
    durability(config, &mut warnings);
    if let Some(settings) = &config.database {
        database_link(&settings.url, &mut warnings);
    }
    times(config, &mut warnings);
    limits(config, &mut warnings);
    warnings.0
}

#[derive(Default)]
struct Warnings(Vec<String>);

impl Warnings {
    fn add_if(&mut self, is_weak: bool, text: &str) {
        if is_weak {
            self.0.push(text.to_owned());
        }
    }
}

/// Proof of identity, permission to broadcast, and origins.
fn access(config: &Config, warnings: &mut Warnings) {
    let is_public = config.server.is_public();
    let is_open = config.identity.mode == AuthMode::Open;
    warnings.add_if(
        is_open && !is_public,
        "AUTH_MODE is open: every client names its own user, without proof",
    );
    warnings.add_if(
        is_open && is_public,
        "AUTH_MODE is open on an address that other machines can reach: any client may act as any \
         user, read every room and use all of REST",
    );
    warnings.add_if(
        !is_open && is_public && config.identity.broadcast_roles.is_none(),
        "BROADCAST_ROLES is not set: any valid token may broadcast to all clients",
    );
    let allows_any_origin = config.origins.origins == Origins::Any;
    warnings.add_if(
        allows_any_origin && (is_public || !is_open),
        "ALLOWED_ORIGINS is *: every web page may connect from its visitors' browsers",
    );
}

/// Proxies, TLS and the open metrics.
fn network(config: &Config, warnings: &mut Warnings) {
    let is_public = config.server.is_public();
    let proxies = config.origins.proxies.as_ref();
    warnings.add_if(
        is_public && proxies.is_none(),
        "TRUSTED_PROXIES is not set: it is unknown which addresses belong to clients, so addresses \
         have no rate limits; name the proxies, or set none",
    );
    warnings.add_if(
        proxies.is_some_and(TrustedProxies::trusts_everyone),
        "TRUSTED_PROXIES trusts everyone: any client can claim any address",
    );
    let has_proxies = proxies.is_some_and(|proxies| *proxies != TrustedProxies::default());
    warnings.add_if(
        is_public && !has_proxies && config.server.tls.is_none(),
        "no TLS: tokens and messages can be read on the network path; set TLS_CERT and TLS_KEY, or \
         let a proxy end TLS and name it in TRUSTED_PROXIES",
    );
    let metrics_address = config.server.metrics_address;
    warnings.add_if(
        metrics_address.is_some_and(|address| !address.ip().is_loopback()),
        "METRICS_ADDR is an address that other machines can reach: /metrics is served there \
         without authentication",
    );
}

/// TLS and password on the way to Redis.
fn redis_link(redis: &RedisSettings, warnings: &mut Warnings) {
    let link = RedisLink::of(&redis.url);
    if let Some(weakness) = link.password_weakness
        && link.is_remote
    {
        warnings.0.push(format!("the password of Redis {weakness}"));
    }
    warnings.add_if(
        link.is_remote && !link.has_tls,
        "Redis is reached over a network without TLS: the password and all messages can be read \
         on the network path",
    );
    warnings.add_if(
        link.is_remote && !link.has_password,
        "Redis is reached over a network without a password: every machine that reaches it can \
         read everything",
    );
}

/// Whether messages outlive the node.
fn durability(config: &Config, warnings: &mut Warnings) {
    let is_alone = config.redis.is_none();
    warnings.add_if(
        is_alone && config.database.is_none(),
        "DATABASE_URL is none on a node without Redis: a restart loses every message",
    );
    let database = config.database.as_ref();
    warnings.add_if(
        database.is_some_and(|settings| settings.url.is_in_memory()),
        "DATABASE_URL is sqlite::memory: and a restart loses every message",
    );
}

/// TLS on the way to the database.
fn database_link(url: &DatabaseUrl, warnings: &mut Warnings) {
    let parameter = match url {
        DatabaseUrl::Sqlite(_) => return,
        DatabaseUrl::Postgres(_) => "sslmode=require",
        DatabaseUrl::MySql(_) => "ssl-mode=required",
    };
    warnings.add_if(
        url.is_remote() && !url.requires_tls(),
        &format!(
            "the database is reached over a network, and TLS is not required: messages may be read \
             on the network path; add {parameter}, or verify its certificate too"
        ),
    );
}

/// Times that are too short or too long.
fn times(config: &Config, warnings: &mut Warnings) {
    warnings.add_if(
        config.backplane.presence_grace < MIN_GRACE,
        "PRESENCE_GRACE_MS is less than 500: every page reload causes presence events",
    );
    warnings.add_if(
        config.limits.auth_timeout > MAX_AUTH_TIMEOUT,
        "AUTH_TIMEOUT_SECS is more than 3600: connections that never authenticate stay for long",
    );
    warnings.add_if(
        config.server.drain.is_zero(),
        "DRAIN_SECS is 0: all clients of a node that stops reconnect at once",
    );
}

/// Limits that are switched off. Those of addresses count only where addresses are known.
fn limits(config: &Config, warnings: &mut Warnings) {
    let (limits, caps, rates) = (&config.limits, &config.caps, &config.rates);
    let mut switched_off = vec![
        ("RATE_EVENTS_PER_SEC", limits.socket.events.per_sec == 0),
        ("RATE_JOINS_PER_SEC", limits.socket.joins.per_sec == 0),
        ("RATE_BYTES_PER_SEC", limits.socket.bytes.per_sec == 0),
        ("MAX_RATE_REFUSALS", limits.refusals == 0),
        ("RATE_USER_EVENTS_PER_SEC", limits.user.events.per_sec == 0),
        ("RATE_USER_JOINS_PER_SEC", limits.user.joins.per_sec == 0),
        ("RATE_USER_BYTES_PER_SEC", limits.user.bytes.per_sec == 0),
        (
            "RATE_USER_CONNECTS_PER_SEC",
            limits.user.connects.per_sec == 0,
        ),
        ("RATE_POSTS_PER_SEC", rates.posts.per_sec == 0),
        ("RATE_BROADCASTS_PER_SEC", rates.broadcasts.per_sec == 0),
        ("MAX_CONNECTIONS", caps.connections == 0),
        ("MAX_HANDSHAKES_PER_SEC", caps.handshakes_per_sec == 0),
        ("MAX_UNAUTHENTICATED", caps.unauthenticated == 0),
    ];
    if config.origins.proxies.is_some() && config.server.is_public() {
        let Rates {
            events,
            joins,
            bytes,
            connects,
        } = caps.address;
        switched_off.extend([
            ("RATE_IP_EVENTS_PER_SEC", events.per_sec == 0),
            ("RATE_IP_JOINS_PER_SEC", joins.per_sec == 0),
            ("RATE_IP_BYTES_PER_SEC", bytes.per_sec == 0),
            ("RATE_IP_HANDSHAKES_PER_SEC", connects.per_sec == 0),
            ("MAX_CONNECTIONS_PER_IP", caps.per_ip == 0),
        ]);
    }
    for (key, is_off) in switched_off {
        warnings.add_if(is_off, &format!("{key} is 0: no limit"));
    }
}

/// The properties of the way to Redis, as its URL shows them.
struct RedisLink {
    has_tls: bool,
    has_password: bool,
    /// Why the password can be guessed.
    password_weakness: Option<&'static str>,
    /// At least one of the servers is another machine.
    is_remote: bool,
}

impl RedisLink {
    fn of(url: &str) -> Self {
        let Ok(url) = url::Url::parse(url) else {
            return Self {
                has_tls: false,
                has_password: false,
                password_weakness: None,
                is_remote: true,
            };
        };
        let mut hosts = vec![url.host_str().unwrap_or_default().to_owned()];
        // The other servers of a cluster, or of Sentinel.
        for (key, node) in url.query_pairs() {
            if key == "node" {
                let host = node.rsplit_once(':').map_or(&*node, |(host, _)| host);
                hosts.push(host.to_owned());
            }
        }
        Self {
            has_tls: url.scheme().starts_with("rediss"),
            has_password: url.password().is_some(),
            password_weakness: url.password().and_then(password_weakness),
            is_remote: !hosts.iter().all(|host| is_loopback(host)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    /// A configuration for production without a weak setting.
    const STRONG: [(&str, &str); 8] = [
        ("BROADCAST_ROLES", "service"),
        ("SERVER_HOST", "0.0.0.0"),
        ("JWT_SECRET", "5f0cbb2fb1c6a1f6e1d0b4f4a1c7e9d8"),
        ("API_KEYS", "0f1e2d3c4b5a69788796a5b4c3d2e1f0"),
        ("ALLOWED_ORIGINS", "https://chat.example.com"),
        ("REDIS_URL", "rediss://:secret@redis.internal:6380"),
        ("TRUSTED_PROXIES", "10.0.0.0/8"),
        ("MAX_CONNECTIONS_PER_IP", "1000"),
    ];

    fn warnings(changes: &[(&str, &str)]) -> Vec<String> {
        let pairs = STRONG
            .iter()
            .chain(changes)
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let environment: BTreeMap<_, _> = pairs.filter(|(_, value)| value != "unset").collect();
        let mut environment = environment;
        for (key, value) in changes {
            if *value == "unset" {
                environment.remove(*key);
            }
        }
        Config::from_sources(environment, Path::new("/nonexistent/.env"))
            .unwrap()
            .warnings
    }

    #[test]
    fn a_strong_configuration_causes_no_warning() {
        assert_eq!(warnings(&[]), Vec::<String>::new());
    }

    #[test]
    fn each_weak_setting_causes_exactly_one_warning() {
        for (change, expected) in [
            (
                &[("AUTH_MODE", "open")][..],
                "AUTH_MODE is open on an address",
            ),
            (
                &[("ALLOWED_ORIGINS", "https://a.example,*")],
                "ALLOWED_ORIGINS is *",
            ),
            (
                &[("ALLOWED_ORIGINS", "http://a.example")],
                "without TLS (http://)",
            ),
            (&[("TRUSTED_PROXIES", "none")], "no TLS"),
            (&[("TRUSTED_PROXIES", "10.0.0.1,::/0")], "trusts everyone"),
            (&[("METRICS_ADDR", "0.0.0.0:9090")], "METRICS_ADDR"),
            (
                &[("REDIS_URL", "redis://:secret@redis.internal")],
                "Redis is reached over a network without TLS",
            ),
            (
                &[(
                    "REDIS_URL",
                    "redis-cluster://:secret@127.0.0.1:1?node=far:2",
                )],
                "Redis is reached over a network without TLS",
            ),
            (
                &[("REDIS_URL", "rediss://redis.internal")],
                "Redis is reached over a network without a password",
            ),
            (
                &[("API_KEYS", "0f1e2d3c4b5a69788796a5b4c3d2e1f0,short")],
                "API_KEYS",
            ),
            (
                &[("JWT_SECRET", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")],
                "JWT_SECRET repeats",
            ),
            (
                &[(
                    "JWT_SECRET_PREVIOUS",
                    "your-secret-key-here-and-a-bit-longer",
                )],
                "JWT_SECRET_PREVIOUS looks like the placeholder",
            ),
            (
                &[(
                    "API_KEYS",
                    "0f1e2d3c4b5a69788796a5b4c3d2e1f0,aabbaabbaabbaabbaabbaabbcc",
                )],
                "API_KEYS has a key that has too few different characters",
            ),
            (
                &[
                    ("AUTHORIZE_URL", "https://app.example.com"),
                    ("AUTHORIZE_SECRET", "changeme"),
                ],
                "AUTHORIZE_SECRET looks like the placeholder",
            ),
            (
                &[("REDIS_URL", "rediss://:password1@redis.internal:6380")],
                "the password of Redis looks like the placeholder",
            ),
            (
                &[("JWT_AUDIENC", "a")],
                "JWT_AUDIENC in the environment is not a key of hubbub and has no effect; did you \
                 mean JWT_AUDIENCE?",
            ),
            (&[("PRESENCE_GRACE_MS", "100")], "PRESENCE_GRACE_MS"),
            (&[("AUTH_TIMEOUT_SECS", "7200")], "AUTH_TIMEOUT_SECS"),
            (&[("DRAIN_SECS", "0")], "DRAIN_SECS"),
            (&[("RATE_JOINS_PER_SEC", "0")], "RATE_JOINS_PER_SEC is 0"),
            (
                &[
                    ("RATE_BYTES_PER_SEC", "0"),
                    ("RATE_USER_BYTES_PER_SEC", "9"),
                    ("RATE_IP_BYTES_PER_SEC", "9"),
                ],
                "RATE_BYTES_PER_SEC is 0",
            ),
            (&[("MAX_RATE_REFUSALS", "0")], "MAX_RATE_REFUSALS is 0"),
            (
                &[("RATE_USER_EVENTS_PER_SEC", "0")],
                "RATE_USER_EVENTS_PER_SEC is 0",
            ),
            (
                &[("RATE_USER_JOINS_PER_SEC", "0")],
                "RATE_USER_JOINS_PER_SEC is 0",
            ),
            (
                &[("RATE_USER_BYTES_PER_SEC", "0")],
                "RATE_USER_BYTES_PER_SEC is 0",
            ),
            (
                &[("RATE_USER_CONNECTS_PER_SEC", "0")],
                "RATE_USER_CONNECTS_PER_SEC is 0",
            ),
            (
                &[("RATE_IP_EVENTS_PER_SEC", "0")],
                "RATE_IP_EVENTS_PER_SEC is 0",
            ),
            (
                &[("RATE_IP_JOINS_PER_SEC", "0")],
                "RATE_IP_JOINS_PER_SEC is 0",
            ),
            (
                &[("RATE_IP_BYTES_PER_SEC", "0")],
                "RATE_IP_BYTES_PER_SEC is 0",
            ),
            (
                &[("RATE_IP_HANDSHAKES_PER_SEC", "0")],
                "RATE_IP_HANDSHAKES_PER_SEC is 0",
            ),
            (&[("RATE_POSTS_PER_SEC", "0")], "RATE_POSTS_PER_SEC is 0"),
            (
                &[("RATE_BROADCASTS_PER_SEC", "0")],
                "RATE_BROADCASTS_PER_SEC is 0",
            ),
            (
                &[("BROADCAST_ROLES", "unset")],
                "BROADCAST_ROLES is not set",
            ),
            (&[("MAX_CONNECTIONS", "0")], "MAX_CONNECTIONS is 0"),
            (
                &[("MAX_CONNECTIONS_PER_IP", "0")],
                "MAX_CONNECTIONS_PER_IP is 0",
            ),
            (
                &[("MAX_HANDSHAKES_PER_SEC", "0")],
                "MAX_HANDSHAKES_PER_SEC is 0",
            ),
            (&[("MAX_UNAUTHENTICATED", "0")], "MAX_UNAUTHENTICATED is 0"),
        ] {
            let warnings = warnings(change);
            assert_eq!(warnings.len(), 1, "{change:?}: {warnings:?}");
            assert!(warnings[0].contains(expected), "{change:?}: {warnings:?}");
        }
        let events_off = warnings(&[("RATE_EVENTS_PER_SEC", "0")]);
        assert!(
            events_off.len() > 5,
            "the rates derived from it are off, too: {events_off:?}"
        );
        let no_proxies = warnings(&[("TRUSTED_PROXIES", "unset")]);
        assert!(
            no_proxies.len() == 2 && no_proxies[0].contains("TRUSTED_PROXIES is not set"),
            "{no_proxies:?}"
        );
    }

    #[test]
    fn settings_that_only_this_machine_can_reach_are_not_weak() {
        let local = [
            ("SERVER_HOST", "127.0.0.1"),
            ("TRUSTED_PROXIES", "unset"),
            ("METRICS_ADDR", "[::1]:9090"),
        ];
        assert_eq!(warnings(&local), Vec::<String>::new());
        for near in [
            "redis://localhost",
            "redis://127.0.0.1:7000",
            "redis://[::1]",
            "redis-cluster://127.0.0.1?node=127.0.0.1:2",
        ] {
            assert_eq!(
                warnings(&[("REDIS_URL", near)]),
                Vec::<String>::new(),
                "{near}"
            );
        }
    }
}
