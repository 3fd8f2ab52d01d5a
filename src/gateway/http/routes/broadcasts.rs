//! `POST /api/broadcast`: one message to every plain client of the cluster.

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;

use super::super::handlers::{SharedState, answer, idempotency_key, text_body};
use super::super::refusal::json;
use crate::domain::policy;
use crate::domain::{UserId, Username};
use crate::gateway::access::Caller;
use crate::gateway::wire::{BroadcastAck, BroadcastRequest};

pub(in crate::gateway::http) async fn post(
    State(doors): SharedState,
    request: Request,
) -> Response {
    answer(
        async {
            let (parts, body) = request.into_parts();
            let caller = doors.access.broadcaster(&parts.headers).await?;
            doors
                .broadcasters
                .post(&parts.headers, parts.extensions.get().copied())?;
            let body = text_body(&parts.headers, body, doors.chat.limits().event_bytes).await?;
            let fields = BroadcastRequest::decode(
                &body,
                idempotency_key(&parts.headers)?,
                doors.chat.limits(),
            )?;
            // Keys of sends are apart for each who sends.
            let (user, username, reach) = match caller {
                Caller::Service(reach) => (
                    UserId::trusted("system"),
                    Username::trusted("System"),
                    reach,
                ),
                Caller::User(identity) => (identity.user, identity.username, identity.reach),
            };
            let appended = doors
                .chat
                .post(policy::may_broadcast(&reach)?, user, username, fields)
                .await?;
            Ok(json(
                StatusCode::ACCEPTED,
                &BroadcastAck::of(&appended, doors.clients()),
            ))
        }
        .await,
    )
}
