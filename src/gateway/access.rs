//! Who may ask over HTTP: origins of browsers, and the caller behind a bearer.

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue};

use crate::auth::{ApiKeys, Authenticator, Claimed, Identity};
use crate::domain::policy::RoomScope;
use crate::domain::{Code, Refusal};

/// Origins whose pages may talk to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Every one, without credentials.
    Any,
    /// Those, exactly, and the node's own.
    Listed(Vec<String>),
}

impl Origins {
    /// Comma-separated exact origins, or `*`.
    #[must_use]
    pub fn parse(list: &str) -> Self {
        let origins: Vec<String> = list
            .split(',')
            .map(|origin| origin.trim().trim_end_matches('/').to_owned())
            .filter(|o| !o.is_empty())
            .collect();
        if origins.iter().any(|origin| origin == "*") {
            Self::Any
        } else {
            Self::Listed(origins)
        }
    }

    /// Whether a request with those headers may be answered: one without `Origin` always, else its origin must be listed
    /// or be the host that it was sent to.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(origin) = headers.get(ORIGIN) else {
            return Ok(());
        };
        let listed = match self {
            Self::Any => true,
            Self::Listed(origins) => origins
                .iter()
                .any(|listed| listed.as_bytes() == origin.as_bytes()),
        };
        if listed || is_own(origin, headers) {
            Ok(())
        } else {
            Err(Refusal::new(Code::Forbidden, "this origin is not allowed"))
        }
    }

    /// Adds what a browser needs to let the page at `origin` read the answer.
    pub fn allow(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        use http::header::{
            ACCESS_CONTROL_ALLOW_CREDENTIALS as CREDENTIALS,
            ACCESS_CONTROL_ALLOW_ORIGIN as ALLOWED, VARY,
        };
        match (self, origin) {
            (_, None) => {}
            (Self::Any, Some(_)) => {
                answer.insert(ALLOWED, HeaderValue::from_static("*"));
            }
            (Self::Listed(_), Some(origin)) => {
                answer.insert(ALLOWED, origin.clone());
                answer.insert(CREDENTIALS, HeaderValue::from_static("true"));
                answer.append(VARY, HeaderValue::from_static("Origin"));
            }
        }
    }
}

/// The same host and port; the scheme is not compared, as a proxy may have ended TLS.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, authority)| authority);
    matches!((origin, host), (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host))
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A service's key or role, or anyone in open mode: may do everything, in the rooms that its token reaches.
    Service(RoomScope),
    /// A user, who may read the rooms that the user is in.
    User(Identity),
}

impl Caller {
    /// Services only, and in which rooms.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn service(&self) -> Result<&RoomScope, Refusal> {
        match self {
            Self::Service(reach) => Ok(reach),
            Self::User(_) => Err(Refusal::new(
                Code::Forbidden,
                "this needs a service's key or role",
            )),
        }
    }

    /// Services only, for what concerns no room: whose token is limited to rooms has no say there.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn unlimited_service(&self) -> Result<(), Refusal> {
        match self.service()? {
            RoomScope::Everywhere => Ok(()),
            RoomScope::Only(_) => Err(Refusal::new(
                Code::Forbidden,
                "the token is limited to rooms",
            )),
        }
    }
}

/// Checks bearers.
pub struct Access {
    /// How tokens are checked.
    pub auth: std::sync::Arc<Authenticator>,
    /// Keys of services.
    pub keys: ApiKeys,
    /// Roles of which a token must have one to broadcast; `None`: any token will do.
    pub broadcasters: Option<Vec<String>>,
}

impl Access {
    /// Who sends a request with those headers.
    ///
    /// # Errors
    /// `unauthorized`, `token_expired`, `unavailable`.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        if !self.auth.needs_token() {
            return Ok(Caller::Service(RoomScope::Everywhere));
        }
        let Some(identity) = self.identity(headers).await? else {
            return Ok(Caller::Service(RoomScope::Everywhere));
        };
        let trusted = matches!(identity.role.as_deref(), Some("service" | "admin"));
        Ok(if trusted {
            Caller::Service(identity.reach)
        } else {
            Caller::User(identity)
        })
    }

    /// Who sends a request to broadcast: a service by its key, or whoever has a token of the right role. In open mode anyone.
    ///
    /// # Errors
    /// `unauthorized`, `token_expired`, `forbidden`, `unavailable`.
    pub async fn broadcaster(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        if !self.auth.needs_token() {
            return Ok(Caller::Service(RoomScope::Everywhere));
        }
        let Some(identity) = self.identity(headers).await? else {
            return Ok(Caller::Service(RoomScope::Everywhere));
        };
        let may = self.broadcasters.as_ref().is_none_or(|roles| {
            identity
                .role
                .as_ref()
                .is_some_and(|role| roles.contains(role))
        });
        if may {
            Ok(Caller::User(identity))
        } else {
            Err(Refusal::new(
                Code::Forbidden,
                "the token's role may not broadcast",
            ))
        }
    }

    /// Whose token the bearer is; `None` for a key of a service.
    async fn identity(&self, headers: &HeaderMap) -> Result<Option<Identity>, Refusal> {
        let token = bearer(headers)
            .ok_or_else(|| Refusal::new(Code::Unauthorized, "a bearer token is missing"))?;
        if self.keys.contains(token) {
            return Ok(None);
        }
        self.auth
            .identify(
                Claimed {
                    token: Some(token.to_owned()),
                    ..Claimed::default()
                },
                None,
            )
            .await
            .map(Some)
    }
}

/// The token of an `Authorization: Bearer` header.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
        .filter(|token| !token.is_empty())
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
    fn a_foreign_origin_is_refused_and_ones_own_is_not() {
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
    fn credentials_go_with_listed_origins_only() {
        let origin = HeaderValue::from_static("https://app.example");
        let answer = |origins: Origins| {
            let mut answer = HeaderMap::new();
            origins.allow(Some(&origin), &mut answer);
            answer
        };
        let any = answer(Origins::Any);
        assert_eq!(any["access-control-allow-origin"], "*");
        assert!(!any.contains_key("access-control-allow-credentials"));
        let listed = answer(Origins::parse("https://app.example"));
        assert_eq!(listed["access-control-allow-origin"], "https://app.example");
        assert_eq!(listed["access-control-allow-credentials"], "true");
    }

    #[test]
    fn a_bearer_is_found_whatever_its_case() {
        assert_eq!(
            bearer(&headers(&[(AUTHORIZATION, "bearer  x ")])),
            Some("x")
        );
        for other in ["Basic x", "Bearer", "Bearer "] {
            assert_eq!(bearer(&headers(&[(AUTHORIZATION, other)])), None);
        }
    }
}
