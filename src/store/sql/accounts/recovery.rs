//! One-time tokens in a database: the table `hubbub_account_tokens`.

use async_trait::async_trait;
use uuid::Uuid;

use super::sessions::{self, millis, now};
use super::{AccountRow, bot_tokens, credential, select_account};
use crate::domain::{Account, EmailAddress};
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::outbox;
use crate::store::sql::store::SqlStore;
use crate::store::sql::value::args;
use crate::store::{
    AnnounceEnd, Digest, EndedSessions, MailRow, NewOneTimeToken, NewRow, PasswordReset,
    RecoveryStore, Result, TokenPurpose,
};

fn stored(purpose: TokenPurpose) -> i64 {
    match purpose {
        TokenPurpose::VerifyEmail => 0,
        TokenPurpose::ResetPassword => 1,
    }
}

#[async_trait]
impl RecoveryStore for SqlStore {
    async fn add_row(&self, row: NewRow) -> Result<()> {
        self.db()
            .transaction(move |conn| {
                let rows = vec![row.clone()];
                Box::pin(async move { outbox::add(conn, rows).await })
            })
            .await?;
        self.announce_rows();
        Ok(())
    }

    async fn add_mail_to(&self, address: &EmailAddress, row: MailRow) -> Result<bool> {
        const FIND: &str = "SELECT id FROM hubbub_users \
            WHERE email_key = ? AND disabled_at IS NULL AND deleted_at IS NULL";
        let key = address.key();
        let is_added = self
            .db()
            .transaction(move |conn| {
                let (key, row) = (key.clone(), row.clone());
                Box::pin(async move {
                    let found: Option<(Uuid,)> = conn.first(FIND, args![key]).await?;
                    let Some((user,)) = found else {
                        return Ok(false);
                    };
                    outbox::add(conn, vec![row(user)]).await?;
                    Ok(true)
                })
            })
            .await?;
        if is_added {
            self.announce_rows();
        }
        Ok(is_added)
    }

    async fn active_account(&self, user: Uuid) -> Result<Option<Account>> {
        const FIND: &str =
            select_account!("WHERE u.id = ? AND u.disabled_at IS NULL AND u.deleted_at IS NULL");
        let found: Vec<AccountRow> = self.db().all(FIND, args![user]).await?;
        let found = found.into_iter().next().map(credential).transpose()?;
        Ok(found.map(|found| found.account))
    }

    async fn add_token(&self, token: NewOneTimeToken) -> Result<bool> {
        const FIND: &str = "SELECT id FROM hubbub_users WHERE id = ? AND email_key = ? \
            AND disabled_at IS NULL AND deleted_at IS NULL {for_update}";
        const SWEEP: &str = "DELETE FROM hubbub_account_tokens WHERE expires_at <= ?";
        const ADD: &str = "INSERT INTO hubbub_account_tokens \
            (digest, user_id, purpose, email_key, expires_at) VALUES (?, ?, ?, ?, ?)";
        self.db()
            .transaction(move |conn| {
                let token = token.clone();
                Box::pin(async move {
                    let (user, key) = (token.user, token.email.key());
                    let found: Option<(Uuid,)> = conn.first(FIND, args![user, key.clone()]).await?;
                    if found.is_none() {
                        return Ok(false);
                    }
                    let now = now(conn).await?;
                    conn.run(SWEEP, args![now]).await?;
                    let values = args![
                        token.digest.to_vec(),
                        user,
                        stored(token.purpose),
                        key,
                        now + millis(token.lifetime),
                    ];
                    conn.run(ADD, values).await?;
                    Ok(true)
                })
            })
            .await
    }

    async fn account_of_token(
        &self,
        token: &Digest,
        purpose: TokenPurpose,
    ) -> Result<Option<Account>> {
        const FIND: &str = select_account!(
            "JOIN hubbub_account_tokens t ON t.user_id = u.id AND t.email_key = u.email_key \
             WHERE t.digest = ? AND t.purpose = ? AND t.expires_at > {now} \
             AND u.disabled_at IS NULL AND u.deleted_at IS NULL"
        );
        let values = args![token.to_vec(), stored(purpose)];
        let found: Vec<AccountRow> = self.db().all(FIND, values).await?;
        let found = found.into_iter().next().map(credential).transpose()?;
        Ok(found.map(|found| found.account))
    }

