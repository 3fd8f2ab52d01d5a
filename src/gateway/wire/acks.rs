//! Replies to clients' events: the JSON objects of acknowledgements and refusals. REST returns some
//! of them, too.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::messages::listed;
use crate::auth::Identity;
use crate::delivery::JoinOutcome;
use crate::domain::{OnlineStatus, Refusal, RoomId, Timestamp, TokenFault, UserId};
use crate::features::messaging::{Appended, HistoryPage, HistoryWindow, SyncOutcome};

/// A wire shape as JSON.
pub(crate) fn to_json<T: Serialize>(payload: &T) -> String {
    serde_json::to_string(payload).expect("the wire's shapes always serialise")
}

/// A refusal: as an acknowledgement, or with the event's name as the event `exception`.
#[derive(Serialize)]
pub(crate) struct Exception<'a> {
    ok: bool,
    code: &'static str,
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    /// The fault of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The current message, with a conflict.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<&'a str>,
}

/// The current message in a refusal.
pub(super) fn current_message(refusal: &Refusal) -> Option<&RawValue> {
    serde_json::from_str(refusal.message.as_deref()?).ok()
}

impl<'a> Exception<'a> {
    /// `event` is the name of the refused event, unless the client learns it in another way.
    pub fn of(refusal: &'a Refusal, event: Option<&'a str>) -> Self {
        let retry_after_ms = refusal
            .retry_after
            .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        Self {
            ok: false,
            code: refusal.code.as_str(),
            error: &refusal.text,
            retry_after_ms,
            reason: refusal.reason.map(TokenFault::as_str),
            message: current_message(refusal),
            event,
            room_id: None,
        }
    }

    /// Names the room concerned, for an exception that is no reply to a request.
    pub fn about(self, room: &'a RoomId) -> Self {
        Self {
            room_id: Some(room.as_str()),
            ..self
        }
    }
}

/// The refusal as the object of an acknowledgement.
pub(crate) fn refusal_ack(refusal: &Refusal) -> Exception<'_> {
    Exception::of(refusal, None)
}

/// The connection's user: the event `authenticated`, and the acknowledgement of `authenticate`.
#[derive(Serialize)]
pub(crate) struct Authenticated<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    user_id: &'a str,
    username: &'a str,
}

impl<'a> Authenticated<'a> {
    /// The payload of the event.
    pub fn event(identity: &'a Identity) -> Self {
        Self {
            ok: None,
            user_id: identity.user.as_str(),
            username: identity.username.as_str(),
        }
    }

    /// The acknowledgement.
    pub fn ack(identity: &'a Identity) -> Self {
        Self {
            ok: Some(true),
            ..Self::event(identity)
        }
    }
}

/// The acknowledgement of `join`.
#[derive(Serialize)]
pub(crate) struct JoinAck<'a> {
    ok: bool,
    room_id: &'a str,
    total: u64,
    seq: u64,
    epoch: &'a str,
    recovered: bool,
    gap: bool,
    replayed: u64,
}

impl<'a> JoinAck<'a> {
    pub fn of(room: &'a RoomId, outcome: &'a JoinOutcome) -> Self {
        Self {
            ok: true,
            room_id: room.as_str(),
            total: outcome.total,
            seq: outcome.head.seq,
            epoch: outcome.head.epoch.as_str(),
            recovered: outcome.recovered,
            gap: outcome.gap,
            replayed: outcome.replayed,
        }
    }
}

