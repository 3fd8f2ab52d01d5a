//! Extractors: the parts of a request that handlers need, checked. They run in the order of a
//! handler's parameters, and the first refusal is the response.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as RawBody;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::chats::AccountInRoom;
use super::{HttpState, malformed};
use crate::domain::policy::{self, Permit, Reading, Relation, RoomScope};
use crate::domain::{Code, Limits, Refusal, RoomId, RoomKind, UserId};
use crate::gateway::access::Caller;

/// A body beyond the limit is read and discarded up to this size, before the refusal is sent.
const DISCARDED_BYTES: usize = 8 << 20;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// The caller is a service. Contains the rooms that it may use.
pub(super) struct Service(pub RoomScope);

impl FromRequestParts<Arc<HttpState>> for Service {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let caller = state.access.caller(&parts.headers).await?;
        Ok(Self(caller.into_service()?))
    }
}

/// The caller is a service, and its token is not limited to rooms.
pub(super) struct UnlimitedService;

impl FromRequestParts<Arc<HttpState>> for UnlimitedService {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let Service(scope) = Service::from_request_parts(parts, state).await?;
        match scope {
            // The token of a bot has the scope `admin`, else it would be no service's.
            RoomScope::Everywhere | RoomScope::Scoped(_) => Ok(Self),
            RoomScope::Only(_) => Err(Refusal::new(
                Code::Forbidden,
                "the token is limited to rooms",
            )),
        }
    }
}

/// The caller may read the room that the path parameter `room_id` names: it is a service, or a user
/// in the room; or, for the room of a chat, an account that is a member of it.
pub(super) struct RoomReader(pub Permit<Reading>);

impl FromRequestParts<Arc<HttpState>> for RoomReader {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let room = path_parameter(parts, "room_id", RoomId::parse).await?;
        if room.kind() == RoomKind::Chat {
            // Its members alone, with any role.
            let account = AccountInRoom::find(&parts.headers, state, room).await?;
            return account.rights().may_read().map(Self);
        }
        let permit = match state.access.caller(&parts.headers).await? {
            Caller::Service(scope) => policy::may_read(&scope, Relation::Service, &room, None)?,
            Caller::User(identity) => {
                let user = AccountInRoom::beside(identity, state, room).await?;
                user.rights().may_read()?
            }
        };
        Ok(Self(permit))
    }
}

/// The user that the path parameter `user_id` names.
pub(super) struct UserInPath(pub UserId);

impl FromRequestParts<Arc<HttpState>> for UserInPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<HttpState>) -> Result<Self, Refusal> {
        path_parameter(parts, "user_id", UserId::parse)
            .await
            .map(Self)
    }
}

/// Parses the path parameter `name`, which the refusal names.
pub(super) async fn path_parameter<T>(
    parts: &mut Parts,
    name: &'static str,
    parse: impl Fn(&'static str, &str) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let parameters = RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|_| Refusal::bad_request(format!("{name} must be UTF-8")).field(name))?;
    for (key, value) in &parameters {
        if key == name {
            return parse(name, value);
        }
    }
    Err(Refusal::bad_request(format!("{name} is missing")).field(name))
}

/// The parameters of the query. The refusal names the malformed one.
pub(super) struct QueryParameters<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<HttpState>> for QueryParameters<T> {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(malformed::query(rejection.body_text())),
        }
    }
}

/// Checks that the number `field`, if it is present, is from `min` to `max`.
pub(super) fn check_range(
    field: &'static str,
    value: Option<u64>,
    min: u64,
    max: u64,
) -> Result<Option<u64>, Refusal> {
    match value {
        Some(number) if number < min || number > max => {
            let text = format!("{field} must be a whole number from {min} to {max}");
            Err(Refusal::bad_request(text).field(field))
        }
        _ => Ok(value),
    }
}

/// A JSON body of at most `MAX_EVENT_BYTES`, decoded together with the
/// header `Idempotency-Key`.
pub(super) struct JsonBody<T>(pub T);

/// Decodes the body of a request.
pub(super) trait FromJson: Sized {
    fn from_json(
        body: &str,
        idempotency_key: Option<&str>,
        limits: &Limits,
    ) -> Result<Self, Refusal>;
}

impl<T: FromJson> FromRequest<Arc<HttpState>> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &Arc<HttpState>) -> Result<Self, Refusal> {
        let limits = state.messaging.limits();
        let (parts, body) = request.into_parts();
        check_content_type(&parts.headers)?;
        let body = read_text(body, limits.event_bytes).await?;
        let idempotency_key = idempotency_key(&parts.headers)?;
        T::from_json(&body, idempotency_key, limits).map(Self)
    }
}

/// A JSON body of at most `MAX_EVENT_BYTES`. Unknown fields are ignored.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<HttpState>> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &Arc<HttpState>) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let body = read_json(&parts.headers, body, state).await?;
        decode(&body).map(Self)
    }
}

/// Reads a JSON body of at most `MAX_EVENT_BYTES`.
pub(super) async fn read_json(
    headers: &HeaderMap,
    body: RawBody,
    state: &HttpState,
) -> Result<String, Refusal> {
    check_content_type(headers)?;
    read_text(body, state.messaging.limits().event_bytes).await
}

/// Decodes a body.
pub(super) fn decode<T: DeserializeOwned>(body: &str) -> Result<T, Refusal> {
    serde_json::from_str(body).map_err(|error| malformed::body(body, &error))
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Refusal::new(
        Code::UnsupportedMediaType,
        "the body must be application/json",
    ))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    match headers.get("idempotency-key").map(|value| value.to_str()) {
        None => Ok(None),
        Some(Ok(key)) => Ok(Some(key)),
        Some(Err(_)) => Err(Refusal::bad_request("Idempotency-Key must be plain text")),
    }
}

async fn read_text(body: RawBody, max_bytes: usize) -> Result<String, Refusal> {
    match tokio::time::timeout(BODY_TIMEOUT, read_bytes(body, max_bytes)).await {
        Ok(bytes) => {
            String::from_utf8(bytes?).map_err(|_| Refusal::bad_request("the body must be UTF-8"))
        }
        Err(_) => Err(Refusal::bad_request("the body arrived too slowly")),
    }
}

/// Reads a body of at most `max_bytes`. A larger body is still read to its end, up to
/// [`DISCARDED_BYTES`], and discarded: a client that is still writing when the connection ends
/// would not see the response.
async fn read_bytes(mut body: RawBody, max_bytes: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::bad_request("the body could not be read"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        if length <= max_bytes {
            bytes.extend_from_slice(&data);
        } else if length > DISCARDED_BYTES {
            break;
        }
    }
    if length > max_bytes {
        return Err(Refusal::new(
            Code::TooLarge,
            format!("the body must be at most {max_bytes} bytes"),
        ));
    }
    Ok(bytes)
}
