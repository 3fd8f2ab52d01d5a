//! Section: the Redis that nodes share.

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section, url_without_password};
use super::parse::{path, port, text};
use super::values::Values;
use crate::backplane::redis::{KeyPrefix, RedisSettings};

const SCHEMES: [&str; 6] = [
    "redis://",
    "rediss://",
    "redis-sentinel://",
    "rediss-sentinel://",
    "redis-cluster://",
    "rediss-cluster://",
];

pub(super) const URL: Key = Key {
    name: "REDIS_URL",
    summary: "Redis as one URL; takes precedence over the three keys below.",
    help: "`redis://`, `redis-sentinel://` or `redis-cluster://` (Redis 7); with TLS `rediss://`, \
           `rediss-sentinel://` or `rediss-cluster://`.",
    example: "redis://127.0.0.1:6379",
    secret: true,
    show: url_without_password,
    ..Key::PLAIN
};
const HOST: Key = Key {
    name: "REDIS_HOST",
    summary: "Host of a single Redis server.",
    help: "With neither this key nor `REDIS_URL` the node runs alone.",
    example: "127.0.0.1",
    ..Key::PLAIN
};
const PORT: Key = Key {
    name: "REDIS_PORT",
    default: KeyDefault::Value("6379"),
    summary: "Port of that server.",
    ..Key::PLAIN
};
const PASSWORD: Key = Key {
    name: "REDIS_PASSWORD",
    summary: "Password of that server.",
    help: "Empty: no password.",
    ..Key::SECRET
};
const CA: Key = Key {
    name: "REDIS_CA",
    summary: "PEM file with the certificate authority that signed Redis's certificate, for a \
              `REDIS_URL` with TLS.",
    help: "Not set: the authorities that the system trusts.",
    see: "security.md#tls",
    ..Key::PLAIN
};

const PREFIX: Key = Key {
    name: "REDIS_PREFIX",
    default: KeyDefault::Value("hubbub:"),
    summary: "Beginning of every key and channel in Redis: nodes with the same prefix and database \
              form one deployment, and deployments that differ in either never meet.",
    help: "1 to 64 letters, digits and `: - _ . /`. Each deployment also needs a `DATABASE_URL` of \
           its own.",
    see: "deployment.md#several-deployments-on-one-redis",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "Redis",
    intro: "Nodes that share a Redis form a cluster. Without Redis a node runs alone and keeps \
            everything in memory.",
    keys: &[&URL, &HOST, &PORT, &PASSWORD, &CA, &PREFIX],
};

/// How to reach Redis; `None`: the node runs alone.
pub(super) fn parse(values: &mut Values) -> Result<Option<RedisSettings>, ConfigError> {
    let url = values.optional(&URL, redis_url)?;
    let host = values.optional(&HOST, text)?;
    let port = values.required(&PORT, port)?;
    let password = values.optional(&PASSWORD, text)?;
    let url = match (url, host) {
        (Some(url), _) => Some(url),
        (None, Some(host)) => Some(url_of(&host, port, password.as_deref())),
        (None, None) => None,
    };
    let ca = values.optional(&CA, path)?;
    let has_tls = url.as_ref().is_some_and(|url| url.starts_with("rediss"));
    if ca.is_some() && !has_tls {
        return Err(values.error(&CA, "needs a REDIS_URL with TLS, such as rediss://"));
    }
    let prefix = values.required(&PREFIX, key_prefix)?;
    Ok(url.map(|url| RedisSettings {
        url,
        ca,
        prefix,
        ..RedisSettings::default()
    }))
}

fn key_prefix(text: &str) -> Result<KeyPrefix, String> {
    KeyPrefix::parse(text).ok_or_else(|| {
        "must have 1 to 64 characters: ASCII letters, digits and : - _ . /".to_owned()
    })
}

fn redis_url(url: &str) -> Result<String, String> {
    if SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
        return Ok(url.to_owned());
    }
    Err("must begin with redis://, rediss://, redis-sentinel:// or redis-cluster://".to_owned())
}

/// The parts as one URL; the password may hold any character.
fn url_of(host: &str, port: u16, password: Option<&str>) -> String {
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let Some(password) = password else {
        return format!("redis://{host}:{port}");
    };
    let password: String = url::form_urlencoded::byte_serialize(password.as_bytes()).collect();
    format!("redis://:{}@{host}:{port}", password.replace('+', "%20"))
}
