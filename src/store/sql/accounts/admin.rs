//! Actions of admins on accounts.

use uuid::Uuid;

use super::{audit, bot_tokens, loaded_time, now, sessions, stored_role, users};
use crate::domain::{Account, Actor, AdminAction, Role};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::meta::{self, LAST_ADMIN};
use crate::store::sql::value::args;
use crate::store::{AnnounceEnd, EndedSessions, Result, UserChange, UserOutcome};

pub(super) async fn change_user(
    db: &Db,
    actor: Actor,
    user: Uuid,
    change: UserChange,
    announce: AnnounceEnd,
) -> Result<UserOutcome> {
    db.transaction(move |conn| {
        let announce = announce.clone();
        Box::pin(async move { change_in(conn, actor, user, change, &announce).await })
    })
    .await
}

async fn change_in(
    conn: &mut Conn,
    actor: Actor,
    user: Uuid,
    change: UserChange,
    announce: &AnnounceEnd,
) -> Outcome<UserOutcome> {
    // Of two admins that disable each other at once, one stays.
    meta::lock(conn, LAST_ADMIN, "").await?;
    let Some(found) = users::locked(conn, user).await? else {
        return Ok(UserOutcome::Unknown);
    };
    let before = found.account;
    let role = change.role.unwrap_or(before.role);
    let is_disabled = change.is_disabled.unwrap_or(before.is_disabled);
    let was_admin = before.role == Role::Admin && !before.is_disabled;
    let is_admin = role == Role::Admin && !is_disabled;
    if was_admin && !is_admin && !has_other_admin(conn, user).await? {
        return Ok(UserOutcome::LastAdmin);
    }
    let after = write(conn, user, before.clone(), role, is_disabled).await?;
    for action in actions(&before, &after) {
        audit::add(conn, actor, &action, &user.to_string()).await?;
    }
    let ended = if is_disabled && !before.is_disabled {
        let mut ended = sessions::end_in(conn, user, EndedSessions::All, announce).await?;
        ended.extend(bot_tokens::announce_ends(conn, user, announce).await?);
        ended
    } else {
        Vec::new()
    };
    Ok(UserOutcome::Changed {
        account: Box::new(after),
        ended,
    })
}

/// Whether another user is an admin and not disabled. The caller holds [`LAST_ADMIN`].
pub(super) async fn has_other_admin(conn: &mut Conn, user: Uuid) -> Outcome<bool> {
    const FIND: &str = "SELECT id FROM hubbub_users WHERE role = ? AND id <> ? \
        AND disabled_at IS NULL AND deleted_at IS NULL LIMIT 1";
    let values = args![stored_role(Role::Admin), user];
    let found: Option<(Uuid,)> = conn.first(FIND, values).await?;
    Ok(found.is_some())
}

async fn write(
    conn: &mut Conn,
    user: Uuid,
    account: Account,
    role: Role,
    is_disabled: bool,
) -> Outcome<Account> {
    const WRITE: &str =
        "UPDATE hubbub_users SET role = ?, disabled_at = ?, updated_at = ? WHERE id = ?";
    if account.role == role && account.is_disabled == is_disabled {
        return Ok(account);
    }
    let now = now(conn).await?;
    let disabled_at = is_disabled.then_some(now);
    conn.run(WRITE, args![stored_role(role), disabled_at, now, user])
        .await?;
    Ok(Account {
        role,
        is_disabled,
        updated_at: loaded_time(now),
        ..account
    })
}

/// The actions that lie between two states of an account.
fn actions(before: &Account, after: &Account) -> Vec<AdminAction> {
    let mut actions = Vec::new();
    if before.role != after.role {
        actions.push(AdminAction::RoleChanged {
            from: before.role,
            to: after.role,
        });
    }
    match (before.is_disabled, after.is_disabled) {
        (false, true) => actions.push(AdminAction::UserDisabled),
        (true, false) => actions.push(AdminAction::UserEnabled),
        (true, true) | (false, false) => {}
    }
    actions
}

pub(super) async fn log_out_user(
    db: &Db,
    actor: Actor,
    user: Uuid,
    announce: AnnounceEnd,
) -> Result<Option<Vec<Uuid>>> {
    db.transaction(move |conn| {
        let announce = announce.clone();
        Box::pin(async move {
            if users::locked(conn, user).await?.is_none() {
                return Ok(None);
            }
            let ended = sessions::end_in(conn, user, EndedSessions::All, &announce).await?;
            let action = AdminAction::SessionsEnded { count: ended.len() };
            audit::add(conn, actor, &action, &user.to_string()).await?;
            Ok(Some(ended))
        })
    })
    .await
}
