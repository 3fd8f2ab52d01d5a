//! Accounts and sessions in the REST API.

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::domain::Account;
use crate::features::accounts::{
    AccountCaller, Ended, LoggedIn, Patch, ProfilePatch, Session, SignUp,
};

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
    /// The code of an invitation, where one is needed.
    #[serde(default)]
    invite: Option<String>,
}

impl From<SignUpRequest> for SignUp {
    fn from(request: SignUpRequest) -> Self {
        Self {
            email: request.email,
            username: request.username,
            password: request.password,
            display_name: request.display_name,
            invite: request.invite,
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

/// An account.
#[derive(Serialize)]
pub(crate) struct AccountJson<'a> {
    id: &'a str,
    username: &'a str,
    /// For the user and for admins only.
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    /// Whether the user has proved that the address is theirs; for the user and for admins only.
    #[serde(skip_serializing_if = "Option::is_none")]
    email_verified: Option<bool>,
    display_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    role: &'static str,
    /// Whether the account may not be used; for admins only.
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled: Option<bool>,
    created_at: String,
    updated_at: String,
}

impl<'a> AccountJson<'a> {
    /// As all users see it.
    pub fn public(account: &'a Account) -> Self {
        Self {
            id: account.id.as_str(),
            username: &account.username,
            email: None,
            email_verified: None,
            display_name: &account.display_name,
            avatar_url: account.avatar_url.as_deref(),
            status: account.status.as_deref(),
            role: account.role.as_str(),
            disabled: None,
            created_at: account.created_at.to_string(),
            updated_at: account.updated_at.to_string(),
        }
    }

    /// As its user sees it.
    pub fn own(account: &'a Account) -> Self {
        Self {
            email: account.email.as_deref(),
            email_verified: Some(account.is_email_verified),
            ..Self::public(account)
        }
    }

    /// As admins see it.
    pub fn for_admin(account: &'a Account) -> Self {
        Self {
            disabled: Some(account.is_disabled),
            ..Self::own(account)
        }
    }

    /// As this caller sees it.
    pub fn seen_by(caller: &AccountCaller, account: &'a Account) -> Self {
        if caller.is_admin {
            Self::for_admin(account)
        } else if account.id.as_str() == caller.user.to_string() {
            Self::own(account)
        } else {
            Self::public(account)
        }
    }
}

/// The body of `POST /api/v1/auth/password`.
#[derive(Deserialize)]
pub(crate) struct PasswordRequest {
    /// The password until now.
    pub current: String,
    /// The new password: 10 to 128 characters.
    pub new: String,
}

/// The body of `PATCH /api/v1/me`. A field that is missing stays as it is; `null` removes it.
#[derive(Deserialize)]
pub(crate) struct ProfileRequest {
    /// The unique name.
    #[serde(default, deserialize_with = "patch")]
    username: Patch<String>,
    /// The e-mail address.
    #[serde(default, deserialize_with = "patch")]
    email: Patch<String>,
    /// The name for people; `null`: the unique name.
    #[serde(default, deserialize_with = "patch")]
    display_name: Patch<String>,
    /// The URL of a picture: `http` or `https`.
    #[serde(default, deserialize_with = "patch")]
    avatar_url: Patch<String>,
    /// A short text about the user's situation: at most 128 bytes.
    #[serde(default, deserialize_with = "patch")]
    status: Patch<String>,
}

/// A field that is present: `null`, or a text.
fn patch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Patch<String>, D::Error> {
    let value = Option::<String>::deserialize(deserializer)?;
    Ok(value.map_or(Patch::Clear, Patch::Set))
}

impl From<ProfileRequest> for ProfilePatch {
    fn from(request: ProfileRequest) -> Self {
        Self {
            username: request.username,
            email: request.email,
            display_name: request.display_name,
            avatar_url: request.avatar_url,
            status: request.status,
        }
    }
}

/// The tokens of a session, and its user.
#[derive(Serialize)]
pub(crate) struct SessionTokens<'a> {
    user: AccountJson<'a>,
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
            user: AccountJson::own(&logged_in.account),
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
