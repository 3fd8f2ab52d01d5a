//! Users as others see and administer them: the trait's calls, and the list of users.

use async_trait::async_trait;
use uuid::Uuid;

use super::create::Origin;
use super::{AccountRow, admin, audit, create, credential, password, profile, select_account};
use crate::domain::{Account, Actor};
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::store::SqlStore;
use crate::store::sql::value::{Arg, args};
use crate::store::{
    AddressNotice, AnnounceEnd, AuditEntry, CreateOutcome, Credential, MAX_NAMES, NewAccount, Once,
    PasswordChange, ProfileChange, ProfileOutcome, Result, StoreError, UserChange, UserOutcome,
    UserQuery, UserStore,
};

#[async_trait]
impl UserStore for SqlStore {
    async fn user(&self, user: Uuid) -> Result<Option<Credential>> {
        const FIND: &str = select_account!("WHERE u.id = ? AND u.deleted_at IS NULL");
        let found: Vec<AccountRow> = self.db().all(FIND, args![user]).await?;
        Ok(found.into_iter().next().map(credential).transpose()?)
    }

    async fn users(&self, query: &UserQuery) -> Result<Vec<Account>> {
        const ALL: &str = select_account!(
            "WHERE u.username_key > ? AND u.search_key LIKE ? ESCAPE '!' \
             AND u.deleted_at IS NULL ORDER BY u.username_key LIMIT ?"
        );
        const ENABLED: &str = select_account!(
            "WHERE u.username_key > ? AND u.search_key LIKE ? ESCAPE '!' \
             AND u.deleted_at IS NULL AND u.disabled_at IS NULL ORDER BY u.username_key LIMIT ?"
        );
        let template = if query.with_disabled { ALL } else { ENABLED };
        let after = query.after.clone().unwrap_or_default();
        let values = args![after, containing(&query.text), query.limit as i64];
        let found: Vec<AccountRow> = self.db().all(template, values).await?;
        let accounts = found.into_iter().map(|row| Ok(credential(row)?.account));
        accounts.collect()
    }

    async fn users_named(&self, names: &[String]) -> Result<Vec<Uuid>> {
        const FIND: &str = "SELECT id FROM hubbub_users WHERE deleted_at IS NULL \
            AND disabled_at IS NULL AND username_key IN ({list})";
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<Arg> = names
            .iter()
            .take(MAX_NAMES)
            .cloned()
            .map(Arg::from)
            .collect();
        let (text, names) = self.db().dialect().with_list(FIND, names);
        let found: Vec<(Uuid,)> = self
            .db()
            .read(move |conn| {
                let names = names.clone();
                Box::pin(async move { conn.all_of_text(text, names).await })
            })
            .await?;
        Ok(found.into_iter().map(|(id,)| id).collect())
    }

    async fn change_profile(
        &self,
        user: Uuid,
        change: ProfileChange,
        notice: Option<AddressNotice>,
    ) -> Result<ProfileOutcome> {
        let outcome = profile::change(self.db(), user, change, notice).await?;
        self.announce_rows();
        Ok(outcome)
    }

    async fn change_password(
        &self,
        change: PasswordChange,
        announce: AnnounceEnd,
    ) -> Result<Option<Vec<Uuid>>> {
        let outcome = password::change(self.db(), change, announce).await?;
        self.announce_rows();
        Ok(outcome)
    }

    async fn create_user(&self, actor: Actor, account: NewAccount) -> Result<CreateOutcome> {
        let (origin, once) = (Origin::Admin(actor), Once::without_key());
        let created = create::create(self.db(), account, None, origin, once).await?;
        let repeated = || StoreError::Broken("an account without a key is created once".to_owned());
        created.outcome().ok_or_else(repeated)
    }

    async fn change_user(
        &self,
        actor: Actor,
        user: Uuid,
        change: UserChange,
        announce: AnnounceEnd,
    ) -> Result<UserOutcome> {
        let outcome = admin::change_user(self.db(), actor, user, change, announce).await?;
        self.announce_rows();
        Ok(outcome)
    }

    async fn log_out_user(
        &self,
        actor: Actor,
        user: Uuid,
        announce: AnnounceEnd,
    ) -> Result<Option<Vec<Uuid>>> {
        let outcome = admin::log_out_user(self.db(), actor, user, announce).await?;
        self.announce_rows();
        Ok(outcome)
    }

    async fn audit(&self, before: Option<i64>, limit: usize) -> Result<Vec<AuditEntry>> {
        audit::list(self.db(), before, limit).await
    }
}

/// The pattern of texts that contain this one.
fn containing(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in text.chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// The account of this id, unless it is deleted. Its row is locked until the transaction ends.
pub(super) async fn locked(conn: &mut Conn, user: Uuid) -> Outcome<Option<Credential>> {
    const FIND: &str = select_account!("WHERE u.id = ? AND u.deleted_at IS NULL {for_update}");
    let found: Option<AccountRow> = conn.first(FIND, args![user]).await?;
    found.map(credential).transpose()
}
