//! Section: heartbeats, time limits and buffers of one connection.

use std::time::Duration;

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section, Unit};
use super::parse::{milliseconds, number, seconds};
use super::values::Values;
use crate::gateway::{socketio, websocket};

/// An outbox is sized for events of at least this many bytes, however small `MAX_EVENT_BYTES` is.
const MIN_EVENT_BYTES: usize = 64 * 1024;

const PING_INTERVAL: Key = Key {
    name: "PING_INTERVAL_MS",
    default: KeyDefault::Value("25000"),
    unit: Unit::Milliseconds,
    summary: "Interval between two heartbeats of the server, at least 100 milliseconds.",
    ..Key::PLAIN
};
const PING_TIMEOUT: Key = Key {
    name: "PING_TIMEOUT_MS",
    default: KeyDefault::Value("20000"),
    unit: Unit::Milliseconds,
    summary: "Time within which a client must answer a heartbeat.",
    ..Key::PLAIN
};
const WRITE_TIMEOUT: Key = Key {
    name: "WRITE_TIMEOUT_SECS",
    default: KeyDefault::Value("10"),
    unit: Unit::Seconds,
    summary: "A connection on which a write makes no progress for this time is closed.",
    ..Key::PLAIN
};
const WS_IDLE: Key = Key {
    name: "WS_IDLE_SECS",
    default: KeyDefault::Value("60"),
    unit: Unit::Seconds,
    summary: "A plain WebSocket (`/ws`) that sends nothing for this time, not even a pong, is \
              closed.",
    ..Key::PLAIN
};
const MAX_PACKET: Key = Key {
    name: "MAX_PACKET_BYTES",
    default: KeyDefault::Value("1048576"),
    unit: Unit::Bytes,
    summary: "Largest packet from a client, on every transport.",
    help: "The body of a polling POST may be four times as large. nginx and the ingress of this \
           repository accept bodies of up to 5 MiB.",
    ..Key::PLAIN
};
const WS_MAX_MESSAGE: Key = Key {
    name: "WS_MAX_MESSAGE",
    default: KeyDefault::Value("512"),
    unit: Unit::Bytes,
    summary: "Largest message from a plain WebSocket; with `?chat=1` the limit is \
              `MAX_PACKET_BYTES`.",
    ..Key::PLAIN
};
const MAX_OUTBOX: Key = Key {
    name: "MAX_OUTBOX_BYTES",
    default: KeyDefault::Value("1048576"),
    unit: Unit::Bytes,
    summary: "Unwritten bytes that one connection may have before it is closed.",
    help: "With three quarters of it unwritten, further messages wait in the room's log. At least \
           four times `MAX_EVENT_BYTES`, and at least 262144.",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "Connections",
    intro: "",
    keys: &[
        &PING_INTERVAL,
        &PING_TIMEOUT,
        &WRITE_TIMEOUT,
        &WS_IDLE,
        &MAX_PACKET,
        &WS_MAX_MESSAGE,
        &MAX_OUTBOX,
    ],
};

/// Heartbeats, time limits and buffers of one connection.
pub(crate) struct ConnectionSettings {
    pub socketio: socketio::Settings,
    pub websocket: websocket::Settings,
    /// Unwritten bytes that one connection may have.
    pub outbox_bytes: usize,
    /// The time that a write may take without progress.
    pub write_timeout: Duration,
}

pub(super) fn parse(
    values: &mut Values,
    event_bytes: usize,
) -> Result<ConnectionSettings, ConfigError> {
    let ping_interval = values.required(&PING_INTERVAL, milliseconds(100))?;
    let packet_bytes = values.required(&MAX_PACKET, number(1, u64::MAX))?;
    let write_timeout = values.required(&WRITE_TIMEOUT, seconds(1))?;
    Ok(ConnectionSettings {
        socketio: socketio::Settings {
            ping_interval,
            ping_timeout: values.required(&PING_TIMEOUT, milliseconds(1))?,
            packet_bytes,
        },
        websocket: websocket::Settings {
            message_bytes: values.required(&WS_MAX_MESSAGE, number(1, u64::MAX))?,
            chat_bytes: packet_bytes,
            ping_interval,
            idle: values.required(&WS_IDLE, seconds(1))?,
            write_timeout,
        },
        outbox_bytes: parse_outbox(values, event_bytes)?,
        write_timeout,
    })
}

/// Four of the largest events must fit: a page of a replay comes on top of up to half an outbox, and
/// it may hold one event that is larger than a page should be.
fn parse_outbox(values: &mut Values, event_bytes: usize) -> Result<usize, ConfigError> {
    let outbox_bytes = values.required(&MAX_OUTBOX, number(0, u64::MAX))?;
    if outbox_bytes < event_bytes.max(MIN_EVENT_BYTES).saturating_mul(4) {
        let problem = "must be at least four times MAX_EVENT_BYTES, and at least 262144";
        return Err(values.error(&MAX_OUTBOX, problem));
    }
    Ok(outbox_bytes)
}
