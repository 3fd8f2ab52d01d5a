//! One function for each route: decode, call one use case, encode.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};

use super::HttpState;
use super::refusal::{json, refuse};
use crate::domain::policy::{self, Permit, Reading, Relation};
use crate::domain::{Code, Limits, Refusal, RoomId, UserId};
use crate::gateway::access::Caller;
use crate::gateway::wire::{
    DisconnectAck, HistoryAck, MAX_SEQ, MessageAck, OccupantsPage, PostRequest, StatusJson,
    history_limit, history_window,
};

/// How much of a body that is too large is read, to have it answered.
const DISCARDED_BYTES: usize = 8 << 20;
/// How long a body may take.
const BODY_PATIENCE: Duration = Duration::from_secs(15);

pub(super) type SharedState = State<Arc<HttpState>>;

pub(super) fn answer(result: Result<Response, Refusal>) -> Response {
    result.unwrap_or_else(|refusal| refuse(&refusal))
}

pub(super) async fn post_message(State(doors): SharedState, request: Request) -> Response {
    answer(
        async {
            let (parts, body) = request.into_parts();
            let caller = doors.access.caller(&parts.headers).await?;
            let reach = caller.service()?;
            doors
                .callers
                .post(&parts.headers, parts.extensions.get().copied())?;
            let body = text_body(&parts.headers, body, doors.chat.limits().event_bytes).await?;
            let key = idempotency_key(&parts.headers)?;
            let post = PostRequest::decode(&body, key, doors.chat.limits())?;
            let permit = policy::may_send(reach, Relation::Service, &post.room)?;
            let appended = doors
                .chat
                .post(permit, post.user, post.username, post.fields)
                .await?;
            let status = if appended.duplicate {
                StatusCode::OK
            } else {
                StatusCode::CREATED
            };
            Ok(json(status, &MessageAck::of(&post.room, &appended)))
        }
        .await,
    )
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let key = headers
        .get("idempotency-key")
        .map(|key| key.to_str())
        .transpose();
    key.map_err(|_| Refusal::bad_request("Idempotency-Key must be plain text"))
}

pub(super) async fn text_body(
    headers: &HeaderMap,
    body: Body,
    max: usize,
) -> Result<String, Refusal> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::new(
            Code::UnsupportedMediaType,
            "the body must be application/json",
        ));
    }
    let read = tokio::time::timeout(BODY_PATIENCE, collect(body, max)).await;
    let bytes = read.map_err(|_| Refusal::bad_request("the body came too slowly"))??;
    String::from_utf8(bytes).map_err(|_| Refusal::bad_request("the body must be UTF-8"))
}

/// A body of at most `max` bytes. A larger one is read on to its end, within reason, and thrown away: a client that is still
/// writing when the connection ends would not see the answer.
async fn collect(mut body: Body, max: usize) -> Result<Vec<u8>, Refusal> {
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame
            .map_err(|_| Refusal::bad_request("the body could not be read"))?
            .into_data()
        else {
            continue;
        };
        length += part.len();
        if length <= max {
            bytes.extend_from_slice(&part);
        } else if length > DISCARDED_BYTES {
            break;
        }
    }
    if length > max {
        return Err(Refusal::new(
            Code::TooLarge,
            format!("the body must be at most {max} bytes"),
        ));
    }
    Ok(bytes)
}

fn in_path<T>(
    path: Result<Path<String>, PathRejection>,
    field: &'static str,
    parse: impl Fn(&'static str, &str) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let Path(text) = path.map_err(|_| Refusal::bad_request(format!("{field} must be UTF-8")))?;
    parse(field, &text)
}

fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    query
        .map(|Query(query)| query)
        .map_err(|rejection| Refusal::bad_request(rejection.body_text()))
}

fn within(field: &str, value: Option<u64>, min: u64, max: u64) -> Result<Option<u64>, Refusal> {
    match value {
        Some(value) if !(min..=max).contains(&value) => Err(Refusal::bad_request(format!(
            "{field} must be a whole number from {min} to {max}"
        ))),
        value => Ok(value),
    }
}

/// Lets services, and users who are in the room, read it.
async fn may_read(
    doors: &HttpState,
    headers: &HeaderMap,
    room: &RoomId,
) -> Result<Permit<Reading>, Refusal> {
    match doors.access.caller(headers).await? {
        Caller::Service(reach) => policy::may_read(&reach, Relation::Service, room),
        Caller::User(identity) => {
            let member = doors.chat.is_occupant(room, &identity.user).await?;
            policy::may_read(
                &identity.reach,
                if member {
                    Relation::Occupant
                } else {
                    Relation::Stranger
                },
                room,
            )
        }
    }
}

