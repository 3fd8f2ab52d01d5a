//! Changes of passwords.

use uuid::Uuid;

use super::{audit, bot_tokens, now, sessions, users};
use crate::domain::AdminAction;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::args;
use crate::store::{AnnounceEnd, PasswordChange, Result};

pub(super) async fn change(
    db: &Db,
    change: PasswordChange,
    announce: AnnounceEnd,
) -> Result<Option<Vec<Uuid>>> {
    db.transaction(move |conn| {
        let (change, announce) = (change.clone(), announce.clone());
        Box::pin(async move { change_in(conn, &change, &announce).await })
    })
    .await
}

async fn change_in(
    conn: &mut Conn,
    change: &PasswordChange,
    announce: &AnnounceEnd,
) -> Outcome<Option<Vec<Uuid>>> {
    const WRITE: &str = "UPDATE hubbub_users SET password = ?, updated_at = ? WHERE id = ?";
    const LINKS: &str = "DELETE FROM hubbub_account_tokens WHERE user_id = ? AND purpose = ?";
    const FORGET: &str = "DELETE FROM hubbub_login_failures WHERE subject = ?";
    /// As `recovery` stores it.
    const RESET: i64 = 1;
    let user = change.user;
    let Some(found) = users::locked(conn, user).await? else {
        return Ok(None);
    };
    if change
        .expected
        .as_ref()
        .is_some_and(|expected| *expected != found.password)
    {
        return Ok(None);
    }
    let now = now(conn).await?;
    conn.run(WRITE, args![change.password.as_str(), now, user])
        .await?;
    if let Some(actor) = change.by {
        audit::add(conn, actor, &AdminAction::PasswordReset, &user.to_string()).await?;
    }
    if let Some(failures) = &change.forgotten_failures {
        conn.run(FORGET, args![failures.to_vec()]).await?;
    }
    // Links that were mailed for another password.
    conn.run(LINKS, args![user, RESET]).await?;
    let mut ended = sessions::end_in(conn, user, change.ended, announce).await?;
    if change.by.is_some() {
        ended.extend(bot_tokens::delete_all(conn, user, announce).await?);
    }
    Ok(Some(ended))
}
