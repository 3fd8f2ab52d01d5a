//! `/api/v1/auth`: signing up, logging in, and sessions.

use http::StatusCode;

use super::super::accounts::{AccountsOfNode, ClientDevice};
use super::super::extract::Body;
use super::super::idempotent::{Anonymous, Decoded, IdempotentBody};
use super::super::reply::Reply;
use crate::domain::Refusal;
use crate::features::accounts::{Accounts, Device, LoggedIn};
use crate::features::idempotency::Once;
use crate::gateway::wire::{
    LoginRequest, LoginTokens, RefreshRequest, SessionTokens, SignUpRequest,
};

/// `POST /api/v1/auth/signup`: creates an account, and begins its first session.
pub(in crate::gateway::http) async fn sign_up(
    AccountsOfNode(accounts): AccountsOfNode,
    ClientDevice(device): ClientDevice,
    request: IdempotentBody<Anonymous, Decoded<SignUpRequest>>,
) -> Result<Reply, Refusal> {
    let once = Once::new(request.key, |logged_in: &LoggedIn| {
        let created = StatusCode::CREATED;
        let answer = Reply::with_status(created, &SessionTokens::from(logged_in));
        // Once the account is deleted, a repeat gets nothing of it.
        let nothing = Reply::with_status(created, &serde_json::json!({}));
        let user = logged_in.account.id.to_string();
        answer.into_answer().deletable(user, nothing.into_answer())
    });
    let answered = accounts
        .sign_up(request.body.0.into(), device, once)
        .await?;
    Ok(answered.into())
}

/// `POST /api/v1/auth/login`: begins a session.
pub(in crate::gateway::http) async fn log_in(
    AccountsOfNode(accounts): AccountsOfNode,
    ClientDevice(device): ClientDevice,
    Body(request): Body<LoginRequest>,
) -> Result<Reply, Refusal> {
    let logged_in = begin_session(&accounts, device, request).await?;
    Ok(Reply::ok(&SessionTokens::from(&logged_in)))
}

/// `POST /login`: as `POST /api/v1/auth/login`, with the access token as `token` as well.
pub(in crate::gateway::http) async fn log_in_with_token(
    AccountsOfNode(accounts): AccountsOfNode,
    ClientDevice(device): ClientDevice,
    Body(request): Body<LoginRequest>,
) -> Result<Reply, Refusal> {
    let logged_in = begin_session(&accounts, device, request).await?;
    Ok(Reply::ok(&LoginTokens::from(&logged_in)))
}

async fn begin_session(
    accounts: &Accounts,
    device: Device,
    request: LoginRequest,
) -> Result<LoggedIn, Refusal> {
    let login = request.login().to_owned();
    accounts.log_in(&login, request.password, device).await
}

/// `POST /api/v1/auth/refresh`: exchanges a refresh token for new tokens.
pub(in crate::gateway::http) async fn refresh(
    AccountsOfNode(accounts): AccountsOfNode,
    Body(request): Body<RefreshRequest>,
) -> Result<Reply, Refusal> {
    let logged_in = accounts.refresh(&request.refresh_token).await?;
    Ok(Reply::ok(&SessionTokens::from(&logged_in)))
}
