//! Users as others see and administer them, durably.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    AnnounceEnd, CreateOutcome, Credential, Digest, EndedSessions, NewAccount, NewRow, Result,
};
use crate::domain::{
    Account, AccountName, Actor, AvatarUrl, DisplayName, EmailAddress, Role, Timestamp,
};

/// A change of a user's own account. A field that is `None` stays as it is; `Some(None)` removes.
#[derive(Debug, Clone, Default)]
pub struct ProfileChange {
    /// The unique name.
    pub username: Option<AccountName>,
    /// The address, which is not verified any more if it changes.
    pub email: Option<EmailAddress>,
    /// The name for people; `Some(None)`: the unique name.
    pub display_name: Option<Option<DisplayName>>,
    /// The URL of a picture.
    pub avatar_url: Option<Option<AvatarUrl>>,
    /// A short text about the user's situation.
    pub status: Option<Option<DisplayName>>,
}

/// Makes the row of the notice to the address that an account had before.
pub type AddressNotice = Arc<dyn Fn(Uuid, &str) -> NewRow + Send + Sync>;

/// The outcome of [`UserStore::change_profile`].
#[derive(Debug, Clone)]
pub enum ProfileOutcome {
    /// The account as it is now.
    Changed(Account),
    /// Another account has the name.
    UsernameTaken,
    /// Another account has the address.
    EmailTaken,
    /// There is no such account.
    Unknown,
}

/// A change of a password.
#[derive(Clone)]
pub struct PasswordChange {
    /// The user.
    pub user: Uuid,
    /// The hash that the account must have; `None`: any.
    pub expected: Option<String>,
    /// The new hash, a PHC string.
    pub password: String,
    /// The sessions that end with it.
    pub ended: EndedSessions,
    /// The admin that changes the password of another user, for the audit log.
    pub by: Option<Actor>,
    /// The failed logins that are forgotten, by their subject.
    pub forgotten_failures: Option<Digest>,
}

/// A page of users.
#[derive(Debug, Clone, Default)]
pub struct UserQuery {
    /// A part of one of the user's names, in lower case; empty: all users.
    pub text: String,
    /// The lower-case name after which the page begins.
    pub after: Option<String>,
    /// The most users.
    pub limit: usize,
    /// Whether disabled users are on it.
    pub with_disabled: bool,
}

/// A change of an account by an admin. A field that is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserChange {
    /// The role.
    pub role: Option<Role>,
    /// Whether the account may not be used.
    pub is_disabled: Option<bool>,
}

/// The outcome of [`UserStore::change_user`].
#[derive(Debug, Clone)]
pub enum UserOutcome {
    /// The account is changed.
    Changed {
        /// As it is now.
        account: Box<Account>,
        /// The sessions, and the tokens of bots, whose sockets must be closed.
        ended: Vec<Uuid>,
    },
    /// It is the last admin that can log in.
    LastAdmin,
    /// There is no such account.
    Unknown,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number.
    pub id: i64,
    /// When the action was carried out.
    pub at: Timestamp,
    /// The admin's id; `None` for the command line.
    pub actor: Option<String>,
    /// The name of the action.
    pub action: String,
    /// The user, or the invitation's address.
    pub target: String,
    /// A JSON object.
    pub details: String,
}

/// The most names of one call of [`UserStore::users_named`].
pub const MAX_NAMES: usize = 50;

/// Users as others see and administer them. Each action of an admin is in the audit log, by the same
/// transaction.
#[async_trait]
pub trait UserStore: Send + Sync {
    /// The account of this id, unless it is deleted.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn user(&self, user: Uuid) -> Result<Option<Credential>>;

    /// Users in the order of their lower-case names.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn users(&self, query: &UserQuery) -> Result<Vec<Account>>;

    /// The accounts that have these lower-case names, at most [`MAX_NAMES`], and may be used. One
    /// statement.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn users_named(&self, names: &[String]) -> Result<Vec<Uuid>>;

    /// Changes a user's own account. A change of the address ends the one-time tokens that were mailed to
    /// the former one, and adds the notice to it, if there is to be one, to the outbox, in the same
    /// transaction.
    ///
    /// # Errors
    /// `Unavailable`: it may have changed.
    async fn change_profile(
        &self,
        user: Uuid,
        change: ProfileChange,
        notice: Option<AddressNotice>,
    ) -> Result<ProfileOutcome>;

    /// Changes a password, and ends sessions together with their announcements. Returns those that have
    /// ended; `None` if there is no such account, or if it has another hash than expected.
    ///
    /// # Errors
    /// `Unavailable`: it may have changed.
    async fn change_password(
        &self,
        change: PasswordChange,
        announce: AnnounceEnd,
    ) -> Result<Option<Vec<Uuid>>>;

    /// Creates an account without a session.
    ///
    /// # Errors
    /// `Unavailable`: it may have been created.
    async fn create_user(&self, actor: Actor, account: NewAccount) -> Result<CreateOutcome>;

    /// Changes role and usability of an account. Disabling ends the user's sessions together with their
    /// announcements. At any time one admin can log in, unless there was none before.
    ///
    /// # Errors
    /// `Unavailable`: it may have changed.
    async fn change_user(
        &self,
        actor: Actor,
        user: Uuid,
        change: UserChange,
        announce: AnnounceEnd,
    ) -> Result<UserOutcome>;

    /// Ends all sessions of a user together with their announcements; `None` if there is no such account.
    ///
    /// # Errors
    /// `Unavailable`: they may have ended.
    async fn log_out_user(
        &self,
        actor: Actor,
        user: Uuid,
        announce: AnnounceEnd,
    ) -> Result<Option<Vec<Uuid>>>;

    /// Entries of the audit log with smaller numbers than `before`, the newest first.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn audit(&self, before: Option<i64>, limit: usize) -> Result<Vec<AuditEntry>>;
}
