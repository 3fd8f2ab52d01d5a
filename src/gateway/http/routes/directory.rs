//! `/api/v1/users`: the users of the server; and `/api/v1/invites`, `/api/v1/audit`.

use http::StatusCode;
use serde::Deserialize;

use super::super::accounts::{AccountReader, AccountsOfNode, AdminUser, IdInPath};
use super::super::extract::{Body, QueryParameters};
use super::super::idempotent::{Decoded, IdempotentBody};
use super::super::reply::Reply;
use crate::domain::Refusal;
use crate::features::accounts::Invite;
use crate::features::idempotency::Once;
use crate::gateway::wire::{
    AccountJson, AuditJson, EndedJson, InviteBody, InviteJson, Page, PageQuery, UserRequest,
    encode_cursor,
};

/// The names of the lists in their cursors.
const USERS: &str = "users";
const AUDIT: &str = "audit";

/// The search of a list of users.
#[derive(Deserialize)]
pub(in crate::gateway::http) struct Search {
    q: Option<String>,
}

/// `GET /api/v1/users`: users with `q` in one of their names, ordered by name.
pub(in crate::gateway::http) async fn list(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountReader(caller): AccountReader,
    QueryParameters(search): QueryParameters<Search>,
    QueryParameters(query): QueryParameters<PageQuery>,
) -> Result<Reply, Refusal> {
    let (limit, after) = (query.limit()?, query.position(USERS)?);
    let text = search.q.as_deref().unwrap_or_default();
    let page = accounts.users(caller, text, after, limit).await?;
    let users = page.users.iter();
    let items = users.map(|user| AccountJson::seen_by(&caller, user));
    let next = page.next.map(|name| encode_cursor(USERS, &name));
    Ok(Reply::ok(&Page::new(items.collect(), next)))
}

/// `GET /api/v1/users/{id}`.
pub(in crate::gateway::http) async fn get(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountReader(caller): AccountReader,
    IdInPath(user): IdInPath,
) -> Result<Reply, Refusal> {
    let user = accounts.user(caller, user).await?;
    Ok(Reply::ok(&AccountJson::seen_by(&caller, &user)))
}

/// `PATCH /api/v1/users/{id}`: changes role and usability.
pub(in crate::gateway::http) async fn patch(
    AccountsOfNode(accounts): AccountsOfNode,
    AdminUser(caller): AdminUser,
    IdInPath(user): IdInPath,
    Body(request): Body<UserRequest>,
) -> Result<Reply, Refusal> {
    let account = accounts.change_user(caller, user, request.patch()?).await?;
    Ok(Reply::ok(&AccountJson::for_admin(&account)))
}

/// `POST /api/v1/users/{id}/logout_all`: ends all sessions of the user.
pub(in crate::gateway::http) async fn log_out(
    AccountsOfNode(accounts): AccountsOfNode,
    AdminUser(caller): AdminUser,
    IdInPath(user): IdInPath,
) -> Result<Reply, Refusal> {
    let ended = accounts.log_out_user(caller, user).await?;
    Ok(Reply::ok(&EndedJson::from(ended)))
}

/// `GET /api/v1/audit`: actions of admins, the newest first.
pub(in crate::gateway::http) async fn audit(
    AccountsOfNode(accounts): AccountsOfNode,
    AdminUser(_): AdminUser,
    QueryParameters(query): QueryParameters<PageQuery>,
) -> Result<Reply, Refusal> {
    let (limit, before) = (query.limit()?, query.position(AUDIT)?);
    let page = accounts.audit(before, limit).await?;
    let items = page.entries.iter().map(AuditJson::from);
    let next = page.next.map(|id| encode_cursor(AUDIT, &id));
    Ok(Reply::ok(&Page::new(items.collect(), next)))
}

/// `POST /api/v1/invites`: makes an invitation to sign up. Only this reply, and the one to its repeat,
/// has its code.
pub(in crate::gateway::http) async fn invite(
    AccountsOfNode(accounts): AccountsOfNode,
    request: IdempotentBody<AdminUser, Decoded<InviteBody>>,
) -> Result<Reply, Refusal> {
    let IdempotentBody { caller, body, key } = request;
    let once = Once::new(key, |invite: &Invite| {
        Reply::with_status(StatusCode::CREATED, &InviteJson::from(invite)).into_answer()
    });
    let answered = accounts
        .create_invite(caller.0, body.0.into(), once)
        .await?;
    Ok(answered.into())
}
