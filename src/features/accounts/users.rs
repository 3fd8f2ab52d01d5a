//! Users as others see them, and the audit log.

use uuid::Uuid;

use super::{AccountCaller, Accounts, no_such_user, refused};
use crate::domain::{Account, AccountName, Code, Refusal};
use crate::store::{AuditEntry, UserQuery};

/// The longest text to search for, in bytes.
const MAX_QUERY_BYTES: usize = 128;

/// A page of users.
#[derive(Debug, Default)]
pub struct UsersPage {
    /// The users, in the order of their names.
    pub users: Vec<Account>,
    /// The position of the next page, if there is one.
    pub next: Option<String>,
}

/// A page of the audit log.
#[derive(Debug, Default)]
pub struct AuditPage {
    /// The entries, the newest first.
    pub entries: Vec<AuditEntry>,
    /// The position of the next page, if there is one.
    pub next: Option<i64>,
}

impl Accounts {
    /// A user. Only admins see a disabled one.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn user(&self, caller: AccountCaller, user: Uuid) -> Result<Account, Refusal> {
        let found = self.store.user(user).await.map_err(refused)?;
        let account = found.map(|found| found.account);
        let is_visible = |account: &Account| caller.is_admin || !account.is_disabled;
        account.filter(is_visible).ok_or_else(no_such_user)
    }

    /// Users in whose names the text occurs, in the order of their unique names. Only admins see those
    /// that are disabled.
    ///
    /// # Errors
    /// `too_large`, `unavailable`.
    pub async fn users(
        &self,
        caller: AccountCaller,
        text: &str,
        after: Option<String>,
        limit: usize,
    ) -> Result<UsersPage, Refusal> {
        if text.len() > MAX_QUERY_BYTES {
            let text = format!("q must be at most {MAX_QUERY_BYTES} bytes");
            return Err(Refusal::new(Code::TooLarge, text));
        }
        if text.chars().any(char::is_control) {
            return Err(Refusal::bad_request("q must not have control characters").field("q"));
        }
        let after = after.map(|name| AccountName::parse(&name)).transpose()?;
        let after = after.map(|name| name.key());
        let query = UserQuery {
            text: text.to_lowercase(),
            after,
            limit: limit + 1,
            with_disabled: caller.is_admin,
        };
        let mut users = self.store.users(&query).await.map_err(refused)?;
        let has_more = users.len() > limit;
        users.truncate(limit);
        let last = users.last().filter(|_| has_more);
        let next = last.map(|user| user.username.to_ascii_lowercase());
        Ok(UsersPage { users, next })
    }

    /// Actions of admins, the newest first.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn audit(&self, before: Option<i64>, limit: usize) -> Result<AuditPage, Refusal> {
        let entries = self.store.audit(before, limit + 1).await;
        let mut entries = entries.map_err(refused)?;
        let has_more = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| has_more).map(|entry| entry.id);
        Ok(AuditPage { entries, next })
    }
}
