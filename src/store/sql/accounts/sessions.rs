//! Sessions and their refresh tokens.

use std::time::Duration;

use uuid::Uuid;

use super::{AccountRow, credential, loaded_time, select_account, user_id};
use crate::domain::Account;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::outbox;
use crate::store::sql::value::{Arg, Text, args};
use crate::store::{
    AnnounceEnd, EndedSessions, Exchange, ExchangeOutcome, NewSession, Result, Session,
    SessionLimit,
};

/// Sessions that one statement ends: a list in a statement has at most 500.
const SESSIONS_PER_STATEMENT: usize = 500;
/// How exactly the last use of a session is recorded, in milliseconds.
pub(super) const USE_PRECISION: i64 = 60_000;

/// The time by the database's clock, in milliseconds since 1970.
pub(in crate::store::sql) async fn now(conn: &mut Conn) -> Outcome<i64> {
    const NOW: &str = "SELECT {now}";
    let now: Option<(i64,)> = conn.first(NOW, args![]).await?;
    now.map(|(now,)| now)
        .ok_or_else(|| Fault::Broken("the database has no clock".to_owned()))
}

/// Returns the sessions that have ended for the new one; `None` if it has not begun.
pub(super) async fn begin(
    db: &Db,
    user: Uuid,
    verified: Option<String>,
    session: NewSession,
    limit: SessionLimit,
) -> Result<Option<Vec<Uuid>>> {
    db.transaction(move |conn| {
        let (session, verified, limit) = (session.clone(), verified.clone(), limit.clone());
        Box::pin(async move { begin_in(conn, user, verified, &session, &limit).await })
    })
    .await
}

async fn begin_in(
    conn: &mut Conn,
    user: Uuid,
    verified: Option<String>,
    session: &NewSession,
    limit: &SessionLimit,
) -> Outcome<Option<Vec<Uuid>>> {
    // Locked, so that a session can't begin beside the statement that ends all of a user's.
    const FIND: &str = "SELECT password FROM hubbub_users \
        WHERE id = ? AND disabled_at IS NULL AND deleted_at IS NULL {for_update}";
    const LIST: &str = "SELECT id FROM hubbub_sessions WHERE user_id = ? \
        ORDER BY last_used_at DESC, id DESC";
    let found: Option<(Text,)> = conn.first(FIND, args![user]).await?;
    let Some((Text(password),)) = found else {
        return Ok(None);
    };
    if verified.is_some_and(|verified| verified != password) {
        return Ok(None);
    }
    let now = now(conn).await?;
    remove_expired(conn, user, now).await?;
    let sessions: Vec<(Uuid,)> = conn.all(LIST, args![user]).await?;
    let sessions: Vec<Uuid> = sessions.into_iter().map(|(id,)| id).collect();
    if sessions.contains(&session.id) {
        // The transaction runs again because the answer to its commit was lost.
        return Ok(Some(Vec::new()));
    }
    let kept = limit.most.saturating_sub(1);
    let ended: Vec<Uuid> = sessions.into_iter().skip(kept).collect();
    end_all(conn, user, &ended, &limit.announce).await?;
    insert(conn, user, session, now).await?;
    Ok(Some(ended))
}

/// Removes the user's sessions that have expired.
async fn remove_expired(conn: &mut Conn, user: Uuid, now: i64) -> Outcome<()> {
    const TOKENS: &str = "DELETE FROM hubbub_refresh_tokens WHERE session_id IN \
        (SELECT id FROM hubbub_sessions WHERE user_id = ? AND expires_at <= ?)";
    const SESSIONS: &str = "DELETE FROM hubbub_sessions WHERE user_id = ? AND expires_at <= ?";
    conn.run(TOKENS, args![user, now]).await?;
    conn.run(SESSIONS, args![user, now]).await.map(drop)
}

pub(super) async fn insert(
    conn: &mut Conn,
    user: Uuid,
    session: &NewSession,
    now: i64,
) -> Outcome<()> {
    const INSERT: &str = "INSERT INTO hubbub_sessions \
        (id, user_id, created_at, last_used_at, expires_at, address, user_agent) \
        VALUES (?, ?, ?, ?, ?, ?, ?)";
    let values = args![
        session.id,
        user,
        now,
        now,
        now + millis(session.lifetime),
        session.address.as_str(),
        session.user_agent.as_str(),
    ];
    conn.run(INSERT, values).await?;
    add_token(conn, session.id, session.refresh_token, now).await
}

