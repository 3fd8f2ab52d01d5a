//! Invitations to sign up.

use async_trait::async_trait;

use super::create::{self, Origin};
use super::sessions::millis;
use super::{audit, loaded_time, now};
use crate::domain::{Actor, AdminAction, EmailAddress, Timestamp};
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::idempotency;
use crate::store::sql::store::SqlStore;
use crate::store::sql::value::{Text, args};
use crate::store::{
    CreateOutcome, Digest, InviteStore, NewAccount, NewInvite, NewSession, Once, Performed, Result,
};

/// The target of an action that is for nobody in particular.
const ANYBODY: &str = "";
/// The longest target, in bytes.
const MAX_TARGET: usize = 64;

#[async_trait]
impl InviteStore for SqlStore {
    async fn create_invite(
        &self,
        actor: Actor,
        invite: NewInvite,
        once: Once<Timestamp>,
    ) -> Result<Performed<Timestamp>> {
        idempotency::transaction(self.db(), once, move |conn| {
            let invite = invite.clone();
            Box::pin(async move { create_in(conn, actor, &invite).await })
        })
        .await
    }

    async fn create_invited(
        &self,
        account: NewAccount,
        session: NewSession,
        invite: Digest,
        once: Once<CreateOutcome>,
    ) -> Result<Performed<CreateOutcome>> {
        let origin = Origin::Invite(invite);
        let created = create::create(self.db(), account, Some(session), origin, once).await?;
        self.announce_rows();
        Ok(created)
    }
}

async fn create_in(conn: &mut Conn, actor: Actor, invite: &NewInvite) -> Outcome<Timestamp> {
    const FORGET: &str = "DELETE FROM hubbub_invites WHERE expires_at <= ?";
    const INSERT: &str = "INSERT INTO hubbub_invites (digest, email_key, created_at, expires_at) \
        VALUES (?, ?, ?, ?)";
    let now = now(conn).await?;
    conn.run(FORGET, args![now]).await?;
    let email = invite.email.as_ref().map(EmailAddress::key);
    let expires_at = now + millis(invite.lifetime);
    let values = args![invite.digest.to_vec(), email.clone(), now, expires_at];
    conn.run(INSERT, values).await?;
    let target = email.unwrap_or_else(|| ANYBODY.to_owned());
    let target = &target[..target.floor_char_boundary(MAX_TARGET)];
    audit::add(conn, actor, &AdminAction::InviteCreated, target).await?;
    Ok(loaded_time(expires_at))
}

/// Removes the invitations for an address, and the address from the audit log.
pub(super) async fn forget_address(conn: &mut Conn, email_key: &str) -> Outcome<()> {
    const INVITES: &str = "DELETE FROM hubbub_invites WHERE email_key = ?";
    const AUDIT: &str = "UPDATE hubbub_audit SET target = ? WHERE target = ?";
    conn.run(INVITES, args![email_key]).await?;
    let target = &email_key[..email_key.floor_char_boundary(MAX_TARGET)];
    conn.run(AUDIT, args![ANYBODY, target]).await.map(drop)
}

/// Whether an invitation is valid for this address. It is locked until the transaction ends.
pub(super) async fn is_valid(
    conn: &mut Conn,
    invite: Digest,
    email: &EmailAddress,
    now: i64,
) -> Outcome<bool> {
    const FIND: &str = "SELECT email_key, expires_at FROM hubbub_invites \
        WHERE digest = ? {for_update}";
    let found: Option<(Option<Text>, i64)> = conn.first(FIND, args![invite.to_vec()]).await?;
    Ok(found.is_some_and(|(only, expires_at)| {
        expires_at > now && only.is_none_or(|only| only.0 == email.key())
    }))
}

/// Uses an invitation up.
pub(super) async fn remove(conn: &mut Conn, invite: Digest) -> Outcome<()> {
    const DELETE: &str = "DELETE FROM hubbub_invites WHERE digest = ?";
    conn.run(DELETE, args![invite.to_vec()]).await.map(drop)
}
