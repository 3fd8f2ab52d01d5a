//! Authentication: from a token, an API key or (in open mode) the user's own statement to an
//! identity. Also calls the external authorization service.

mod account_tokens;
mod answer_seal;
mod api_keys;
mod bot_secret;
mod claims;
#[cfg(test)]
mod fuzz;
mod http_client;
mod jwks;
mod keys;
mod one_time_token;
mod passwords;
mod random_token;
mod refresh_token;
mod tokens;
mod webhook;

pub use account_tokens::{ACCOUNT_ISSUER, AccountTokens, Sessions};
pub use answer_seal::{AnswerSeal, AnswerSecrets, RequestParts};
pub use api_keys::{ApiKeys, NotADigest};
pub use bot_secret::new_bot_secret;
pub use keys::{Algorithm, KeyError, KeySource, MIN_SECRET_BYTES};
pub use one_time_token::OneTimeToken;
pub use passwords::{NewPassword, Passwords, new_password};
pub use random_token::{RandomToken, TokenUse, digest, random_bytes, random_text};
pub use refresh_token::RefreshToken;
pub use tokens::{Identity, MAX_TOKEN_BYTES, NewToken, TokenRules, Verifier, mint};
pub use webhook::{Webhook, WebhookSettings};

use std::sync::Arc;

use uuid::Uuid;

use crate::domain::policy::RoomScope;
use crate::domain::{Code, Refusal, UserId, Username};

/// How this node identifies users.
#[derive(Clone)]
pub struct Authenticator {
    mode: Mode,
    accounts: Option<Arc<AccountTokens>>,
}

#[derive(Clone)]
enum Mode {
    /// Clients state their identity themselves: for development and trusted networks.
    Open,
    /// By tokens of an outside issuer.
    Jwt(Arc<Verifier>),
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
    /// Clients state their identity themselves: for development and trusted networks.
    #[must_use]
    pub fn open() -> Self {
        Self {
            mode: Mode::Open,
            accounts: None,
        }
    }

    /// By tokens of an outside issuer.
    #[must_use]
    pub fn jwt(verifier: Verifier) -> Self {
        Self {
            mode: Mode::Jwt(Arc::new(verifier)),
            accounts: None,
        }
    }

    /// Accepts the tokens of accounts as well.
    #[must_use]
    pub fn with_accounts(&self, accounts: Arc<AccountTokens>) -> Self {
        Self {
            mode: self.mode.clone(),
            accounts: Some(accounts),
        }
    }

    /// True if identities need a token.
    #[must_use]
    pub fn needs_token(&self) -> bool {
        matches!(self.mode, Mode::Jwt(_))
    }

    /// Whether the identity of a connection that presents this token follows from it. In open mode a
    /// token that is none of this server's means nothing.
    #[must_use]
    pub fn uses_token(&self, token: &str) -> bool {
        self.needs_token() || (self.accounts.is_some() && AccountTokens::is_claimed(token))
    }

    /// The name of the mode, as `AUTH_MODE` has it.
    #[must_use]
    pub fn mode_name(&self) -> &'static str {
        match self.mode {
            Mode::Open => "open",
            Mode::Jwt(_) => "jwt",
        }
    }

    /// Fetches the keys of tokens if they come from a URL. A failure is no error: tokens are
    /// refused with `unavailable` until a fetch succeeds.
    pub async fn warm_up(&self) {
        if let Mode::Jwt(verifier) = &self.mode {
            verifier.warm_up().await;
        }
    }

    /// The identity of an account by its token. `None` for a token of an outside issuer, and where there
    /// are no accounts.
    ///
    /// # Errors
    /// `unauthorized`, `token_expired`, `unavailable`.
    pub async fn identify_account(&self, token: &str) -> Result<Option<Identity>, Refusal> {
        match &self.accounts {
            Some(accounts) if AccountTokens::is_claimed(token) => {
                accounts.identify(token).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Whether a session of an account has not ended, and its user is not disabled.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn is_session_open(&self, session: Uuid) -> Result<bool, Refusal> {
        match &self.accounts {
            Some(accounts) => accounts.is_session_open(session).await,
            None => Ok(false),
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
        let identity = match (&self.mode, &credentials.token, &self.accounts) {
            (_, Some(token), Some(accounts)) if AccountTokens::is_claimed(token) => {
                let identity = accounts.identify(token).await?;
                of_user(identity, credentials.user.as_ref())?
            }
            (Mode::Open, ..) => identify_openly(credentials, current)?,
            (Mode::Jwt(verifier), ..) => identify_by_token(verifier, credentials, current).await?,
        };
        match current {
            Some(current) if current.user != identity.user => Err(already_authenticated()),
            _ => Ok(identity),
        }
    }
}

/// Refuses an identity of another user than the one that the client states.
fn of_user(identity: Identity, stated: Option<&UserId>) -> Result<Identity, Refusal> {
    match stated {
        Some(user) if *user != identity.user => Err(Refusal::new(
            Code::Forbidden,
            "user_id is not the token's user",
        )),
        _ => Ok(identity),
    }
}

fn identify_openly(
    credentials: Credentials,
    current: Option<&Identity>,
) -> Result<Identity, Refusal> {
    // The token of the handshake still identifies the connection.
    if let Some(current) = current.filter(|current| current.session.is_some()) {
        return match credentials.user {
            Some(user) if user != current.user => Err(already_authenticated()),
            _ => Ok(current.clone()),
        };
    }
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
        session: None,
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
        return of_user(identity, credentials.user.as_ref());
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
        Authenticator::jwt(Verifier::hs256(SECRET, 0).unwrap())
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
        let identity = Authenticator::open()
            .identify(credentials(Some("ann"), None), None)
            .await
            .unwrap();
        assert_eq!(
            (identity.user.as_str(), identity.username.as_str()),
            ("ann", "ann")
        );
        assert_eq!(
            Authenticator::open()
                .identify(credentials(None, None), None)
                .await
                .unwrap_err()
                .code,
            Code::BadRequest
        );
        let other = Authenticator::open()
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
