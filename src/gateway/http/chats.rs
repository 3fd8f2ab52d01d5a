//! Extractors for routes of chats.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, Method};
use uuid::Uuid;

use super::HttpState;
use super::extract::path_parameter;
use crate::auth::Identity;
use crate::domain::policy::{Relation, RoomRights};
use crate::domain::{Code, Cost, Membership, Refusal, RoomId, RoomKind, TokenScope};
use crate::features::chats::{Actor, Chats};

/// The chats of this server.
pub(super) struct ChatsOfNode(pub Arc<Chats>);

impl FromRequestParts<Arc<HttpState>> for ChatsOfNode {
    type Rejection = Refusal;

    async fn from_request_parts(_: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Refusal> {
        chats(state).map(Self)
    }
}

fn chats(state: &HttpState) -> Result<Arc<Chats>, Refusal> {
    state.chats.clone().ok_or_else(|| {
        Refusal::new(
            Code::NotConfigured,
            "chats need accounts: a database (DATABASE_URL) and a secret (JWT_SECRET)",
        )
    })
}

/// The account of the request's token.
pub(super) struct CallingAccount {
    pub id: Uuid,
    pub identity: Identity,
}

impl CallingAccount {
    /// # Errors
    /// `unauthorized`, `token_expired`, `unavailable`.
    pub async fn find(headers: &HeaderMap, state: &HttpState) -> Result<Self, Refusal> {
        let identity = state.access.account(headers).await?;
        let id = Uuid::try_parse(identity.user.as_str());
        let id = id.map_err(|_| Refusal::new(Code::Unauthorized, "the token has no account"))?;
        Ok(Self { id, identity })
    }
}

impl FromRequestParts<Arc<HttpState>> for CallingAccount {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        chats(state)?;
        let caller = Self::find(&parts.headers, state).await?;
        caller.identity.scope.require(TokenScope::Chats)?;
        if parts.method != Method::GET {
            // A request costs as much as entering a room. What it announces costs events, by the use
            // case.
            let rates = state.messaging.user_rates();
            let charged = rates.spend(&caller.identity.user, Cost::JOIN);
            charged.map_err(|exceeded| Refusal::rate_limited(exceeded, " of this user"))?;
        }
        Ok(caller)
    }
}

/// The account of the request, and the chat that the path parameter `chat_id` names. Whether the account
/// is a member is checked by the use case.
pub(super) struct ActorInChat(pub Actor);

impl FromRequestParts<Arc<HttpState>> for ActorInChat {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let caller = CallingAccount::from_request_parts(parts, state).await?;
        let chat = chat_in_path(parts).await?;
        let user = caller.id;
        Ok(Self(Actor { user, chat }))
    }
}

async fn chat_in_path(parts: &mut Parts) -> Result<Uuid, Refusal> {
    path_parameter(parts, "chat_id", |_, chat| parse_chat(chat)).await
}

/// The id of a chat.
pub(super) fn parse_chat(chat: &str) -> Result<Uuid, Refusal> {
    Uuid::try_parse(chat).map_err(|_| Refusal::new(Code::NotFound, "there is no such chat"))
}

/// The same for a room that doesn't exist and for the chat of other users.
pub(super) fn no_such_room() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such room")
}

/// The account of the request, and its relation to the room that the path parameter `room_id` names.
pub(super) struct AccountInRoom {
    pub identity: Identity,
    pub room: RoomId,
    relation: Relation,
    member: Option<Membership>,
}

impl AccountInRoom {
    /// # Errors
    /// `unauthorized`, `token_expired`, `unavailable`; `not_found` for the chat of other users.
    pub async fn find(
        headers: &HeaderMap,
        state: &HttpState,
        room: RoomId,
    ) -> Result<Self, Refusal> {
        let CallingAccount { identity, .. } = CallingAccount::find(headers, state).await?;
        Self::of(identity, state, room).await
    }

    /// As [`find`](Self::find), of an account that is known.
    pub async fn of(identity: Identity, state: &HttpState, room: RoomId) -> Result<Self, Refusal> {
        let account = Self::beside(identity, state, room).await?;
        if account.room.kind() == RoomKind::Chat && account.member.is_none() {
            return Err(no_such_room());
        }
        Ok(account)
    }

    /// As [`of`](Self::of), also for the chat of other users.
    pub async fn beside(
        identity: Identity,
        state: &HttpState,
        room: RoomId,
    ) -> Result<Self, Refusal> {
        let messaging = &state.messaging;
        let member = match room.kind() {
            RoomKind::Chat => messaging.membership_of(&identity.user, &room).await?,
            _ => None,
        };
        let relation = if member.is_some() {
            Relation::Member
        } else if room.kind() != RoomKind::Chat
            && messaging.is_occupant(&room, &identity.user).await?
        {
            Relation::Occupant
        } else {
            Relation::Stranger
        };
        Ok(Self {
            identity,
            room,
            relation,
            member,
        })
    }

    pub fn rights(&self) -> RoomRights<'_> {
        RoomRights {
            scope: &self.identity.scope,
            is_admin: self.identity.is_admin(),
            relation: self.relation,
            room: &self.room,
            member: self.member,
        }
    }
}

impl FromRequestParts<Arc<HttpState>> for AccountInRoom {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let room = path_parameter(parts, "room_id", RoomId::parse).await?;
        Self::find(&parts.headers, state, room).await
    }
}

/// As [`AccountInRoom`], for the room of the chat that the path parameter `chat_id` names.
pub(super) struct AccountInChat(pub AccountInRoom);

impl FromRequestParts<Arc<HttpState>> for AccountInChat {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let caller = CallingAccount::from_request_parts(parts, state).await?;
        let room = RoomId::chat(chat_in_path(parts).await?);
        AccountInRoom::of(caller.identity, state, room)
            .await
            .map(Self)
    }
}