    async fn reset_password(
        &self,
        reset: PasswordReset,
        announce: AnnounceEnd,
    ) -> Result<Option<Vec<Uuid>>> {
        let ended = self
            .db()
            .transaction(move |conn| {
                let (reset, announce) = (reset.clone(), announce.clone());
                Box::pin(async move { reset_in(conn, &reset, &announce).await })
            })
            .await?;
        if ended.is_some() {
            self.announce_rows();
        }
        Ok(ended)
    }

    async fn verify_email(&self, token: &Digest) -> Result<bool> {
        const VERIFY: &str = "UPDATE hubbub_users SET email_verified_at = ?, updated_at = ? \
            WHERE id = ? AND email_verified_at IS NULL";
        let digest = token.to_vec();
        self.db()
            .transaction(move |conn| {
                let digest = digest.clone();
                Box::pin(async move {
                    let purpose = TokenPurpose::VerifyEmail;
                    let Some(user) = exchange(conn, digest, purpose).await? else {
                        return Ok(false);
                    };
                    let now = now(conn).await?;
                    conn.run(VERIFY, args![now, now, user]).await?;
                    Ok(true)
                })
            })
            .await
    }
}

/// Removes the user's tokens of a purpose if this one is valid. Returns the user; its row is locked.
async fn exchange(
    conn: &mut Conn,
    digest: Vec<u8>,
    purpose: TokenPurpose,
) -> Outcome<Option<Uuid>> {
    const FIND: &str = "SELECT user_id FROM hubbub_account_tokens WHERE digest = ?";
    const LOCK: &str = "SELECT id FROM hubbub_users WHERE id = ? {for_update}";
    // Read again under the lock: another call may have exchanged it meanwhile.
    const IS_VALID: &str = "SELECT u.id FROM hubbub_users u \
        JOIN hubbub_account_tokens t ON t.user_id = u.id AND t.email_key = u.email_key \
        WHERE t.digest = ? AND t.purpose = ? AND t.expires_at > {now} \
        AND u.disabled_at IS NULL AND u.deleted_at IS NULL";
    const REMOVE: &str = "DELETE FROM hubbub_account_tokens WHERE user_id = ? AND purpose = ?";
    let found: Option<(Uuid,)> = conn.first(FIND, args![digest.clone()]).await?;
    let Some((user,)) = found else {
        return Ok(None);
    };
    let _: Option<(Uuid,)> = conn.first(LOCK, args![user]).await?;
    let purpose = stored(purpose);
    let valid: Option<(Uuid,)> = conn.first(IS_VALID, args![digest, purpose]).await?;
    if valid.is_none() {
        return Ok(None);
    }
    conn.run(REMOVE, args![user, purpose]).await?;
    Ok(Some(user))
}

async fn reset_in(
    conn: &mut Conn,
    reset: &PasswordReset,
    announce: &AnnounceEnd,
) -> Outcome<Option<Vec<Uuid>>> {
    const SET: &str = "UPDATE hubbub_users SET password = ?, updated_at = ?, \
        email_verified_at = COALESCE(email_verified_at, ?) WHERE id = ?";
    const FORGET: &str = "DELETE FROM hubbub_login_failures WHERE subject = ?";
    let purpose = TokenPurpose::ResetPassword;
    let Some(user) = exchange(conn, reset.token.to_vec(), purpose).await? else {
        return Ok(None);
    };
    let now = now(conn).await?;
    let values = args![reset.password.as_str(), now, now, user];
    conn.run(SET, values).await?;
    conn.run(FORGET, args![reset.forgotten_failures.to_vec()])
        .await?;
    let mut ended = sessions::end_in(conn, user, EndedSessions::All, announce).await?;
    ended.extend(bot_tokens::delete_all(conn, user, announce).await?);
    Ok(Some(ended))
}