/// The acknowledgement of `sync`: for the personal feed and each room the answer of `join`, or its
/// refusal.
#[derive(Serialize)]
pub(crate) struct SyncAck<'a> {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    feed: Option<RoomOutcome<'a>>,
    rooms: BTreeMap<&'a str, RoomOutcome<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RoomOutcome<'a> {
    Joined(JoinAck<'a>),
    Refused(Exception<'a>),
}

impl<'a> RoomOutcome<'a> {
    fn of((room, outcome): &'a (RoomId, Result<JoinOutcome, Refusal>)) -> Self {
        match outcome {
            Ok(outcome) => Self::Joined(JoinAck::of(room, outcome)),
            Err(refusal) => Self::Refused(refusal_ack(refusal).about(room)),
        }
    }
}

impl<'a> SyncAck<'a> {
    pub fn of(outcome: &'a SyncOutcome) -> Self {
        let rooms = outcome.rooms.iter();
        Self {
            ok: true,
            feed: outcome.feed.as_ref().map(RoomOutcome::of),
            rooms: rooms
                .map(|room| (room.0.as_str(), RoomOutcome::of(room)))
                .collect(),
        }
    }
}

/// The acknowledgement of `leave` and `typing`.
#[derive(Serialize)]
pub(crate) struct RoomAck<'a> {
    ok: bool,
    room_id: &'a str,
}

impl<'a> RoomAck<'a> {
    pub fn of(room: &'a RoomId) -> Self {
        Self {
            ok: true,
            room_id: room.as_str(),
        }
    }
}

/// The acknowledgement of `unsubscribe_status`.
#[derive(Serialize)]
pub(crate) struct TargetAck<'a> {
    ok: bool,
    target_user_id: &'a str,
}

impl<'a> TargetAck<'a> {
    pub fn of(user: &'a UserId) -> Self {
        Self {
            ok: true,
            target_user_id: user.as_str(),
        }
    }
}

/// The acknowledgement of `message`, and the reply to `POST /messages`.
#[derive(Serialize)]
pub(crate) struct MessageAck<'a> {
    ok: bool,
    id: uuid::Uuid,
    room_id: &'a str,
    seq: u64,
    epoch: &'a str,
    #[serde(serialize_with = "serialize_timestamp")]
    timestamp: Timestamp,
    duplicate: bool,
}

fn serialize_timestamp<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(at.text().as_str())
}

impl<'a> MessageAck<'a> {
    pub fn of(room: &'a RoomId, appended: &'a Appended) -> Self {
        Self {
            ok: true,
            id: appended.id,
            room_id: room.as_str(),
            seq: appended.seq,
            epoch: appended.epoch.as_str(),
            timestamp: appended.at,
            duplicate: appended.duplicate,
        }
    }
}

/// The event `resumed`: the position from which on broadcasts follow.
#[derive(Serialize)]
pub(crate) struct Resumed<'a> {
    seq: u64,
    epoch: &'a str,
    recovered: bool,
    gap: bool,
    replayed: u64,
}

impl<'a> Resumed<'a> {
    pub fn of(outcome: &'a JoinOutcome) -> Self {
        Self {
            seq: outcome.head.seq,
            epoch: outcome.head.epoch.as_str(),
            recovered: outcome.recovered,
            gap: outcome.gap,
            replayed: outcome.replayed,
        }
    }
}

/// A user's online status, in acknowledgements, events and REST.
#[derive(Serialize)]
pub(crate) struct StatusJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    is_online: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<String>,
    version: u64,
}

impl<'a> StatusJson<'a> {
    /// The shape in events and REST.
    pub fn of(status: &'a OnlineStatus) -> Self {
        Self {
            ok: None,
            user_id: status.user.as_str(),
            username: status.username.as_ref().map(|name| name.as_str()),
            is_online: status.online,
            last_seen: status.last_seen.map(|at| at.to_string()),
            version: status.version,
        }
    }

    /// The shape in an acknowledgement.
    pub fn ack(status: &'a OnlineStatus) -> Self {
        Self {
            ok: Some(true),
            ..Self::of(status)
        }
    }
}

/// The acknowledgement of `history`, and the reply to `GET /rooms/{room_id}/messages`.
#[derive(Serialize)]
pub(crate) struct HistoryAck<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    room_id: &'a str,
    messages: Vec<Box<RawValue>>,
    has_more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    has_more_after: Option<bool>,
    /// The position of the next page. Only without messages, from which a client takes it otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_seq: Option<u64>,
    seq: u64,
    epoch: &'a str,
}

impl<'a> HistoryAck<'a> {
    /// `ok` is present in an acknowledgement only.
    pub fn of(room: &'a RoomId, page: &'a HistoryPage, ok: Option<bool>) -> Self {
        Self {
            ok,
            room_id: room.as_str(),
            messages: listed(&page.entries, &page.states),
            has_more: page.has_more,
            has_more_after: page.has_more_after,
            next_seq: page
                .next
                .filter(|_| page.entries.is_empty())
                .and_then(HistoryWindow::seq),
            seq: page.head.seq,
            epoch: page.head.epoch.as_str(),
        }
    }
}
