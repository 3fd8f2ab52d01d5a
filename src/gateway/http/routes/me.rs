//! `/api/v1/me`: the caller's own account.

use super::super::accounts::{AccountUser, AccountsOfNode};
use super::super::reply::Reply;
use crate::domain::Refusal;
use crate::gateway::wire::OwnAccount;

/// `GET /api/v1/me`.
pub(in crate::gateway::http) async fn get(
    AccountsOfNode(accounts): AccountsOfNode,
    AccountUser(caller): AccountUser,
) -> Result<Reply, Refusal> {
    let account = accounts.own(caller).await?;
    Ok(Reply::ok(&OwnAccount::from(&account)))
}
