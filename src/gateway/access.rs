//! Access over HTTP: the origins of web pages, and the caller that an `Authorization` header
//! identifies.

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, HOST, ORIGIN,
    VARY,
};
use http::{HeaderMap, HeaderValue};

use crate::auth::{ApiKeys, Authenticator, Credentials, Identity};
use crate::domain::policy::RoomScope;
use crate::domain::{Code, Refusal};

/// The origins of pages that may send requests to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// All origins, without browser credentials.
    Any,
    /// Exactly these origins, and the node's own.
    Listed(Vec<String>),
}

impl Origins {
    /// Parses exact origins separated by commas, or `*`.
    #[must_use]
    pub fn parse(list: &str) -> Self {
        let origins: Vec<String> = list
            .split(',')
            .map(|origin| origin.trim().trim_end_matches('/').to_owned())
            .filter(|origin| !origin.is_empty())
            .collect();
        if origins.iter().any(|origin| origin == "*") {
            Self::Any
        } else {
            Self::Listed(origins)
        }
    }

    /// Checks the origin of a request with these headers. A request without `Origin` is allowed.
    /// Otherwise the origin must be in the list, or be the host that the request was sent to.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(origin) = headers.get(ORIGIN) else {
            return Ok(());
        };
        let is_listed = match self {
            Self::Any => true,
            Self::Listed(origins) => origins
                .iter()
                .any(|listed| listed.as_bytes() == origin.as_bytes()),
        };
        if is_listed || is_own(origin, headers) {
            Ok(())
        } else {
            Err(Refusal::new(Code::Forbidden, "this origin is not allowed"))
        }
    }

    /// Adds the headers with which a browser lets the page at `origin` read the response.
    pub fn allow(&self, origin: Option<&HeaderValue>, response: &mut HeaderMap) {
        let Some(origin) = origin else {
            return;
        };
        match self {
            Self::Any => {
                response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Self::Listed(_) => {
                response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                response.insert(
                    ACCESS_CONTROL_ALLOW_CREDENTIALS,
                    HeaderValue::from_static("true"),
                );
                response.append(VARY, HeaderValue::from_static("Origin"));
            }
        }
    }
}

/// Whether `origin` has the host and port that the request was sent to. The scheme is not compared,
/// because a proxy may have terminated TLS.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let Some((_, authority)) = origin.to_str().ok().and_then(|text| text.split_once("://")) else {
        return false;
    };
    authority.eq_ignore_ascii_case(host)
}

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
        if identity.roles.iter().any(is_service) {
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
    fn listed_origins_and_the_own_host_are_allowed_and_others_are_refused() {
        let origins = Origins::parse("https://app.example, https://b.example/");
        let check = |origin: &str| {
            origins.check(&headers(&[(ORIGIN, origin), (HOST, "chat.example:8080")]))
        };
        assert!(check("https://app.example").is_ok() && check("https://b.example").is_ok());
        assert!(check("https://chat.example:8080").is_ok());
        for foreign in [
            "https://evil.example",
            "https://app.example.evil.example",
            "http://app.example",
            "null",
            "",
        ] {
            assert_eq!(
                check(foreign).unwrap_err().code,
                Code::Forbidden,
                "{foreign}"
            );
        }
        assert!(Origins::parse("").check(&headers(&[])).is_ok());
        assert!(
            Origins::parse("*")
                .check(&headers(&[(ORIGIN, "null")]))
                .is_ok()
        );
    }

    #[test]
    fn browser_credentials_are_allowed_for_listed_origins_only() {
        let origin = HeaderValue::from_static("https://app.example");
        let allowed = |origins: Origins| {
            let mut response = HeaderMap::new();
            origins.allow(Some(&origin), &mut response);
            response
        };
        let any = allowed(Origins::Any);
        assert_eq!(any["access-control-allow-origin"], "*");
        assert!(!any.contains_key("access-control-allow-credentials"));
        let listed = allowed(Origins::parse("https://app.example"));
        assert_eq!(listed["access-control-allow-origin"], "https://app.example");
        assert_eq!(listed["access-control-allow-credentials"], "true");
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
