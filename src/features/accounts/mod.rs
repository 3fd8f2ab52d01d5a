//! Accounts: signing up, logging in, and the sessions that these begin.

mod administration;
mod deletion;
mod expiry;
mod invites;
mod limits;
mod login;
mod mails;
mod passwords;
mod profile;
mod recovery;
mod sessions;
mod signup;
mod tokens;
mod users;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::auth::{AccountTokens, Passwords, RefreshToken};
use crate::domain::policy::RoomScope;
use crate::domain::{Account, Code, Refusal, TokenScope, TokenScopes};
use crate::store::{DirectoryStore, NewSession, StoreError};

pub use crate::store::{AuditEntry, Session};
pub use administration::{UserAdministration, UserPatch};
pub use deletion::ForgetDeletedUser;
pub use invites::{Invite, InviteRequest};
pub use mails::{FindForgetfulAccount, SendAccountMail, SendAddressNotice};
pub use profile::{Patch, ProfilePatch};
pub use recovery::Recovery;
pub use sessions::{Ended, SessionSockets, StoredSessions};
pub use signup::SignUp;
pub use tokens::BotTokenRequest;
pub use users::{AuditPage, UsersPage};

/// The mode of signing up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignUpMode {
    /// Everybody.
    Open,
    /// Those whom an admin has invited.
    Invite,
    /// Nobody: admins create the accounts.
    Closed,
}

/// The settings of accounts.
#[derive(Debug, Clone)]
pub struct AccountSettings {
    /// See [`SignUpMode`].
    pub sign_up: SignUpMode,
    /// How long a refresh token is valid.
    pub refresh_lifetime: Duration,
    /// How long after its first exchange a refresh token may be exchanged again.
    pub refresh_grace: Duration,
    /// Whether mails can be sent: a new user is asked for the proof of the address, and a former address
    /// gets a notice of its change.
    pub sends_mails: bool,
    /// Failed logins of one account within 15 minutes.
    pub account_failures: u64,
    /// Failed logins from one address within 15 minutes.
    pub address_failures: u64,
}

/// The device that a session begins on, as far as a request shows it.
#[derive(Debug, Clone, Default)]
pub struct Device {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The name that the client gives itself.
    pub user_agent: String,
}

/// The caller of a use case: a user with an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountCaller {
    /// The user.
    pub user: Uuid,
    /// The session that the caller's token belongs to.
    pub session: Uuid,
    /// Whether the caller may administer accounts.
    pub is_admin: bool,
    /// The scopes of the token; `None` for a user with a session.
    pub bot: Option<TokenScopes>,
}

impl AccountCaller {
    /// Checks that the caller's token is valid for acts of this scope.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn require(&self, scope: TokenScope) -> Result<(), Refusal> {
        match self.bot {
            Some(scopes) => RoomScope::Scoped(scopes).require(scope),
            None => Ok(()),
        }
    }
}

/// A session with its tokens.
pub struct LoggedIn {
    /// The account.
    pub account: Account,
    /// The session.
    pub session: Uuid,
    /// The token for requests.
    pub access_token: String,
    /// The token that is exchanged for new ones.
    pub refresh_token: String,
    /// How long the access token is valid.
    pub expires_in: Duration,
}

/// The use cases of accounts.
pub struct Accounts {
    store: Arc<dyn DirectoryStore>,
    passwords: Passwords,
    tokens: Arc<AccountTokens>,
    sockets: Arc<dyn SessionSockets>,
    settings: AccountSettings,
    /// The address of the pages that links lead to.
    public_url: Option<String>,
}

impl Accounts {
    /// The use cases on this store.
    pub fn new(
        store: Arc<dyn DirectoryStore>,
        tokens: Arc<AccountTokens>,
        sockets: Arc<dyn SessionSockets>,
        settings: AccountSettings,
    ) -> Self {
        Self {
            store,
            passwords: Passwords::new(),
            tokens,
            sockets,
            settings,
            public_url: None,
        }
    }

    /// The same with the address of the pages that links lead to.
    #[must_use]
    pub fn with_public_url(mut self, url: String) -> Self {
        self.public_url = Some(url);
        self
    }

    /// A session to begin, and its first refresh token.
    fn new_session(&self, device: Device) -> (NewSession, RefreshToken) {
        let token = RefreshToken::random();
        let session = NewSession {
            id: Uuid::now_v7(),
            refresh_token: token.digest(),
            lifetime: self.settings.refresh_lifetime,
            address: device
                .address
                .map(|address| address.to_string())
                .unwrap_or_default(),
            user_agent: shortened(device.user_agent),
        };
        (session, token)
    }

    fn logged_in(
        &self,
        account: Account,
        session: Uuid,
        refresh_token: &RefreshToken,
    ) -> Result<LoggedIn, Refusal> {
        logged_in(&self.tokens, account, session, refresh_token)
    }
}

fn no_such_user() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such user")
}

fn username_taken() -> Refusal {
    Refusal::new(Code::UsernameTaken, "another account has this username").field("username")
}

fn email_taken() -> Refusal {
    Refusal::new(Code::EmailTaken, "another account has this e-mail address").field("email")
}

/// A session with its tokens.
fn logged_in(
    tokens: &AccountTokens,
    account: Account,
    session: Uuid,
    refresh_token: &RefreshToken,
) -> Result<LoggedIn, Refusal> {
    Ok(LoggedIn {
        access_token: tokens.sign(&account, session)?,
        refresh_token: refresh_token.encode(),
        expires_in: tokens.lifetime(),
        account,
        session,
    })
}

/// The longest name of a client that is stored, in bytes.
const MAX_USER_AGENT_BYTES: usize = 512;

fn shortened(mut user_agent: String) -> String {
    let end = user_agent.floor_char_boundary(MAX_USER_AGENT_BYTES);
    user_agent.truncate(end);
    user_agent
}

/// The refusal of a request for which the store failed.
pub(super) fn refused(error: StoreError) -> Refusal {
    match error {
        StoreError::Unavailable(_) => {
            Refusal::new(Code::Unavailable, "the database can't be reached")
        }
        StoreError::Broken(_) | StoreError::Refused(_) => {
            tracing::error!(%error, "accounts: the database refused a request");
            Refusal::new(Code::Internal, "the database refused the request")
        }
    }
}
