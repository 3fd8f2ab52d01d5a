//! Authentication: from a token, an API key or (in open mode) the user's own statement to an
//! identity. Also calls the external authorization service.

mod api_keys;
mod claims;
#[cfg(test)]
mod fuzz;
mod http_client;
mod jwks;
mod keys;
mod tokens;
mod webhook;

pub use api_keys::{ApiKeys, NotADigest};
pub use keys::{Algorithm, KeyError, KeySource, MIN_SECRET_BYTES};
pub use tokens::{Identity, MAX_TOKEN_BYTES, NewToken, TokenRules, Verifier, mint};
pub use webhook::{Webhook, WebhookSettings};

use crate::domain::policy::RoomScope;
use crate::domain::{Code, Refusal, UserId, Username};

/// How this node identifies users.
pub enum Authenticator {
    /// Clients state their identity themselves: for development and trusted networks.
    Open,
    /// By tokens.
    Jwt(Box<Verifier>),
}

/// The credentials of an `authenticate` request. Its `Debug` does not show the token.
#[derive(Default)]
pub struct Credentials {
    /// `user_id`.
    pub user: Option<UserId>,
    /// `username`.
    pub username: Option<Username>,
    /// `token`.
    pub token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Authenticator {
    /// True if identities need a token.
    #[must_use]
    pub fn needs_token(&self) -> bool {
        matches!(self, Self::Jwt(_))
    }

    /// The name of the mode, as `AUTH_MODE` has it.
    #[must_use]
    pub fn mode_name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Jwt(_) => "jwt",
        }
    }

    /// Fetches the keys of tokens if they come from a URL. A failure is no error: tokens are
    /// refused with `unavailable` until a fetch succeeds.
    pub async fn warm_up(&self) {
        if let Self::Jwt(verifier) = self {
            verifier.warm_up().await;
        }
    }

    /// Identifies the sender of a request. `current` is the identity that the connection already
    /// has.
    ///
    /// # Errors
    /// `bad_request`: open mode, and `user_id` is missing. `unauthorized`, `token_expired`.
    /// `forbidden`: the token belongs to another user than `user_id`. `already_authenticated`: the
    /// connection belongs to another user. `unavailable`: the token's key must be fetched and
    /// cannot be fetched now.
    pub async fn identify(
        &self,
        credentials: Credentials,
        current: Option<&Identity>,
    ) -> Result<Identity, Refusal> {
        let identity = match self {
            Self::Open => identify_openly(credentials)?,
            Self::Jwt(verifier) => identify_by_token(verifier, credentials, current).await?,
        };
        match current {
            Some(current) if current.user != identity.user => Err(already_authenticated()),
            _ => Ok(identity),
        }
    }
}

fn identify_openly(credentials: Credentials) -> Result<Identity, Refusal> {
    let Some(user) = credentials.user else {
        return Err(Refusal::bad_request("user_id is missing"));
    };
    let username = credentials
        .username
        .unwrap_or_else(|| Username::from(&user));
    Ok(Identity {
        user,
        username,
        roles: Vec::new(),
        scope: RoomScope::Everywhere,
        expires_at: None,
    })
}

async fn identify_by_token(
    verifier: &Verifier,
    credentials: Credentials,
    current: Option<&Identity>,
) -> Result<Identity, Refusal> {
    if let Some(token) = &credentials.token {
        let identity = verifier.verify(token).await?;
        if credentials.user.is_some_and(|user| user != identity.user) {
            return Err(Refusal::new(
                Code::Forbidden,
                "user_id is not the token's user",
            ));
        }
        return Ok(identity);
    }
    // Without a token in the request, the token of the handshake still identifies the connection.
    let Some(current) = current else {
        return Err(Refusal::new(Code::Unauthorized, "token is missing"));
    };
    if credentials.user.is_some_and(|user| user != current.user) {
        return Err(already_authenticated());
    }
    Ok(current.clone())
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

    fn credentials(user: Option<&str>, token: Option<String>) -> Credentials {
        Credentials {
            user: user.map(UserId::trusted),
            username: None,
            token,
        }
    }

    #[tokio::test]
    async fn in_open_mode_the_client_states_its_identity() {
        let identity = Authenticator::Open
            .identify(credentials(Some("ann"), None), None)
            .await
            .unwrap();
        assert_eq!(
            (identity.user.as_str(), identity.username.as_str()),
            ("ann", "ann")
        );
        assert_eq!(
            Authenticator::Open
                .identify(credentials(None, None), None)
                .await
                .unwrap_err()
                .code,
            Code::BadRequest
        );
        let other = Authenticator::Open
            .identify(credentials(Some("bob"), None), Some(&identity))
            .await;
        assert_eq!(other.unwrap_err().code, Code::AlreadyAuthenticated);
    }

    #[tokio::test]
    async fn in_jwt_mode_the_token_determines_the_identity() {
        let auth = jwt();
        let ann = auth
            .identify(credentials(None, Some(token("ann"))), None)
            .await
            .unwrap();
        assert_eq!(ann.user.as_str(), "ann");
        let (by, of) = (|user: &str| Some(token(user)), |user| Some(user));
        for (given, current, code) in [
            (credentials(of("ann"), None), None, Code::Unauthorized),
            (credentials(of("bob"), by("ann")), None, Code::Forbidden),
            (
                credentials(of("bob"), by("ann")),
                Some(&ann),
                Code::Forbidden,
            ),
            (
                credentials(None, by("bob")),
                Some(&ann),
                Code::AlreadyAuthenticated,
            ),
            (
                credentials(of("bob"), None),
                Some(&ann),
                Code::AlreadyAuthenticated,
            ),
        ] {
            assert_eq!(auth.identify(given, current).await.unwrap_err().code, code);
        }
        assert_eq!(
            auth.identify(credentials(of("ann"), None), Some(&ann))
                .await
                .unwrap(),
            ann
        );
    }
}
