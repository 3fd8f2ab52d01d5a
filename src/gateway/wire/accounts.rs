//! Accounts and sessions in the REST API.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::Account;
use crate::features::accounts::{Ended, LoggedIn, Session, SignUp};

/// The body of `POST /api/v1/auth/signup`.
#[derive(Deserialize)]
pub(crate) struct SignUpRequest {
    /// The e-mail address.
    email: String,
    /// The unique name: 1 to 32 of `A-Z`, `a-z`, `0-9`, `_`, `.`, `-`.
    username: String,
    /// The password: 10 to 128 characters.
    password: String,
    /// The name for people; `username` by default.
    #[serde(default)]
    display_name: Option<String>,
}

impl From<SignUpRequest> for SignUp {
    fn from(request: SignUpRequest) -> Self {
        Self {
            email: request.email,
            username: request.username,
            password: request.password,
            display_name: request.display_name,
        }
    }
}

/// The body of `POST /api/v1/auth/login`. It has one of `email` and `username`.
#[derive(Deserialize)]
pub(crate) struct LoginRequest {
    /// The e-mail address.
    #[serde(default)]
    email: Option<String>,
    /// The unique name.
    #[serde(default)]
    username: Option<String>,
    /// The password.
    pub password: String,
}

impl LoginRequest {
    /// The name or the address; the address if there are both. Empty without either.
    pub fn login(&self) -> &str {
        let login = self.email.as_deref().or(self.username.as_deref());
        login.unwrap_or_default()
    }
}

/// The body of `POST /api/v1/auth/refresh`.
#[derive(Deserialize)]
pub(crate) struct RefreshRequest {
    /// The refresh token.
    pub refresh_token: String,
}

/// An account, as its user sees it.
#[derive(Serialize)]
pub(crate) struct OwnAccount<'a> {
    id: &'a str,
    username: &'a str,
    email: Option<&'a str>,
    email_verified: bool,
    display_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    role: &'static str,
    created_at: String,
    updated_at: String,
}

impl<'a> From<&'a Account> for OwnAccount<'a> {
    fn from(account: &'a Account) -> Self {
        Self {
            id: account.id.as_str(),
            username: &account.username,
            email: account.email.as_deref(),
            email_verified: account.is_email_verified,
            display_name: &account.display_name,
            avatar_url: account.avatar_url.as_deref(),
            status: account.status.as_deref(),
            role: account.role.as_str(),
            created_at: account.created_at.to_string(),
            updated_at: account.updated_at.to_string(),
        }
    }
}

/// The tokens of a session, and its user.
#[derive(Serialize)]
pub(crate) struct SessionTokens<'a> {
    user: OwnAccount<'a>,
    access_token: &'a str,
    refresh_token: &'a str,
    /// `Bearer`.
    token_type: &'static str,
    /// How long the access token is valid, in seconds.
    expires_in: u64,
}

impl<'a> From<&'a LoggedIn> for SessionTokens<'a> {
    fn from(logged_in: &'a LoggedIn) -> Self {
        Self {
            user: (&logged_in.account).into(),
            access_token: &logged_in.access_token,
            refresh_token: &logged_in.refresh_token,
            token_type: "Bearer",
            expires_in: logged_in.expires_in.as_secs(),
        }
    }
}

/// The reply to `POST /login`.
#[derive(Serialize)]
pub(crate) struct LoginTokens<'a> {
    /// The access token, under the name that earlier systems gave it.
    token: &'a str,
    #[serde(flatten)]
    tokens: SessionTokens<'a>,
}

impl<'a> From<&'a LoggedIn> for LoginTokens<'a> {
    fn from(logged_in: &'a LoggedIn) -> Self {
        Self {
            token: &logged_in.access_token,
            tokens: logged_in.into(),
        }
    }
}

/// A session in `GET /api/v1/auth/sessions`.
#[derive(Serialize)]
pub(crate) struct SessionJson<'a> {
    id: Uuid,
    created_at: String,
    /// When a token of the session was last used, to a minute.
    last_used_at: String,
    /// The address that the session was begun from.
    address: &'a str,
    /// The name that the client gave itself.
    user_agent: &'a str,
    /// Whether the session is that of the request.
    current: bool,
}

impl<'a> SessionJson<'a> {
    /// A session; `current` is that of the request.
    pub fn of(session: &'a Session, current: Uuid) -> Self {
        Self {
            id: session.id,
            created_at: session.created_at.to_string(),
            last_used_at: session.last_used_at.to_string(),
            address: &session.address,
            user_agent: &session.user_agent,
            current: session.id == current,
        }
    }
}

/// The sessions that a request has ended.
#[derive(Serialize)]
pub(crate) struct EndedJson {
    ok: bool,
    /// The number of sessions.
    sessions: usize,
    /// The sockets of these sessions that were closed, on all nodes.
    sockets_closed: usize,
}

impl From<Ended> for EndedJson {
    fn from(ended: Ended) -> Self {
        Self {
            ok: true,
            sessions: ended.sessions,
            sockets_closed: ended.sockets,
        }
    }
}
