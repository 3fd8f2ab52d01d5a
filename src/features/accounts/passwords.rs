//! Changing the own password.

use super::sessions::announce_end;
use super::{AccountCaller, Accounts, Device, Ended, no_such_user, refused};
use crate::auth::NewPassword;
use crate::domain::{Code, Refusal, SessionEnd};
use crate::store::{EndedSessions, PasswordChange};

impl Accounts {
    /// Changes the caller's password, and ends the caller's other sessions.
    ///
    /// # Errors
    /// `bad_request`, `too_large`; `invalid_credentials` if `current` is not the password; too many such
    /// failures are `rate_limited`; `overloaded`, `unavailable`.
    pub async fn change_password(
        &self,
        caller: AccountCaller,
        current: String,
        new: &str,
        device: &Device,
    ) -> Result<Ended, Refusal> {
        let found = self.store.user(caller.user).await.map_err(refused)?;
        let found = found.ok_or_else(no_such_user)?;
        let wrong = || Refusal::new(Code::InvalidCredentials, "the current password is wrong");
        let subject = found.account.id.as_str();
        let hash = Some(found.password.clone());
        if !self.verify(subject, current, hash, device).await? {
            return Err(wrong());
        }
        let email = found.account.email.as_deref().unwrap_or_default();
        let new = NewPassword::parse(new, &[&found.account.username, email])?;
        let change = PasswordChange {
            user: caller.user,
            expected: Some(found.password),
            password: self.passwords.hash(new).await?,
            ended: EndedSessions::Others(caller.session),
            by: None,
            forgotten_failures: None,
        };
        let announce = announce_end(SessionEnd::PasswordChanged);
        let before = self.sockets.of(caller.user).await;
        let changed = self.store.change_password(change, announce).await;
        // Another request has changed it since.
        let ended = changed.map_err(refused)?.ok_or_else(wrong)?;
        Ok(self.ended(caller.user, &before, ended.len()).await)
    }
}
