//! `/api/v1/users`: the users of the server.

use serde::Deserialize;

use super::super::accounts::{AccountReader, AccountsOfNode, AdminUser, IdInPath};
use super::super::extract::{Body, QueryParameters, check_range};
use super::super::reply::Reply;
use crate::domain::Refusal;
use crate::gateway::wire::{
    AccountJson, AuditJson, EndedJson, Page, UserRequest, decode_cursor, encode_cursor,
};

/// The largest `limit` of a list.
const MAX_LIMIT: u64 = 200;
/// The `limit` of a list if the query has none.
const DEFAULT_LIMIT: u64 = 50;

/// The query of a list.
#[derive(Deserialize)]
pub(in crate::gateway::http) struct ListQuery {
    q: Option<String>,
    limit: Option<u64>,
    cursor: Option<String>,
}

impl ListQuery {
    fn limit(&self) -> Result<usize, Refusal> {
        let limit = check_range("limit", self.limit, 1, MAX_LIMIT)?;
        Ok(limit.unwrap_or(DEFAULT_LIMIT) as usize)
    }

    /// The position at which the page begins.
    fn position(&self) -> Result<Option<String>, Refusal> {
        self.cursor.as_deref().map(decode_cursor).transpose()
    }
}

/// `GET /api/v1/users`: users in whose names `q` occurs, ordered by name.
pub(in crate::gateway::http) async fn list(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountReader(caller): AccountReader,
    QueryParameters(query): QueryParameters<ListQuery>,
) -> Result<Reply, Refusal> {
    let (limit, after) = (query.limit()?, query.position()?);
    let text = query.q.as_deref().unwrap_or_default();
    let page = accounts.users(caller, text, after, limit).await?;
    let users = page.users.iter();
    let items = users.map(|user| AccountJson::seen_by(&caller, user));
    let next = page.next.as_deref().map(encode_cursor);
    Ok(Reply::ok(&Page::new(items.collect(), next)))
}

/// `GET /api/v1/users/{id}`.
pub(in crate::gateway::http) async fn get(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountReader(caller): AccountReader,
    IdInPath(user): IdInPath,
) -> Result<Reply, Refusal> {
    let user = accounts.user(user).await?;
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
    QueryParameters(query): QueryParameters<ListQuery>,
) -> Result<Reply, Refusal> {
    let malformed = |_| Refusal::bad_request("cursor must be a next_cursor of the same list");
    let before = query.position()?.map(|id| id.parse().map_err(malformed));
    let page = accounts.audit(before.transpose()?, query.limit()?).await?;
    let items = page.entries.iter().map(AuditJson::from);
    let next = page.next.map(|id| encode_cursor(&id.to_string()));
    Ok(Reply::ok(&Page::new(items.collect(), next)))
}
