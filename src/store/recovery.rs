//! One-time tokens that are mailed to the users of accounts, and their exchange.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{AnnounceEnd, Digest, NewRow, Result};
use crate::domain::{Account, EmailAddress};

/// The use of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPurpose {
    /// The proof that the address is the user's.
    VerifyEmail,
    /// A new password.
    ResetPassword,
}

/// A token to add. It is valid for as long as the account has this address.
#[derive(Debug, Clone)]
pub struct NewOneTimeToken {
    /// Its digest.
    pub digest: Digest,
    /// The user.
    pub user: Uuid,
    /// Its use.
    pub purpose: TokenPurpose,
    /// The address that it is sent to.
    pub email: EmailAddress,
    /// How long it is valid.
    pub lifetime: Duration,
}

/// A password to set by a token.
#[derive(Debug, Clone)]
pub struct PasswordReset {
    /// The digest of the token.
    pub token: Digest,
    /// The new password's hash, a PHC string.
    pub password: String,
    /// The failed logins that are forgotten, by their subject.
    pub forgotten_failures: Digest,
}

/// Makes the row of a mail to a user.
pub type MailRow = Arc<dyn Fn(Uuid) -> NewRow + Send + Sync>;

/// Ways back into an account. Times come from the database's clock.
#[async_trait]
pub trait RecoveryStore: Send + Sync {
    /// Adds a row to the outbox.
    ///
    /// # Errors
    /// `Unavailable`: it may have been added.
    async fn add_row(&self, row: NewRow) -> Result<()>;

    /// Adds the row of a mail to the account with this address to the outbox. False, and nothing is
    /// added, if there is no such account or it is disabled.
    ///
    /// # Errors
    /// `Unavailable`: it may have been added.
    async fn add_mail_to(&self, address: &EmailAddress, row: MailRow) -> Result<bool>;

    /// The account of a user, unless it is disabled or deleted.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn active_account(&self, user: Uuid) -> Result<Option<Account>>;

    /// Adds a token. False if the account is not active, or has another address.
    ///
    /// # Errors
    /// `Unavailable`: it may have been added.
    async fn add_token(&self, token: NewOneTimeToken) -> Result<bool>;

    /// The account of a valid token.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn account_of_token(
        &self,
        token: &Digest,
        purpose: TokenPurpose,
    ) -> Result<Option<Account>>;

    /// Exchanges a token for a new password: sets it, records the address as verified, ends all sessions
    /// of the user and adds their announcements to the outbox, and removes all tokens of this purpose, in
    /// one transaction. Returns the sessions that have ended; `None` if the token is not valid. Of several
    /// calls with one token, one succeeds.
    ///
    /// # Errors
    /// `Unavailable`: the password may have been set.
    async fn reset_password(
        &self,
        reset: PasswordReset,
        announce: AnnounceEnd,
    ) -> Result<Option<Vec<Uuid>>>;

    /// Exchanges a token for the record that the address is verified. False if the token is not valid.
    ///
    /// # Errors
    /// `Unavailable`: the record may have been made.
    async fn verify_email(&self, token: &Digest) -> Result<bool>;
}