async fn add_token(conn: &mut Conn, session: Uuid, digest: [u8; 32], now: i64) -> Outcome<()> {
    const INSERT: &str = "INSERT INTO hubbub_refresh_tokens (digest, session_id, issued_at, salt) \
        VALUES (?, ?, ?, ?)";
    let values = args![digest.to_vec(), session, now, Vec::<u8>::new()];
    conn.run(INSERT, values).await.map(drop)
}

pub(super) async fn account(db: &Db, session: Uuid) -> Result<Option<Account>> {
    const FIND: &str = select_account!(
        "JOIN hubbub_sessions s ON s.user_id = u.id \
         WHERE s.id = ? AND s.expires_at > {now} AND u.disabled_at IS NULL \
         AND u.deleted_at IS NULL"
    );
    const IS_OLD: &str = "SELECT last_used_at FROM hubbub_sessions \
        WHERE id = ? AND last_used_at < {now} - ?";
    const TOUCH: &str = "UPDATE hubbub_sessions SET last_used_at = {now} WHERE id = ?";
    let (found, is_old) = db
        .read(move |conn| {
            Box::pin(async move {
                let found: Option<AccountRow> = conn.first(FIND, args![session]).await?;
                let is_old: Option<(i64,)> =
                    conn.first(IS_OLD, args![session, USE_PRECISION]).await?;
                Ok((found, is_old.is_some()))
            })
        })
        .await?;
    let Some(row) = found else { return Ok(None) };
    if is_old {
        let touched = db.transaction(move |conn| {
            Box::pin(async move { conn.run(TOUCH, args![session]).await.map(drop) })
        });
        // The session has not ended all the same.
        if let Err(error) = touched.await {
            tracing::debug!(%error, "the use of a session is not recorded");
        }
    }
    Ok(Some(credential(row)?.account))
}

pub(super) async fn list(db: &Db, user: Uuid) -> Result<Vec<Session>> {
    const LIST: &str = "SELECT id, created_at, last_used_at, address, user_agent \
        FROM hubbub_sessions WHERE user_id = ? AND expires_at > {now} ORDER BY last_used_at DESC";
    type Row = (Uuid, i64, i64, Text, Text);
    let sessions: Vec<Row> = db.all(LIST, args![user]).await?;
    let session = |(id, created_at, last_used_at, address, user_agent): Row| Session {
        id,
        created_at: loaded_time(created_at),
        last_used_at: loaded_time(last_used_at),
        address: address.0,
        user_agent: user_agent.0,
    };
    Ok(sessions.into_iter().map(session).collect())
}

pub(super) async fn end_of_user(
    db: &Db,
    user: Uuid,
    ended: EndedSessions,
    announce: AnnounceEnd,
) -> Result<Vec<Uuid>> {
    db.transaction(move |conn| {
        let announce = announce.clone();
        Box::pin(async move { end_in(conn, user, ended, &announce).await })
    })
    .await
}

/// Ends sessions of a user within a transaction.
pub(super) async fn end_in(
    conn: &mut Conn,
    user: Uuid,
    ended: EndedSessions,
    announce: &AnnounceEnd,
) -> Outcome<Vec<Uuid>> {
    // No session of the user begins meanwhile.
    const LOCK: &str = "SELECT id FROM hubbub_users WHERE id = ? {for_update}";
    const LIST: &str = "SELECT id FROM hubbub_sessions WHERE user_id = ? ORDER BY id";
    let _: Option<(Uuid,)> = conn.first(LOCK, args![user]).await?;
    let now = now(conn).await?;
    remove_expired(conn, user, now).await?;
    let sessions: Vec<(Uuid,)> = conn.all(LIST, args![user]).await?;
    let sessions = sessions.into_iter().map(|(id,)| id);
    let ended: Vec<Uuid> = match ended {
        EndedSessions::One(one) => sessions.filter(|id| *id == one).collect(),
        EndedSessions::All => sessions.collect(),
        EndedSessions::Others(one) => sessions.filter(|id| *id != one).collect(),
    };
    end_all(conn, user, &ended, announce).await?;
    Ok(ended)
}

