//! Section: how much a connection, a user, an address and a REST caller may do per second.
//!
//! Rates that are not set follow from those of one connection: a deployment that raises these does
//! not have to raise the others too.

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section, Unit};
use super::parse::number;
use super::values::Values;
use crate::domain::{Limits, Rate, Rates};

const EVENTS: Key = Key {
    name: "RATE_EVENTS_PER_SEC",
    default: KeyDefault::Value("50"),
    unit: Unit::PerSecond,
    summary: "Events of one connection.",
    ..Key::PLAIN
};
const EVENTS_BURST: Key = Key {
    name: "RATE_EVENTS_BURST",
    default: KeyDefault::Value("400"),
    summary: "Events that a connection may send at once.",
    help: "A client with 100 rooms and 200 status subscriptions restores them in one burst when it \
           reconnects.",
    ..Key::PLAIN
};
const JOINS: Key = Key {
    name: "RATE_JOINS_PER_SEC",
    default: KeyDefault::Derived("40 % of `RATE_EVENTS_PER_SEC`"),
    unit: Unit::PerSecond,
    summary: "Joins of one connection.",
    example: "20",
    ..Key::PLAIN
};
const BYTES: Key = Key {
    name: "RATE_BYTES_PER_SEC",
    default: KeyDefault::Derived("`RATE_EVENTS_PER_SEC` × `MAX_CONTENT_BYTES`"),
    unit: Unit::BytesPerSecond,
    summary: "Bytes of one connection's events.",
    example: "819200",
    ..Key::PLAIN
};
const MAX_REFUSALS: Key = Key {
    name: "MAX_RATE_REFUSALS",
    default: KeyDefault::Value("1000"),
    summary: "A connection is closed after this many refusals for a rate. Refusals are forgiven at \
              `RATE_EVENTS_PER_SEC` per second.",
    help: "0: never.",
    ..Key::PLAIN
};
const USER_EVENTS: Key = Key {
    name: "RATE_USER_EVENTS_PER_SEC",
    default: KeyDefault::Derived("8 × `RATE_EVENTS_PER_SEC`"),
    unit: Unit::PerSecond,
    summary: "Events of one user, in the whole cluster.",
    example: "400",
    ..Key::PLAIN
};
const USER_JOINS: Key = Key {
    name: "RATE_USER_JOINS_PER_SEC",
    default: KeyDefault::Derived("2 × `RATE_EVENTS_PER_SEC`"),
    unit: Unit::PerSecond,
    summary: "Joins of one user, in the whole cluster.",
    example: "100",
    ..Key::PLAIN
};
const USER_BYTES: Key = Key {
    name: "RATE_USER_BYTES_PER_SEC",
    default: KeyDefault::Derived("8 × `RATE_EVENTS_PER_SEC` × `MAX_CONTENT_BYTES`"),
    unit: Unit::BytesPerSecond,
    summary: "Bytes of one user's events, in the whole cluster.",
    example: "6553600",
    ..Key::PLAIN
};
const USER_CONNECTS: Key = Key {
    name: "RATE_USER_CONNECTS_PER_SEC",
    default: KeyDefault::Derived("25 % of `MAX_SOCKETS_PER_USER`"),
    unit: Unit::PerSecond,
    summary: "New connections of one user, in the whole cluster.",
    example: "5",
    ..Key::PLAIN
};
const IP_EVENTS: Key = Key {
    name: "RATE_IP_EVENTS_PER_SEC",
    default: KeyDefault::Derived(
        "40 × `RATE_EVENTS_PER_SEC` with `TRUSTED_PROXIES`, `0` without it",
    ),
    unit: Unit::PerSecond,
    summary: "Events and REST requests from one address (IPv6: one /64), on one node.",
    example: "0",
    ..Key::PLAIN
};
const IP_JOINS: Key = Key {
    name: "RATE_IP_JOINS_PER_SEC",
    default: KeyDefault::Derived(
        "10 × `RATE_EVENTS_PER_SEC` with `TRUSTED_PROXIES`, `0` without it",
    ),
    unit: Unit::PerSecond,
    summary: "Joins from one address, on one node.",
    example: "0",
    ..Key::PLAIN
};
const IP_BYTES: Key = Key {
    name: "RATE_IP_BYTES_PER_SEC",
    default: KeyDefault::Derived(
        "40 × `RATE_EVENTS_PER_SEC` × `MAX_CONTENT_BYTES` with `TRUSTED_PROXIES`, `0` without it",
    ),
    unit: Unit::BytesPerSecond,
    summary: "Bytes of events from one address, on one node.",
    example: "0",
    ..Key::PLAIN
};
const IP_HANDSHAKES: Key = Key {
    name: "RATE_IP_HANDSHAKES_PER_SEC",
    default: KeyDefault::Derived("`250` with `TRUSTED_PROXIES`, `0` without it"),
    unit: Unit::PerSecond,
    summary: "Handshakes from one address, on one node.",
    example: "0",
    ..Key::PLAIN
};
const POSTS: Key = Key {
    name: "RATE_POSTS_PER_SEC",
    default: KeyDefault::Derived("100 × `RATE_EVENTS_PER_SEC`"),
    unit: Unit::PerSecond,
    summary: "`POST /messages` of one caller, on one node.",
    example: "5000",
    ..Key::PLAIN
};
const BROADCASTS: Key = Key {
    name: "RATE_BROADCASTS_PER_SEC",
    default: KeyDefault::Derived("`RATE_EVENTS_PER_SEC`"),
    unit: Unit::PerSecond,
    summary: "`POST /api/broadcast` of one caller, on one node.",
    example: "50",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "Rate limits",
    intro: "0 is no limit. Each rate allows 20 times its number at once, except that \
            `RATE_EVENTS_BURST` is the burst of `RATE_EVENTS_PER_SEC`.",
    keys: &[
        &EVENTS,
        &EVENTS_BURST,
        &JOINS,
        &BYTES,
        &MAX_REFUSALS,
        &USER_EVENTS,
        &USER_JOINS,
        &USER_BYTES,
        &USER_CONNECTS,
        &IP_EVENTS,
        &IP_JOINS,
        &IP_BYTES,
        &IP_HANDSHAKES,
        &POSTS,
        &BROADCASTS,
    ],
};

