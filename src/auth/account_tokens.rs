//! The access tokens of accounts: signed by this server, and valid for as long as their session.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::bot_secret::is_bot_secret;
use super::keys::{Algorithm, KeyError, KeySource};
use super::random_token::digest;
use super::tokens::{Identity, TokenRules, Verifier};
use crate::domain::policy::RoomScope;
use crate::domain::{Account, BotToken, Code, Refusal, Username};

/// The issuer of the tokens. A token with it is never treated as one of an outside issuer.
pub const ACCOUNT_ISSUER: &str = "hubbub";

/// The sessions that have not ended.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// The account of a session; `None` if the session has ended or its user is disabled.
    ///
    /// # Errors
    /// `unavailable`.
    async fn account(&self, session: Uuid) -> Result<Option<Account>, Refusal>;

    /// The bot's token with this SHA-256 of its secret, and its account; `None` if it is not valid.
    ///
    /// # Errors
    /// `unavailable`.
    async fn bot(&self, digest: [u8; 32]) -> Result<Option<(Account, BotToken)>, Refusal>;

    /// Whether a session has not ended, or the token of a bot is valid, and the user is not disabled.
    ///
    /// # Errors
    /// `unavailable`.
    async fn is_open(&self, session: Uuid) -> Result<bool, Refusal>;
}

/// Signs and verifies access tokens.
pub struct AccountTokens {
    secret: String,
    verifier: Verifier,
    lifetime: Duration,
    sessions: Arc<dyn Sessions>,
}

/// An access token.
#[derive(Debug, Serialize)]
struct AccessClaims<'a> {
    user_id: &'a str,
    sub: &'a str,
    username: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    role: &'a str,
    sid: Uuid,
    iss: &'a str,
    iat: u64,
    exp: u64,
}

impl AccountTokens {
    /// Signs with the first secret, and verifies with all of them.
    ///
    /// # Errors
    /// [`KeyError::WeakSecret`].
    ///
    /// # Panics
    /// Without a secret.
    pub fn new(
        secrets: Vec<String>,
        lifetime: Duration,
        sessions: Arc<dyn Sessions>,
    ) -> Result<Self, KeyError> {
        let secret = secrets.first().expect("there is a secret").clone();
        let rules = TokenRules {
            issuer: vec![ACCOUNT_ISSUER.to_owned()],
            reads_session: true,
            ..TokenRules::default()
        };
        Ok(Self {
            secret,
            verifier: Verifier::new(KeySource::Secrets(secrets), rules)?,
            lifetime,
            sessions,
        })
    }

