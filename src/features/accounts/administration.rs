//! Actions of admins on accounts: by REST, and by the command line.

use std::sync::Arc;

use uuid::Uuid;

use super::limits::account_failures;
use super::sessions::announce_end;
use super::signup::invite_invalid;
use super::{
    AccountCaller, Accounts, Ended, SignUp, email_taken, no_such_user, refused, username_taken,
};
use crate::auth::{NewPassword, Passwords};
use crate::domain::{
    Account, AccountName, Actor, Code, DisplayName, EmailAddress, Refusal, Role, SessionEnd,
};
use crate::store::{
    CreateOutcome, Credential, DirectoryStore, EndedSessions, LoginName, NewAccount,
    PasswordChange, UserChange, UserOutcome, UserQuery,
};

/// A change of an account by an admin. A field that is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserPatch {
    /// The role.
    pub role: Option<Role>,
    /// Whether the account may not be used.
    pub is_disabled: Option<bool>,
}

impl Accounts {
    /// Changes role and usability of a user. Disabling ends the user's sessions.
    ///
    /// # Errors
    /// `not_found`; `conflict` for the last admin; `unavailable`.
    pub async fn change_user(
        &self,
        caller: AccountCaller,
        user: Uuid,
        patch: UserPatch,
    ) -> Result<Account, Refusal> {
        let actor = Actor::Admin(caller.user);
        let before = match patch.is_disabled {
            Some(true) => self.sockets.of(user).await,
            _ => Vec::new(),
        };
        let (account, ended) = change_user(&*self.store, actor, user, patch).await?;
        self.ended(user, &before, ended.len()).await;
        Ok(account)
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn log_out_user(&self, caller: AccountCaller, user: Uuid) -> Result<Ended, Refusal> {
        let actor = Actor::Admin(caller.user);
        let announce = announce_end(SessionEnd::ByAdmin);
        let before = self.sockets.of(user).await;
        let ended = self.store.log_out_user(actor, user, announce).await;
        let ended = ended.map_err(refused)?.ok_or_else(no_such_user)?;
        Ok(self.ended(user, &before, ended.len()).await)
    }
}

async fn change_user(
    store: &dyn DirectoryStore,
    actor: Actor,
    user: Uuid,
    patch: UserPatch,
) -> Result<(Account, Vec<Uuid>), Refusal> {
    let change = UserChange {
        role: patch.role,
        is_disabled: patch.is_disabled,
    };
    let announce = announce_end(SessionEnd::AccountDisabled);
    let changed = store.change_user(actor, user, change, announce).await;
    match changed.map_err(refused)? {
        UserOutcome::Changed { account, ended } => Ok((*account, ended)),
        UserOutcome::LastAdmin => Err(Refusal::new(
            Code::Conflict,
            "this is the last admin that can log in",
        )),
        UserOutcome::Unknown => Err(no_such_user()),
    }
}

/// The use cases of the operator, by the database and without a session. Nodes close the sockets of
/// sessions that end by the announcements in the outbox.
pub struct UserAdministration {
    store: Arc<dyn DirectoryStore>,
    passwords: Passwords,
}

impl UserAdministration {
    /// The use cases on this store.
    pub fn new(store: Arc<dyn DirectoryStore>) -> Self {
        Self {
            store,
            passwords: Passwords::new(),
        }
    }

    /// Creates an account in every mode of signing up.
    ///
    /// # Errors
    /// `bad_request`, `too_large`, `username_taken`, `email_taken`, `unavailable`.
    pub async fn create(&self, request: SignUp, role: Role) -> Result<Account, Refusal> {
        let username = AccountName::parse(&request.username)?;
        let email = EmailAddress::parse(&request.email)?;
        let display_name = request.display_name.as_deref();
        let display_name = display_name.unwrap_or(username.as_str());
        let display_name = DisplayName::parse("display_name", display_name)?;
        let names = [username.as_str(), email.as_str()];
        let password = NewPassword::parse(&request.password, &names)?;
        let account = NewAccount {
            id: Uuid::now_v7(),
            username,
            email,
            display_name,
            password: self.passwords.hash(password).await?,
            role: Some(role),
            rows: Vec::new(),
        };
        let created = self.store.create_user(Actor::Operator, account).await;
        match created.map_err(refused)? {
            CreateOutcome::Created(account) => Ok(account),
            CreateOutcome::UsernameTaken => Err(username_taken()),
            CreateOutcome::EmailTaken => Err(email_taken()),
            CreateOutcome::InviteInvalid => Err(invite_invalid()),
        }
    }

    /// Users in whose names the text occurs, after the lower-case name `after`.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn list(
        &self,
        text: &str,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<Account>, Refusal> {
        let query = UserQuery {
            text: text.to_lowercase(),
            after,
            limit,
            with_disabled: true,
        };
        self.store.users(&query).await.map_err(refused)
    }

    /// Changes role and usability of a user, named by unique name or address.
    ///
    /// # Errors
    /// `not_found`; `conflict` for the last admin; `unavailable`.
    pub async fn change(&self, name: &str, patch: UserPatch) -> Result<Account, Refusal> {
        let (user, _) = self.find(name).await?;
        let changed = change_user(&*self.store, Actor::Operator, user, patch).await?;
        Ok(changed.0)
    }

    /// Sets the password of a user, named by unique name or address, ends the user's sessions, and
    /// forgets the failed logins.
    ///
    /// # Errors
    /// `bad_request`, `too_large`, `not_found`, `unavailable`.
    pub async fn reset_password(&self, name: &str, password: &str) -> Result<Account, Refusal> {
        let (user, found) = self.find(name).await?;
        let account = found.account;
        let email = account.email.as_deref().unwrap_or_default();
        let password = NewPassword::parse(password, &[&account.username, email])?;
        let change = PasswordChange {
            user,
            expected: None,
            password: self.passwords.hash(password).await?,
            ended: EndedSessions::All,
            by: Some(Actor::Operator),
            forgotten_failures: Some(account_failures(account.id.as_str())),
        };
        let announce = announce_end(SessionEnd::ByAdmin);
        let changed = self.store.change_password(change, announce).await;
        changed.map_err(refused)?.ok_or_else(no_such_user)?;
        Ok(account)
    }

    async fn find(&self, name: &str) -> Result<(Uuid, Credential), Refusal> {
        let login = if name.contains('@') {
            LoginName::Email(EmailAddress::parse(name)?)
        } else {
            LoginName::Username(AccountName::parse(name)?)
        };
        let found = self.store.credential(&login).await.map_err(refused)?;
        let found = found.ok_or_else(no_such_user)?;
        let id = Uuid::try_parse(found.account.id.as_str()).map_err(|_| no_such_user())?;
        Ok((id, found))
    }
}
