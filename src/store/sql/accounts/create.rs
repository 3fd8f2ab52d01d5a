//! Creates accounts.

use uuid::Uuid;

use super::{audit, invites, loaded_time, sessions, stored_role, user_id};
use crate::domain::{Account, Actor, AdminAction, Role, search_key};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::idempotency;
use crate::store::sql::meta::{self, FIRST_ACCOUNT};
use crate::store::sql::outbox;
use crate::store::sql::value::args;
use crate::store::{CreateOutcome, Digest, NewAccount, NewSession, Once, Performed, Result};

/// How an account comes about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    SignUp,
    /// By the invitation with this digest.
    Invite(Digest),
    Admin(Actor),
}

pub(super) async fn create(
    db: &Db,
    account: NewAccount,
    session: Option<NewSession>,
    origin: Origin,
    once: Once<CreateOutcome>,
) -> Result<Performed<CreateOutcome>> {
    idempotency::transaction(db, once, move |conn| {
        let (account, session) = (account.clone(), session.clone());
        Box::pin(async move {
            let role = match account.role {
                Some(role) => role,
                None => role_of_next(conn).await?,
            };
            let now = sessions::now(conn).await?;
            if let Origin::Invite(invite) = origin
                && !invites::is_valid(conn, invite, &account.email, now).await?
            {
                return Ok(CreateOutcome::InviteInvalid);
            }
            if !insert(conn, &account, role, now).await? {
                return taken(conn, &account).await;
            }
            if let Some(session) = session {
                sessions::insert(conn, account.id, &session, now).await?;
            }
            match origin {
                Origin::SignUp => {}
                Origin::Invite(invite) => invites::remove(conn, invite).await?,
                Origin::Admin(actor) => {
                    let action = AdminAction::UserCreated { role };
                    audit::add(conn, actor, &action, &account.id.to_string()).await?;
                }
            }
            outbox::add(conn, account.rows.clone()).await?;
            Ok(CreateOutcome::Created(created(account, role, now)))
        })
    })
    .await
}

/// The role of an account for which none is given: the first one is an admin, also
/// after all earlier ones were deleted.
async fn role_of_next(conn: &mut Conn) -> Outcome<Role> {
    const ANY: &str = "SELECT id FROM hubbub_users WHERE deleted_at IS NULL LIMIT 1";
    let any: Option<(Uuid,)> = conn.first(ANY, args![]).await?;
    if any.is_some() {
        return Ok(Role::User);
    }
    // Of several accounts that are created at once, only one is the first.
    meta::lock(conn, FIRST_ACCOUNT, "").await?;
    let any: Option<(Uuid,)> = conn.first(ANY, args![]).await?;
    Ok(if any.is_some() {
        Role::User
    } else {
        Role::Admin
    })
}

/// False if the name or the address is taken.
async fn insert(conn: &mut Conn, account: &NewAccount, role: Role, now: i64) -> Outcome<bool> {
    const INSERT: &str = "INSERT INTO hubbub_users (id, username, username_key, email, email_key, \
        display_name, search_key, role, password, created_at, updated_at) \
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {if_absent:id}";
    const FIND: &str = "SELECT id FROM hubbub_users WHERE id = ?";
    let NewAccount {
        id,
        username,
        email,
        display_name,
        password,
        ..
    } = account;
    let values = args![
        *id,
        username.as_str(),
        username.key(),
        email.as_str(),
        email.key(),
        display_name.as_str(),
        search_key(username.as_str(), display_name.as_str()),
        stored_role(role),
        password.as_str(),
        now,
        now,
    ];
    conn.run(INSERT, values).await?;
    // MySQL counts a row that exists, too.
    let found: Option<(Uuid,)> = conn.first(FIND, args![*id]).await?;
    Ok(found.is_some())
}

async fn taken(conn: &mut Conn, account: &NewAccount) -> Outcome<CreateOutcome> {
    const FIND: &str = "SELECT id FROM hubbub_users WHERE username_key = ?";
    let found: Option<(Uuid,)> = conn.first(FIND, args![account.username.key()]).await?;
    Ok(if found.is_some() {
        CreateOutcome::UsernameTaken
    } else {
        CreateOutcome::EmailTaken
    })
}

fn created(account: NewAccount, role: Role, now: i64) -> Account {
    Account {
        id: user_id(account.id),
        username: account.username.as_str().to_owned(),
        email: Some(account.email.as_str().to_owned()),
        is_email_verified: false,
        display_name: account.display_name.as_str().to_owned(),
        avatar_url: None,
        status: None,
        role,
        is_disabled: false,
        created_at: loaded_time(now),
        updated_at: loaded_time(now),
    }
}
