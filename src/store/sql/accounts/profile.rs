//! Changes of a user's own account.

use uuid::Uuid;

use super::{invites, loaded_time, now, users};
use crate::domain::{Account, search_key};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::outbox;
use crate::store::sql::value::args;
use crate::store::{AddressNotice, ProfileChange, ProfileOutcome, Result};

pub(super) async fn change(
    db: &Db,
    user: Uuid,
    change: ProfileChange,
    notice: Option<AddressNotice>,
) -> Result<ProfileOutcome> {
    db.transaction(move |conn| {
        let (change, notice) = (change.clone(), notice.clone());
        Box::pin(async move { change_in(conn, user, change, notice).await })
    })
    .await
}

async fn change_in(
    conn: &mut Conn,
    user: Uuid,
    change: ProfileChange,
    notice: Option<AddressNotice>,
) -> Outcome<ProfileOutcome> {
    const BY_NAME: &str = "SELECT id FROM hubbub_users WHERE username_key = ? AND id <> ?";
    const BY_EMAIL: &str = "SELECT id FROM hubbub_users WHERE email_key = ? AND id <> ?";
    // They are bound to the address; but a later change may restore it.
    const TOKENS: &str = "DELETE FROM hubbub_account_tokens WHERE user_id = ?";
    let Some(found) = users::locked(conn, user).await? else {
        return Ok(ProfileOutcome::Unknown);
    };
    if let Some(username) = &change.username {
        let other: Option<(Uuid,)> = conn.first(BY_NAME, args![username.key(), user]).await?;
        if other.is_some() {
            return Ok(ProfileOutcome::UsernameTaken);
        }
    }
    if let Some(email) = &change.email {
        let other: Option<(Uuid,)> = conn.first(BY_EMAIL, args![email.key(), user]).await?;
        if other.is_some() {
            return Ok(ProfileOutcome::EmailTaken);
        }
    }
    let former = former_address(&found.account, &change);
    let mut account = changed(found.account, change);
    let now = now(conn).await?;
    account.updated_at = loaded_time(now);
    match write(conn, user, &account, now).await {
        // Another account took the name or the address meanwhile: the next attempt finds it.
        Err(Fault::Taken(text)) => return Err(Fault::Again(text)),
        written => written?,
    }
    if let Some(former) = former {
        conn.run(TOKENS, args![user]).await?;
        invites::forget_address(conn, &former.to_lowercase()).await?;
        let row = notice.map(|notice| notice(user, &former));
        outbox::add(conn, row.into_iter().collect()).await?;
    }
    Ok(ProfileOutcome::Changed(account))
}

/// The address before the change, if that changes it.
fn former_address(account: &Account, change: &ProfileChange) -> Option<String> {
    let (before, after) = (account.email.as_ref()?, change.email.as_ref()?);
    if before.to_lowercase() == after.key() {
        return None;
    }
    Some(before.clone())
}

/// The account after the change.
fn changed(mut account: Account, change: ProfileChange) -> Account {
    if former_address(&account, &change).is_some() {
        account.is_email_verified = false;
    }
    if let Some(username) = change.username {
        username.as_str().clone_into(&mut account.username);
    }
    if let Some(email) = change.email {
        account.email = Some(email.as_str().to_owned());
    }
    if let Some(name) = change.display_name {
        account.display_name = match name {
            Some(name) => name.as_str().to_owned(),
            None => account.username.clone(),
        };
    }
    if let Some(url) = change.avatar_url {
        account.avatar_url = url.map(|url| url.as_str().to_owned());
    }
    if let Some(status) = change.status {
        account.status = status.map(|status| status.as_str().to_owned());
    }
    account
}

async fn write(conn: &mut Conn, user: Uuid, account: &Account, now: i64) -> Outcome<()> {
    const WRITE: &str = "UPDATE hubbub_users SET username = ?, username_key = ?, email = ?, \
        email_key = ?, display_name = ?, search_key = ?, avatar_url = ?, status = ?, \
        updated_at = ? WHERE id = ?";
    const UNVERIFY: &str = "UPDATE hubbub_users SET email_verified_at = NULL WHERE id = ?";
    let values = args![
        account.username.as_str(),
        account.username.to_ascii_lowercase(),
        account.email.clone(),
        account.email.as_ref().map(|email| email.to_lowercase()),
        account.display_name.as_str(),
        search_key(&account.username, &account.display_name),
        account.avatar_url.clone(),
        account.status.clone(),
        now,
        user,
    ];
    conn.run(WRITE, values).await?;
    if !account.is_email_verified {
        conn.run(UNVERIFY, args![user]).await?;
    }
    Ok(())
}
