//! `/api/broadcast`: one message to every plain WebSocket client of the cluster.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use http::StatusCode;
use http::request::Parts;

use super::super::extract::{FromJson, JsonBody};
use super::super::reply::Reply;
use super::super::{HttpState, SharedState};
use crate::domain::policy::{self, RoomScope};
use crate::domain::{Limits, MessageFields, Refusal, UserId, Username};
use crate::gateway::access::Caller;
use crate::gateway::wire::{BroadcastAck, BroadcastRequest};

/// A caller that may broadcast now: its role and its rate allow it. The idempotency keys of
/// different users are independent.
pub(in crate::gateway::http) struct Broadcaster {
    user: UserId,
    username: Username,
    scope: RoomScope,
}

impl FromRequestParts<Arc<HttpState>> for Broadcaster {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let caller = state.access.broadcaster(&parts.headers).await?;
        let client = parts.extensions.get().copied();
        state.broadcast_limiter.charge(&parts.headers, client)?;
        match caller {
            Caller::Service(scope) => Ok(Self {
                user: UserId::trusted("system"),
                username: Username::trusted("System"),
                scope,
            }),
            Caller::User(identity) => Ok(Self {
                user: identity.user,
                username: identity.username,
                scope: identity.scope,
            }),
        }
    }
}

/// The body of a broadcast.
pub(in crate::gateway::http) struct Broadcast(MessageFields);

impl FromJson for Broadcast {
    fn from_json(
        body: &str,
        idempotency_key: Option<&str>,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        BroadcastRequest::decode(body, idempotency_key, limits).map(Self)
    }
}

/// `POST /api/broadcast`.
pub(in crate::gateway::http) async fn post(
    State(state): SharedState,
    broadcaster: Broadcaster,
    JsonBody(Broadcast(fields)): JsonBody<Broadcast>,
) -> Result<Reply, Refusal> {
    let permit = policy::may_broadcast(&broadcaster.scope)?;
    let (appended, commit) = state
        .messaging
        .post(permit, broadcaster.user, broadcaster.username, fields)
        .await?;
    commit.wait().await?;
    let ack = BroadcastAck::of(&appended, state.client_count());
    Ok(Reply::with_status(StatusCode::ACCEPTED, &ack))
}
