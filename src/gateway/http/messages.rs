//! Extractors for routes of messages that change.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use uuid::Uuid;

use super::HttpState;
use super::chats::{AccountInRoom, CallingAccount};
use super::extract::path_parameter;
use crate::auth::Identity;
use crate::domain::policy::{Deleting, Permit, Reading, Sending};
use crate::domain::{Cost, Emoji, Refusal, RoomId};
use crate::features::messages::{Messages, ReadingUser, not_configured};
use crate::gateway::wire::message_id;

/// The use cases of messages that change.
pub(super) struct MessagesOfNode(pub Arc<Messages>);

impl FromRequestParts<Arc<HttpState>> for MessagesOfNode {
    type Rejection = Refusal;

    async fn from_request_parts(_: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Refusal> {
        messages(state).map(Self)
    }
}

fn messages(state: &HttpState) -> Result<Arc<Messages>, Refusal> {
    state.messages.clone().ok_or_else(not_configured)
}

/// The account of the request with the right to read the room that the path parameter `room_id` names.
pub(super) struct ReaderInRoom {
    pub messages: Arc<Messages>,
    pub identity: Identity,
    pub permit: Permit<Reading>,
}

impl ReaderInRoom {
    pub fn user(&self) -> ReadingUser {
        ReadingUser {
            user: self.identity.user.clone(),
            has_account: self.identity.session.is_some(),
        }
    }
}

impl FromRequestParts<Arc<HttpState>> for ReaderInRoom {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let messages = messages(state)?;
        let account = AccountInRoom::from_request_parts(parts, state).await?;
        Ok(Self {
            messages,
            permit: account.may_read()?,
            identity: account.identity,
        })
    }
}

/// The account of the request with the right to send to the room that the path parameter `room_id` names.
pub(super) struct SenderInRoom {
    pub messages: Arc<Messages>,
    pub account: AccountInRoom,
    pub permit: Permit<Sending>,
}

impl FromRequestParts<Arc<HttpState>> for SenderInRoom {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let messages = messages(state)?;
        let account = AccountInRoom::from_request_parts(parts, state).await?;
        Ok(Self {
            messages,
            permit: account.may_send()?,
            account,
        })
    }
}

/// As [`SenderInRoom`], with the right to delete; or an admin, in every room.
pub(super) struct DeleterInRoom {
    pub messages: Arc<Messages>,
    pub identity: Identity,
    pub permit: Permit<Deleting>,
}

impl FromRequestParts<Arc<HttpState>> for DeleterInRoom {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let messages = messages(state)?;
        let room = path_parameter(parts, "room_id", RoomId::parse).await?;
        let CallingAccount { identity, .. } = CallingAccount::find(&parts.headers, state).await?;
        let permit = AccountInRoom::deleter(&identity, state, room).await?;
        Ok(Self {
            messages,
            identity,
            permit,
        })
    }
}

/// The message that the path parameter `id` names.
pub(super) struct MessageInPath(pub Uuid);

impl FromRequestParts<Arc<HttpState>> for MessageInPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<HttpState>) -> Result<Self, Refusal> {
        path_parameter(parts, "id", message_id).await.map(Self)
    }
}

/// The emoji that the path parameter `emoji` is.
pub(super) struct EmojiInPath(pub Emoji);

impl FromRequestParts<Arc<HttpState>> for EmojiInPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<HttpState>) -> Result<Self, Refusal> {
        path_parameter(parts, "emoji", Emoji::parse).await.map(Self)
    }
}

/// Charges a change to its user as an event of this size.
///
/// # Errors
/// `rate_limited`.
pub(super) fn charge(state: &HttpState, identity: &Identity, bytes: usize) -> Result<(), Refusal> {
    let rates = state.messaging.user_rates();
    let charged = rates.spend(&identity.user, Cost::event(bytes));
    charged.map_err(|exceeded| Refusal::rate_limited(exceeded, " of this user"))
}
