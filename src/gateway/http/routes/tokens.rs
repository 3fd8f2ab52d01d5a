//! `/api/v1/tokens`: the tokens of the caller's bots.

use http::StatusCode;

use super::super::accounts::{AccountUser, AccountsOfNode, IdInPath};
use super::super::extract::Body;
use super::super::reply::Reply;
use crate::domain::Refusal;
use crate::gateway::wire::{EndedJson, Page, TokenJson, TokenRequest};

/// `POST /api/v1/tokens`: makes a token. Only this reply has its secret.
pub(in crate::gateway::http) async fn create(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountUser(caller): AccountUser,
    Body(request): Body<TokenRequest>,
) -> Result<Reply, Refusal> {
    let (token, secret) = accounts.create_token(caller, request.into()).await?;
    let body = TokenJson::with_secret(&token, &secret);
    Ok(Reply::with_status(StatusCode::CREATED, &body))
}

/// `GET /api/v1/tokens`.
pub(in crate::gateway::http) async fn list(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountUser(caller): AccountUser,
) -> Result<Reply, Refusal> {
    let tokens = accounts.tokens(caller).await?;
    let items = tokens.iter().map(TokenJson::from);
    Ok(Reply::ok(&Page::complete(items.collect())))
}

/// `DELETE /api/v1/tokens/{id}`.
pub(in crate::gateway::http) async fn delete(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountUser(caller): AccountUser,
    IdInPath(token): IdInPath,
) -> Result<Reply, Refusal> {
    let ended = accounts.delete_token(caller, token).await?;
    Ok(Reply::ok(&EndedJson::from(ended)))
}
