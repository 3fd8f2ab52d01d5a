//! `/api/v1/me`: the caller's own account.

use super::super::accounts::{AccountReader, AccountUser, AccountsOfNode, ClientDevice};
use super::super::extract::Body;
use super::super::reply::Reply;
use crate::domain::Refusal;
use crate::gateway::wire::{
    AccountJson, DeleteAccountRequest, EndedJson, PasswordRequest, ProfileRequest,
};

/// `GET /api/v1/me`.
pub(in crate::gateway::http) async fn get(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountReader(caller): AccountReader,
) -> Result<Reply, Refusal> {
    let account = accounts.own(caller).await?;
    Ok(Reply::ok(&AccountJson::own(&account)))
}

/// `PATCH /api/v1/me`.
pub(in crate::gateway::http) async fn patch(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountUser(caller): AccountUser,
    Body(request): Body<ProfileRequest>,
) -> Result<Reply, Refusal> {
    let account = accounts.change_profile(caller, request.into()).await?;
    Ok(Reply::ok(&AccountJson::own(&account)))
}

/// `POST /api/v1/auth/password`: changes the password, and ends the other sessions.
pub(in crate::gateway::http) async fn change_password(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountUser(caller): AccountUser,
    ClientDevice(device): ClientDevice,
    Body(request): Body<PasswordRequest>,
) -> Result<Reply, Refusal> {
    let PasswordRequest { current, new } = request;
    let ended = accounts
        .change_password(caller, current, &new, &device)
        .await?;
    Ok(Reply::ok(&EndedJson::from(ended)))
}

/// `DELETE /api/v1/me`: deletes the account. Its personal data is gone when the answer is sent; its
/// messages become anonymous soon after.
pub(in crate::gateway::http) async fn delete(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountUser(caller): AccountUser,
    ClientDevice(device): ClientDevice,
    Body(request): Body<DeleteAccountRequest>,
) -> Result<Reply, Refusal> {
    let ended = accounts
        .delete_own(caller, request.password, &device)
        .await?;
    Ok(Reply::ok(&EndedJson::from(ended)))
}
