//! Accounts and their sessions, durably.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{DeletionStore, NewRow, Once, Performed, Result};
use crate::domain::{Account, AccountName, DisplayName, EmailAddress, Role, Timestamp, UserId};

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// An account to create.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// Its id.
    pub id: Uuid,
    /// Its unique name.
    pub username: AccountName,
    /// Its unique address.
    pub email: EmailAddress,
    /// The name for people.
    pub display_name: DisplayName,
    /// The password's hash, a PHC string.
    pub password: String,
    /// The role; `None`: admin if it is the first account, else user.
    pub role: Option<Role>,
    /// Rows that are added to the outbox if the account is created, such as a mail to its user.
    pub rows: Vec<NewRow>,
}

/// A session to begin.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Its id.
    pub id: Uuid,
    /// The digest of its first refresh token.
    pub refresh_token: Digest,
    /// How long a refresh token is valid.
    pub lifetime: Duration,
    /// The address that it begins from.
    pub address: String,
    /// The name that the client gave itself.
    pub user_agent: String,
}

/// The outcome of [`AccountStore::create`].
#[derive(Debug, Clone)]
pub enum CreateOutcome {
    /// The account exists now.
    Created(Account),
    /// Another account has the name.
    UsernameTaken,
    /// Another account has the address.
    EmailTaken,
    /// The invitation was never valid, has expired, is used or is for another address.
    InviteInvalid,
}

/// How a login names its account.
#[derive(Debug, Clone)]
pub enum LoginName {
    /// By its unique name.
    Username(AccountName),
    /// By its address.
    Email(EmailAddress),
}

/// An account with the hash of its password.
#[derive(Clone)]
pub struct Credential {
    /// The account.
    pub account: Account,
    /// A PHC string; empty if the account can't log in by a password.
    pub password: String,
}

/// An exchange of a refresh token for its successor.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// The digest of the token.
    pub presented: Digest,
    /// The random value that the successor is made with, if this is the token's first exchange.
    pub salt: [u8; 32],
    /// The digest of that successor.
    pub successor: Digest,
    /// How long after its first exchange a token may be exchanged again.
    pub grace: Duration,
    /// How long the successor is valid.
    pub lifetime: Duration,
}

/// The outcome of [`AccountStore::exchange`].
#[derive(Debug, Clone)]
pub enum ExchangeOutcome {
    /// The successor of the token is the one that is made with `salt`.
    Exchanged {
        /// The account.
        account: Box<Account>,
        /// The session.
        session: Uuid,
        /// The random value of the token's first exchange.
        salt: [u8; 32],
    },
    /// The token was exchanged too long ago: somebody has copied it. The session has ended now.
    Reused {
        /// The user.
        user: UserId,
        /// The session.
        session: Uuid,
    },
    /// The token was never valid, has expired, or its session has ended or is that of a disabled user.
    Invalid,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: Uuid,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was last used, to a minute.
    pub last_used_at: Timestamp,
    /// The address that it was begun from.
    pub address: String,
    /// The name that the client gave itself.
    pub user_agent: String,
}

/// A limit on failed logins.
#[derive(Debug, Clone, Copy)]
pub struct LoginLimit {
    /// The digest of that which is limited: an account's name, or an address.
    pub subject: Digest,
    /// The failures that are allowed within the window.
    pub failures: u64,
    /// Whether a success forgets all failures. Otherwise it takes back its own count.
    pub forgotten_by_success: bool,
}

/// Sessions to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedSessions {
    /// This one.
    One(Uuid),
    /// All of the user.
    All,
    /// All of the user but this one.
    Others(Uuid),
}

/// Makes the row of the outbox that announces the end of a user's session.
pub type AnnounceEnd = Arc<dyn Fn(&UserId, Uuid) -> NewRow + Send + Sync>;

/// The most sessions of a user. With one more, those that were used longest ago end.
#[derive(Clone)]
pub struct SessionLimit {
    /// Their number, with the new one.
    pub most: usize,
    /// Announces the end of a session.
    pub announce: AnnounceEnd,
}

/// Accounts and sessions. Times come from the database's clock.
#[async_trait]
pub trait AccountStore: DeletionStore + Send + Sync {
    /// Creates an account, and begins its first session if there is one, in one transaction, once for
    /// each request.
    ///
    /// # Errors
    /// `Unavailable`: the account may have been created.
    async fn create(
        &self,
        account: NewAccount,
        session: Option<NewSession>,
        once: Once<CreateOutcome>,
    ) -> Result<Performed<CreateOutcome>>;

    /// The account of this name or address, unless it is deleted.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn credential(&self, login: &LoginName) -> Result<Option<Credential>>;

    /// Removes sessions, one-time tokens and invitations that have expired, and counts of failed logins
    /// that are older than `window`. Any number of nodes may call it at once.
    ///
    /// # Errors
    /// `Unavailable`: some may be removed.
    async fn remove_expired(&self, window: Duration) -> Result<()>;

    /// Begins a session for the holder of a password, of which `verified` is the hash (`None`: of any), and
    /// ends the sessions beyond the limit together with their announcements, in one transaction. A repeat
    /// changes nothing. False if the user has another password now, is disabled, or does not exist any
    /// more.
    ///
    /// # Errors
    /// `Unavailable`: the session may have begun.
    async fn begin_session(
        &self,
        user: Uuid,
        verified: Option<String>,
        session: NewSession,
        limit: SessionLimit,
    ) -> Result<bool>;

    /// The account of a session; `None` if the session has ended or its user is disabled. Records that
    /// the session is used, to a minute.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn account_of_session(&self, session: Uuid) -> Result<Option<Account>>;

    /// The user's sessions that have not ended, the last one used first.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn sessions(&self, user: Uuid) -> Result<Vec<Session>>;

    /// Ends sessions of a user and adds their announcements to the outbox, in one transaction. Returns
    /// those that have ended by this call.
    ///
    /// # Errors
    /// `Unavailable`: they may have ended.
    async fn end_sessions(
        &self,
        user: Uuid,
        ended: EndedSessions,
        announce: AnnounceEnd,
    ) -> Result<Vec<Uuid>>;

    /// Counts a login as failed before its password is verified, unless a limit is reached: then returns
    /// the time until the window of that limit ends, and counts nothing. Atomic, so that logins that
    /// are tried at once count as those that follow each other.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn count_login(
        &self,
        limits: &[LoginLimit],
        window: Duration,
    ) -> Result<Option<Duration>>;

    /// A login that was counted has succeeded: forgets all failures of the subjects that a success
    /// forgets, and that one of the others.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn uncount_login(&self, limits: &[LoginLimit]) -> Result<()>;

    /// Exchanges a refresh token for its successor, atomically: of any number of concurrent calls one
    /// is the first, and all of them within `grace` get the same successor. A later call ends the
    /// session, and adds that announcement to the outbox.
    ///
    /// # Errors
    /// `Unavailable`: the token may have been exchanged; a repeat within `grace` gets the same.
    async fn exchange(&self, exchange: Exchange, announce: AnnounceEnd) -> Result<ExchangeOutcome>;
}
