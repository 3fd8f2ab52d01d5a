//! Tokens of bots.

use async_trait::async_trait;
use uuid::Uuid;

use super::sessions::{USE_PRECISION, millis};
use super::{AccountRow, credential, loaded_time, now, select_account, user_id, users};
use crate::domain::{Account, BotToken, TokenScopes};
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::idempotency;
use crate::store::sql::outbox;
use crate::store::sql::store::SqlStore;
use crate::store::sql::value::{Text, args};
use crate::store::{AnnounceEnd, BotTokenStore, Digest, NewBotToken, Once, Performed, Result};

/// The columns of a token.
type Row = (Uuid, Text, i64, i64, i64, Option<i64>);

fn loaded((id, name, scopes, created_at, expires_at, last_used_at): Row) -> BotToken {
    BotToken {
        id,
        name: name.0,
        scopes: TokenScopes::from_bits(u8::try_from(scopes).unwrap_or(0)),
        created_at: loaded_time(created_at),
        expires_at: loaded_time(expires_at),
        last_used_at: last_used_at.map(loaded_time),
    }
}

#[async_trait]
impl BotTokenStore for SqlStore {
    async fn create_bot_token_once(
        &self,
        token: NewBotToken,
        once: Once<Option<BotToken>>,
    ) -> Result<Performed<Option<BotToken>>> {
        idempotency::transaction(self.db(), once, move |conn| {
            let token = token.clone();
            Box::pin(async move { create(conn, &token).await })
        })
        .await
    }

    async fn bot_tokens(&self, user: Uuid) -> Result<Vec<BotToken>> {
        const LIST: &str = "SELECT id, name, scopes, created_at, expires_at, last_used_at \
            FROM hubbub_bot_tokens WHERE user_id = ? ORDER BY id";
        let rows: Vec<Row> = self.db().all(LIST, args![user]).await?;
        Ok(rows.into_iter().map(loaded).collect())
    }

    async fn delete_bot_token(
        &self,
        user: Uuid,
        token: Uuid,
        announce: AnnounceEnd,
    ) -> Result<bool> {
        const DELETE: &str = "DELETE FROM hubbub_bot_tokens WHERE id = ? AND user_id = ?";
        let deleted = self
            .db()
            .transaction(move |conn| {
                let announce = announce.clone();
                Box::pin(async move {
                    // Announcements of one user are in the order of the commits.
                    users::locked(conn, user).await?;
                    if conn.run(DELETE, args![token, user]).await? == 0 {
                        return Ok(false);
                    }
                    outbox::add(conn, vec![announce(&user_id(user), token)]).await?;
                    Ok(true)
                })
            })
            .await?;
        self.announce_rows();
        Ok(deleted)
    }

    async fn account_of_bot(&self, digest: Digest) -> Result<Option<(Account, BotToken)>> {
        const ACCOUNT: &str = select_account!(
            "JOIN hubbub_bot_tokens t ON t.user_id = u.id \
             WHERE t.digest = ? AND t.expires_at > {now} AND u.disabled_at IS NULL \
             AND u.deleted_at IS NULL"
        );
        const TOKEN: &str = "SELECT id, name, scopes, created_at, expires_at, last_used_at \
            FROM hubbub_bot_tokens WHERE digest = ?";
        const IS_OLD: &str = "SELECT id FROM hubbub_bot_tokens \
            WHERE digest = ? AND (last_used_at IS NULL OR last_used_at < {now} - ?)";
        const TOUCH: &str = "UPDATE hubbub_bot_tokens SET last_used_at = {now} WHERE digest = ?";
        let digest = digest.to_vec();
        let key = digest.clone();
        let (account, token, old) = self
            .db()
            .read(move |conn| {
                let key = key.clone();
                Box::pin(async move {
                    let account: Option<AccountRow> =
                        conn.first(ACCOUNT, args![key.clone()]).await?;
                    let token: Option<Row> = conn.first(TOKEN, args![key.clone()]).await?;
                    let old: Option<(Uuid,)> =
                        conn.first(IS_OLD, args![key, USE_PRECISION]).await?;
                    Ok((account, token, old))
                })
            })
            .await?;
        let (Some(account), Some(token)) = (account, token) else {
            return Ok(None);
        };
        if old.is_some() {
            let touched = self.db().transaction(move |conn| {
                let digest = digest.clone();
                Box::pin(async move { conn.run(TOUCH, args![digest]).await.map(drop) })
            });
            // The token is valid all the same.
            if let Err(error) = touched.await {
                tracing::debug!(%error, "the use of a token is not recorded");
            }
        }
        Ok(Some((credential(account)?.account, loaded(token))))
    }

    async fn is_bot_token_valid(&self, token: Uuid) -> Result<bool> {
        const FIND: &str = "SELECT t.id FROM hubbub_bot_tokens t \
            JOIN hubbub_users u ON u.id = t.user_id \
            WHERE t.id = ? AND t.expires_at > {now} AND u.disabled_at IS NULL \
            AND u.deleted_at IS NULL";
        let found: Vec<(Uuid,)> = self.db().all(FIND, args![token]).await?;
        Ok(!found.is_empty())
    }
}

async fn create(conn: &mut Conn, token: &NewBotToken) -> Outcome<Option<BotToken>> {
    const FORGET: &str = "DELETE FROM hubbub_bot_tokens WHERE user_id = ? AND expires_at <= ?";
    const INSERT: &str = "INSERT INTO hubbub_bot_tokens \
        (id, user_id, digest, name, scopes, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let user = token.user;
    let Some(found) = users::locked(conn, user).await? else {
        return Ok(None);
    };
    let now = now(conn).await?;
    conn.run(FORGET, args![user, now]).await?;
    if found.account.is_disabled || ids(conn, user).await?.len() >= token.most {
        return Ok(None);
    }
    let scopes = i64::from(token.scopes.bits());
    let expires_at = now + millis(token.lifetime);
    let values = args![
        token.id,
        user,
        token.digest.to_vec(),
        token.name.as_str(),
        scopes,
        now,
        expires_at,
    ];
    conn.run(INSERT, values).await?;
    let name = Text(token.name.as_str().to_owned());
    let row = (token.id, name, scopes, now, expires_at, None);
    Ok(Some(loaded(row)))
}

/// The ids of a user's tokens.
pub(super) async fn ids(conn: &mut Conn, user: Uuid) -> Outcome<Vec<Uuid>> {
    const LIST: &str = "SELECT id FROM hubbub_bot_tokens WHERE user_id = ? ORDER BY id";
    let ids: Vec<(Uuid,)> = conn.all(LIST, args![user]).await?;
    Ok(ids.into_iter().map(|(id,)| id).collect())
}

/// Announces that the tokens of a disabled user are not valid now. Returns them.
/// Deletes all tokens of a user. Returns their ids.
pub(super) async fn delete_all(
    conn: &mut Conn,
    user: Uuid,
    announce: &AnnounceEnd,
) -> Outcome<Vec<Uuid>> {
    const DELETE: &str = "DELETE FROM hubbub_bot_tokens WHERE user_id = ?";
    let tokens = announce_ends(conn, user, announce).await?;
    conn.run(DELETE, args![user]).await?;
    Ok(tokens)
}

pub(super) async fn announce_ends(
    conn: &mut Conn,
    user: Uuid,
    announce: &AnnounceEnd,
) -> Outcome<Vec<Uuid>> {
    let tokens = ids(conn, user).await?;
    let rows = tokens.iter().map(|token| announce(&user_id(user), *token));
    outbox::add(conn, rows.collect()).await?;
    Ok(tokens)
}
