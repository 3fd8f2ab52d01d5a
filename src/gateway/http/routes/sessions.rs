//! `/api/v1/auth`: the sessions of the caller, and logging out.

use super::super::accounts::{AccountUser, AccountsOfNode, IdInPath};
use super::super::reply::Reply;
use crate::domain::Refusal;
use crate::gateway::wire::{EndedJson, Page, SessionJson};

/// `POST /api/v1/auth/logout`: ends the session of the request.
pub(in crate::gateway::http) async fn log_out(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountUser(caller): AccountUser,
) -> Result<Reply, Refusal> {
    let ended = accounts.log_out(caller).await?;
    Ok(Reply::ok(&EndedJson::from(ended)))
}

/// `POST /api/v1/auth/logout_all`: ends all sessions of the caller.
pub(in crate::gateway::http) async fn log_out_everywhere(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountUser(caller): AccountUser,
) -> Result<Reply, Refusal> {
    let ended = accounts.log_out_everywhere(caller).await?;
    Ok(Reply::ok(&EndedJson::from(ended)))
}

/// `GET /api/v1/auth/sessions`: the caller's sessions, the last one used first.
pub(in crate::gateway::http) async fn list(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountUser(caller): AccountUser,
) -> Result<Reply, Refusal> {
    let sessions = accounts.sessions(caller).await?;
    let sessions = sessions.iter();
    let items = sessions.map(|session| SessionJson::of(session, caller.session));
    Ok(Reply::ok(&Page::complete(items.collect())))
}

/// `DELETE /api/v1/auth/sessions/{id}`: ends one of the caller's sessions.
pub(in crate::gateway::http) async fn end(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountUser(caller): AccountUser,
    IdInPath(session): IdInPath,
) -> Result<Reply, Refusal> {
    let ended = accounts.end_session(caller, session).await?;
    Ok(Reply::ok(&EndedJson::from(ended)))
}
