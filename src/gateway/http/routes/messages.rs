//! `/messages`: posting as a service.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use http::StatusCode;
use http::request::Parts;

use super::super::chats::no_such_room;
use super::super::extract::{FromJson, JsonBody, Service};
use super::super::reply::Reply;
use super::super::{HttpState, SharedState};
use crate::domain::policy::{self, Relation, RoomScope};
use crate::domain::{Limits, Refusal, RoomKind};
use crate::gateway::wire::{MessageAck, PostRequest};

/// A service that may post now: its rate allows it. Contains the rooms that it may use.
pub(in crate::gateway::http) struct Poster(RoomScope);

impl FromRequestParts<Arc<HttpState>> for Poster {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let Service(scope) = Service::from_request_parts(parts, state).await?;
        let client = parts.extensions.get().copied();
        state.post_limiter.charge(&parts.headers, client)?;
        Ok(Self(scope))
    }
}

impl FromJson for PostRequest {
    fn from_json(
        body: &str,
        idempotency_key: Option<&str>,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        Self::decode(body, idempotency_key, limits)
    }
}

/// `POST /messages`: sends a message to a room. 201 for a new message, 200 for a repeat.
pub(in crate::gateway::http) async fn post(
    State(state): SharedState,
    Poster(scope): Poster,
    JsonBody(request): JsonBody<PostRequest>,
) -> Result<Reply, Refusal> {
    if request.room.kind() == RoomKind::Chat {
        // A service is no member, and chats are known to their members only.
        return Err(no_such_room());
    }
    let permit = policy::may_send(&scope, Relation::Service, &request.room, None)?;
    let (appended, commit) = state
        .messaging
        .post(permit, request.user, request.username, request.fields)
        .await?;
    commit.wait().await?;
    let status = if appended.duplicate {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let ack = MessageAck::of(&request.room, &appended);
    Ok(Reply::with_status(status, &ack))
}
