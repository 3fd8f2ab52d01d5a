//! Changing the own account.

use super::{AccountCaller, Accounts, email_taken, no_such_user, refused, username_taken};
use crate::domain::{Account, AccountName, AvatarUrl, DisplayName, EmailAddress, Refusal};
use crate::store::{ProfileChange, ProfileOutcome};

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
    /// Changes the caller's account, and returns it.
    ///
    /// # Errors
    /// `bad_request`, `too_large`, `username_taken`, `email_taken`, `unavailable`.
    pub async fn change_profile(
        &self,
        caller: AccountCaller,
        patch: ProfilePatch,
    ) -> Result<Account, Refusal> {
        let change = patch.parse()?;
        let changed = self.store.change_profile(caller.user, change).await;
        match changed.map_err(refused)? {
            ProfileOutcome::Changed(account) => Ok(account),
            ProfileOutcome::UsernameTaken => Err(username_taken()),
            ProfileOutcome::EmailTaken => Err(email_taken()),
            ProfileOutcome::Unknown => Err(no_such_user()),
        }
    }
}
