//! Answers: acknowledgements, refusals and what REST returns.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::event::write_message;
use crate::delivery::JoinOutcome;
use crate::domain::{OnlineStatus, Refusal, RoomId, Timestamp};
use crate::features::messaging::{Appended, Disconnected, HistoryPage, OccupantPage};

fn millis(wait: std::time::Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

/// A refusal as an ack, or (with the event's name) as `exception`.
#[derive(Serialize)]
pub struct Exception<'a> {
    ok: bool,
    code: &'static str,
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<&'a str>,
}

impl<'a> Exception<'a> {
    /// `event`: the refused request's name, where there is one.
    #[must_use]
    pub fn of(refusal: &'a Refusal, event: Option<&'a str>) -> Self {
        let retry_after_ms = refusal.retry_after.map(millis);
        Self {
            ok: false,
            code: refusal.code.as_str(),
            error: &refusal.text,
            retry_after_ms,
            event,
            room_id: None,
        }
    }

    /// Names the room that it is about, where no request does.
    #[must_use]
    pub fn about(self, room: &'a RoomId) -> Self {
        Self {
            room_id: Some(room.as_str()),
            ..self
        }
    }
}

/// The refusal as an ack's object.
#[must_use]
pub fn refusal_ack(refusal: &Refusal) -> Exception<'_> {
    Exception::of(refusal, None)
}

/// The body of a REST error.
#[derive(Serialize)]
pub struct RestError<'a> {
    /// For a person.
    pub error: &'a str,
    /// For programs.
    pub code: &'static str,
    /// To be found in the log.
    pub request_id: &'a str,
}

/// Who one is: the `authenticated` event.
#[derive(Serialize)]
pub struct Authenticated<'a> {
    /// Present in the ack only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// The user.
    pub user_id: &'a str,
    /// The user's name.
    pub username: &'a str,
}

/// The answer to `join`.
#[derive(Serialize)]
pub struct JoinAck<'a> {
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
    /// Of that outcome.
    #[must_use]
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

/// The answer to `leave` and `typing`.
#[derive(Serialize)]
pub struct LeaveAck<'a> {
    ok: bool,
    room_id: &'a str,
}

impl<'a> LeaveAck<'a> {
    /// Of that room.
    #[must_use]
    pub fn of(room: &'a RoomId) -> Self {
        Self {
            ok: true,
            room_id: room.as_str(),
        }
    }
}

/// The answer to `unsubscribe_status`.
#[derive(Serialize)]
pub struct TargetAck<'a> {
    ok: bool,
    target_user_id: &'a str,
}

impl<'a> TargetAck<'a> {
    /// Of that user.
    #[must_use]
    pub fn of(user: &'a crate::domain::UserId) -> Self {
        Self {
            ok: true,
            target_user_id: user.as_str(),
        }
    }
}

fn as_text<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(at.text().as_str())
}

/// The answer to `message` and to `POST /messages`.
#[derive(Serialize)]
pub struct MessageAck<'a> {
    ok: bool,
    id: uuid::Uuid,
    room_id: &'a str,
    seq: u64,
    epoch: &'a str,
    #[serde(serialize_with = "as_text")]
    timestamp: Timestamp,
    duplicate: bool,
}

impl<'a> MessageAck<'a> {
    /// Of that place.
    #[must_use]
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

/// The answer to `POST /api/broadcast`.
#[derive(Serialize)]
pub struct BroadcastAck<'a> {
    ok: bool,
    seq: u64,
    epoch: &'a str,
    duplicate: bool,
    #[serde(rename = "connectedClients")]
    connected_clients: usize,
}

impl<'a> BroadcastAck<'a> {
    /// Of that place; so many clients are connected to this node.
    #[must_use]
    pub fn of(appended: &'a Appended, connected_clients: usize) -> Self {
        let Appended {
            seq,
            epoch,
            duplicate,
            ..
        } = appended;
        Self {
            ok: true,
            seq: *seq,
            epoch: epoch.as_str(),
            duplicate: *duplicate,
            connected_clients,
        }
    }
}