#[derive(Deserialize)]
pub(super) struct MessagesQuery {
    before_seq: Option<u64>,
    after_seq: Option<u64>,
    limit: Option<u64>,
}

pub(super) async fn room_messages(
    State(doors): SharedState,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    asked: Result<Query<MessagesQuery>, QueryRejection>,
) -> Response {
    answer(
        async {
            let room = in_path(path, "room_id", RoomId::parse)?;
            let permit = may_read(&doors, &headers, &room).await?;
            let asked = query(asked)?;
            let before = within("before_seq", asked.before_seq, 0, MAX_SEQ)?;
            let window = history_window(before, within("after_seq", asked.after_seq, 0, MAX_SEQ)?)?;
            let limit = history_limit(within("limit", asked.limit, 1, Limits::HISTORY)?);
            let page = doors
                .chat
                .read(&permit, window, limit, Limits::HISTORY_BYTES)
                .await?;
            Ok(json(StatusCode::OK, &HistoryAck::of(&room, &page, None)))
        }
        .await,
    )
}

#[derive(Deserialize)]
pub(super) struct UsersQuery {
    limit: Option<u64>,
    cursor: Option<String>,
}

pub(super) async fn room_users(
    State(doors): SharedState,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    asked: Result<Query<UsersQuery>, QueryRejection>,
) -> Response {
    answer(
        async {
            let room = in_path(path, "room_id", RoomId::parse)?;
            let permit = may_read(&doors, &headers, &room).await?;
            let asked = query(asked)?;
            let limit = within("limit", asked.limit, 1, 1000)?.unwrap_or(100);
            let after = asked
                .cursor
                .map(|cursor| UserId::parse("cursor", &cursor))
                .transpose()?;
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let page = doors.chat.members(&permit, after.as_ref(), limit).await?;
            Ok(json(StatusCode::OK, &OccupantsPage::of(&room, &page)))
        }
        .await,
    )
}

pub(super) async fn user_status(
    State(doors): SharedState,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    answer(
        async {
            let user = in_path(path, "user_id", UserId::parse)?;
            doors.access.caller(&headers).await?.unlimited_service()?;
            let status = doors.chat.status(&user).await?;
            Ok(json(StatusCode::OK, &StatusJson::of(&status)))
        }
        .await,
    )
}

pub(super) async fn disconnect_user(
    State(doors): SharedState,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    answer(
        async {
            let user = in_path(path, "user_id", UserId::parse)?;
            doors.access.caller(&headers).await?.unlimited_service()?;
            let done = doors.chat.disconnect(&user).await?;
            Ok(json(StatusCode::OK, &DisconnectAck::of(&user, &done)))
        }
        .await,
    )
}

pub(super) async fn metrics(State(doors): SharedState, headers: HeaderMap) -> Response {
    answer(
        doors
            .access
            .caller(&headers)
            .await
            .and_then(|caller| caller.unlimited_service())
            .map(|()| metrics_text(&doors)),
    )
}

pub(super) async fn open_metrics(State(doors): SharedState) -> Response {
    metrics_text(&doors)
}

fn metrics_text(doors: &HttpState) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], (doors.metrics)()).into_response()
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(rename = "connectedClients")]
    connected_clients: usize,
    backplane: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Unhealthy {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<&'static str>,
}

/// Readiness: whether this node should be sent new work.
pub(super) async fn health(State(doors): SharedState) -> Response {
    let unhealthy = |body: Unhealthy| {
        let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &body);
        response.headers_mut().insert(
            http::header::RETRY_AFTER,
            http::HeaderValue::from_static("1"),
        );
        response
    };
    if doors.admission.is_draining() {
        return unhealthy(Unhealthy {
            status: "draining",
            redis: None,
        });
    }
    if !doors.chat.is_ready() {
        return unhealthy(Unhealthy {
            status: "unhealthy",
            redis: Some("down"),
        });
    }
    let body = Health {
        status: "ok",
        connected_clients: doors.clients(),
        backplane: doors.chat.backplane_kind(),
        version: env!("CARGO_PKG_VERSION"),
    };
    json(StatusCode::OK, &body)
}

/// Liveness: this process answers.
pub(super) async fn livez() -> Response {
    json(StatusCode::OK, &serde_json::json!({ "status": "ok" }))
}
