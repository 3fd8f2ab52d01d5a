//! `/api/v1/tokens`: the tokens of the caller's bots.

use http::StatusCode;

use super::super::accounts::{AccountUser, AccountsOfNode, IdInPath};
use super::super::idempotent::{Decoded, IdempotentBody};
use super::super::reply::Reply;
use crate::domain::{BotToken, Refusal};
use crate::features::idempotency::Once;
use crate::gateway::wire::{ClosedJson, Page, TokenJson, TokenRequest};

/// `POST /api/v1/tokens`: makes a token. Only this reply, and the one to its repeat, has its secret.
pub(in crate::gateway::http) async fn create(
    AccountsOfNode(accounts): AccountsOfNode,
    request: IdempotentBody<AccountUser, Decoded<TokenRequest>>,
) -> Result<Reply, Refusal> {
    let IdempotentBody { caller, body, key } = request;
    let once = Once::new(key, |(token, secret): &(BotToken, String)| {
        let body = TokenJson::with_secret(token, secret);
        Reply::with_status(StatusCode::CREATED, &body).into_answer()
    });
    let answered = accounts.create_token(caller.0, body.0.into(), once).await?;
    Ok(answered.into())
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
    let sockets = accounts.delete_token(caller, token).await?;
    Ok(Reply::ok(&ClosedJson::of(sockets)))
}
