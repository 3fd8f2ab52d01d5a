//! Section: how many connections a node accepts.

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section, Unit};
use super::parse::number;
use super::values::Values;
use crate::domain::Rates;
use crate::server::admission::Caps;

const MAX_CONNECTIONS: Key = Key {
    name: "MAX_CONNECTIONS",
    default: KeyDefault::Value("200000"),
    summary: "Connections of a node.",
    ..Key::PLAIN
};
const MAX_CONNECTIONS_PER_IP: Key = Key {
    name: "MAX_CONNECTIONS_PER_IP",
    default: KeyDefault::Value("0"),
    summary: "Connections from one address (IPv6: one /64).",
    help: "Off by default: without `TRUSTED_PROXIES` all clients behind a proxy share its address.",
    ..Key::PLAIN
};
const MAX_UNAUTHENTICATED: Key = Key {
    name: "MAX_UNAUTHENTICATED",
    default: KeyDefault::Value("20000"),
    summary: "Connections of a node that have not authenticated yet.",
    help: "A further one takes the place of the oldest that has had no user for 10 seconds.",
    ..Key::PLAIN
};
const MAX_HANDSHAKES: Key = Key {
    name: "MAX_HANDSHAKES_PER_SEC",
    default: KeyDefault::Value("5000"),
    unit: Unit::PerSecond,
    summary: "New connections of a node.",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "Admission",
    intro: "0 is no limit.",
    keys: &[
        &MAX_CONNECTIONS,
        &MAX_CONNECTIONS_PER_IP,
        &MAX_UNAUTHENTICATED,
        &MAX_HANDSHAKES,
    ],
};

/// How many connections a node accepts. `address` is the rate limit of one address.
pub(super) fn parse(values: &mut Values, address: Rates) -> Result<Caps, ConfigError> {
    Ok(Caps {
        connections: values.required(&MAX_CONNECTIONS, number(0, u64::MAX))?,
        per_ip: values.required(&MAX_CONNECTIONS_PER_IP, number(0, u64::MAX))?,
        unauthenticated: values.required(&MAX_UNAUTHENTICATED, number(0, u64::MAX))?,
        handshakes_per_sec: values.required(&MAX_HANDSHAKES, number(0, u32::MAX.into()))?,
        address,
    })
}
