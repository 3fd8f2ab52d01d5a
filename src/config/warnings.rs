//! What should be known before a configuration goes into production: one line for each weak setting.

use std::net::IpAddr;

use super::{AuthMode, Config, Settings, identity};
use crate::gateway::access::Origins;

/// A shorter key can be guessed.
const API_KEY_BYTES: usize = 24;
/// A shorter grace makes noise of every page reload.
const GRACE_MS: u64 = 500;
/// Who hasn't said by then who it is will not.
const AUTH_TIMEOUT_SECS: u64 = 60;

/// The weak settings, each with what follows from it.
pub(super) fn find(config: &Config) -> Vec<String> {
    let settings = &config.settings;
    let is_public = !config.address.ip().is_loopback();
    let mut warnings = Vec::new();
    let mut warn = |weak: bool, text: &str| {
        if weak {
            warnings.push(text.to_owned());
        }
    };
    let is_open = config.auth_mode == AuthMode::Open;
    warn(
        is_open && !is_public,
        "AUTH_MODE is open: whoever connects says who it is",
    );
    warn(
        is_open && is_public,
        "AUTH_MODE is open on an address that others can reach: anyone may be anyone, read every room and use all of REST",
    );
    warn(
        !is_open && is_public && settings.broadcast_roles.is_none(),
        "BROADCAST_ROLES is not set: whoever has a token may broadcast to everyone",
    );
    let any_origin = config.origins == Origins::Any && (is_public || !is_open);
    warn(
        any_origin,
        "ALLOWED_ORIGINS is *: every page may connect from its visitors' browsers",
    );
    warn(
        settings
            .allowed_origins
            .as_deref()
            .is_some_and(|list| list.contains("http://"))
            && is_public,
        "ALLOWED_ORIGINS has a page without TLS (http://): whoever is on the way can write it",
    );
    warn(
        is_public && config.proxies.is_none(),
        "TRUSTED_PROXIES is not set: nobody knows whose address is whose, so addresses have no rates; name the proxies, or \
         say none",
    );
    warn(
        config
            .proxies
            .as_ref()
            .is_some_and(crate::server::TrustedProxies::trusts_everyone),
        "TRUSTED_PROXIES trusts everyone: whoever connects says what its address is",
    );
    let has_proxies = config
        .proxies
        .as_ref()
        .is_some_and(|proxies| *proxies != crate::server::TrustedProxies::default());
    warn(
        is_public && !has_proxies && config.tls.is_none(),
        "no TLS: tokens and messages can be read on the way; set TLS_CERT and TLS_KEY, or let a proxy end TLS and name it in TRUSTED_PROXIES",
    );
    warn(
        config
            .metrics_address
            .is_some_and(|address| !address.ip().is_loopback()),
        "METRICS_ADDR is an address that others can reach: /metrics asks nobody who reads it",
    );
    if let Some(redis) = &config.redis {
        let (is_plain, has_password, is_far) = look_at(redis);
        warn(
            is_far && is_plain,
            "Redis is reached over a network without TLS: the password and all messages can be read",
        );
        warn(
            is_far && !has_password,
            "Redis is reached over a network without a password: whoever reaches it reads all",
        );
    }
    warn(
        identity::list(settings.api_keys.as_deref())
            .iter()
            .any(|key| !key.starts_with("sha256:") && key.len() < API_KEY_BYTES),
        "API_KEYS has a key of less than 24 bytes: it can be guessed",
    );
    warn(
        settings.presence_grace_ms < GRACE_MS,
        "PRESENCE_GRACE_MS is less than 500: every page reload is told to others",
    );
    warn(
        settings.auth_timeout_secs > AUTH_TIMEOUT_SECS,
        "AUTH_TIMEOUT_SECS is more than 60: who never says who it is keeps its place for long",
    );
    warn(
        settings.drain_secs == 0,
        "DRAIN_SECS is 0: all clients of a node that stops come back at once",
    );
    for (key, is_off) in switched_off(settings, config.proxies.is_some() && is_public) {
        warn(is_off, &format!("{} is 0: no limit", key.to_uppercase()));
    }
    warnings
}