    /// How long a token is valid.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Signs a token of a session.
    ///
    /// # Errors
    /// `internal` if the secret can't sign.
    pub fn sign(&self, account: &Account, session: Uuid) -> Result<String, Refusal> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        let claims = AccessClaims {
            user_id: account.id.as_str(),
            sub: account.id.as_str(),
            username: &account.username,
            email: account.email.as_deref(),
            role: account.role.as_str(),
            sid: session,
            iss: ACCOUNT_ISSUER,
            iat: now,
            exp: now.saturating_add(self.lifetime.as_secs()),
        };
        let header = Header::new(Algorithm::Hs256.of_library());
        let key = EncodingKey::from_secret(self.secret.as_bytes());
        jsonwebtoken::encode(&header, &claims, &key)
            .map_err(|_| Refusal::new(Code::Internal, "signing a token failed"))
    }

    /// The identity that a token proves. Name and role are those that the account has now.
    ///
    /// # Errors
    /// `unauthorized`, `token_expired`, `unavailable`.
    pub async fn identify(&self, token: &str) -> Result<Identity, Refusal> {
        if is_bot_secret(token) {
            return self.identify_bot(token).await;
        }
        let ended = || Refusal::new(Code::Unauthorized, "the session has ended");
        let proved = self.verifier.verify(token).await?;
        let session = proved.session.ok_or_else(ended)?;
        let account = self.sessions.account(session).await?.ok_or_else(ended)?;
        if account.id != proved.user {
            return Err(ended());
        }
        Ok(Identity {
            username: Username::trusted(&account.username),
            roles: vec![account.role.as_str().to_owned()],
            scope: RoomScope::Everywhere,
            ..proved
        })
    }

    /// Whether a session has not ended, and its user is not disabled.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn is_session_open(&self, session: Uuid) -> Result<bool, Refusal> {
        self.sessions.is_open(session).await
    }

    /// The identity that the secret of a bot proves. Its session is the token's id: a token that is
    /// deleted ends as a session does.
    async fn identify_bot(&self, secret: &str) -> Result<Identity, Refusal> {
        let bot = self.sessions.bot(digest(secret.as_bytes())).await?;
        let invalid = || Refusal::new(Code::Unauthorized, "the token is not valid");
        let (account, token) = bot.ok_or_else(invalid)?;
        Ok(Identity {
            username: Username::trusted(&account.username),
            user: account.id,
            roles: vec![account.role.as_str().to_owned()],
            scope: RoomScope::Scoped(token.scopes),
            session: Some(token.id),
            expires_at: Some(token.expires_at.0 / 1000),
        })
    }

    /// Whether a token claims to be one of this server's. Its signature is not verified.
    #[must_use]
    pub fn is_claimed(token: &str) -> bool {
        #[derive(Deserialize)]
        struct Issuer {
            iss: String,
        }
        if is_bot_secret(token) {
            return true;
        }
        let claims = token.split('.').nth(1);
        let claims = claims.and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
        let issuer = claims.and_then(|claims| serde_json::from_slice::<Issuer>(&claims).ok());
        issuer.is_some_and(|claims| claims.iss == ACCOUNT_ISSUER)
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::domain::{Role, Timestamp, TokenFault, UserId};

    const SECRET: &str = "a secret of at least thirty-two bytes";

    struct OneSession(Mutex<Option<(Uuid, Account)>>);

    #[async_trait]
    impl Sessions for OneSession {
        async fn account(&self, session: Uuid) -> Result<Option<Account>, Refusal> {
            let known = self.0.lock().clone();
            Ok(known
                .filter(|(id, _)| *id == session)
                .map(|(_, account)| account))
        }

        async fn bot(&self, _: [u8; 32]) -> Result<Option<(Account, BotToken)>, Refusal> {
            Ok(None)
        }

        async fn is_open(&self, session: Uuid) -> Result<bool, Refusal> {
            Ok(self.account(session).await?.is_some())
        }
    }

    fn account(id: &str) -> Account {
        Account {
            id: UserId::trusted(id),
            username: "ann".to_owned(),
            email: Some("ann@example.com".to_owned()),
            is_email_verified: false,
            display_name: "Ann".to_owned(),
            avatar_url: None,
            status: None,
            role: Role::Admin,
            is_disabled: false,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        }
    }

    fn tokens(session: Uuid, secret: &str) -> (Arc<OneSession>, AccountTokens) {
        let sessions = Arc::new(OneSession(Mutex::new(Some((session, account("1"))))));
        let secrets = vec![secret.to_owned()];
        let lifetime = Duration::from_secs(60);
        let tokens = AccountTokens::new(secrets, lifetime, sessions.clone()).unwrap();
        (sessions, tokens)
    }

    #[tokio::test]
    async fn a_token_is_valid_for_as_long_as_its_session() {
        let session = Uuid::new_v4();
        let (sessions, tokens) = tokens(session, SECRET);
        let token = tokens.sign(&account("1"), session).unwrap();
        let identity = tokens.identify(&token).await.unwrap();
        assert_eq!(
            (identity.user.as_str(), identity.session),
            ("1", Some(session))
        );
        assert_eq!(identity.username.as_str(), "ann");
        assert_eq!(identity.roles, ["admin"]);

        let of_other_session = tokens.sign(&account("1"), Uuid::new_v4()).unwrap();
        let of_other_user = tokens.sign(&account("2"), session).unwrap();
        for token in [&of_other_session, &of_other_user] {
            let refusal = tokens.identify(token).await.unwrap_err();
            assert_eq!(refusal.code, Code::Unauthorized);
        }
        *sessions.0.lock() = None;
        let refusal = tokens.identify(&token).await.unwrap_err();
        assert_eq!(refusal.code, Code::Unauthorized);
    }

    #[tokio::test]
    async fn only_tokens_of_this_server_are_accepted() {
        let session = Uuid::new_v4();
        let (_, ours) = tokens(session, SECRET);
        let (_, theirs) = tokens(session, "another secret of thirty-two bytes");
        let foreign = theirs.sign(&account("1"), session).unwrap();
        let refusal = ours.identify(&foreign).await.unwrap_err();
        assert_eq!(refusal.reason, Some(TokenFault::Signature));
        let outside = crate::auth::NewToken::lasting("1", Duration::from_secs(60));
        let outside = outside.sign(SECRET).unwrap();
        let refusal = ours.identify(&outside).await.unwrap_err();
        assert_eq!(refusal.reason, Some(TokenFault::Issuer));
        assert!(AccountTokens::is_claimed(&foreign));
        for token in [&*outside, "", "a.b.c", "a"] {
            assert!(!AccountTokens::is_claimed(token), "{token}");
        }
    }
}
