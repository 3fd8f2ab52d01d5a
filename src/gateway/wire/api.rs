//! Bodies of the REST API that no socket event has.

use serde::Serialize;
use serde_json::value::RawValue;

use super::acks::current_message;
use super::fields::Fields;
use super::request_fields::{idempotency_key, message_fields};
use crate::domain::{Limits, MessageFields, Refusal, RoomId, TokenFault, UserId, Username};
use crate::features::messaging::{Appended, Disconnected, OccupantPage};

/// The body of every error response.
#[derive(Serialize)]
pub(crate) struct RestError<'a> {
    /// An explanation for people.
    pub error: &'a str,
    /// The code for programs.
    pub code: &'static str,
    /// The fault of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The request's id, which the log contains, too.
    pub request_id: &'a str,
    /// The field, parameter or header that is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'a str>,
    /// The current message, with a conflict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a RawValue>,
}

impl<'a> RestError<'a> {
    /// The body for a refusal.
    pub fn of(refusal: &'a Refusal, request_id: &'a str) -> Self {
        Self {
            error: &refusal.text,
            code: refusal.code.as_str(),
            reason: refusal.reason.map(TokenFault::as_str),
            request_id,
            field: refusal.field.as_deref(),
            message: current_message(refusal),
        }
    }
}

/// The body of `POST /messages`.
#[derive(Debug)]
pub(crate) struct PostRequest {
    /// The room to send to.
    pub room: RoomId,
    /// The message's sender; `system` by default.
    pub user: UserId,
    /// The sender's name; `System` by default.
    pub username: Username,
    /// The message.
    pub fields: MessageFields,
}

impl PostRequest {
    /// Decodes the body. `key` is the value of the header `Idempotency-Key`.
    ///
    /// # Errors
    /// `bad_request`, `too_large`.
    pub fn decode(body: &str, key: Option<&str>, limits: &Limits) -> Result<Self, Refusal> {
        let fields = Fields::parse(body, limits.event_bytes, "body")?;
        let user = fields.id("user_id", UserId::parse)?;
        let username = fields.id("username", Username::parse)?;
        let mut message = message_fields(&fields)?;
        message.client_msg_id = idempotency_key(message.client_msg_id, key)?;
        Ok(Self {
            room: fields.required("room_id", RoomId::parse)?,
            user: user.unwrap_or_else(|| UserId::trusted("system")),
            username: username.unwrap_or_else(|| Username::trusted("System")),
            fields: message,
        })
    }
}

/// The reply to `POST /api/broadcast`.
#[derive(Serialize)]
pub(crate) struct BroadcastAck<'a> {
    ok: bool,
    seq: u64,
    epoch: &'a str,
    duplicate: bool,
    #[serde(rename = "connectedClients")]
    connected_clients: usize,
}

impl<'a> BroadcastAck<'a> {
    /// `connected_clients` is the number of clients of this node.
    pub fn of(appended: &'a Appended, connected_clients: usize) -> Self {
        Self {
            ok: true,
            seq: appended.seq,
            epoch: appended.epoch.as_str(),
            duplicate: appended.duplicate,
            connected_clients,
        }
    }
}

/// The reply to `POST /users/{user_id}/disconnect`.
#[derive(Serialize)]
pub(crate) struct DisconnectAck<'a> {
    ok: bool,
    user_id: &'a str,
    disconnected: usize,
    remaining: usize,
}

impl<'a> DisconnectAck<'a> {
    pub fn of(user: &'a UserId, outcome: &Disconnected) -> Self {
        Self {
            ok: true,
            user_id: user.as_str(),
            disconnected: outcome.ended,
            remaining: outcome.remaining,
        }
    }
}

#[derive(Serialize)]
struct OccupantJson<'a> {
    user_id: &'a str,
    username: &'a str,
}

/// The reply to `GET /rooms/{room_id}/users`.
#[derive(Serialize)]
pub(crate) struct OccupantsPage<'a> {
    room_id: &'a str,
    users: Vec<OccupantJson<'a>>,
    total: u64,
    /// The last id of this page, if another page follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<&'a str>,
}

impl<'a> OccupantsPage<'a> {
    pub fn of(room: &'a RoomId, page: &'a OccupantPage) -> Self {
        let occupant = |(user, name): &'a (UserId, Username)| OccupantJson {
            user_id: user.as_str(),
            username: name.as_str(),
        };
        Self {
            room_id: room.as_str(),
            users: page.members.iter().map(occupant).collect(),
            total: page.total,
            next_cursor: page.next.as_ref().map(|user| user.as_str()),
        }
    }
}