/// Limits, and whether they are switched off. Those of addresses only where addresses are known.
fn switched_off(settings: &Settings, knows_addresses: bool) -> Vec<(&'static str, bool)> {
    let mut limits = vec![
        ("rate_events_per_sec", settings.rate_events_per_sec == 0),
        ("rate_joins_per_sec", settings.rate_joins_per_sec == Some(0)),
        ("rate_bytes_per_sec", settings.rate_bytes_per_sec == Some(0)),
        ("max_rate_refusals", settings.max_rate_refusals == 0),
        (
            "rate_user_events_per_sec",
            settings.rate_user_events_per_sec == Some(0),
        ),
        (
            "rate_user_joins_per_sec",
            settings.rate_user_joins_per_sec == Some(0),
        ),
        (
            "rate_user_bytes_per_sec",
            settings.rate_user_bytes_per_sec == Some(0),
        ),
        (
            "rate_user_connects_per_sec",
            settings.rate_user_connects_per_sec == Some(0),
        ),
        ("rate_posts_per_sec", settings.rate_posts_per_sec == Some(0)),
        (
            "rate_broadcasts_per_sec",
            settings.rate_broadcasts_per_sec == Some(0),
        ),
        ("max_connections", settings.max_connections == 0),
        (
            "max_handshakes_per_sec",
            settings.max_handshakes_per_sec == 0,
        ),
        ("max_unauthenticated", settings.max_unauthenticated == 0),
    ];
    if knows_addresses {
        limits.extend([
            (
                "rate_ip_events_per_sec",
                settings.rate_ip_events_per_sec == Some(0),
            ),
            (
                "rate_ip_joins_per_sec",
                settings.rate_ip_joins_per_sec == Some(0),
            ),
            (
                "rate_ip_bytes_per_sec",
                settings.rate_ip_bytes_per_sec == Some(0),
            ),
            (
                "rate_ip_handshakes_per_sec",
                settings.rate_ip_handshakes_per_sec == Some(0),
            ),
            (
                "max_connections_per_ip",
                settings.max_connections_per_ip == 0,
            ),
        ]);
    }
    limits
}

/// Whether Redis is spoken to without TLS, whether there is a password, and whether it is on another machine.
fn look_at(redis: &str) -> (bool, bool, bool) {
    let Ok(url) = url::Url::parse(redis) else {
        return (true, false, true);
    };
    let mut hosts = vec![url.host_str().unwrap_or_default().to_owned()];
    // The other servers of a cluster, or of Sentinel.
    let nodes = url
        .query_pairs()
        .filter(|(key, _)| key == "node")
        .map(|(_, node)| node.into_owned());
    hosts.extend(nodes.map(|node| {
        node.rsplit_once(':')
            .map_or(node.clone(), |(host, _)| host.to_owned())
    }));
    let is_near = |host: &String| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost"
            || bare
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    };
    (
        !url.scheme().starts_with("rediss"),
        url.password().is_some(),
        !hosts.iter().all(is_near),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    /// A configuration for production that has nothing weak.
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
    fn a_strong_configuration_has_none() {
        assert_eq!(warnings(&[]), Vec::<String>::new());
    }

    #[test]
    fn each_weak_setting_is_told_by_itself() {
        for (change, told) in [
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
            (&[("PRESENCE_GRACE_MS", "100")], "PRESENCE_GRACE_MS"),
            (&[("AUTH_TIMEOUT_SECS", "600")], "AUTH_TIMEOUT_SECS"),
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
            assert!(warnings[0].contains(told), "{change:?}: {warnings:?}");
        }
        let events_off = warnings(&[("RATE_EVENTS_PER_SEC", "0")]);
        assert!(
            events_off.len() > 5,
            "what follows from it is off, too: {events_off:?}"
        );
        let nobody_named = warnings(&[("TRUSTED_PROXIES", "unset")]);
        assert!(
            nobody_named.len() == 2 && nobody_named[0].contains("TRUSTED_PROXIES is not set"),
            "{nobody_named:?}"
        );
    }

    #[test]
    fn what_only_this_machine_reaches_is_not_weak() {
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
