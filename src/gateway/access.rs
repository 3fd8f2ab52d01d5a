//! The caller that the `Authorization` header of a request identifies.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use uuid::Uuid;

use crate::auth::{ApiKeys, Authenticator, Credentials, Identity};
use crate::domain::policy::RoomScope;
use crate::domain::{Code, Refusal, TokenScope};
use crate::features::accounts::AccountCaller;

/// The caller of a REST request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A service, by its API key or by the role of its token; in open mode every caller. It may do
    /// everything, in the rooms that its token is valid for.
    Service(RoomScope),
    /// A user. A user may read the rooms that the user is in.
    User(Identity),
}

impl Caller {
    /// The rooms that the caller may use as a service.
    ///
    /// # Errors
    /// `forbidden` for users.
    pub fn into_service(self) -> Result<RoomScope, Refusal> {
        match self {
            Self::Service(scope) => Ok(scope),
            Self::User(_) => Err(Refusal::new(
                Code::Forbidden,
                "this needs a service's key or role",
            )),
        }
    }
}

/// Identifies the callers of REST requests.
pub struct Access {
    /// Verifies tokens.
    pub authenticator: Arc<Authenticator>,
    /// The API keys of services.
    pub api_keys: ApiKeys,
    /// A token needs one of these roles to broadcast. `None`: every token may broadcast.
    pub broadcast_roles: Option<Vec<String>>,
}

impl Access {
    /// The caller of a request with these headers.
    ///
    /// # Errors
    /// `unauthorized`, `token_expired`, `unavailable`.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let Some(identity) = self.identity(headers).await? else {
            return Ok(Caller::Service(RoomScope::Everywhere));
        };
        let is_service = |role: &String| role == "service" || role == "admin";
        if identity.roles.iter().any(is_service) && identity.scope.allows(TokenScope::Admin) {
            Ok(Caller::Service(identity.scope))
        } else {
            Ok(Caller::User(identity))
        }
    }

    /// The caller of a broadcast: a service by its API key, or the holder of a token with a role
    /// that allows broadcasts. In open mode every caller is allowed.
    ///
    /// # Errors
    /// `unauthorized`, `token_expired`, `forbidden`, `unavailable`.
    pub async fn broadcaster(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let Some(identity) = self.identity(headers).await? else {
            return Ok(Caller::Service(RoomScope::Everywhere));
        };
        let is_allowed = match &self.broadcast_roles {
            None => true,
            Some(allowed) => identity.roles.iter().any(|role| allowed.contains(role)),
        };
        if is_allowed {
            Ok(Caller::User(identity))
        } else {
            Err(Refusal::new(
                Code::Forbidden,
                "the token's role may not broadcast",
            ))
        }
    }

    /// The account of the request's token.
    ///
    /// # Errors
    /// `unauthorized`, `token_expired`, `unavailable`.
    pub async fn account_caller(&self, headers: &HeaderMap) -> Result<AccountCaller, Refusal> {
        let identity = self.account(headers).await?;
        let user = Uuid::try_parse(identity.user.as_str()).map_err(|_| no_account())?;
        Ok(AccountCaller {
            user,
            session: identity.session.ok_or_else(no_account)?,
            is_admin: identity.is_admin(),
            bot: match identity.scope {
                RoomScope::Scoped(scopes) => Some(scopes),
                RoomScope::Everywhere | RoomScope::Only(_) => None,
            },
        })
    }

    /// The identity of the account of the request's token.
    ///
    /// # Errors
    /// `unauthorized`, `token_expired`, `unavailable`.
    pub async fn account(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        let token = bearer(headers).ok_or_else(no_account)?;
        let identity = self.authenticator.identify_account(token).await?;
        identity.ok_or_else(no_account)
    }

    /// The identity that the request's token proves. `None` for a caller that may do everything:
    /// one with an API key, or in open mode every caller.
    async fn identity(&self, headers: &HeaderMap) -> Result<Option<Identity>, Refusal> {
        if !self.authenticator.needs_token() {
            return Ok(None);
        }
        let Some(token) = bearer(headers) else {
            return Err(Refusal::new(
                Code::Unauthorized,
                "a bearer token is missing",
            ));
        };
        if self.api_keys.contains(token) {
            return Ok(None);
        }
        let credentials = Credentials {
            token: Some(token.to_owned()),
            ..Credentials::default()
        };
        let identity = self.authenticator.identify(credentials, None).await?;
        Ok(Some(identity))
    }
}

fn no_account() -> Refusal {
    Refusal::new(
        Code::Unauthorized,
        "this needs the access token of an account",
    )
}

/// The token of an `Authorization: Bearer` header.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        Some(token)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_scheme_bearer_is_matched_in_any_case() {
        assert_eq!(
            bearer(&headers(&[(AUTHORIZATION, "bearer  x ")])),
            Some("x")
        );
        for other in ["Basic x", "Bearer", "Bearer "] {
            assert_eq!(bearer(&headers(&[(AUTHORIZATION, other)])), None);
        }
    }
}
