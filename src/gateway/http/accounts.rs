//! Extractors for routes of accounts.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::header::USER_AGENT;
use http::request::Parts;
use uuid::Uuid;

use super::HttpState;
use super::extract::path_parameter;
use crate::domain::{Code, Refusal, TokenScope};
use crate::features::accounts::{AccountCaller, Accounts, Device, Recovery};
use crate::server::ClientAddress;

/// The accounts of this server.
pub(super) struct AccountsOfNode(pub Arc<Accounts>);

impl FromRequestParts<Arc<HttpState>> for AccountsOfNode {
    type Rejection = Refusal;

    async fn from_request_parts(_: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Refusal> {
        accounts(state).map(Self)
    }
}

fn accounts(state: &HttpState) -> Result<Arc<Accounts>, Refusal> {
    state.accounts.clone().ok_or_else(|| {
        Refusal::new(
            Code::NotConfigured,
            "accounts need a database (DATABASE_URL) and a secret (JWT_SECRET)",
        )
    })
}

/// The use cases of accounts that need mail.
pub(super) struct RecoveryOfNode(pub Arc<Recovery>);

impl FromRequestParts<Arc<HttpState>> for RecoveryOfNode {
    type Rejection = Refusal;

    async fn from_request_parts(_: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Refusal> {
        accounts(state)?;
        let text = "this needs mail: SMTP_HOST is not set";
        let recovery = state.recovery.clone();
        let recovery = recovery.ok_or_else(|| Refusal::new(Code::NotConfigured, text))?;
        Ok(Self(recovery))
    }
}

/// A user with a session, by the access token of the request.
pub(super) struct AccountUser(pub AccountCaller);

impl FromRequestParts<Arc<HttpState>> for AccountUser {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let caller = account_caller(parts, state).await?;
        match caller.bot {
            None => Ok(Self(caller)),
            Some(_) => Err(Refusal::new(
                Code::Forbidden,
                "the token of a bot can't do this: log in",
            )),
        }
    }
}

/// A user with an account and the right to read: one with a session, or a bot with the scope `read`.
pub(super) struct AccountReader(pub AccountCaller);

impl FromRequestParts<Arc<HttpState>> for AccountReader {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let caller = account_caller(parts, state).await?;
        caller.require(TokenScope::Read)?;
        Ok(Self(caller))
    }
}

async fn account_caller(parts: &Parts, state: &HttpState) -> Result<AccountCaller, Refusal> {
    accounts(state)?;
    state.access.account_caller(&parts.headers).await
}

/// An admin, by the token of the request: one with a session, or a bot with the scope `admin`.
pub(super) struct AdminUser(pub AccountCaller);

impl FromRequestParts<Arc<HttpState>> for AdminUser {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<HttpState>,
    ) -> Result<Self, Refusal> {
        let caller = account_caller(parts, state).await?;
        if caller.is_admin {
            Ok(Self(caller))
        } else {
            Err(Refusal::new(Code::Forbidden, "this needs an admin"))
        }
    }
}

/// The UUID that the path parameter `id` is. Nothing has another id.
pub(super) struct IdInPath(pub Uuid);

impl FromRequestParts<Arc<HttpState>> for IdInPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<HttpState>) -> Result<Self, Refusal> {
        let parse = |_, text: &str| {
            let unknown = |_| Refusal::new(Code::NotFound, "there is no such resource");
            Uuid::try_parse(text).map_err(unknown)
        };
        path_parameter(parts, "id", parse).await.map(Self)
    }
}

/// The device of the request.
pub(super) struct ClientDevice(pub Device);

impl FromRequestParts<Arc<HttpState>> for ClientDevice {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<HttpState>) -> Result<Self, Refusal> {
        let address = parts.extensions.get::<ClientAddress>();
        let user_agent = parts.headers.get(USER_AGENT);
        let user_agent = user_agent.map(|name| String::from_utf8_lossy(name.as_bytes()).into());
        Ok(Self(Device {
            address: address.map(|address| address.0),
            user_agent: user_agent.unwrap_or_default(),
        }))
    }
}
