//! Changing the own account.

use std::sync::Arc;

use super::limits::{WINDOW, digest};
use super::{AccountCaller, Accounts, email_taken, no_such_user, refused, username_taken};
use crate::domain::{Account, AccountName, AvatarUrl, Code, DisplayName, EmailAddress, Refusal};
use crate::outbox::{AddressChanged, JobPayload as _};
use crate::store::{AddressNotice, LoginLimit, ProfileChange, ProfileOutcome};

/// Changes of a user's address within 15 minutes, where each causes a mail.
const ADDRESS_CHANGES: u64 = 5;

/// A field of a change.
#[derive(Debug, Clone, Default)]
pub enum Patch<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It is removed.
    Clear,
    /// It becomes this.
    Set(T),
}

/// A change of the own account, not yet checked.
#[derive(Debug, Clone, Default)]
pub struct ProfilePatch {
    /// The unique name.
    pub username: Patch<String>,
    /// The e-mail address.
    pub email: Patch<String>,
    /// The name for people.
    pub display_name: Patch<String>,
    /// The URL of a picture.
    pub avatar_url: Patch<String>,
    /// A short text about the user's situation.
    pub status: Patch<String>,
}

impl ProfilePatch {
    fn parse(self) -> Result<ProfileChange, Refusal> {
        let name = |name: String| DisplayName::parse("display_name", &name);
        let status = |status: String| DisplayName::parse("status", &status);
        Ok(ProfileChange {
            username: required("username", self.username, |name| AccountName::parse(&name))?,
            email: required("email", self.email, |email| EmailAddress::parse(&email))?,
            display_name: optional(self.display_name, name)?,
            avatar_url: optional(self.avatar_url, |url| AvatarUrl::parse(&url))?,
            status: optional(self.status, status)?,
        })
    }
}

/// A field that an account always has.
fn required<T>(
    field: &'static str,
    patch: Patch<String>,
    parse: impl Fn(String) -> Result<T, Refusal>,
) -> Result<Option<T>, Refusal> {
    match patch {
        Patch::Keep => Ok(None),
        Patch::Clear => Err(Refusal::bad_request(format!("{field} can't be removed"))),
        Patch::Set(value) => parse(value).map(Some),
    }
}

fn optional<T>(
    patch: Patch<String>,
    parse: impl Fn(String) -> Result<T, Refusal>,
) -> Result<Option<Option<T>>, Refusal> {
    match patch {
        Patch::Keep => Ok(None),
        Patch::Clear => Ok(Some(None)),
        Patch::Set(value) => parse(value).map(|value| Some(Some(value))),
    }
}

impl Accounts {
    /// Changes the caller's account, and returns it. Where mails can be sent, a former address gets a
    /// notice of its change.
    ///
    /// # Errors
    /// `bad_request`, `too_large`, `username_taken`, `email_taken`; `rate_limited` after too many changes
    /// of the address; `unavailable`.
    pub async fn change_profile(
        &self,
        caller: AccountCaller,
        patch: ProfilePatch,
    ) -> Result<Account, Refusal> {
        let change = patch.parse()?;
        let notice = match &change.email {
            Some(email) if self.settings.sends_mails => self.address_notice(caller, email).await?,
            _ => None,
        };
        let changed = self.store.change_profile(caller.user, change, notice);
        match changed.await.map_err(refused)? {
            ProfileOutcome::Changed(account) => Ok(account),
            ProfileOutcome::UsernameTaken => Err(username_taken()),
            ProfileOutcome::EmailTaken => Err(email_taken()),
            ProfileOutcome::Unknown => Err(no_such_user()),
        }
    }

    /// The notice to the caller's address, if this is another one. Their number is limited, because the
    /// address need not be the user's.
    async fn address_notice(
        &self,
        caller: AccountCaller,
        email: &EmailAddress,
    ) -> Result<Option<AddressNotice>, Refusal> {
        let before = self.own(caller).await?.email.unwrap_or_default();
        if before.to_lowercase() == email.key() {
            return Ok(None);
        }
        let limit = LoginLimit {
            subject: digest("address change", &caller.user.to_string()),
            failures: ADDRESS_CHANGES,
            forgotten_by_success: false,
        };
        let counted = self.store.count_login(&[limit], WINDOW).await;
        if let Some(wait) = counted.map_err(refused)? {
            let text = "too many changes of the e-mail address: try again later";
            return Err(Refusal::new(Code::RateLimited, text).retry_after(wait));
        }
        Ok(Some(Arc::new(|user, email| {
            AddressChanged::from(user, email).row()
        })))
    }
}