/// Ends these sessions of a user. Its row is locked.
async fn end_all(
    conn: &mut Conn,
    user: Uuid,
    ended: &[Uuid],
    announce: &AnnounceEnd,
) -> Outcome<()> {
    const TOKENS: &str = "DELETE FROM hubbub_refresh_tokens WHERE session_id IN ({list})";
    const SESSIONS: &str = "DELETE FROM hubbub_sessions WHERE id IN ({list})";
    for part in ended.chunks(SESSIONS_PER_STATEMENT) {
        for template in [TOKENS, SESSIONS] {
            let ids = part.iter().map(|id| Arg::from(*id));
            let (text, ids) = conn.dialect().with_list(template, ids);
            conn.run_text(text, ids).await?;
        }
    }
    let announced = ended
        .iter()
        .map(|session| announce(&user_id(user), *session));
    outbox::add(conn, announced.collect()).await
}

pub(super) async fn exchange(
    db: &Db,
    exchange: Exchange,
    announce: AnnounceEnd,
) -> Result<ExchangeOutcome> {
    db.transaction(move |conn| Box::pin(exchange_in(conn, exchange, announce.clone())))
        .await
}

async fn exchange_in(
    conn: &mut Conn,
    exchange: Exchange,
    announce: AnnounceEnd,
) -> Outcome<ExchangeOutcome> {
    const TOKEN: &str = "SELECT session_id, used_at, salt FROM hubbub_refresh_tokens \
        WHERE digest = ? {for_update}";
    const SESSION: &str =
        "SELECT user_id, expires_at FROM hubbub_sessions WHERE id = ? {for_update}";
    const USE: &str = "UPDATE hubbub_refresh_tokens SET used_at = ?, salt = ? WHERE digest = ?";
    const PROLONG: &str =
        "UPDATE hubbub_sessions SET last_used_at = ?, expires_at = ? WHERE id = ?";
    let presented = exchange.presented.to_vec();
    type Token = (Uuid, Option<i64>, Vec<u8>);
    let token: Option<Token> = conn.first(TOKEN, args![presented.clone()]).await?;
    let Some((session, used_at, salt)) = token else {
        return Ok(ExchangeOutcome::Invalid);
    };
    let found: Option<(Uuid, i64)> = conn.first(SESSION, args![session]).await?;
    let now = now(conn).await?;
    let Some((user, _)) = found.filter(|(_, expires_at)| *expires_at > now) else {
        return Ok(ExchangeOutcome::Invalid);
    };
    let Some(account) = user_of(conn, user).await? else {
        return Ok(ExchangeOutcome::Invalid);
    };
    let salt = match used_at {
        Some(used_at) if now - used_at > millis(exchange.grace) => {
            end(conn, user, session, &announce).await?;
            return Ok(ExchangeOutcome::Reused {
                user: user_id(user),
                session,
            });
        }
        Some(_) => salt
            .try_into()
            .map_err(|_| Fault::Broken("the salt of a refresh token is malformed".to_owned()))?,
        None => {
            let salt = exchange.salt;
            conn.run(USE, args![now, salt.to_vec(), presented]).await?;
            add_token(conn, session, exchange.successor, now).await?;
            let expires_at = now + millis(exchange.lifetime);
            conn.run(PROLONG, args![now, expires_at, session]).await?;
            salt
        }
    };
    Ok(ExchangeOutcome::Exchanged {
        account: Box::new(account),
        session,
        salt,
    })
}

async fn user_of(conn: &mut Conn, user: Uuid) -> Outcome<Option<Account>> {
    const FIND: &str =
        select_account!("WHERE u.id = ? AND u.disabled_at IS NULL AND u.deleted_at IS NULL");
    let found: Option<AccountRow> = conn.first(FIND, args![user]).await?;
    Ok(found
        .map(credential)
        .transpose()?
        .map(|found| found.account))
}

/// Ends a session.
async fn end(conn: &mut Conn, user: Uuid, session: Uuid, announce: &AnnounceEnd) -> Outcome<()> {
    const TOKENS: &str = "DELETE FROM hubbub_refresh_tokens WHERE session_id = ?";
    const SESSION: &str = "DELETE FROM hubbub_sessions WHERE id = ?";
    conn.run(TOKENS, args![session]).await?;
    conn.run(SESSION, args![session]).await?;
    outbox::add(conn, vec![announce(&user_id(user), session)]).await
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}
