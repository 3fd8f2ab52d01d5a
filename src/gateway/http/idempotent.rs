//! Bodies of requests that may have the header `Idempotency-Key`.
//!
//! # Giving a route idempotency keys
//! 1. The handler takes its body as [`IdempotentBody<C, T>`](IdempotentBody), where `C` is the extractor of
//!    the caller: [`Anonymous`], or `AccountUser` (then the handler takes no other `AccountUser`).
//! 2. It makes a `Once` from the key and from the function that renders the result, calls the use case
//!    with it, and returns `Reply::from` of its result.
//! 3. The use case ends with `once.perform(result, |once| self.store.method(…, once))`.
//! 4. The store's method takes `once: Once<Outcome>` and returns `Performed<Outcome>`; in `store/sql` it
//!    runs `idempotency::transaction(db, once, steps)` instead of `db.transaction(steps)`.
//!
//! Signing up is the example: `routes/auth.rs`, `features/accounts/signup.rs`,
//! `store/sql/accounts/create.rs`. Work that is not one transaction, but is safe to repeat with the same
//! id, calls `perform_elsewhere` with the key instead of steps 2 to 4: `routes/chat_messages.rs` sends
//! under this id as the `client_msg_id`, `routes/chats.rs` creates the chat with it.
//!
//! `T` is decoded by `FromJson`; [`Decoded`] is for types that serde decodes.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::HttpState;
use super::accounts::{AccountUser, AdminUser};
use super::chats::{AccountInRoom, ActorInChat, CallingAccount};
use super::extract::{FromJson, decode, read_json};
use super::reply::Reply;
use crate::auth::RequestParts;
use crate::domain::{IdempotencyKey, Limits, Refusal};
use crate::features::idempotency::{Answered, KeyedRequest};

/// The caller of a request, by which idempotency keys are told apart.
pub(super) trait KeyOwner:
    FromRequestParts<Arc<HttpState>, Rejection = Refusal> + Send
{
    /// The user; `None` where all callers share their keys.
    fn user(&self) -> Option<Uuid>;
}

/// Any caller, without an account.
pub(super) struct Anonymous;

impl FromRequestParts<Arc<HttpState>> for Anonymous {
    type Rejection = Refusal;

    async fn from_request_parts(_: &mut Parts, _: &Arc<HttpState>) -> Result<Self, Refusal> {
        Ok(Self)
    }
}

impl KeyOwner for Anonymous {
    fn user(&self) -> Option<Uuid> {
        None
    }
}

impl KeyOwner for AccountUser {
    fn user(&self) -> Option<Uuid> {
        Some(self.0.user)
    }
}

impl KeyOwner for AdminUser {
    fn user(&self) -> Option<Uuid> {
        Some(self.0.user)
    }
}

impl KeyOwner for CallingAccount {
    fn user(&self) -> Option<Uuid> {
        Some(self.id)
    }
}

impl KeyOwner for ActorInChat {
    fn user(&self) -> Option<Uuid> {
        Some(self.0.user)
    }
}

impl KeyOwner for AccountInRoom {
    fn user(&self) -> Option<Uuid> {
        Uuid::try_parse(self.identity.user.as_str()).ok()
    }
}

/// A body that serde decodes.
pub(super) struct Decoded<T>(pub T);

impl<T: DeserializeOwned> FromJson for Decoded<T> {
    fn from_json(body: &str, _: Option<&str>, _: &Limits) -> Result<Self, Refusal> {
        decode(body).map(Self)
    }
}

/// A JSON body of at most `MAX_EVENT_BYTES` with its caller, and with the key of the request if it has
/// one. A request that was answered before is answered again, without the handler.
pub(super) struct IdempotentBody<C, T> {
    pub caller: C,
    pub body: T,
    pub key: Option<Arc<KeyedRequest>>,
}

/// The response in place of the handler's.
pub(super) enum Early {
    Refused(Refusal),
    Repeated(Answered),
}

impl From<Refusal> for Early {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl IntoResponse for Early {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(refusal) => refusal.into_response(),
            Self::Repeated(answered) => Reply::from(answered).into_response(),
        }
    }
}

impl<C: KeyOwner, T: FromJson> FromRequest<Arc<HttpState>> for IdempotentBody<C, T> {
    type Rejection = Early;

    async fn from_request(request: Request, state: &Arc<HttpState>) -> Result<Self, Early> {
        let (mut parts, body) = request.into_parts();
        let caller = C::from_request_parts(&mut parts, state).await?;
        let text = read_json(&parts.headers, body, state).await?;
        let limits = state.messaging.limits();
        let key = key(&parts)?;
        let Some((key, idempotency)) = key.zip(state.idempotency.as_ref()) else {
            let body = T::from_json(&text, None, limits)?;
            let key = None;
            return Ok(Self { caller, body, key });
        };
        let request = RequestParts {
            user: caller.user(),
            route: &format!("{} {}", parts.method, parts.uri.path()),
            key: &key,
            body: text.as_bytes(),
        };
        let pattern = parts.extensions.get().map_or("", MatchedPath::as_str);
        let request = idempotency.request(&request, &format!("{} {pattern}", parts.method));
        if let Some(answered) = idempotency.earlier_answer(&request).await? {
            return Err(Early::Repeated(answered));
        }
        let body = T::from_json(&text, None, limits)?;
        let key = Some(request);
        Ok(Self { caller, body, key })
    }
}

/// The key in the headers of a request.
fn key(parts: &Parts) -> Result<Option<IdempotencyKey>, Refusal> {
    let mut values = parts.headers.get_all(IdempotencyKey::HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => IdempotencyKey::parse(value.as_bytes()).map(Some),
        (Some(_), Some(_)) => {
            let text = format!("{} is given twice", IdempotencyKey::HEADER);
            Err(Refusal::bad_request(text).field(IdempotencyKey::HEADER))
        }
    }
}
