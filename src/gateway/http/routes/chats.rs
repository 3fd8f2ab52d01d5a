//! `/api/v1/chats`: chats of the caller.

use http::StatusCode;
use serde::Serialize;
use uuid::Uuid;

use super::super::chats::{ActorInChat, CallingAccount, ChatsOfNode};
use super::super::extract::{Body, FromJson, QueryParameters};
use super::super::idempotent::IdempotentBody;
use super::super::reply::Reply;
use crate::domain::{Limits, Refusal, Timestamp};
use crate::features::chats::{ChatPosition, Chats};
use crate::features::idempotency::{Answered, WorkId, perform_elsewhere};
use crate::gateway::wire::{
    ChatJson, List, OpenChatRequest, PageQuery, RenameRequest, encode_cursor,
};

/// The name of the list of chats in cursors.
const CHATS: &str = "chats";

impl FromJson for OpenChatRequest {
    fn from_json(body: &str, _: Option<&str>, limits: &Limits) -> Result<Self, Refusal> {
        Self::decode(body, limits)
    }
}

/// `POST /api/v1/chats`: opens the direct chat with a user, or creates a group. 200 for a direct chat
/// that exists.
pub(in crate::gateway::http) async fn open(
    ChatsOfNode(chats): ChatsOfNode,
    request: IdempotentBody<CallingAccount, OpenChatRequest>,
) -> Result<Reply, Refusal> {
    let IdempotentBody { caller, body, key } = request;
    let work = |id: WorkId| open_chat(&chats, id.get(), caller.id, body);
    perform_elsewhere(key, work).await.map(Reply::from)
}

/// Opens or creates a chat. A new one gets this id.
pub(super) async fn open_chat(
    chats: &Chats,
    id: Uuid,
    caller: Uuid,
    request: OpenChatRequest,
) -> Result<Answered, Refusal> {
    let (view, is_new) = match request {
        OpenChatRequest::Direct(user) => chats.open_direct(id, caller, &user).await?,
        OpenChatRequest::Group(group) => (chats.create_group(id, caller, group).await?, true),
    };
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let reply = Reply::with_status(status, &ChatJson::from(&view));
    Ok(Answered::Now(reply.into_answer()))
}

/// `GET /api/v1/chats`: the caller's chats, the one with the newest activity first.
pub(in crate::gateway::http) async fn list(
    ChatsOfNode(chats): ChatsOfNode,
    caller: CallingAccount,
    QueryParameters(query): QueryParameters<PageQuery>,
) -> Result<Reply, Refusal> {
    let limit = query.limit()?;
    let after = query.position(CHATS)?;
    let after = after.map(|(active_at, chat)| ChatPosition {
        active_at: Timestamp(active_at),
        chat,
    });
    let page = chats.list(caller.id, after, limit).await?;
    let items: Vec<ChatJson<'_>> = page.chats.iter().map(ChatJson::from).collect();
    let next = page.next.map(|next| (next.active_at.0, next.chat));
    let next = next.map(|next| encode_cursor(CHATS, &next));
    Ok(Reply::ok(&List::new(items, next)))
}

/// `GET /api/v1/chats/{chat_id}`.
pub(in crate::gateway::http) async fn get(
    ChatsOfNode(chats): ChatsOfNode,
    ActorInChat(actor): ActorInChat,
) -> Result<Reply, Refusal> {
    let view = chats.get(actor.user, actor.chat).await?;
    Ok(Reply::ok(&ChatJson::from(&view)))
}

/// `PATCH /api/v1/chats/{chat_id}`: renames a group.
pub(in crate::gateway::http) async fn rename(
    ChatsOfNode(chats): ChatsOfNode,
    ActorInChat(actor): ActorInChat,
    Body(request): Body<RenameRequest>,
) -> Result<Reply, Refusal> {
    let view = match request.name {
        Some(name) => chats.rename(actor, name.as_deref()).await?,
        None => chats.get(actor.user, actor.chat).await?,
    };
    Ok(Reply::ok(&ChatJson::from(&view)))
}

/// The reply to `DELETE /api/v1/chats/{chat_id}`.
#[derive(Serialize)]
struct Deleted {
    ok: bool,
    id: Uuid,
}

/// `DELETE /api/v1/chats/{chat_id}`: deletes a group.
pub(in crate::gateway::http) async fn delete(
    ChatsOfNode(chats): ChatsOfNode,
    ActorInChat(actor): ActorInChat,
) -> Result<Reply, Refusal> {
    chats.delete(actor).await?;
    let id = actor.chat;
    Ok(Reply::ok(&Deleted { ok: true, id }))
}
