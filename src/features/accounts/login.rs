//! Logging in.

use uuid::Uuid;

use super::limits::{WINDOW, account_failures, address_limit};
use super::sessions::announce_end;
use super::{Accounts, Device, LoggedIn, refused};
use crate::domain::{AccountName, Code, EmailAddress, Refusal, SessionEnd};
use crate::store::{LoginLimit, LoginName, SessionLimit};

/// The most sessions of a user.
const MAX_SESSIONS: usize = 100;

/// The same for an unknown account and for a wrong password.
fn invalid() -> Refusal {
    Refusal::new(
        Code::InvalidCredentials,
        "the name or the password is wrong",
    )
}

impl Accounts {
    /// Begins a session by a password. `login` is the name or the e-mail address of the account. Beyond the
    /// most sessions of a user, the one that was used longest ago ends.
    ///
    /// # Errors
    /// `rate_limited` after too many failures of the account or from the address;
    /// `invalid_credentials`, in the same time whether or not the account exists; `account_disabled`
    /// to the holder of the password; `overloaded`, `unavailable`.
    pub async fn log_in(
        &self,
        login: &str,
        password: String,
        device: Device,
    ) -> Result<LoggedIn, Refusal> {
        let name = login_name(login);
        let found = match &name {
            Some(name) => self.store.credential(name).await.map_err(refused)?,
            None => None,
        };
        // Name and address of one account count together.
        let subject = match &found {
            Some(found) => found.account.id.as_str().to_owned(),
            None => login.to_lowercase(),
        };
        let hash = found.as_ref().map(|found| found.password.clone());
        let is_right = self.verify(&subject, password, hash, &device).await?;
        let found = found.filter(|_| is_right).ok_or_else(invalid)?;
        let (account, verified) = (found.account, found.password);
        let disabled = || Refusal::new(Code::AccountDisabled, "the account is disabled");
        if account.is_disabled {
            return Err(disabled());
        }
        let user = Uuid::try_parse(account.id.as_str()).map_err(|_| invalid())?;
        let (session, refresh_token) = self.new_session(device);
        let id = session.id;
        let limit = SessionLimit {
            most: MAX_SESSIONS,
            announce: announce_end(SessionEnd::TooManySessions),
        };
        let begun = self
            .store
            .begin_session(user, Some(verified), session, limit);
        if !begun.await.map_err(refused)? {
            // The account has changed since its password was read.
            let now = self.store.user(user).await.map_err(refused)?;
            return Err(match now {
                Some(now) if now.account.is_disabled => disabled(),
                _ => invalid(),
            });
        }
        self.logged_in(account, id, &refresh_token)
    }
}

impl Accounts {
    /// Whether the password is that of the hash. A failure counts for `subject` and for the address.
    ///
    /// # Errors
    /// `rate_limited` after too many failures; `overloaded`, `unavailable`.
    pub(super) async fn verify(
        &self,
        subject: &str,
        password: String,
        hash: Option<String>,
        device: &Device,
    ) -> Result<bool, Refusal> {
        let limits = self.limits(subject, device);
        let counted = self.store.count_login(&limits, WINDOW).await;
        if let Some(wait) = counted.map_err(refused)? {
            let text = "too many failed logins: try again later, or reset the password";
            return Err(Refusal::new(Code::RateLimited, text).retry_after(wait));
        }
        let verified = self.passwords.verify(password, hash).await;
        let mut limits = limits;
        if verified.is_err() {
            // It was no failure of the user: only its own count is taken back.
            limits
                .iter_mut()
                .for_each(|limit| limit.forgotten_by_success = false);
        }
        if !matches!(verified, Ok(false)) {
            self.store.uncount_login(&limits).await.map_err(refused)?;
        }
        verified
    }

    /// The limits of a login: that of the account, which need not exist, and that of the address.
    fn limits(&self, account: &str, device: &Device) -> Vec<LoginLimit> {
        let account = LoginLimit {
            subject: account_failures(account),
            failures: self.settings.account_failures,
            forgotten_by_success: true,
        };
        let address = address_limit("address", device, self.settings.address_failures);
        let limits = [Some(account), address];
        limits
            .into_iter()
            .flatten()
            .filter(|limit| limit.failures > 0)
            .collect()
    }
}

/// `None` for a text that no account can have.
fn login_name(login: &str) -> Option<LoginName> {
    if login.contains('@') {
        EmailAddress::parse(login).ok().map(LoginName::Email)
    } else {
        AccountName::parse(login).ok().map(LoginName::Username)
    }
}
