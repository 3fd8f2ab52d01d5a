//! Ways back into an account, by mail: a forgotten password, and the proof of an address.

use std::sync::Arc;

use super::limits::{WINDOW, account_failures, address_limit, digest};
use super::sessions::announce_end;
use super::{Accounts, Device, refused};
use crate::auth::{NewPassword, OneTimeToken};
use crate::domain::{Account, Code, EmailAddress, Refusal, SessionEnd};
use crate::outbox::{JobPayload as _, PasswordForgotten};
use crate::store::{LoginLimit, PasswordReset, RecoveryStore, TokenPurpose};

/// Requests for one address of an account within 15 minutes, whether or not the account exists.
const REQUESTS_PER_ACCOUNT: u64 = 5;
/// Requests from one address of a client within 15 minutes.
const REQUESTS_PER_ADDRESS: u64 = 50;

/// The use cases of accounts that need mail.
pub struct Recovery {
    accounts: Arc<Accounts>,
    store: Arc<dyn RecoveryStore>,
}

impl Recovery {
    /// The use cases on this store.
    pub fn new(accounts: Arc<Accounts>, store: Arc<dyn RecoveryStore>) -> Self {
        Self { accounts, store }
    }

    /// Mails a link that resets the password to the account with this address. Whether there is one is
    /// found out by a job, so the answer and its time are the same without one.
    ///
    /// # Errors
    /// `bad_request`, `too_large`, `rate_limited`, `unavailable`.
    pub async fn forgot_password(&self, email: &str, device: &Device) -> Result<(), Refusal> {
        let email = EmailAddress::parse(email)?;
        let of_account = LoginLimit {
            subject: digest("forgotten account", &email.key()),
            failures: REQUESTS_PER_ACCOUNT,
            forgotten_by_success: true,
        };
        let mut limits = vec![of_account];
        limits.extend(address_limit(
            "forgotten address",
            device,
            REQUESTS_PER_ADDRESS,
        ));
        let counted = self.accounts.store.count_login(&limits, WINDOW).await;
        if let Some(wait) = counted.map_err(refused)? {
            let text = "too many requests for a new password: try again later";
            return Err(Refusal::new(Code::RateLimited, text).retry_after(wait));
        }
        let row = PasswordForgotten::of(&email).row();
        self.store.add_row(row).await.map_err(refused)
    }

    /// Sets a new password by a token that was mailed, and ends all sessions of the user. Returns the
    /// number of those that have ended.
    ///
    /// # Errors
    /// `bad_request` for a token that is not valid, or a password; `too_large`, `overloaded`,
    /// `unavailable`.
    pub async fn reset_password(&self, token: &str, password: &str) -> Result<usize, Refusal> {
        let token = OneTimeToken::decode(token).ok_or_else(invalid)?.digest();
        let purpose = TokenPurpose::ResetPassword;
        let account = self.store.account_of_token(&token, purpose).await;
        let account: Account = account.map_err(refused)?.ok_or_else(invalid)?;
        let email = account.email.as_deref().unwrap_or_default();
        let password = NewPassword::parse(password, &[&account.username, email])?;
        let reset = PasswordReset {
            token,
            password: self.accounts.passwords.hash(password).await?,
            forgotten_failures: account_failures(account.id.as_str()),
        };
        let announce = announce_end(SessionEnd::PasswordReset);
        let ended = self.store.reset_password(reset, announce).await;
        Ok(ended.map_err(refused)?.ok_or_else(invalid)?.len())
    }

    /// Records that the address which a token was mailed to is the user's.
    ///
    /// # Errors
    /// `bad_request` for a token that is not valid; `unavailable`.
    pub async fn verify_email(&self, token: &str) -> Result<(), Refusal> {
        let token = OneTimeToken::decode(token).ok_or_else(invalid)?;
        let is_verified = self.store.verify_email(&token.digest()).await;
        if is_verified.map_err(refused)? {
            Ok(())
        } else {
            Err(invalid())
        }
    }
}

fn invalid() -> Refusal {
    Refusal::bad_request("token is not valid, or has expired")
}
