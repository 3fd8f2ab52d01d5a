//! Section: where the node listens, and how it stops.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section, Unit};
use super::parse::{path, port, seconds, socket_address, text};
use super::values::Values;
use crate::server::tls::TlsFiles;

pub(super) const HOST: Key = Key {
    name: "SERVER_HOST",
    default: KeyDefault::Value("127.0.0.1"),
    summary: "IP address to listen on, or a host name that resolves to one.",
    help: "`0.0.0.0` accepts connections from other machines. The node then starts only with a \
           key for tokens, such as `JWT_SECRET`, or with `AUTH_MODE=open`.",
    ..Key::PLAIN
};
pub(super) const SERVER_PORT: Key = Key {
    name: "SERVER_PORT",
    default: KeyDefault::Value("8080"),
    summary: "TCP port to listen on, 1 to 65535.",
    help: "With 0 the operating system chooses a free port, which the log names.",
    ..Key::PLAIN
};
/// Replaced by `SERVER_PORT` while the sources are read.
pub(super) const PORT: Key = Key {
    name: "PORT",
    summary: "Stands in for `SERVER_PORT` where the same source does not set `SERVER_PORT`.",
    help: "For platforms that assign a port under this name.",
    example: "8080",
    ..Key::PLAIN
};
const TLS_CERT: Key = Key {
    name: "TLS_CERT",
    summary: "PEM file with the node's certificate, followed by the certificates between it and \
              the root.",
    help: "With it the node accepts TLS connections only. Needs `TLS_KEY`.",
    ..Key::PLAIN
};
const TLS_KEY: Key = Key {
    name: "TLS_KEY",
    summary: "PEM file with the private key of `TLS_CERT`.",
    help: "Both files are read again when they change; open connections keep the certificate \
           they began with.",
    see: "security.md#tls",
    ..Key::PLAIN
};
const METRICS_ADDR: Key = Key {
    name: "METRICS_ADDR",
    summary: "Additional address and port that serves `/metrics` alone, without authentication.",
    help: "Not set: no additional listener.",
    example: "127.0.0.1:9090",
    ..Key::PLAIN
};
const KEEP_ALIVE: Key = Key {
    name: "KEEP_ALIVE_SECS",
    default: KeyDefault::Value("75"),
    unit: Unit::Seconds,
    summary: "Time for which an idle HTTP connection is kept open between two requests.",
    help: "Longer than the idle timeout of the load balancer in front (60 seconds for most): \
           otherwise it sends a request on a connection that the node is closing, and answers 502.",
    ..Key::PLAIN
};
const DRAIN: Key = Key {
    name: "DRAIN_SECS",
    default: KeyDefault::Value("30"),
    unit: Unit::Seconds,
    summary: "Time over which a node that received SIGTERM closes its connections, evenly spread.",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "Listening and stopping",
    intro: "",
    keys: &[
        &HOST,
        &SERVER_PORT,
        &PORT,
        &TLS_CERT,
        &TLS_KEY,
        &METRICS_ADDR,
        &KEEP_ALIVE,
        &DRAIN,
    ],
};

/// Where the node listens, and how it stops.
pub(crate) struct ServerSettings {
    pub address: SocketAddr,
    /// The additional listener for `/metrics`.
    pub metrics_address: Option<SocketAddr>,
    /// `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How long an idle HTTP connection is kept open between two requests.
    pub keep_alive: Duration,
    /// The time over which connections are closed after SIGTERM.
    pub drain: Duration,
}

impl ServerSettings {
    /// Whether other machines can reach the node.
    pub fn is_public(&self) -> bool {
        !self.address.ip().is_loopback()
    }
}

pub(super) fn parse(values: &mut Values) -> Result<ServerSettings, ConfigError> {
    let host = values.required(&HOST, text)?;
    let port = values.required(&SERVER_PORT, port)?;
    let address = resolve(&host, port).map_err(|_| {
        let problem = "must be an IP address, or a name that resolves to one";
        values.error(&HOST, problem)
    })?;
    Ok(ServerSettings {
        address,
        metrics_address: values.optional(&METRICS_ADDR, socket_address)?,
        tls: parse_tls(values)?,
        keep_alive: values.required(&KEEP_ALIVE, seconds(1))?,
        drain: values.required(&DRAIN, seconds(0))?,
    })
}

fn parse_tls(values: &mut Values) -> Result<Option<TlsFiles>, ConfigError> {
    let certificate = values.optional(&TLS_CERT, path)?;
    let key = values.optional(&TLS_KEY, path)?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigError::of(&TLS_KEY, "is needed with TLS_CERT")),
        (None, Some(_)) => Err(ConfigError::of(&TLS_CERT, "is needed with TLS_KEY")),
    }
}

/// The first address of the host. An IPv6 address may be in brackets.
fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut addresses = (host, port).to_socket_addrs()?;
    addresses
        .next()
        .ok_or_else(|| io::Error::from(ErrorKind::NotFound))
}
