//! `/api/v1/chats/{chat_id}/members`: the members of a chat.

use http::StatusCode;
use serde::Serialize;
use uuid::Uuid;

use super::super::chats::{ActorInChat, ChatsOfNode};
use super::super::extract::{Body, QueryParameters, UserInPath};
use super::super::idempotent::{Decoded, IdempotentBody};
use super::super::reply::Reply;
use crate::domain::Refusal;
use crate::features::chats::{Actor, Chats};
use crate::features::idempotency::{Answered, perform_elsewhere};
use crate::gateway::wire::{
    AddMembersRequest, List, MemberJson, PageQuery, SetRoleRequest, encode_cursor,
};

/// The name of the list of members in cursors.
const MEMBERS: &str = "members";

/// `GET /api/v1/chats/{chat_id}/members`: the members, in the order of their ids.
pub(in crate::gateway::http) async fn list(
    ChatsOfNode(chats): ChatsOfNode,
    ActorInChat(actor): ActorInChat,
    QueryParameters(query): QueryParameters<PageQuery>,
) -> Result<Reply, Refusal> {
    let (limit, after) = (query.limit()?, query.position(MEMBERS)?);
    let page = chats.members(actor.user, actor.chat, after, limit).await?;
    let items: Vec<MemberJson<'_>> = page.members.iter().map(MemberJson::from).collect();
    let next = page.next.map(|next| encode_cursor(MEMBERS, &next));
    Ok(Reply::ok(&List::new(items, next)))
}

/// `POST /api/v1/chats/{chat_id}/members`: adds members. Returns the member for `user_id`, and a list for
/// `user_ids`.
pub(in crate::gateway::http) async fn add(
    ChatsOfNode(chats): ChatsOfNode,
    request: IdempotentBody<ActorInChat, Decoded<AddMembersRequest>>,
) -> Result<Reply, Refusal> {
    let IdempotentBody { caller, body, key } = request;
    // Adding members again has no effect, unless they were removed between two requests of which the
    // first was not answered.
    let work = async |_| {
        let reply = add_members(&chats, caller.0, body.0).await?;
        Ok(Answered::Now(reply.into_answer()))
    };
    perform_elsewhere(key, work).await.map(Reply::from)
}

async fn add_members(
    chats: &Chats,
    actor: Actor,
    request: AddMembersRequest,
) -> Result<Reply, Refusal> {
    let role = request.role()?;
    let is_list = request.user_ids.is_some();
    let mut users = request.user_ids.unwrap_or_default();
    users.extend(request.user_id);
    let members = chats.add_members(actor, &users, role).await?;
    let mut members: Vec<MemberJson<'_>> = members.iter().map(MemberJson::from).collect();
    Ok(match members.pop() {
        Some(member) if !is_list => Reply::with_status(StatusCode::CREATED, &member),
        last => {
            members.extend(last);
            Reply::with_status(StatusCode::CREATED, &List::new(members, None))
        }
    })
}

/// `PATCH /api/v1/chats/{chat_id}/members/{user_id}`: changes a member's role.
pub(in crate::gateway::http) async fn set_role(
    ChatsOfNode(chats): ChatsOfNode,
    ActorInChat(actor): ActorInChat,
    UserInPath(user): UserInPath,
    Body(request): Body<SetRoleRequest>,
) -> Result<Reply, Refusal> {
    let role = request.role()?;
    let member = chats.set_role(actor, user.as_str(), role).await?;
    Ok(Reply::ok(&MemberJson::from(&member)))
}

/// The reply to `DELETE /api/v1/chats/{chat_id}/members/{user_id}`.
#[derive(Serialize)]
struct Removed<'a> {
    ok: bool,
    chat_id: Uuid,
    user_id: &'a str,
}

/// `DELETE /api/v1/chats/{chat_id}/members/{user_id}`: removes a member, or leaves.
pub(in crate::gateway::http) async fn remove(
    ChatsOfNode(chats): ChatsOfNode,
    ActorInChat(actor): ActorInChat,
    UserInPath(user): UserInPath,
) -> Result<Reply, Refusal> {
    chats.remove_member(actor, user.as_str()).await?;
    Ok(Reply::ok(&Removed {
        ok: true,
        chat_id: actor.chat,
        user_id: user.as_str(),
    }))
}
