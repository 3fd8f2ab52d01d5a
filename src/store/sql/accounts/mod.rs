//! Accounts and sessions in a database.
//!
//! | table | contents |
//! | --- | --- |
//! | `hubbub_users` | accounts |
//! | `hubbub_sessions` | sessions that have not ended |
//! | `hubbub_refresh_tokens` | the refresh tokens of sessions, by their digests |
//! | `hubbub_audit` | actions of admins |
//! | `hubbub_invites` | invitations that nobody has used, by the digests of their codes |
//! | `hubbub_bot_tokens` | tokens of bots, by their digests |
//! | `hubbub_account_deletions` | deleted accounts, and how far their messages are anonymous |
//! | `hubbub_deletion_skips` | how much the last pass over their messages could not process |
//! | `hubbub_account_tokens` | one-time tokens that were mailed, by their digests |

mod admin;
mod audit;
mod bot_tokens;
mod create;
mod delete;
mod expired;
mod invites;
mod logins;
mod password;
mod profile;
mod recovery;
mod sessions;
mod users;

pub(super) use sessions::now;

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use create::Origin;

use super::fault::{Fault, Outcome};
use super::store::SqlStore;
use super::value::{Text, args};
use crate::domain::{Account, Role, Timestamp, UserId};
use crate::store::{
    AccountStore, AnnounceEnd, CreateOutcome, Credential, EndedSessions, Exchange, ExchangeOutcome,
    LoginLimit, LoginName, NewAccount, NewSession, Once, Performed, Result, Session, SessionLimit,
};

#[async_trait]
impl AccountStore for SqlStore {
    async fn create(
        &self,
        account: NewAccount,
        session: Option<NewSession>,
        once: Once<CreateOutcome>,
    ) -> Result<Performed<CreateOutcome>> {
        let created = create::create(self.db(), account, session, Origin::SignUp, once).await?;
        self.announce_rows();
        Ok(created)
    }

    async fn credential(&self, login: &LoginName) -> Result<Option<Credential>> {
        const BY_NAME: &str = select_account!("WHERE u.username_key = ? AND u.deleted_at IS NULL");
        const BY_EMAIL: &str = select_account!("WHERE u.email_key = ? AND u.deleted_at IS NULL");
        let (template, key) = match login {
            LoginName::Username(name) => (BY_NAME, name.key()),
            LoginName::Email(address) => (BY_EMAIL, address.key()),
        };
        let found: Vec<AccountRow> = self.db().all(template, args![key]).await?;
        let credential = found.into_iter().next().map(credential).transpose()?;
        Ok(credential)
    }

    async fn remove_expired(&self, window: Duration) -> Result<()> {
        expired::remove(self.db(), window).await
    }

    async fn begin_session(
        &self,
        user: Uuid,
        verified: Option<String>,
        session: NewSession,
        limit: SessionLimit,
    ) -> Result<bool> {
        let ended = sessions::begin(self.db(), user, verified, session, limit).await?;
        if ended.as_ref().is_some_and(|ended| !ended.is_empty()) {
            self.announce_rows();
        }
        Ok(ended.is_some())
    }

    async fn account_of_session(&self, session: Uuid) -> Result<Option<Account>> {
        sessions::account(self.db(), session).await
    }

    async fn count_login(
        &self,
        limits: &[LoginLimit],
        window: Duration,
    ) -> Result<Option<Duration>> {
        logins::count(self.db(), limits, window).await
    }

    async fn uncount_login(&self, limits: &[LoginLimit]) -> Result<()> {
        logins::uncount(self.db(), limits).await
    }

    async fn sessions(&self, user: Uuid) -> Result<Vec<Session>> {
        sessions::list(self.db(), user).await
    }

    async fn end_sessions(
        &self,
        user: Uuid,
        ended: EndedSessions,
        announce: AnnounceEnd,
    ) -> Result<Vec<Uuid>> {
        let ended = sessions::end_of_user(self.db(), user, ended, announce).await?;
        self.announce_rows();
        Ok(ended)
    }

    async fn exchange(&self, exchange: Exchange, announce: AnnounceEnd) -> Result<ExchangeOutcome> {
        let outcome = sessions::exchange(self.db(), exchange, announce).await?;
        if matches!(outcome, ExchangeOutcome::Reused { .. }) {
            self.announce_rows();
        }
        Ok(outcome)
    }
}

/// A statement that selects accounts `u` as [`AccountRow`].
macro_rules! select_account {
    ($rest:literal) => {
        concat!(
            "SELECT u.id, u.username, u.email, u.email_verified_at, u.display_name, u.avatar_url, \
             u.status, u.role, u.disabled_at, u.created_at, u.updated_at, u.password \
             FROM hubbub_users u ",
            $rest
        )
    };
}
use select_account;

/// The columns of [`select_account`].
type AccountRow = (
    Uuid,
    Text,
    Option<Text>,
    Option<i64>,
    Text,
    Option<Text>,
    Option<Text>,
    i64,
    Option<i64>,
    i64,
    i64,
    Text,
);

fn credential(row: AccountRow) -> Outcome<Credential> {
    let (id, username, email, email_verified_at, display_name, avatar_url, status, ..) = row;
    let (.., role, disabled_at, created_at, updated_at, password) = row;
    let text = |text: Text| text.0;
    let account = Account {
        id: user_id(id),
        username: username.0,
        email: email.map(text),
        is_email_verified: email_verified_at.is_some(),
        display_name: display_name.0,
        avatar_url: avatar_url.map(text),
        status: status.map(text),
        role: loaded_role(role)?,
        is_disabled: disabled_at.is_some(),
        created_at: loaded_time(created_at),
        updated_at: loaded_time(updated_at),
    };
    Ok(Credential {
        account,
        password: password.0,
    })
}

/// The id of an account, as a user's id.
pub(in crate::store::sql) fn user_id(id: Uuid) -> UserId {
    UserId::trusted(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
}

fn stored_role(role: Role) -> i64 {
    match role {
        Role::User => 0,
        Role::Admin => 1,
    }
}

fn loaded_role(role: i64) -> Outcome<Role> {
    match role {
        0 => Ok(Role::User),
        1 => Ok(Role::Admin),
        _ => Err(Fault::Broken(format!("{role} is not a role of an account"))),
    }
}

pub(in crate::store::sql) fn loaded_time(millis: i64) -> Timestamp {
    Timestamp(u64::try_from(millis).unwrap_or(0))
}