/// From where on broadcasts follow: the event `resumed`.
#[derive(Serialize)]
pub struct Resumed<'a> {
    seq: u64,
    epoch: &'a str,
    recovered: bool,
    gap: bool,
    replayed: u64,
}

impl<'a> Resumed<'a> {
    /// Of that outcome.
    #[must_use]
    pub fn of(outcome: &'a JoinOutcome) -> Self {
        let JoinOutcome {
            head,
            recovered,
            gap,
            replayed,
            ..
        } = outcome;
        let (seq, epoch) = (head.seq, head.epoch.as_str());
        Self {
            seq,
            epoch,
            recovered: *recovered,
            gap: *gap,
            replayed: *replayed,
        }
    }
}

/// A user's status, in acks, events and REST.
#[derive(Serialize)]
pub struct StatusJson<'a> {
    /// Present in the ack only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    is_online: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<String>,
    version: u64,
}

impl<'a> StatusJson<'a> {
    /// As an event or a REST body shows it.
    #[must_use]
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

    /// As an ack shows it.
    #[must_use]
    pub fn ack(status: &'a OnlineStatus) -> Self {
        Self {
            ok: Some(true),
            ..Self::of(status)
        }
    }
}

/// The answer to `history` and to `GET /rooms/{room_id}/messages`.
#[derive(Serialize)]
pub struct HistoryAck<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    room_id: &'a str,
    messages: Vec<Box<RawValue>>,
    has_more: bool,
    seq: u64,
    epoch: &'a str,
}

impl<'a> HistoryAck<'a> {
    /// Of that page; `ok` in an ack only.
    #[must_use]
    pub fn of(room: &'a RoomId, page: &'a HistoryPage, ok: Option<bool>) -> Self {
        let message = |entry| {
            let mut json = String::new();
            write_message(entry, &mut json);
            // Only damaged data can be anything else; the rest of the page is still worth showing.
            RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned())
        };
        let messages = page.entries.iter().map(message).collect();
        let (seq, epoch) = (page.head.seq, page.head.epoch.as_str());
        Self {
            ok,
            room_id: room.as_str(),
            messages,
            has_more: page.has_more,
            seq,
            epoch,
        }
    }
}

/// The answer to `POST /users/{user_id}/disconnect`.
#[derive(Serialize)]
pub struct DisconnectAck<'a> {
    ok: bool,
    user_id: &'a str,
    disconnected: usize,
    remaining: usize,
}

impl<'a> DisconnectAck<'a> {
    /// Of what was done.
    #[must_use]
    pub fn of(user: &'a crate::domain::UserId, done: &Disconnected) -> Self {
        Self {
            ok: true,
            user_id: user.as_str(),
            disconnected: done.ended,
            remaining: done.remaining,
        }
    }
}

/// A member in `GET /rooms/{room_id}/users`.
#[derive(Serialize)]
pub struct MemberJson<'a> {
    user_id: &'a str,
    username: &'a str,
}

/// The answer to `GET /rooms/{room_id}/users`.
#[derive(Serialize)]
pub struct OccupantsPage<'a> {
    room_id: &'a str,
    users: Vec<MemberJson<'a>>,
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<&'a str>,
}

impl<'a> OccupantsPage<'a> {
    /// Of that page. The cursor is the last id on it.
    #[must_use]
    pub fn of(room: &'a RoomId, page: &'a OccupantPage) -> Self {
        let member =
            |(user, name): &'a (crate::domain::UserId, crate::domain::Username)| MemberJson {
                user_id: user.as_str(),
                username: name.as_str(),
            };
        Self {
            room_id: room.as_str(),
            users: page.members.iter().map(member).collect(),
            total: page.total,
            next_cursor: page.next.as_ref().map(|user| user.as_str()),
        }
    }
}
