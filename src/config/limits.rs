//! Section: how large events may be, and how much one connection may do.

use std::time::Duration;

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section, Unit};
use super::parse::number;
use super::rates::RateSettings;
use super::values::Values;
use crate::domain::Limits;

const MAX_EVENT: Key = Key {
    name: "MAX_EVENT_BYTES",
    default: KeyDefault::Value("65536"),
    unit: Unit::Bytes,
    summary: "Largest payload of one event, and largest body of `POST /messages`.",
    ..Key::PLAIN
};
const MAX_CONTENT: Key = Key {
    name: "MAX_CONTENT_BYTES",
    default: KeyDefault::Value("16384"),
    unit: Unit::Bytes,
    summary: "Longest `content` of a message.",
    ..Key::PLAIN
};
const MAX_PAYLOAD: Key = Key {
    name: "MAX_PAYLOAD_BYTES",
    default: KeyDefault::Value("16384"),
    unit: Unit::Bytes,
    summary: "Longest `payload` of a message, as JSON.",
    ..Key::PLAIN
};
const MAX_ROOMS_PER_SOCKET: Key = Key {
    name: "MAX_ROOMS_PER_SOCKET",
    default: KeyDefault::Value("100"),
    summary: "Rooms that one connection may be in.",
    ..Key::PLAIN
};
const MAX_STATUS_SUBSCRIPTIONS: Key = Key {
    name: "MAX_STATUS_SUBSCRIPTIONS",
    default: KeyDefault::Value("200"),
    summary: "Users that one connection may watch the status of.",
    ..Key::PLAIN
};
const ROOM_EVENTS_LIMIT: Key = Key {
    name: "ROOM_EVENTS_LIMIT",
    default: KeyDefault::Value("500"),
    summary: "Rooms with more members than this send no `user_joined` and `user_left`, but the \
              number of members once a second.",
    ..Key::PLAIN
};
const RECEIPTS_LIMIT: Key = Key {
    name: "RECEIPTS_LIMIT",
    default: KeyDefault::Value("100"),
    summary: "Rooms with more members than this send no `read_receipt`. 0: none does.",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "Messages and rooms",
    intro: "",
    keys: &[
        &MAX_EVENT,
        &MAX_CONTENT,
        &MAX_PAYLOAD,
        &MAX_ROOMS_PER_SOCKET,
        &MAX_STATUS_SUBSCRIPTIONS,
        &ROOM_EVENTS_LIMIT,
        &RECEIPTS_LIMIT,
    ],
};

/// The limits of this section. The rates, which follow from the sizes, complete them to [`Limits`].
pub(super) struct Sizes {
    pub event_bytes: usize,
    pub content_bytes: usize,
    payload_bytes: usize,
    rooms_per_socket: usize,
    status_subscriptions: usize,
    room_events: u64,
    receipts: u64,
}

impl Sizes {
    pub fn into_limits(self, rates: &RateSettings, auth_timeout: Duration) -> Limits {
        Limits {
            event_bytes: self.event_bytes,
            content_bytes: self.content_bytes,
            payload_bytes: self.payload_bytes,
            rooms_per_socket: self.rooms_per_socket,
            status_subscriptions: self.status_subscriptions,
            socket: rates.socket,
            user: rates.user,
            refusals: rates.max_refusals,
            room_events: self.room_events,
            receipts: self.receipts,
            auth_timeout,
        }
    }
}

pub(super) fn parse(values: &mut Values) -> Result<Sizes, ConfigError> {
    Ok(Sizes {
        event_bytes: values.required(&MAX_EVENT, number(1, u64::MAX))?,
        content_bytes: values.required(&MAX_CONTENT, number(1, u64::MAX))?,
        payload_bytes: values.required(&MAX_PAYLOAD, number(1, u64::MAX))?,
        rooms_per_socket: values.required(&MAX_ROOMS_PER_SOCKET, number(1, u64::MAX))?,
        status_subscriptions: values.required(&MAX_STATUS_SUBSCRIPTIONS, number(0, u64::MAX))?,
        room_events: values.required(&ROOM_EVENTS_LIMIT, number(0, u64::MAX))?,
        receipts: values.required(&RECEIPTS_LIMIT, number(0, u64::MAX))?,
    })
}
