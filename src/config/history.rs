//! Section: how long messages, numberings, idempotency keys and presence are kept.

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section, Unit};
use super::parse::{milliseconds, number, seconds};
use super::values::Values;
use crate::backplane::BackplaneLimits;

const HISTORY_SIZE: Key = Key {
    name: "HISTORY_SIZE",
    default: KeyDefault::Value("1000"),
    summary: "Messages that a room's log keeps.",
    ..Key::PLAIN
};
const HISTORY_TTL: Key = Key {
    name: "HISTORY_TTL_SECS",
    default: KeyDefault::Value("86400"),
    unit: Unit::Seconds,
    summary: "Time for which a room's log is kept after its last message.",
    ..Key::PLAIN
};
const ROOM_TTL: Key = Key {
    name: "ROOM_TTL_SECS",
    default: KeyDefault::Value("604800"),
    unit: Unit::Seconds,
    summary: "Time for which the numbering (`seq` and `epoch`) of a silent, empty room is kept.",
    help: "Not less than `HISTORY_TTL_SECS`.",
    ..Key::PLAIN
};
const DEDUPE_TTL: Key = Key {
    name: "DEDUPE_TTL_SECS",
    default: KeyDefault::Value("600"),
    unit: Unit::Seconds,
    summary: "Time within which a repeated `client_msg_id` or `Idempotency-Key` is recognised.",
    ..Key::PLAIN
};
const PRESENCE_GRACE: Key = Key {
    name: "PRESENCE_GRACE_MS",
    default: KeyDefault::Value("2000"),
    unit: Unit::Milliseconds,
    summary: "Time for which a lost connection still counts as present, so that a page reload \
              causes no events.",
    ..Key::PLAIN
};
const MAX_SOCKETS_PER_USER: Key = Key {
    name: "MAX_SOCKETS_PER_USER",
    default: KeyDefault::Value("20"),
    summary: "Open connections of one user, in the whole cluster.",
    ..Key::PLAIN
};
const MAX_ROOMS: Key = Key {
    name: "MAX_ROOMS",
    default: KeyDefault::Value("100000"),
    summary: "Rooms that a node without Redis keeps. If it has a database, a room beyond them takes the \
              place of an empty one, which returns from the database at its next use.",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "History and presence",
    intro: "",
    keys: &[
        &HISTORY_SIZE,
        &HISTORY_TTL,
        &ROOM_TTL,
        &DEDUPE_TTL,
        &PRESENCE_GRACE,
        &MAX_SOCKETS_PER_USER,
        &MAX_ROOMS,
    ],
};

pub(super) fn parse(values: &mut Values) -> Result<BackplaneLimits, ConfigError> {
    let history_ttl = values.required(&HISTORY_TTL, seconds(1))?;
    let room_ttl = values.required(&ROOM_TTL, seconds(1))?;
    if room_ttl < history_ttl {
        return Err(values.error(&ROOM_TTL, "must not be less than HISTORY_TTL_SECS"));
    }
    Ok(BackplaneLimits {
        history_size: values.required(&HISTORY_SIZE, number(1, u64::MAX))?,
        history_ttl,
        room_ttl,
        dedupe_ttl: values.required(&DEDUPE_TTL, seconds(1))?,
        presence_grace: values.required(&PRESENCE_GRACE, milliseconds(0))?,
        sockets_per_user: values.required(&MAX_SOCKETS_PER_USER, number(1, u64::MAX))?,
        rooms: values.required(&MAX_ROOMS, number(1, u64::MAX))?,
    })
}
