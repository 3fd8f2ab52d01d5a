//! Extractors for routes of messages that change.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use uuid::Uuid;

use super::HttpState;
use super::chats::{AccountInRoom, CallingAccount};
use super::extract::path_parameter;
use crate::domain::policy::{Deleting, Permit, Reading, RoomRights, Sending};
use crate::domain::{Cost, Emoji, Refusal, RoomId};
use crate::features::messages::{ChangingUser, Messages, ReadingUser, not_configured};
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

/// The account of the request beside the room that the path parameter `room_id` names, with the right to
/// do `A` there.
pub(super) struct InRoom<A> {
    pub messages: Arc<Messages>,
    pub account: AccountInRoom,
    pub permit: Permit<A>,
}

impl<A> InRoom<A> {
    pub fn reading_user(&self) -> ReadingUser {
        let identity = &self.account.identity;
        ReadingUser {
            user: identity.user.clone(),
            has_account: identity.session.is_some(),
        }
    }

    pub fn changing_user(&self) -> ChangingUser {
        ChangingUser::new(&self.account.identity.user, &self.account.rights())
    }

    /// Charges a request to its user as an event of this size.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn charge(&self, state: &HttpState, bytes: usize) -> Result<(), Refusal> {
        let rates = state.messaging.user_rates();
        let charged = rates.spend(&self.account.identity.user, Cost::event(bytes));
        charged.map_err(|exceeded| Refusal::rate_limited(exceeded, " of this user"))
    }
}

/// An act in a room for which there is a permit.
pub(super) trait RoomAct: Sized {
    /// Whether admins may do it in the chats of other users.
    const ADMINS_EVERYWHERE: bool = false;

    /// # Errors
    /// `forbidden`, `not_in_room`.
    fn permit(rights: &RoomRights<'_>) -> Result<Permit<Self>, Refusal>;
}

impl RoomAct for Reading {
    fn permit(rights: &RoomRights<'_>) -> Result<Permit<Self>, Refusal> {
        rights.may_read()
    }
}

impl RoomAct for Sending {
    fn permit(rights: &RoomRights<'_>) -> Result<Permit<Self>, Refusal> {
        rights.may_send()
    }
}

impl RoomAct for Deleting {
    const ADMINS_EVERYWHERE: bool = true;

    fn permit(rights: &RoomRights<'_>) -> Result<Permit<Self>, Refusal> {
        rights.may_delete()
    }
}

impl<A: RoomAct> FromRequestParts<Arc<HttpState>> for InRoom<A> {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let messages = messages(state)?;
        let room = path_parameter(parts, "room_id", RoomId::parse).await?;
        let CallingAccount { identity, .. } = CallingAccount::find(&parts.headers, state).await?;
        let account = if A::ADMINS_EVERYWHERE && identity.is_admin() {
            AccountInRoom::beside(identity, state, room).await?
        } else {
            AccountInRoom::of(identity, state, room).await?
        };
        Ok(Self {
            permit: A::permit(&account.rights())?,
            messages,
            account,
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
