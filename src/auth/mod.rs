//! From a token or a key to who it is: JWT and API keys.

mod api_keys;
#[cfg(test)]
mod fuzz;
mod jwks;
mod keys;
mod outgoing;
mod tokens;
mod webhook;

pub use api_keys::{ApiKeys, NotADigest};
pub use keys::{Algorithm, KeyError, KeySource, MIN_SECRET_BYTES};
pub use tokens::{Identity, MAX_TOKEN_BYTES, NewToken, TokenRules, Verifier, mint};
pub use webhook::{Webhook, WebhookSettings};

use crate::domain::policy::RoomScope;
use crate::domain::{Code, Refusal, UserId, Username};

/// How this node learns who someone is.
pub enum Authenticator {
    /// Whoever connects says it: for development and trusted networks.
    Open,
    /// A token says it.
    Jwt(Box<Verifier>),
}

/// What an `authenticate` request says. Its `Debug` doesn't show the token.
#[derive(Default)]
pub struct Claimed {
    /// `user_id`.
    pub user: Option<UserId>,
    /// `username`.
    pub username: Option<Username>,
    /// `token`.
    pub token: Option<String>,
}

impl std::fmt::Debug for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claimed")
            .field("user", &self.user)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Authenticator {
    /// True when tokens are asked for.
    #[must_use]
    pub fn needs_token(&self) -> bool {
        matches!(self, Self::Jwt(_))
    }

    /// Fetches the keys of tokens where they are to be fetched. That they can't be had now is no error: tokens are refused with
    /// `unavailable` until they can.
    pub async fn warm_up(&self) {
        if let Self::Jwt(verifier) = self {
            verifier.warm_up().await;
        }
    }

    /// Who sends the request. `current` is who the connection is already known to be.
    ///
    /// # Errors
    /// `bad_request` (open mode without `user_id`), `unauthorized`, `token_expired`, `forbidden` (a token for one user and
    /// a `user_id` of another), `already_authenticated`, `unavailable` (a key that must be fetched, and can't be now).
    pub async fn identify(
        &self,
        claimed: Claimed,
        current: Option<&Identity>,
    ) -> Result<Identity, Refusal> {
        let identity = match self {
            Self::Open => {
                let user = claimed
                    .user
                    .ok_or_else(|| Refusal::bad_request("user_id is missing"))?;
                let username = claimed.username.unwrap_or_else(|| Username::from(&user));
                Identity {
                    user,
                    username,
                    role: None,
                    reach: RoomScope::Everywhere,
                    expires_at: None,
                }
            }
            Self::Jwt(verifier) => match (&claimed.token, current) {
                (Some(token), _) => {
                    let identity = verifier.verify(token).await?;
                    if claimed.user.is_some_and(|user| user != identity.user) {
                        return Err(Refusal::new(
                            Code::Forbidden,
                            "user_id is not the token's user",
                        ));
                    }
                    identity
                }
                // The handshake's token still speaks for the connection.
                (None, Some(current))
                    if claimed
                        .user
                        .as_ref()
                        .is_none_or(|user| *user == current.user) =>
                {
                    current.clone()
                }
                (None, Some(_)) => return Err(already_authenticated()),
                (None, None) => return Err(Refusal::new(Code::Unauthorized, "token is missing")),
            },
        };
        match current {
            Some(current) if current.user != identity.user => Err(already_authenticated()),
            _ => Ok(identity),
        }
    }
}

fn already_authenticated() -> Refusal {
    Refusal::new(
        Code::AlreadyAuthenticated,
        "this connection belongs to another user",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a secret of at least thirty-two bytes";

    fn jwt() -> Authenticator {
        Authenticator::Jwt(Box::new(Verifier::hs256(SECRET, 0).unwrap()))
    }

    fn token(user: &str) -> String {
        mint(SECRET, user, None, None, std::time::Duration::from_secs(60)).unwrap()
    }

    fn claimed(user: Option<&str>, token: Option<String>) -> Claimed {
        Claimed {
            user: user.map(UserId::trusted),
            username: None,
            token,
        }
    }

    #[tokio::test]
    async fn in_open_mode_one_is_who_one_says() {
        let identity = Authenticator::Open
            .identify(claimed(Some("ann"), None), None)
            .await
            .unwrap();
        assert_eq!(
            (identity.user.as_str(), identity.username.as_str()),
            ("ann", "ann")
        );
        assert_eq!(
            Authenticator::Open
                .identify(claimed(None, None), None)
                .await
                .unwrap_err()
                .code,
            Code::BadRequest
        );
        let other = Authenticator::Open
            .identify(claimed(Some("bob"), None), Some(&identity))
            .await;
        assert_eq!(other.unwrap_err().code, Code::AlreadyAuthenticated);
    }

    #[tokio::test]
    async fn in_jwt_mode_the_token_says() {
        let auth = jwt();
        let ann = auth
            .identify(claimed(None, Some(token("ann"))), None)
            .await
            .unwrap();
        assert_eq!(ann.user.as_str(), "ann");
        let (by, of) = (|user: &str| Some(token(user)), |user| Some(user));
        for (claimed, current, code) in [
            (claimed(of("ann"), None), None, Code::Unauthorized),
            (claimed(of("bob"), by("ann")), None, Code::Forbidden),
            (claimed(of("bob"), by("ann")), Some(&ann), Code::Forbidden),
            (
                claimed(None, by("bob")),
                Some(&ann),
                Code::AlreadyAuthenticated,
            ),
            (
                claimed(of("bob"), None),
                Some(&ann),
                Code::AlreadyAuthenticated,
            ),
        ] {
            assert_eq!(
                auth.identify(claimed, current).await.unwrap_err().code,
                code
            );
        }
        assert_eq!(
            auth.identify(claimed(of("ann"), None), Some(&ann))
                .await
                .unwrap(),
            ann
        );
    }
}