/// How much a connection, a user, an address and a REST caller may do.
pub(crate) struct RateSettings {
    /// Of one connection.
    pub socket: Rates,
    /// Of one user, in the cluster.
    pub user: Rates,
    /// Of one address, on this node.
    pub address: Rates,
    /// `POST /messages` of one caller, on this node.
    pub posts: Rate,
    /// `POST /api/broadcast` of one caller, on this node.
    pub broadcasts: Rate,
    /// Refusals after which a connection is closed; 0: never.
    pub max_refusals: u64,
}

/// The values of other sections that the defaults follow from.
pub(super) struct Basis {
    pub content_bytes: usize,
    pub sockets_per_user: usize,
    /// Whether it is known which addresses belong to clients. Without that, addresses have no limits
    /// by default.
    pub knows_addresses: bool,
}

pub(super) fn parse(values: &mut Values, basis: &Basis) -> Result<RateSettings, ConfigError> {
    let events: u64 = values.required(&EVENTS, number(0, u32::MAX.into()))?;
    let burst = values.required(&EVENTS_BURST, number(1, u32::MAX.into()))?;
    let bytes = events.saturating_mul(basis.content_bytes as u64);
    // 25 %: at this rate a user can open all of its connections again within 4 seconds.
    let connects = (basis.sockets_per_user as u64).div_ceil(4);
    let of_address = |rate: u64| if basis.knows_addresses { rate } else { 0 };
    let mut rate = |key: &'static Key, default: u64| -> Result<Rate, ConfigError> {
        let per_sec = values.derived(key, default)?;
        Ok(Rate::with_burst_of(per_sec, Limits::BURST_SECS))
    };
    let socket = Rates {
        events: Rate {
            per_sec: events,
            burst,
        },
        joins: rate(&JOINS, events.saturating_mul(2).div_ceil(5))?,
        bytes: rate(&BYTES, bytes)?,
        connects: Rate::default(),
    };
    let user = Rates {
        events: rate(&USER_EVENTS, events.saturating_mul(8))?,
        joins: rate(&USER_JOINS, events.saturating_mul(2))?,
        bytes: rate(&USER_BYTES, bytes.saturating_mul(8))?,
        connects: rate(&USER_CONNECTS, connects)?,
    };
    let address = Rates {
        events: rate(&IP_EVENTS, of_address(events.saturating_mul(40)))?,
        joins: rate(&IP_JOINS, of_address(events.saturating_mul(10)))?,
        bytes: rate(&IP_BYTES, of_address(bytes.saturating_mul(40)))?,
        connects: rate(&IP_HANDSHAKES, of_address(250))?,
    };
    Ok(RateSettings {
        socket,
        user,
        address,
        posts: rate(&POSTS, events.saturating_mul(100))?,
        broadcasts: rate(&BROADCASTS, events)?,
        max_refusals: values.required(&MAX_REFUSALS, number(0, u64::MAX))?,
    })
}
